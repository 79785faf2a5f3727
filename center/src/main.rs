//! The control center.
//!
//! It assumes a directory of its own and a network; it touches no kernel facility beyond sockets and files, so it runs as a
//! plain program on any Linux as well as on a node with the role `center`.

mod api;
mod auth;
mod boot;
mod ca;
mod center;
mod config;
mod console;
mod decide;
mod environments;
mod failover;
mod fault;
mod files;
mod flow;
mod live;
mod orders;
mod records;
mod sessions;
mod start;
mod state;
mod store;
mod templates;
#[cfg(test)]
mod testing;
mod tls;
mod token;
mod uploads;
mod users;
mod view;

use std::process::ExitCode;

use clap::Parser;
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    let arguments = config::Arguments::parse();
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let is_terminal = std::io::IsTerminal::is_terminal(&std::io::stderr());
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(is_terminal).init();
    match start::run(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("center: {error:#}");
            ExitCode::FAILURE
        }
    }
}
