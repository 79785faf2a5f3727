//! `cargo xtask simulate`: the simulator, built to be fast.

use std::ffi::OsString;
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use clap::Args;

use crate::image;

/// What the command takes: everything goes to the simulator, which has its own help.
#[derive(Args)]
#[command(disable_help_flag = true)]
pub struct Arguments {
    /// For the simulator.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    rest: Vec<OsString>,
}

/// Run it.
pub fn run(arguments: &[OsString]) -> Result<()> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["run", "--quiet", "--profile", "simulate", "--package", "lodge-simulator", "--bin", "simulate", "--"]);
    let status = command.args(arguments).current_dir(image::source_dir()).status().context("starting the simulator")?;
    if !status.success() {
        bail!("the simulator has found something");
    }
    Ok(())
}

impl Arguments {
    /// As they were given.
    pub fn rest(&self) -> &[OsString] {
        &self.rest
    }
}
