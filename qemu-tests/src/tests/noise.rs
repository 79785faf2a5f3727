//! A noisy neighbour: one environment takes all that it can get, and another one on the same node goes on answering as fast as before.
//!
//! The machines of a rack share the processors of the host, as those of real racks do not: a load that one of them has makes all of them
//! slower, wherever it runs. So *before* is measured with the same load in an environment of another node, and what is left is what the
//! neighbours do to each other. It is asked from outside, through the rack's router. The node's own counters say before and after each
//! measurement that the load is felt.
//!
//! Both neighbours are ordered with one processor, on nodes that have two: what is sold is there. Where more is sold than there is, each
//! gets its share of it (`cpu.weight` follows `--cpus`), and nobody promises that a share of a half is as fast as all.

use std::{fmt, path::PathBuf, process::Command, time::Duration};

use anyhow::{Context, Result, bail};
use lodge_model::environment::view::EnvironmentView;

use super::{Bench, ask_until, environments::leaves_nothing, install::BOOT_LIMIT, isolation::put_probe, ready_in_center};
use crate::{
    hosting::{Hosting, Wanted, address, http_get},
    machine::Machine,
    scenario::{Site, hold},
};

const NODE: &str = "node1";
const ELSEWHERE: &str = "node2";
const QUIET: &str = "quiet";
const NOISY: &str = "noisy";
/// Processors of the nodes while this runs.
const PROCESSORS: u8 = 2;
/// Processors of each environment.
const SOLD: &str = "1";
/// A node goes down within this.
const DOWN: Duration = Duration::from_secs(60);
/// An answer may take so many times as long as with the load on another node.
const BAR: f64 = 2.0;
/// A load is felt within this on the reference machine: a disk has to be filled over the network.
const FELT: Duration = Duration::from_secs(120);

const LOADS: [Load; 6] = [SPIN, MEMORY, FORKS, FLOOD, DISK, INODES];
/// For how long answers are asked for.
const LENGTH: Duration = Duration::from_secs(10);

struct Load {
    what: &'static str,
    /// For a shell in the noisy environment.
    command: &'static str,
    /// For a shell on the node, in the control group of the noisy one, `{id}` its id: a number that is not less than `felt` when it is felt.
    counter: &'static str,
    felt: u64,
}

const SPIN: Load = Load {
    what: "processor",
    command: "for spin in 1 2 3 4; do (while :; do :; done) & done; wait",
    counter: "grep '^usage_usec ' cpu.stat | cut -d ' ' -f 2",
    felt: 3_000_000,
};
const MEMORY: Load = Load {
    what: "memory",
    command: "while :; do tail /dev/zero; done",
    counter: "grep '^oom_kill ' memory.events | cut -d ' ' -f 2",
    felt: 1,
};
const FORKS: Load = Load {
    what: "fork bomb",
    command: "bomb() { bomb | bomb & }; while :; do bomb; done",
    counter: "echo $(($(grep '^max ' pids.events | cut -d ' ' -f 2) + $(grep '^oom_kill ' memory.events | cut -d ' ' -f 2)))",
    felt: 1,
};
const FLOOD: Load = Load {
    what: "log flood",
    command: "exec yes this line is written again and again > /dev/console",
    // Two files of 512 KiB are kept.
    counter: "cat /state/log/environments/{id}* | wc -c",
    felt: 512 << 10,
};
const DISK: Load = Load {
    what: "full disk",
    command: "cat /dev/zero > /root/full; while :; do cat /dev/zero > /root/more; done",
    counter: "nsenter --mount=/run/lodge/agent.mnt stat -f -c x%a /run/lodge/environments/{id}/private | grep -c '^x0$'",
    felt: 1,
};
const INODES: Load = Load {
    what: "files without end",
    command: "exec /root/probe files /root/many",
    counter: "nsenter --mount=/run/lodge/agent.mnt stat -f -c x%d /run/lodge/environments/{id}/private | grep -c '^x[0-9]$'",
    felt: 1,
};

/// How fast the quiet one answers, with each load elsewhere and beside it; then nothing is left of all of them.
pub fn run(bench: &mut Bench) -> Result<()> {
    let probe = (bench.artifacts.probe)()?;
    let site = bench.site()?;
    let before = site.rack.machine(NODE)?.spec.cpus;
    refit(site, PROCESSORS)?;
    let hosting = Hosting::prepare(&site.rack, &site.operator)?;
    let quiet = create(site, &hosting, QUIET, "96M", NODE)?;
    let asking = Asking { probe, port: site.rack.forward(address(&quiet)?, 80)? };
    http_get(&site.rack, asking.port, "/").context("before anything else")?;
    bench.say("  answers, ms:                  no load:   elsewhere: median    p90    beside: median    p90    ratio of medians, of p90");
    let mut wrong = Vec::new();
    for load in &LOADS {
        let site = bench.site()?;
        let alone = asking.ask()?;
        let (elsewhere, _) = under(site, &hosting, &asking, load, ELSEWHERE).with_context(|| context(load, ELSEWHERE))?;
        let (beside, counted) = under(site, &hosting, &asking, load, NODE).with_context(|| context(load, NODE))?;
        let row = Row { what: load.what, counted, alone, elsewhere, beside };
        bench.say(&row.to_string());
        wrong.extend((!row.holds()).then_some(load.what));
    }
    let site = bench.site()?;
    site.operator.lodge(&["env", "destroy", QUIET, "--yes", "--wait"])?;
    leaves_nothing(site)?;
    refit(site, before)?;
    hold(wrong.is_empty(), || format!("a neighbour's answers take more than {BAR} times as long: {}", wrong.join(", ")))
}

