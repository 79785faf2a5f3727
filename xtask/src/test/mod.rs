//! `cargo xtask test`: the tests of every crate, a thousand random schedules of failures among them, then the VM tests.

use std::process::Command;

use anyhow::{Context as _, Result, bail};
use clap::Args;
use lodge_qemu_tests::tests::{Bench, TESTS, VmTest};

use crate::{demo, image, progress::Console, setup, space};

/// Random schedules of failures that the simulator's test runs (`simulator/tests/schedules.rs`).
const SCHEDULES: &str = "1000";

/// What the command takes.
#[derive(Args)]
pub struct Arguments {
    /// Leave the VM tests out.
    #[arg(long, conflicts_with_all = ["vm", "matrix", "list"])]
    fast: bool,
    /// Run this VM test alone (again for more).
    #[arg(long, value_name = "NAME")]
    vm: Vec<String>,
    /// Run the VM tests that the default leaves out, too.
    #[arg(long)]
    matrix: bool,
    /// Only list the VM tests.
    #[arg(long)]
    list: bool,
}

/// Run it.
pub fn run(arguments: &Arguments) -> Result<()> {
    let chosen = choose(arguments)?;
    if arguments.list {
        print!("{}", list());
        return Ok(());
    }
    if arguments.vm.is_empty() {
        space::ensure(if arguments.fast { space::CRATES } else { space::ALL })?;
    }
    setup::ensure(&Console::new()?, &image::out_dir())?;
    if arguments.vm.is_empty() {
        tests_of_crates()?;
    }
    if arguments.fast {
        println!("VM tests left out");
        return Ok(());
    }
    vm_tests(&chosen)
}

fn choose(arguments: &Arguments) -> Result<Vec<&'static VmTest>> {
    if arguments.vm.is_empty() {
        return Ok(TESTS.iter().filter(|test| test.in_default || arguments.matrix).collect());
    }
    let find = |name: &String| {
        let test = TESTS.iter().find(|test| test.name == name);
        test.with_context(|| format!("there is no VM test {name:?}; there are:\n{}", list()))
    };
    arguments.vm.iter().map(find).collect()
}

fn list() -> String {
    let line = |test: &VmTest| {
        let when = if test.in_default { "" } else { " [--matrix]" };
        format!("{:20} {}{when}\n", test.name, test.about)
    };
    TESTS.iter().map(line).collect()
}

fn tests_of_crates() -> Result<()> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["test", "--workspace"]).current_dir(image::source_dir()).env("LODGE_SCHEDULES", SCHEDULES);
    let status = command.status().context("starting cargo test")?;
    if !status.success() {
        bail!("the tests of the crates failed; the VM tests were not started");
    }
    Ok(())
}

fn vm_tests(tests: &[&VmTest]) -> Result<()> {
    let mut bench = Bench::new(demo::artifacts()?, |text| println!("{text}"))?;
    let summary = bench.run(tests);
    println!("{} passed, {} failed", summary.passed, summary.failed);
    if summary.failed > 0 {
        bail!("{} of {} VM tests failed", summary.failed, tests.len());
    }
    Ok(())
}
