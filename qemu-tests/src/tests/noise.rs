//! A noisy neighbour: one environment takes all that it can get, and another one on the same node goes on answering as fast as before.
//!
//! The times are taken by a third environment on another node, without and with each load in the same run, so that they are ratios on
//! whatever machine the rack runs. Without it is half before and half after: that machine has other work at times. The node's own
//! counters say before and after the measurement that the load is felt.

use std::{fmt, path::Path, time::Duration};

use anyhow::{Context, Result};

use super::{Bench, ask_until, environments::leaves_nothing, isolation::put_probe};
use crate::{
    api::Operator,
    hosting::{Hosting, Wanted, address},
    machine::Machine,
    scenario::{Site, hold},
};

const NODE: &str = "node1";
const ELSEWHERE: &str = "node2";
const QUIET: &str = "quiet";
const NOISY: &str = "noisy";
const CLIENT: &str = "client";
/// An answer may take so many times as long as without the load.
const BAR: f64 = 2.0;
/// A load is felt within this on the reference machine: a disk has to be filled over the network.
const FELT: Duration = Duration::from_secs(120);

const LOADS: [Load; 6] = [SPIN, MEMORY, FORKS, FLOOD, DISK, INODES];
/// For how long answers are asked for: before, during and after each.
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

/// How fast the quiet one answers, without and with each load; then nothing is left of all of them.
pub fn run(bench: &mut Bench) -> Result<()> {
    let probe = (bench.artifacts.probe)()?;
    let site = bench.site()?;
    let hosting = Hosting::prepare(&site.rack, &site.operator)?;
    let quiet = hosting.create(&site.operator, &Wanted { name: QUIET, memory: "96M", more: &["--node", NODE] })?;
    hosting.create(&site.operator, &Wanted { name: CLIENT, memory: "96M", more: &["--node", ELSEWHERE] })?;
    put_probe(&site.operator, CLIENT, &probe)?;
    let asking = Asking { server: format!("{}:80", address(&quiet)?), millis: LENGTH.as_millis().to_string() };
    asking.ask(&site.operator).context("before anything else")?;
    bench.say("  answers of a neighbour, ms:   without: median    p90      with: median    p90    ratio of medians, of p90");
    let mut wrong = Vec::new();
    for load in &LOADS {
        let site = bench.site()?;
        let row = one(site, &hosting, &probe, &asking, load).with_context(|| format!("during {}", load.what))?;
        bench.say(&row.to_string());
        wrong.extend((!row.holds()).then_some(load.what));
    }
    let site = bench.site()?;
    site.operator.lodge(&["env", "destroy", QUIET, CLIENT, "--yes", "--wait"])?;
    leaves_nothing(site)?;
    hold(wrong.is_empty(), || format!("a neighbour's answers take more than {BAR} times as long: {}", wrong.join(", ")))
}

fn one(site: &Site, hosting: &Hosting, probe: &Path, asking: &Asking, load: &Load) -> Result<Row> {
    let operator = &site.operator;
    let noisy = hosting.create(operator, &Wanted { name: NOISY, memory: "128M", more: &["--node", NODE] })?;
    operator.lodge(&["env", "set", NOISY, "--cpus", "1"])?;
    put_probe(operator, NOISY, probe)?;
    let before = asking.ask(operator)?;
    operator.exec(NOISY, &format!("setsid sh -c '{}' >/dev/null 2>&1 </dev/null & true", load.command))?;
    let (node, id) = (site.rack.machine(NODE)?, noisy.id.to_string());
    let mut counted = 0;
    ask_until(site.rack.host.scale(FELT), &format!("{} felt", load.what), || {
        counted = count(node, load, &id)?;
        Ok((counted >= load.felt).then_some(()))
    })?;
    let during = asking.ask(operator)?;
    hold(count(node, load, &id)? >= load.felt, || "it ended before the answers were measured".into())?;
    operator.lodge(&["env", "kill", NOISY, "--wait"])?;
    operator.lodge(&["env", "destroy", NOISY, "--yes", "--wait"])?;
    let without = Times::of(&[before, asking.ask(operator)?].join(" "))?;
    Ok(Row { what: load.what, counted, without, with: Times::of(&during)? })
}

/// Who asks whom, and for how long.
struct Asking {
    server: String,
    millis: String,
}

impl Asking {
    /// Microseconds of all answers.
    fn ask(&self, operator: &Operator) -> Result<String> {
        operator.lodge(&["env", "exec", CLIENT, "--", "/root/probe", "answers", &self.server, &self.millis])
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
    without: Times,
    with: Times,
}

impl Row {
    fn ratios(&self) -> (f64, f64) {
        (self.with.median / self.without.median, self.with.p90 / self.without.p90)
    }

    fn holds(&self) -> bool {
        let (median, p90) = self.ratios();
        median <= BAR && p90 <= BAR
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Row { what, counted, without, with } = self;
        let (median, p90) = self.ratios();
        write!(
            f,
            "  {what:32} {:13.1} {:6.1} {:17.1} {:6.1} {median:19.2} {p90:8.2}   ({} and {} answers; counted {counted})",
            without.median, without.p90, with.median, with.p90, without.count, with.count
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

    fn row(without: &str, with: &str) -> Row {
        Row { what: "x", counted: 1, without: Times::of(without).unwrap(), with: Times::of(with).unwrap() }
    }

    #[test]
    fn median_and_p90_have_to_hold() {
        let without = "1000 1000 1000 1000 1000 1000 1000 1000 1000 1000";
        assert!(row(without, "1900 1900 1900 1900 1900 1900 1900 1900 1900 1900").holds());
        assert!(!row(without, "1000 1000 1000 1000 1000 2100 2100 2100 2100 2100").holds());
        assert!(!row(without, "1000 1000 1000 1000 1000 1000 1000 1000 1000 2100").holds());
        assert!(Times::of("").is_err() && Times::of("x").is_err());
    }
}