/// Nodes with another number of processors: switched off in order, changed, and switched on.
fn refit(site: &mut Site, processors: u8) -> Result<()> {
    for name in [NODE, ELSEWHERE] {
        let machine = site.rack.machine_mut(name)?;
        machine.press_power_button()?;
        machine.wait_off(DOWN)?;
        machine.spec.cpus = processors;
        let from = machine.now();
        machine.switch_on()?;
        machine.wait_ready(from, BOOT_LIMIT)?;
        ready_in_center(site, name)?;
    }
    Ok(())
}

fn create(site: &Site, hosting: &Hosting, name: &str, memory: &str, node: &str) -> Result<EnvironmentView> {
    let made = hosting.create(&site.operator, &Wanted { name, memory, more: &["--node", node] })?;
    site.operator.lodge(&["env", "set", name, "--cpus", SOLD])?;
    Ok(made)
}

fn context(load: &Load, node: &str) -> String {
    format!("with {} on {node}", load.what)
}

/// How fast the quiet one answers while a load is felt on a node, and what that node counted.
fn under(site: &Site, hosting: &Hosting, asking: &Asking, load: &Load, on: &str) -> Result<(Times, u64)> {
    let operator = &site.operator;
    let noisy = create(site, hosting, NOISY, "128M", on)?;
    put_probe(operator, NOISY, &asking.probe)?;
    operator.exec(NOISY, &format!("setsid sh -c '{}' >/dev/null 2>&1 </dev/null & true", load.command))?;
    let (node, id) = (site.rack.machine(on)?, noisy.id.to_string());
    let mut counted = 0;
    ask_until(site.rack.host.scale(FELT), &format!("{} felt", load.what), || {
        counted = count(node, load, &id)?;
        Ok((counted >= load.felt).then_some(()))
    })?;
    let times = asking.ask()?;
    hold(count(node, load, &id)? >= load.felt, || "it ended before the answers were measured".into())?;
    operator.lodge(&["env", "kill", NOISY, "--wait"])?;
    operator.lodge(&["env", "destroy", NOISY, "--yes", "--wait"])?;
    Ok((times, counted))
}

/// Who asks, and by which door of the router.
struct Asking {
    probe: PathBuf,
    port: u16,
}

impl Asking {
    fn ask(&self) -> Result<Times> {
        let server = format!("127.0.0.1:{}", self.port);
        let asked = Command::new(&self.probe).args(["answers", &server, &LENGTH.as_millis().to_string()]).output();
        let asked = asked.with_context(|| format!("starting {}", self.probe.display()))?;
        if !asked.status.success() {
            bail!("asking {server}: {}", String::from_utf8_lossy(&asked.stderr).trim());
        }
        Times::of(&String::from_utf8_lossy(&asked.stdout))
    }
}

fn count(node: &Machine, load: &Load, id: &str) -> Result<u64> {
    let said = node.run(&format!("cd /sys/fs/cgroup/env/{id} && {} || true", load.counter.replace("{id}", id)))?;
    said.trim().parse().with_context(|| format!("counting {}: {said:?}", load.what))
}

/// One load.
struct Row {
    what: &'static str,
    /// What the node counted when it was felt.
    counted: u64,
    alone: Times,
    elsewhere: Times,
    beside: Times,
}

impl Row {
    fn ratios(&self) -> (f64, f64) {
        (self.beside.median / self.elsewhere.median, self.beside.p90 / self.elsewhere.p90)
    }

    fn holds(&self) -> bool {
        let (median, p90) = self.ratios();
        median <= BAR && p90 <= BAR
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Row { what, counted, alone, elsewhere, beside } = self;
        let (median, p90) = self.ratios();
        write!(
            f,
            "  {what:28} {:9.1} {:20.1} {:6.1} {:17.1} {:6.1} {median:19.2} {p90:8.2}   ({} and {} answers; counted {counted})",
            alone.median, elsewhere.median, elsewhere.p90, beside.median, beside.p90, elsewhere.count, beside.count
        )
    }
}

/// Milliseconds.
struct Times {
    count: usize,
    median: f64,
    p90: f64,
}

impl Times {
    /// From microseconds.
    fn of(said: &str) -> Result<Self> {
        let times: Result<Vec<f64>, _> = said.split_whitespace().map(str::parse).collect();
        let mut times = times.with_context(|| format!("reading {said:?}"))?;
        times.sort_by(f64::total_cmp);
        let at = |share: usize| times.get(times.len() * share / 100).map(|micros| micros / 1000.0).context("no answer at all");
        Ok(Self { count: times.len(), median: at(50)?, p90: at(90)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(elsewhere: &str, beside: &str) -> Row {
        let times = |said: &str| Times::of(said).unwrap();
        Row { what: "x", counted: 1, alone: times(elsewhere), elsewhere: times(elsewhere), beside: times(beside) }
    }

    #[test]
    fn median_and_p90_have_to_hold() {
        let elsewhere = "1000 1000 1000 1000 1000 1000 1000 1000 1000 1000";
        assert!(row(elsewhere, "1900 1900 1900 1900 1900 1900 1900 1900 1900 1900").holds());
        assert!(!row(elsewhere, "1000 1000 1000 1000 1000 2100 2100 2100 2100 2100").holds());
        assert!(!row(elsewhere, "1000 1000 1000 1000 1000 1000 1000 1000 1000 2100").holds());
        assert!(Times::of("").is_err() && Times::of("x").is_err());
    }
}
