//! A node loses power while an environment on it writes. On the operator's word that it is off the environment starts elsewhere, and
//! every record it has acknowledged is there. Takeovers are disarmed: it is the operator's word that is tested.

use std::{
    io::{BufRead as _, BufReader},
    time::Duration,
};

use anyhow::{Context, Result};
use lodge_model::environment::view::Phase;

use super::{Bench, ask_until, environments::until, install::BOOT_LIMIT, ready_in_center, records::complete};
use crate::{
    hosting::{Hosting, Wanted},
    scenario::{Site, hold},
};

/// Counts up, each number on the disk before it is said.
pub const WRITER: &str = "n=0; while :; do n=$((n+1)); echo $n >> /root/records; sync /root/records; echo $n; done";
/// Records before the power goes.
const RECORDS: u64 = 25;
/// The share lets go of a dead client's lock within this, and the disk is recovered.
const TAKEOVER: Duration = Duration::from_secs(180);

pub fn run(bench: &mut Bench) -> Result<()> {
    let site = bench.site()?;
    let hosting = Hosting::prepare(&site.rack, &site.operator)?;
    let made = hosting.create(&site.operator, &Wanted { name: "db1", memory: "96M", more: &[] })?;
    let first = made.node.context("db1 runs nowhere")?;
    site.operator.lodge(&["cluster", "disarm", "--reason", "a machine is switched off by hand"])?;
    let acknowledged = write_until_power_is_lost(site, &first)?;
    let limit = site.rack.host.scale(TAKEOVER);
    let waits = ask_until(limit, "db1 unknown because its node is silent", || {
        Ok(Some(site.operator.environment("db1")?).filter(|db| db.phase == Phase::Unknown))
    })?;
    hold(waits.node.as_deref() == Some(&first) && waits.epoch == made.epoch, || {
        format!("db1 was taken from {first} without proof that it is off: {waits:?}")
    })?;
    site.operator.lodge(&["node", "confirm-off", &first, "--yes"])?;
    let there = ask_until(site.rack.host.scale(TAKEOVER), "db1 running elsewhere", || {
        Ok(Some(site.operator.environment("db1")?).filter(|db| db.phase == Phase::Running && db.epoch > made.epoch))
    })?;
    hold(there.node.as_deref() != Some(&first), || format!("db1 is on {first}, which has no power"))?;
    let found = site.operator.exec("db1", "cat /root/records")?;
    complete(&found, acknowledged)?;
    comes_back(site, &first)?;
    site.operator.lodge(&["env", "destroy", "db1", "--yes", "--wait"])?;
    site.operator.lodge(&["cluster", "arm"])?;
    let node = there.node.unwrap_or_default();
    bench.say(&format!("  {acknowledged} records acknowledged on {first}, all there on {node}"));
    Ok(())
}

/// The number of the last record that was acknowledged before the power went.
fn write_until_power_is_lost(site: &mut Site, node: &str) -> Result<u64> {
    let mut writer = site.operator.spawn(&["env", "exec", "db1", "--", "sh", "-c", WRITER])?;
    let lines = BufReader::new(writer.stdout.take().context("no standard output")?).lines();
    let mut last = 0;
    for line in lines {
        last = line.context("reading records")?.trim().parse().context("reading a record")?;
        if last >= RECORDS {
            break;
        }
    }
    site.rack.machine_mut(node)?.switch_off();
    writer.kill().context("ending the writer")?;
    writer.wait().context("ending the writer")?;
    hold(last >= RECORDS, || format!("the writer ended after {last} records"))?;
    Ok(last)
}

/// The node with power again is ready, and does not start what it ran before.
fn comes_back(site: &mut Site, node: &str) -> Result<()> {
    let machine = site.rack.machine_mut(node)?;
    let from = machine.now();
    machine.switch_on()?;
    machine.wait_ready(from, BOOT_LIMIT)?;
    ready_in_center(site, node)?;
    let stays = until(site, "db1", "running", |db| db.phase == Phase::Running)?;
    hold(stays.node.as_deref() != Some(node), || format!("db1 went back to {node}"))
}
