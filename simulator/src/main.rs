//! `cargo xtask simulate`: many random schedules, or one again with its log; or a scenario.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use anyhow::{Context as _, Result};
use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use lodge_simulator::{scenario, schedule};

/// Run random schedules of failures against the real center and real agents on played machines.
///
/// Each schedule follows from its seed alone. One that breaks something is printed with everything that happened in it, and with the
/// command that runs it again.
#[derive(Parser)]
#[command(name = "cargo xtask simulate", bin_name = "cargo xtask simulate")]
struct Arguments {
    /// How many.
    #[arg(long, default_value_t = 1000)]
    schedules: u64,
    /// The seed of the first; the others follow it. With one schedule its log is printed.
    #[arg(long)]
    seed: Option<u64>,
    /// At a time [default: one for each processor].
    #[arg(long)]
    jobs: Option<usize>,
    /// Play this scenario instead (see simulator/src/scenario.rs for its words) and print its log.
    #[arg(long, value_name = "FILE", conflicts_with = "schedules")]
    scenario: Option<PathBuf>,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<bool> {
    if let Some(path) = &arguments.scenario {
        let text = std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
        return match scenario::play(&text, 1)? {
            Ok(log) => told(&log, true),
            Err(broken) => told(&broken.log, false),
        };
    }
    match (arguments.seed, arguments.schedules) {
        (Some(seed), 1) => match schedule::run(seed, true)? {
            Ok(done) => told(&format!("{}{} events, {} s: all is well\n", done.log, done.events, done.seconds), true),
            Err(broken) => told(&broken.log, false),
        },
        (seed, schedules) => many(seed.unwrap_or(0), schedules, arguments.jobs),
    }
}

fn told(text: &str, is_well: bool) -> Result<bool> {
    print!("{text}");
    Ok(is_well)
}

fn many(first: u64, schedules: u64, jobs: Option<usize>) -> Result<bool> {
    let jobs = jobs.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
    let bar = ProgressBar::new(schedules);
    let style = "{bar:30} {pos}/{len} schedules, {per_sec}, {eta} left";
    bar.set_style(ProgressStyle::with_template(style).context("reading the bar's template")?);
    let began = Instant::now();
    let (next, events, seconds) = (AtomicU64::new(first), AtomicU64::new(0), AtomicU64::new(0));
    let work = || -> Result<Option<u64>> {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed - first >= schedules {
                return Ok(None);
            }
            match schedule::run(seed, false).with_context(|| format!("running seed {seed}"))? {
                Ok(done) => {
                    events.fetch_add(done.events.into(), Ordering::Relaxed);
                    seconds.fetch_add(done.seconds, Ordering::Relaxed);
                    bar.inc(1);
                }
                Err(_) => {
                    // Nobody begins another one.
                    next.store(first + schedules, Ordering::Relaxed);
                    return Ok(Some(seed));
                }
            }
        }
    };
    let ends: Vec<Result<Option<u64>>> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..jobs).map(|_| scope.spawn(work)).collect();
        workers.into_iter().filter_map(|worker| worker.join().ok()).collect()
    });
    bar.finish_and_clear();
    let failed: Vec<u64> = ends.into_iter().collect::<Result<Vec<_>>>()?.into_iter().flatten().collect();
    if let Some(seed) = failed.iter().min() {
        if let Err(broken) = schedule::run(*seed, true)? {
            print!("{}", broken.log);
        }
        println!("seed {seed} breaks it; again: cargo xtask simulate --schedules 1 --seed {seed}");
        return Ok(false);
    }
    println!(
        "{schedules} schedules, seeds {first} to {}: nothing ran twice, all came to rest; {} events, {:.1} days in {:.0} s",
        first + schedules - 1,
        events.load(Ordering::Relaxed),
        seconds.load(Ordering::Relaxed) as f64 / 86_400.0,
        began.elapsed().as_secs_f32()
    );
    Ok(true)
}
