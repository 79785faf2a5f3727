//! `cargo xtask bench`: what Lodge promises in figures, measured beside what it is compared with, in one run in the same guests.
//!
//! A bench is no test: it is never timed against a clock of its own, only against its peer, and says so when a bar is not held.

mod disk;
mod env;
mod guest;
mod result;

use anyhow::{Result, bail};
use clap::{Args, Subcommand};

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
    Env(Options),
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
    /// How many environments and LXC containers are idle at the same time for the figures of memory.
    #[arg(long, value_name = "N,…", value_delimiter = ',', default_values_t = [1, 10, 50], value_parser = clap::value_parser!(u8).range(1..=50))]
    idle: Vec<u8>,
}

/// Run it; a bar that is not held is an error, after everything was shown.
pub fn run(arguments: &Arguments) -> Result<()> {
    let Bench::Env(options) = &arguments.bench;
    let table = env::run(options)?;
    print!("{}", if options.json { table.json()? } else { table.text() });
    match table.not_held()[..] {
        [] => Ok(()),
        ref names => bail!("not held: {}", names.join("; ")),
    }
}
