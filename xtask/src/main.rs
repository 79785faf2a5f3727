//! demo, test, image, iso, bench: everything a developer runs.

use std::{fmt::Write as _, path::PathBuf, process::ExitCode};

use anyhow::{Context as _, Result};
use clap::{Parser, Subcommand};

use progress::Console;

mod bench;
mod demo;
mod image;
mod packages;
mod progress;
mod setup;
mod simulate;
mod space;
mod template;
mod test;

/// Builds, boots and tests Lodge. Everything it makes is below out/.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Build the boot file, the bundle and the ISO: out/lodge.efi, out/lodge-os.tar.gz, out/lodge.iso and others.
    ///
    /// Builds only what changed. The package mirror is the machine's own; LODGE_MIRROR overrides it. LODGE_RELEASE_KEY names the
    /// Ed25519 key (PKCS#8) that signs the bundle; without it one is made in out/keys.
    Image {
        /// Take today's Debian packages even though nothing changed here.
        #[arg(long)]
        refresh: bool,
    },
    /// Build the templates of environments: out/templates/tiny.tar.gz, out/templates/debian-13.tar.zst; import them with `lodge template`.
    ///
    /// Builds only what changed, from the machine's own package mirror (LODGE_MIRROR overrides it).
    Template {
        /// Which [default: all].
        name: Vec<template::Name>,
        /// Take today's Debian packages even though nothing changed here.
        #[arg(long)]
        refresh: bool,
    },
    /// Make a copy of out/lodge.iso that holds an answer file, for an installation that asks nobody.
    Iso {
        /// The answer file (see the installer's documentation for its keys).
        #[arg(long, value_name = "FILE")]
        answer: PathBuf,
        /// Where the copy goes [default: out/lodge-answer.iso].
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// Install a site on virtual machines before your eyes: a center from the ISO, blank nodes over the network, all ready in the end.
    ///
    /// It stays up until Ctrl-C, for trying the `lodge` command and the consoles. Everything it leaves behind is below out/rack/demo.
    Demo(demo::Arguments),
    /// Open the console of a machine of a running demo or test in this terminal; Ctrl-] leaves it.
    Console {
        /// The machine, as `node1` or `center1`.
        name: String,
    },
    /// Run every test: of the crates, then on virtual machines that boot what is shipped.
    ///
    /// The last line counts the VM tests. A VM test that fails prints the last lines of every console and where the whole ones are.
    Test(test::Arguments),
    /// Measure what is promised, each figure beside what it is compared with, on virtual machines; ends with 1 when a bar is not held.
    Bench(bench::Arguments),
    /// Run random schedules of failures against the real center and real agents on played machines; `--help` says more.
    Simulate(simulate::Arguments),
    /// Install what building and testing need on Debian 12 or 13. The other commands do this by themselves.
    Setup {
        /// Only say what would be installed and why.
        #[arg(long)]
        dry_run: bool,
    },
}

fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<()> {
    match command {
        Command::Image { refresh } => {
            if refresh {
                image::forget(image::TREE_STEP)?;
            }
            print!("{}", summary(&image::ensure(&Console::new()?)?)?);
            Ok(())
        }
        Command::Template { name, refresh } => template::run(&name, refresh),
        Command::Iso { answer, out } => {
            image::iso::check_answer(&answer)?;
            let progress = Console::new()?;
            let made = image::ensure(&progress)?;
            let target = out.unwrap_or_else(|| image::iso::default_target(&image::out_dir()));
            image::iso::with_answer(&progress, &made, &answer, &target)?;
            println!("{}", target.display());
            Ok(())
        }
        Command::Demo(arguments) => demo::run(arguments),
        Command::Console { name } => demo::attach::run(&name),
        Command::Test(arguments) => test::run(&arguments),
        Command::Simulate(arguments) => simulate::run(arguments.rest()),
        Command::Bench(arguments) => bench::run(&arguments),
        Command::Setup { dry_run: true } => {
            println!("{}", setup::explain()?.trim_end());
            Ok(())
        }
        Command::Setup { dry_run: false } => setup::ensure(&Console::new()?, &image::out_dir()).map(|_| ()),
    }
}

fn summary(made: &image::Artifacts) -> Result<String> {
    let mut text = format!("Lodge {}\nroot hash {}\n", made.version, made.roothash);
    for path in [&made.efi, &made.vmlinuz, &made.initrd, &made.bundle, &made.iso] {
        let size = std::fs::metadata(path).with_context(|| format!("looking at {}", path.display()))?.len();
        writeln!(text, "{:8.1} MiB  {}", size as f64 / f64::from(1 << 20), path.display())?;
    }
    Ok(text)
}
