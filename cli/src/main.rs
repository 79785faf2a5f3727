//! `lodge`: the command line of operators and users. It speaks only the center's public API and decides nothing.

mod amount;
mod apply;
mod arguments;
mod commands;
mod failure;
mod login;
mod out;
mod view;
mod wait;

use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser as _;

use arguments::Arguments;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("starting the runtime");
    match runtime.and_then(|runtime| runtime.block_on(commands::run(arguments))) {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            let next = failure::next_step(&error).map(|next| format!("\n  {next}")).unwrap_or_default();
            eprintln!("lodge: {error:#}{next}");
            ExitCode::from(failure::exit_code(&error))
        }
    }
}
