//! As many environments as a node of 2 GiB has room for: ten larger ones, then twenty small ones. All answer, all stop, all start again,
//! all are destroyed, and what each step leaves is counted.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use lodge_model::environment::view::Phase;

use super::{
    Bench, ask_until,
    environments::{is_open_on_the_share, leaves_nothing, takes_for_each, takes_nothing},
    ready_in_center,
};
use crate::{
    hosting::{Hosting, Wanted, address, http_get},
    machine::Machine,
    rack::{self, INSTALL_LIMIT},
    scenario::{Site, hold},
};

/// Number of the larger node.
const NODE: u8 = 3;
/// Its memory.
const MEMORY_MIB: u32 = 2048;
/// How many at once, and the memory of each.
const ROUNDS: [(usize, &str); 2] = [(10, "128M"), (20, "64M")];
/// One environment starts or stops within this on the reference machine, beside all the others.
const EACH: Duration = Duration::from_secs(30);
/// An idle one takes at most this much of the node, all told.
const IDLE_MAX_KIB: u64 = 24 << 10;

pub fn run(bench: &mut Bench) -> Result<()> {
    let site = bench.site()?;
    let node = add_node(site)?;
    let hosting = Hosting::prepare(&site.rack, &site.operator)?;
    let mut table = String::new();
    for (count, memory) in ROUNDS {
        table += &round(site, &hosting, &node, count, memory).with_context(|| format!("{count} environments of {memory}"))?;
    }
    bench.say(table.trim_end());
    Ok(())
}

/// A third node, of 2 GiB; it stays in the site.
fn add_node(site: &mut Site) -> Result<String> {
    let name = rack::node_name(NODE);
    if !site.nodes.contains(&NODE) {
        let mut spec = rack::node_spec(NODE);
        spec.memory_mib = MEMORY_MIB;
        site.rack.add(spec)?.switch_on()?;
        site.rack.machine(&name)?.wait_ready(0, INSTALL_LIMIT)?;
        site.nodes.push(NODE);
    }
    ready_in_center(site, &name)?;
    Ok(name)
}

/// From nothing to nothing; a line of what it took.
fn round(site: &Site, hosting: &Hosting, node: &str, count: usize, memory: &str) -> Result<String> {
    let machine = site.rack.machine(node)?;
    let operator = &site.operator;
    takes_nothing(machine)?;
    let names: Vec<String> = (1..=count).map(|number| format!("m{count}-{number}")).collect();
    let before = available_kib(machine)?;
    let started = Instant::now();
    for name in &names {
        hosting.order(operator, &Wanted { name, memory, more: &["--node", node] }, &[])?;
    }
    let up = all_are(site, &names, Phase::Running, started)?;
    all_answer(site, &names)?;
    takes_for_each(machine, count)?;
    is_open_on_the_share(site, count as u64)?;
    let idle = Idle::of(machine, before, count as u64)?;
    let stopped = Instant::now();
    order_all(site, &["stop"], &names)?;
    let down = all_are(site, &names, Phase::Stopped, stopped)?;
    takes_nothing(machine)?;
    order_all(site, &["start"], &names)?;
    all_are(site, &names, Phase::Running, Instant::now())?;
    all_answer(site, &names)?;
    order_all(site, &["destroy", "--yes", "--wait", "--timeout", "20m"], &names)?;
    leaves_nothing(site)?;
    hold(idle.total <= IDLE_MAX_KIB, || format!("an idle one takes {} KiB, at most {IDLE_MAX_KIB} are allowed", idle.total))?;
    Ok(format!("{count} of {memory}: all run after {up:.0} s, all are stopped after {down:.0} s; {}\n", idle.line()))
}

fn order_all(site: &Site, order: &[&str], names: &[String]) -> Result<()> {
    let arguments = ["env"].into_iter().chain(order.iter().copied()).chain(names.iter().map(String::as_str));
    site.operator.lodge(&arguments.collect::<Vec<_>>()).map(drop)
}

/// Seconds until all of them are in a phase.
fn all_are(site: &Site, names: &[String], phase: Phase, since: Instant) -> Result<f64> {
    let limit = site.rack.host.scale(EACH * u32::try_from(names.len())?);
    let all = ask_until(limit, &format!("all {} {phase:?}", names.len()), || {
        let there = site.operator.environments()?;
        let are = there.iter().filter(|found| found.phase == phase && names.contains(&found.spec.name)).count();
        Ok((are == names.len()).then_some(()))
    });
    all.with_context(|| site.operator.lodge(&["env", "ls"]).unwrap_or_default())?;
    Ok(since.elapsed().as_secs_f64())
}

fn all_answer(site: &Site, names: &[String]) -> Result<()> {
    for found in site.operator.environments()? {
        let name = &found.spec.name;
        if names.contains(name) {
            let page = http_get(&site.rack, site.rack.forward(address(&found)?, 80)?, "/")?;
            hold(page.contains("200 OK") && page.contains(name.as_str()), || format!("{name} answers {page:?}"))?;
        }
    }
    Ok(())
}

/// Memory of one idle environment, in KiB.
struct Idle {
    /// What the node has less of: control group, kernel, helpers.
    total: u64,
    /// What its control group is charged with, page cache too.
    group: u64,
    /// Of that, what only its processes can have.
    anonymous: u64,
    /// Resident memory of what serves all of them: console holder and lxcfs.
    helpers: u64,
}

impl Idle {
    fn of(machine: &Machine, available_before: u64, count: u64) -> Result<Self> {
        let each = |bytes: String| -> Result<u64> { Ok(number(&bytes)? / 1024 / count) };
        let helpers = machine.run("cat $(pgrep -f '^/usr/lib/lodge/agent consoles|^/usr/bin/lxcfs' | sed 's,.*,/proc/&/status,') | awk '/^VmRSS/ { sum += $2 } END { print sum }'")?;
        Ok(Self {
            total: available_before.saturating_sub(available_kib(machine)?) / count,
            group: each(machine.run("cat /sys/fs/cgroup/env/memory.current")?)?,
            anonymous: each(machine.run("awk '$1 == \"anon\" { print $2 }' /sys/fs/cgroup/env/memory.stat")?)?,
            helpers: number(&helpers)? / count,
        })
    }

    fn line(&self) -> String {
        let Self { total, group, anonymous, helpers } = self;
        format!("each idle: {total} KiB of the node's (group {group}, of it anonymous {anonymous}; helpers' share {helpers})")
    }
}

/// Memory that the node could still give to somebody.
fn available_kib(machine: &Machine) -> Result<u64> {
    number(&machine.run("awk '$1 == \"MemAvailable:\" { print $2 }' /proc/meminfo")?)
}

fn number(text: &str) -> Result<u64> {
    text.trim().parse().with_context(|| format!("reading the number {text:?}"))
}
