//! `cargo xtask bench`: what Lodge promises in figures, measured beside what it is compared with, in one run in the same guests.
//!
//! A bench is no test: it is never timed against a clock of its own, only against its peer, and says so when a bar is not held.

mod disk;
mod env;
mod guest;
mod moves;
mod result;
mod watcher;

use anyhow::{Result, bail};
use clap::{Args, Subcommand, ValueEnum};

use moves::Kind;

/// What the command takes.
#[derive(Args)]
pub struct Arguments {
    #[command(subcommand)]
    bench: Bench,
}

#[derive(Subcommand)]
enum Bench {
    /// Environments: start, memory, files; beside LXC, bare crun, a plain directory on the share and a local disk.
    ///
    /// Installs a site of a center and one node on virtual machines, takes about a quarter of an hour, and ends with 1 when a bar is
    /// not held. bench/README.md says what is compared with what.
    Env(EnvOptions),
    /// Moves: how long nobody answers, by a restart and live, beside a stop and a start on the same node; and drains with 1, 2, 4, 8 moves
    /// at once.
    ///
    /// Installs a site of a center and two nodes on virtual machines, takes about half an hour. Less of it: `--repeat 1 --kinds tiny
    /// --drained 0`.
    Move(MoveOptions),
}

/// How a bench is run and shown.
#[derive(Args)]
pub struct Options {
    /// Print one JSON object a line instead of a table.
    #[arg(long)]
    json: bool,
    /// How often each side does its part; the median counts.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u8).range(1..=50))]
    repeat: u8,
}

/// More of `bench env`.
#[derive(Args)]
pub struct EnvOptions {
    #[command(flatten)]
    shared: Options,
    /// Only these parts.
    #[arg(long, value_enum, value_name = "PART,…", value_delimiter = ',', default_values_t = [Part::Starts, Part::Memory, Part::Files])]
    part: Vec<Part>,
    /// How many environments and LXC containers are idle at the same time for the figures of memory.
    #[arg(long, value_name = "N,…", value_delimiter = ',', default_values_t = [1, 10, 50], value_parser = clap::value_parser!(u8).range(1..=50))]
    idle: Vec<u8>,
}

/// A part of `bench env`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    /// From the command to the answer of sshd.
    Starts,
    /// What idle ones cost.
    Memory,
    /// Work on files.
    Files,
}

/// Run it; a bar that is not held is an error, after everything was shown.
pub fn run(arguments: &Arguments) -> Result<()> {
    let (options, table) = match &arguments.bench {
        Bench::Env(options) => (&options.shared, env::run(options)?),
        Bench::Move(options) => (&options.shared, moves::run(options)?),
    };
    print!("{}", if options.json { table.json()? } else { table.text() });
    match table.not_held()[..] {
        [] => Ok(()),
        ref names => bail!("not held: {}", names.join("; ")),
    }
}

/// More of `bench move`.
#[derive(Args)]
pub struct MoveOptions {
    #[command(flatten)]
    shared: Options,
    /// What moves from one node to the other.
    #[arg(long, value_enum, value_name = "TEMPLATE,…", value_delimiter = ',', default_values_t = [Kind::Tiny, Kind::Debian13])]
    kinds: Vec<Kind>,
    /// How many small environments are drained; 0: none.
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u8).range(0..=30))]
    drained: u8,
    /// How many of them move at the same time, one drain after the other; the first is what the others are compared with.
    #[arg(long, value_name = "N,…", value_delimiter = ',', default_values_t = [1, 2, 4, 8], value_parser = clap::value_parser!(u8).range(1..=30))]
    at_once: Vec<u8>,
}

fn say(text: &str) {
    eprintln!("bench: {text}");
}
