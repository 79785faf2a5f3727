//! What `cargo xtask bench` runs on a node and inside its environments: the peers that Lodge is compared with (bare crun, LXC), each on a
//! root made like an environment's, and the work that is timed.
//!
//! It comes to the node on a disk that only a bench plugs in (docs/decisions/0017-benches.md); no image has it. It decides nothing and
//! compares nothing: every command does one thing and prints one JSON object: times in seconds, files, writes and MiB in each second.

mod crun;
mod lxc;
mod memory;
mod parts;
mod peer;
mod root;
mod ssh;
mod work;

use std::{
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process::ExitCode,
    time::{Instant, SystemTime},
};

use anyhow::{Context as _, Result};
use clap::{Parser, Subcommand, ValueEnum};
use serde_json::{Value, json};

use peer::Peer;

#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Wait until an ssh server answers; tells how far its environment was when, in seconds since then.
    Watch { address: Ipv4Addr },
    /// Make a root, start a peer on it, and wait until its ssh server answers.
    Start {
        engine: Engine,
        #[command(flatten)]
        peer: Peer,
        /// The image of the template that its root is made from.
        #[arg(long)]
        template: PathBuf,
        /// What the agent told crun about an environment of the same template.
        #[arg(long)]
        like: PathBuf,
    },
    /// End a peer and remove everything of it.
    Stop {
        engine: Engine,
        #[command(flatten)]
        peer: Peer,
    },
    /// Wait until nothing is left to be done of what was started and ended: before somebody is timed.
    Settle,
    /// Memory that is in use and cannot be had back, once it does not change any more.
    Memory,
    /// Unpack an archive of small files in a directory, and remove them again.
    Files { dir: PathBuf },
    /// Write blocks of 4 KiB in a directory, each synced.
    Sync { dir: PathBuf },
    /// Write a large file.
    Write { file: PathBuf },
    /// Read a large file from one end to the other.
    Read { file: PathBuf },
}

/// Who starts a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Engine {
    /// `crun run`.
    Crun,
    /// `lxc-start`.
    Lxc,
}

fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(said) => {
            println!("{said}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<Value> {
    Ok(match command {
        Command::Watch { address } => {
            let begin = SystemTime::now();
            ssh::wait(address)?;
            parts::since(begin)?
        }
        Command::Start { engine, peer, template, like } => start(engine, &peer, &template, &like)?,
        Command::Stop { engine, peer } => stop(engine, &peer)?,
        Command::Settle => {
            peer::call(std::process::Command::new("udevadm").arg("settle"))?;
            json!({})
        }
        Command::Memory => json!({"bytes": memory::in_use()?}),
        Command::Files { dir } => {
            let (untar, remove) = work::files(&dir)?;
            json!({"untar": work::FILES / untar.as_secs_f64(), "remove": work::FILES / remove.as_secs_f64()})
        }
        Command::Sync { dir } => json!({"sync": work::SYNCS / work::sync_writes(&dir)?.as_secs_f64()}),
        Command::Write { file } => json!({"write": work::LARGE / work::write(&file)?.as_secs_f64()}),
        Command::Read { file } => json!({"read": work::LARGE / work::read(&file)?.as_secs_f64()}),
    })
}

/// The times of its parts tell where a difference comes from; the whole is taken by whoever asked.
fn start(engine: Engine, peer: &Peer, template: &Path, like: &Path) -> Result<Value> {
    let begin = Instant::now();
    root::make(peer, template).with_context(|| format!("making the root of {}", peer.name))?;
    let root = begin.elapsed();
    match engine {
        Engine::Crun => crun::start(peer, like),
        Engine::Lxc => lxc::start(peer),
    }
    .with_context(|| format!("starting {}", peer.name))?;
    let engine = begin.elapsed() - root;
    ssh::wait(peer.address)?;
    let sshd = begin.elapsed() - root - engine;
    Ok(json!({"root": root.as_secs_f64(), "engine": engine.as_secs_f64(), "sshd": sshd.as_secs_f64()}))
}

fn stop(engine: Engine, peer: &Peer) -> Result<Value> {
    match engine {
        Engine::Crun => crun::stop(peer),
        Engine::Lxc => lxc::stop(peer),
    }
    .with_context(|| format!("ending {}", peer.name))?;
    root::remove(peer).with_context(|| format!("removing the root of {}", peer.name))?;
    Ok(json!({}))
}
