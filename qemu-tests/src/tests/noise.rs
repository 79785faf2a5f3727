//! A noisy neighbour: one environment takes all that it can get, and another one on the same node goes on answering as fast as before.
//!
//! The times are taken by a third environment on another node, before and during each load in the same run, so that they are ratios on
//! whatever machine the rack runs. A load is measured only while the node's own counters say that it is felt.

use std::{fmt, path::Path, time::Duration};

use anyhow::{Context, Result};

use super::{Bench, ask_until, environments::leaves_nothing, isolation::put_probe};
use crate::{
    hosting::{Hosting, Wanted, address},
    machine::Machine,
    scenario::{Site, hold},
};

const NODE: &str = "node1";
const ELSEWHERE: &str = "node2";
const QUIET: &str = "quiet";
const NOISY: &str = "noisy";
const CLIENT: &str = "client";
/// An answer may take so many times as long as before.
const BAR: f64 = 2.0;
/// A load is felt within this on the reference machine: a disk has to be filled over the network.
const FELT: Duration = Duration::from_secs(120);

/// Every load, for as long as it takes.
pub fn run(bench: &mut Bench) -> Result<()> {
    let probe = (bench.artifacts.probe)()?;
    let site = bench.site()?;
    let hosting = Hosting::prepare(&site.rack, &site.operator)?;
    let answers = measure(site, &hosting, &probe, &LONG)?;
    leaves_nothing(site)?;
    bench.say(&answers.to_string());
    answers.hold()
}

/// What is measured, and for how long.
pub struct Course {
    loads: &'static [Load],
    length: Duration,
}

/// The loads that are felt at once.
pub const SHORT: Course = Course { loads: &[SPIN, MEMORY, FORKS], length: Duration::from_secs(5) };
const LONG: Course = Course { loads: &[SPIN, MEMORY, FORKS, FLOOD, DISK, INODES], length: Duration::from_secs(12) };

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
    counter: "cat /state/log/environments/{id}* | wc -c",
    felt: 2 << 20,
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

/// How fast the quiet one answers, before and during each load.
pub fn measure(site: &Site, hosting: &Hosting, probe: &Path, course: &Course) -> Result<Answers> {
    let operator = &site.operator;
    let quiet = hosting.create(operator, &Wanted { name: QUIET, memory: "96M", more: &["--node", NODE] })?;
    hosting.create(operator, &Wanted { name: CLIENT, memory: "96M", more: &["--node", ELSEWHERE] })?;
    put_probe(operator, CLIENT, probe)?;
    let server = format!("{}:80", address(&quiet)?);
    let ask = || -> Result<Times> {
        let millis = course.length.as_millis().to_string();
        let said = operator.lodge(&["env", "exec", CLIENT, "--", "/root/probe", "answers", &server, &millis])?;
        Times::of(&said)
    };
    ask().context("before anything else")?;
    let mut rows = Vec::new();
    for load in course.loads {
        let noisy = hosting.create(operator, &Wanted { name: NOISY, memory: "96M", more: &["--node", NODE] })?;
        operator.lodge(&["env", "set", NOISY, "--cpus", "1"])?;
        put_probe(operator, NOISY, probe)?;
        let before = ask()?;
        operator.exec(NOISY, &format!("setsid sh -c '{}' >/dev/null 2>&1 </dev/null & true", load.command))?;
        let (node, id) = (site.rack.machine(NODE)?, noisy.id.to_string());
        ask_until(site.rack.host.scale(FELT), &format!("{} felt", load.what), || {
            Ok((count(node, load, &id)? >= load.felt).then_some(()))
        })?;
        let during = ask().with_context(|| format!("during {}", load.what))?;
        operator.lodge(&["env", "kill", NOISY, "--wait"])?;
        operator.lodge(&["env", "destroy", NOISY, "--yes", "--wait"])?;
        rows.push(Row { what: load.what, before, during });
    }
    operator.lodge(&["env", "destroy", QUIET, CLIENT, "--yes", "--wait"])?;
    Ok(Answers(rows))
}

fn count(node: &Machine, load: &Load, id: &str) -> Result<u64> {
    let said = node.run(&format!("cd /sys/fs/cgroup/env/{id} && {} || true", load.counter.replace("{id}", id)))?;
    said.trim().parse().with_context(|| format!("counting {}: {said:?}", load.what))
}

/// Times of all loads.
pub struct Answers(Vec<Row>);

struct Row {
    what: &'static str,
    before: Times,
    during: Times,
}

impl Answers {
    /// Whether no load made answers slower than the bar.
    pub fn hold(&self) -> Result<()> {
        let is_over = |row: &Row| row.during.median > BAR * row.before.median || row.during.p90 > BAR * row.before.p90;
        hold(!self.0.iter().any(is_over), || format!("a neighbour's answers take more than {BAR} times as long:\n{self}"))
    }
}

impl fmt::Display for Answers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "  answers of a neighbour, ms:    before: median    p90    during: median    p90    ratio of medians, of p90"
        )?;
        for Row { what, before, during } in &self.0 {
            let (median, p90) = (during.median / before.median, during.p90 / before.p90);
            write!(
                f,
                "\n  {what:32} {:13.1} {:6.1} {:17.1} {:6.1} {median:19.2} {p90:8.2}   ({} and {} answers)",
                before.median, before.p90, during.median, during.p90, before.count, during.count
            )?;
        }
        Ok(())
    }
}

/// Milliseconds.
struct Times {
    count: usize,
    median: f64,
    p90: f64,
}

impl Times {
    /// From microseconds in ascending order.
    fn of(said: &str) -> Result<Self> {
        let times: Result<Vec<f64>, _> = said.split_whitespace().map(str::parse).collect();
        let times = times.with_context(|| format!("reading {said:?}"))?;
        let at = |share: usize| times.get(times.len() * share / 100).map(|micros| micros / 1000.0).context("no answer at all");
        Ok(Self { count: times.len(), median: at(50)?, p90: at(90)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(before: &str, during: &str) -> Answers {
        Answers(vec![Row { what: "x", before: Times::of(before).unwrap(), during: Times::of(during).unwrap() }])
    }

    #[test]
    fn median_and_p90_have_to_hold() {
        let before = "1000 1000 1000 1000 1000 1000 1000 1000 1000 1000";
        assert!(row(before, "1900 1900 1900 1900 1900 1900 1900 1900 1900 1900").hold().is_ok());
        assert!(row(before, "1000 1000 1000 1000 1000 2100 2100 2100 2100 2100").hold().is_err());
        assert!(row(before, "1000 1000 1000 1000 1000 1000 1000 1000 1000 2100").hold().is_err());
        assert!(Times::of("").is_err() && Times::of("x").is_err());
    }
}
