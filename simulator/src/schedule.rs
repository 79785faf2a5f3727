//! Random schedules of failures and wishes, each made from its seed alone; and what must hold after all of it.

use anyhow::Result;

use crate::{Broken, Simulation};

/// What a schedule came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// Things that went wrong or were asked for.
    pub events: u32,
    /// Seconds that passed in the cluster.
    pub seconds: u64,
    /// What happened, where it was recorded.
    pub log: String,
}

/// As many environments at most.
const ENVIRONMENTS: u32 = 6;
/// Everything is as it was asked for so long after all is well again, in seconds: the longest pauses of agents are over.
const PATIENCE: u32 = 300;

/// Run one. With `is_recorded`, what broke comes with a log.
pub fn run(seed: u64, is_recorded: bool) -> Result<Result<Told, Broken>> {
    let mut random = fastrand::Rng::with_seed(seed ^ 0x5eed);
    let workers: Vec<u64> = (0..random.usize(2..=4)).map(|_| 1 << 30).collect();
    let mut simulation = Simulation::new(seed, &workers, is_recorded)?;
    let mut told = Told::default();
    let mut lines: Vec<String> = (1..=random.u32(1..=ENVIRONMENTS)).map(|number| format!("env e{number}")).collect();
    // Something happens while everything starts, or to a cluster that has been well for long.
    lines.push(format!("wait {}", if random.bool() { random.u32(1..15) } else { random.u32(20..90) }));
    if random.bool() {
        let chance = |random: &mut fastrand::Rng| random.u32(0..100);
        let (lost, late, repeated) = (chance(&mut random), chance(&mut random), chance(&mut random));
        lines.push(format!("weather lost={lost} late={late} repeated={repeated} latest={}", random.u32(100..20_000)));
    }
    for _ in 0..random.u32(3..=20) {
        lines.push(event(&mut random, workers.len()));
        let most = if random.u32(0..4) == 0 { 30_000 } else { 5000 };
        let pause = random.u64(0..most);
        lines.push(format!("wait {}.{:03}", pause / 1000, pause % 1000));
    }
    lines.push("calm".to_owned());
    lines.push(format!("settle {PATIENCE}"));
    for line in &lines {
        simulation.record.say(simulation.now, "schedule", line);
        simulation.command(line)?;
        told.events += 1;
        if let Some(broken) = simulation.broken() {
            return Ok(Err(broken));
        }
    }
    (told.seconds, told.log) = (simulation.now / 1000, simulation.record.text());
    Ok(Ok(told))
}

/// Play these events, each with the milliseconds that pass after it, with three workers. What broke, if anything did.
pub fn play(events: &[(u64, u64)]) -> Result<Option<Broken>> {
    let mut simulation = Simulation::new(1, &[1 << 30; 3], true)?;
    let mut lines: Vec<String> = (1..=4).map(|number| format!("env e{number}")).collect();
    for (seed, pause) in events {
        lines.push(event(&mut fastrand::Rng::with_seed(*seed), 3));
        lines.push(format!("wait {}.{:03}", pause / 1000, pause % 1000));
    }
    lines.extend(["calm".to_owned(), format!("settle {PATIENCE}")]);
    for line in &lines {
        simulation.record.say(simulation.now, "schedule", line);
        simulation.command(line)?;
        if let Some(broken) = simulation.broken() {
            return Ok(Some(broken));
        }
    }
    Ok(None)
}

/// A schedule that has come to rest, and then an hour without the center, in which agents die and the network is bad: everything runs on, with
/// the epochs that it has (invariant 6). What broke, if anything did.
pub fn without_center(seed: u64) -> Result<Option<Broken>> {
    let mut random = fastrand::Rng::with_seed(seed ^ 0xa3a7);
    let mut simulation = Simulation::new(seed, &[1 << 30; 3], true)?;
    let mut lines: Vec<String> = (1..=ENVIRONMENTS).map(|number| format!("env e{number}")).collect();
    for _ in 0..8 {
        lines.extend([event(&mut random, 3), format!("wait {}", random.u32(0..5))]);
    }
    lines.extend(["calm".to_owned(), format!("settle {PATIENCE}"), "center kill".to_owned()]);
    for line in &lines {
        simulation.command(line)?;
    }
    let before = format!("{:?}", simulation.running());
    for _ in 0..60 {
        let node = random.usize(1..=3);
        let event = match random.u32(0..4) {
            0 => format!("agent n{node}"),
            1 => format!("cut n{node} center"),
            2 => format!("heal n{node}"),
            _ => format!("weather lost={} late=500 latest=20000", random.u32(0..1000)),
        };
        simulation.command(&event)?;
        simulation.command("wait 60")?;
    }
    let after = format!("{:?}", simulation.running());
    if before != after {
        simulation.broken.get_or_insert(format!("without the center {before} became {after}"));
    }
    Ok(simulation.broken())
}

fn event(random: &mut fastrand::Rng, workers: usize) -> String {
    let node = format!("n{}", random.usize(1..=workers));
    let environment = format!("e{}", random.u32(1..=ENVIRONMENTS));
    let of = |random: &mut fastrand::Rng, words: &[&str]| words[random.usize(0..words.len())].to_owned();
    match random.u32(0..100) {
        0..10 => format!("off {node}"),
        10..22 => format!("on {node}"),
        22..27 => format!("pause {node}"),
        27..34 => format!("resume {node}"),
        34..39 => format!("agent {node}"),
        39..46 => format!("cut {node} {}", of(random, &["center", "share", "both"])),
        46..54 => format!("heal {node}"),
        54..58 => format!("center {}", of(random, &["kill", "start", "start"])),
        58..62 => format!("share {}", of(random, &["freeze", "thaw", "thaw", "restart"])),
        62..69 => format!("drain {node} {}", of(random, &["", "deadline=20", "then=poweroff", "then=reboot deadline=30"])),
        69..73 => format!("undrain {node}"),
        73..77 => format!("move {environment}"),
        77..80 => format!("{} {node}", of(random, &["button", "ups", "request"])),
        80..84 => format!("env {environment}"),
        84..95 => format!("{} {environment}", of(random, &["start", "start", "start", "stop", "kill", "restart", "destroy"])),
        95..98 => format!("ends {environment} {}", of(random, &["poweroff", "reboot", "crash"])),
        _ => format!("{} {node}", of(random, &["deaf", "polite"])),
    }
}
