//! The control center.
//!
//! It assumes a directory of its own and a network; it touches no kernel facility beyond sockets and files, so it runs as a
//! plain program on any Linux as well as on a node with the role `center`.

mod api;
pub mod auth;
mod boot;
pub mod ca;
mod center;
mod config;
mod console;
mod decide;
pub mod environments;
pub mod failover;
pub mod fault;
mod files;
pub mod flow;
pub mod live;
mod orders;
mod planning;
pub mod records;
mod sessions;
mod start;
mod state;
pub mod store;
pub mod templates;
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

/// What the program does.
pub fn main() -> ExitCode {
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
