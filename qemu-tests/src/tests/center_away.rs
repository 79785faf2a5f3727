//! The center, and the share with it, stops answering for two minutes. Nothing else may happen.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use jiff::Timestamp;
use lodge_model::api::{NodeState, NodeView};

use super::{Bench, ask_until, install::agent_pid};
use crate::{
    feed::Waited,
    rack::CENTER,
    scenario::{Site, hold},
};

/// As long as the issue says; not scaled, it is the nodes' patience that is tested.
const AWAY: Duration = Duration::from_secs(120);
/// Ready again within this of the center's return, on the reference machine.
const BACK: Duration = Duration::from_secs(10);

/// What nodes are, as far as they must stay the same.
#[derive(Debug, PartialEq, Eq)]
struct Life {
    name: String,
    boot: String,
    agent: String,
}

pub fn run(bench: &mut Bench) -> Result<()> {
    let site = bench.site()?;
    let before = lives(site)?;
    let from: Vec<usize> = site.rack.machines().map(|machine| machine.now()).collect();
    let heard = site.operator.nodes()?;
    site.rack.machine(CENTER)?.freeze()?;
    let frozen = Instant::now();
    stay_up(site, frozen)?;
    site.rack.machine(CENTER)?.thaw()?;
    let thawed = Instant::now();
    let limit = site.rack.host.scale(BACK);
    let boot_marks: Vec<_> = site.rack.machines().zip(from).collect();
    // The center's clock stood still with it: only a sign of life that is newer than the last one before is one.
    ask_until(limit, "all nodes heard of and ready again", || {
        let nodes = site.operator.nodes()?;
        let back = |node: &NodeView| node.state == NodeState::Ready && node.seen > last_seen(&heard, &node.name);
        Ok(nodes.iter().all(back).then_some(()))
    })?;
    for name in site.node_names() {
        site.rack.machine(&name)?.run("echo back > /share/back && sync /share/back && rm /share/back")?;
    }
    let took = thawed.elapsed().as_secs_f64();
    for (machine, from) in boot_marks {
        let booted = machine.console.lines.read(from, |lines| lines.iter().any(|line| line.text.contains("BdsDxe")));
        hold(!booted, || format!("{} restarted", machine.spec.name))?;
    }
    let after = lives(site)?;
    hold(before == after, || format!("the nodes are not what they were: {before:?}, now {after:?}"))?;
    bench.say(&format!("ready again, with the share in use, {took:.1} s after the center came back"));
    Ok(())
}

/// Watch the nodes' consoles and power until the time is over.
fn stay_up(site: &Site, since: Instant) -> Result<()> {
    for name in site.node_names() {
        let machine = site.rack.machine(&name)?;
        let left = AWAY.saturating_sub(since.elapsed());
        let restarted = machine.console.lines.wait(machine.now(), left, |line| line.text.contains("BdsDxe").then_some(()));
        if !matches!(restarted, Waited::TimedOut) {
            bail!("{name} restarted while the center was away");
        }
    }
    for name in site.node_names() {
        let machine = site.rack.machine(&name)?;
        hold(machine.is_on(), || format!("{name} went off while the center was away"))?;
        machine.run("true")?;
    }
    Ok(())
}

fn last_seen(nodes: &[NodeView], name: &str) -> Option<Timestamp> {
    nodes.iter().find(|node| node.name == name).and_then(|node| node.seen)
}

fn lives(site: &Site) -> Result<Vec<Life>> {
    let life = |name: String| -> Result<Life> {
        let machine = site.rack.machine(&name)?;
        let pid = agent_pid(machine)?;
        // The same number can be another process: its start time is the 22nd field (proc_pid_stat(5)).
        let started = machine.run(&format!("cut -d' ' -f22 /proc/{pid}/stat"))?;
        let boot = machine.run("cat /proc/sys/kernel/random/boot_id")?;
        Ok(Life { name, boot: boot.trim().to_owned(), agent: format!("{pid} since {}", started.trim()) })
    };
    site.node_names().into_iter().map(life).collect()
}
