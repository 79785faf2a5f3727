//! An environment that writes records without end, each on its disk before it is acknowledged. Acknowledgements stay in its memory, and
//! are read through the node's shell: neither needs the share or the center, which the tests take away.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use lodge_model::{environment::view::EnvironmentView, ids::EnvironmentId};

use super::ask_until;
use crate::{
    machine::Machine,
    scenario::{Site, hold},
};

/// Counts up; ends when it is told to, or when the disk fails it. Times are of the environment's own clock.
const WRITER: &str = "cd /dev/shm; n=0; while [ ! -e stop ]; do n=$((n+1)); \
    if echo $n >> /root/records && sync /root/records; then read up idle < /proc/uptime; echo $n $up >> acknowledged; \
    else echo $n > failed; exit; fi; done; : > ended";
/// The writer takes notice of anything within this on the reference machine, once nothing holds it up.
const SOON: Duration = Duration::from_secs(60);

/// A writer in an environment.
pub struct Writer {
    node: String,
    id: EnvironmentId,
    name: String,
}

/// Acknowledged records: number and time in seconds.
pub type Acknowledged = Vec<(u64, f64)>;

impl Writer {
    /// Start one; it has written already when this returns.
    pub fn start(site: &Site, environment: &EnvironmentView) -> Result<Self> {
        let name = environment.spec.name.clone();
        let node = environment.node.clone().with_context(|| format!("{name} runs nowhere"))?;
        let command = format!("setsid sh -c '{WRITER}' </dev/null >/dev/shm/said 2>&1 &");
        site.operator.exec(&name, &command)?;
        let writer = Self { node, id: environment.id, name };
        writer.go_on(site, 0)?;
        Ok(writer)
    }

    /// Wait until some more records are acknowledged than the last one of these.
    pub fn go_on(&self, site: &Site, last: u64) -> Result<u64> {
        ask_until(site.rack.host.scale(SOON), &format!("more records of {}", self.name), || {
            if let Some(failed) = self.failed(site)? {
                bail!("{} failed to write record {failed}", self.name);
            }
            Ok(Some(self.last(site)?).filter(|now| *now > last + 3))
        })
    }

    /// Number of the last record that is acknowledged.
    pub fn last(&self, site: &Site) -> Result<u64> {
        let line = self.inside(site, "tail -n 1 acknowledged 2>/dev/null || true")?;
        Ok(acknowledged(&line)?.last().map_or(0, |(number, _)| *number))
    }

    /// The record that could not be written.
    pub fn failed(&self, site: &Site) -> Result<Option<u64>> {
        let said = self.inside(site, "cat failed 2>/dev/null || true")?;
        Ok(said.trim().parse().ok())
    }

    /// End it, and see what it acknowledged.
    pub fn end(&self, site: &Site) -> Result<Acknowledged> {
        // Its memory takes files from its own users alone.
        site.operator.exec(&self.name, ": > /dev/shm/stop")?;
        ask_until(site.rack.host.scale(SOON), &format!("the end of the writer in {}", self.name), || {
            Ok((self.inside(site, "ls")?.split_whitespace().any(|file| file == "ended" || file == "failed")).then_some(()))
        })?;
        self.acknowledged(site)
    }

    /// Everything it acknowledged.
    pub fn acknowledged(&self, site: &Site) -> Result<Acknowledged> {
        acknowledged(&self.inside(site, "cat acknowledged")?)
    }

    /// Run a command on the node, in the environment's memory.
    fn inside(&self, site: &Site, command: &str) -> Result<String> {
        let machine: &Machine = site.rack.machine(&self.node)?;
        let group = format!("/sys/fs/cgroup/env/{}", self.id);
        let init = format!("$(find {group} -name cgroup.procs -exec cat {{}} + | sort -n | head -n 1)");
        machine.run(&format!("cd /proc/{init}/root/dev/shm && {{ {command}; }}"))
    }
}

fn acknowledged(text: &str) -> Result<Acknowledged> {
    let line = |line: &str| -> Option<(u64, f64)> {
        let (number, time) = line.split_once(' ')?;
        Some((number.parse().ok()?, time.trim().parse().ok()?))
    };
    text.lines().map(|text| line(text).with_context(|| format!("reading the record {text:?}"))).collect()
}

/// Records are 1, 2, 3… without a gap, as far as acknowledged at least.
pub fn complete(text: &str, acknowledged: u64) -> Result<()> {
    let records: Vec<u64> = text.lines().map_while(|line| line.parse().ok()).collect();
    let in_order = records.iter().zip(1..).all(|(found, expected)| *found == expected);
    let count = records.len() as u64;
    hold(in_order && count >= acknowledged, || {
        let end: Vec<&str> = text.lines().rev().take(5).collect();
        format!("{acknowledged} records were acknowledged, {count} are there; the last lines are {end:?}")
    })
}

/// The longest time between two acknowledgements, in seconds.
pub fn longest_gap(acknowledged: &Acknowledged) -> f64 {
    acknowledged.windows(2).map(|pair| pair[1].1 - pair[0].1).fold(0.0, f64::max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_record_and_a_gap_are_noticed() {
        assert!(complete("1\n2\n3\n", 3).is_ok() && complete("1\n2\n3\n4\n", 3).is_ok());
        assert!(complete("1\n2\n", 3).is_err());
        assert!(complete("1\n3\n4\n", 3).is_err());
        assert!(complete("", 1).is_err());
    }

    #[test]
    fn the_longest_gap_is_between_two_records() {
        let records = acknowledged("1 10.50\n2 10.75\n3 31.00\n4 31.25\n").unwrap();
        assert!((longest_gap(&records) - 20.25).abs() < 1e-9);
        assert!(acknowledged("1 10.50\nnot one\n").is_err());
    }
}
