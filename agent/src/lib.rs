//! The node's agent: one reconciler between what the center orders and what this machine is.
//!
//! It looks at what is, decides with one pure function, acts, and reports. It assumes init (services, shutdown), the system bus and
//! an uplink, and survives each of them being away for a while, as well as the center. It never takes a share or an environment away
//! because somebody is silent.

mod backoff;
mod channel;
mod console;
mod consoles;
mod durable;
pub mod environment;
mod esp;
mod exports;
mod farewell;
mod fence;
mod identity;
mod init;
mod join;
mod leave;
mod lifeline;
mod login1;
mod machine1;
mod moments;
mod network;
mod outlook;
mod ready;
pub mod reconcile;
mod run;
pub mod session;
mod shutdown;
mod uplink;
mod watch;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::{Parser, Subcommand};
use tracing_subscriber::EnvFilter;

/// A Lodge node's agent. init starts it; there is no need to run it by hand.
#[derive(Parser)]
#[command(version, about)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Register with the center, look after the share, and offer org.freedesktop.login1 on the system bus.
    Run,
    /// Hold the consoles of this node's environments, so that they outlive restarts of the agent.
    Consoles,
    /// Ban from the NFS server who was banned when this machine went down; before the server starts.
    Fence,
    /// Prove the share in a directory of it: write, sync, read back, remove. The agent starts this, and kills it when it hangs.
    Prove {
        /// It is made when it is not there.
        dir: PathBuf,
    },
    /// Bring the uplink up as node.json says, write /etc/resolv.conf and /run/lodge/network.json, keep the lease.
    Network,
}

/// What the program does.
pub fn main() -> ExitCode {
    // The kernel's log has its own time stamps.
    let filter = EnvFilter::try_from_env("LODGE_LOG").unwrap_or_else(|_| EnvFilter::new("info,zbus=warn"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .without_time()
        .with_target(false)
        .with_ansi(false)
        .init();
    // criu calls this program without arguments.
    if let Ok(moment) = std::env::var(environment::live::hook::MOMENT) {
        return exit(environment::live::hook::run(&moment));
    }
    let arguments = Arguments::parse();
    let ended = match arguments.command {
        Command::Run => environment::enter_namespace().and_then(|()| in_runtime(run::run())),
        Command::Consoles => in_runtime(consoles::serve(consoles::Places::default())),
        Command::Fence => fence::enforce_kept(),
        Command::Prove { dir } => return reconcile::helper::prove(&dir),
        Command::Network => network::start().map(network::keep).map(|never| match never {}),
    };
    exit(ended)
}

fn exit(ended: Result<()>) -> ExitCode {
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

/// One thread for everything that waits; a few short-lived ones for what blocks.
fn in_runtime(future: impl Future<Output = Result<()>>) -> Result<()> {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime =
        builder.enable_all().max_blocking_threads(4).thread_stack_size(512 << 10).build().context("starting the runtime")?;
    runtime.block_on(future)
}
