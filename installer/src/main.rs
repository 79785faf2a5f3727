//! Turns a machine with an empty disk into a Lodge node.
//!
//! Why it exists: nobody should have to stand before a machine to install it. It runs in the initrd under init, on any machine, and
//! either finds out by itself what to do, or says in one line on every console what is missing.
//!
//! It assumes the initrd's mounts and the privileges to write disks. It never writes to a disk that a ticket or an answer in hand
//! does not name, and never guesses which one is meant.

mod answer;
mod apply;
mod boot_option;
mod bundle;
mod console;
mod decision;
mod flow;
mod installed;
mod medium;
mod mounted;
mod options;
mod outbox;
mod plan;
mod report;
mod uplink;

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    let options = options::Options::parse();
    let report = report::Report::new(console::Consoles::open());
    match flow::run(options, report) {
        Ok(code) => u8::try_from(code).map_or(ExitCode::FAILURE, ExitCode::from),
        Err(error) => {
            eprintln!("installer: {error:#}");
            ExitCode::FAILURE
        }
    }
}
