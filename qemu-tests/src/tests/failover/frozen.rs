//! A node that stops for a minute and goes on as if nothing had happened, which no heartbeat can tell from a dead one; and an agent that
//! stops while its node goes on. First what it would be worth without a fence, so that the rest is known to be able to fail.

use std::{
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use lodge_model::{
    environment::{
        share,
        view::{EnvironmentView, Phase},
    },
    paths,
};

use super::{Journal, LINES, Scene, fenced, restarts, timeline, until};
use crate::{
    feed::Waited,
    hosting::Wanted,
    machine::Machine,
    rack::CENTER,
    scenario::{Site, hold},
    tests::{Bench, ask_until, install::agent_pid, ready_in_center},
};

/// As long as the issue says.
const FROZEN: Duration = Duration::from_secs(60);
/// Longer than the lease, for the part without a fence.
const SHORT: Duration = Duration::from_secs(20);
/// An environment of the victim that no other node may take: nobody but the old copy could write to its disk.
const BOUND: &str = "bound1";

pub fn run(bench: &mut Bench) -> Result<()> {
    node_stops(bench)?;
    agent_stops(bench)
}

fn node_stops(bench: &mut Bench) -> Result<()> {
    let site = bench.site()?;
    let mut scene = Scene::set(site, "frozen1")?;
    let victim = scene.victim.clone();
    let more = ["--node", victim.as_str()];
    let bound = scene.hosting.create(&site.operator, &Wanted { name: BOUND, memory: "64M", more: &more })?;
    let mut journal = Journal::start(site, &bound)?;
    journal.more(site, LINES)?;
    let without = without_a_fence(site, &scene, &bound, &journal).context("without a fence")?;

    scene.note(site)?;
    journal.note(site)?;
    let machine = site.rack.machine(&victim)?;
    let from = machine.now();
    machine.freeze()?;
    let since = Instant::now();
    let takeover = scene.taken_over(site, since)?;
    let cut = (changed(site, &bound)?, digest(site, &bound)?);
    sleep(FROZEN.saturating_sub(since.elapsed()));
    machine.thaw()?;
    let (from, looks) = not_one_byte(site, machine, from, &bound, &cut)?;
    scene.back(site, from)?;
    let again = until(site, BOUND, "running again", |found| found.phase == Phase::Running && found.epoch > bound.epoch)?;
    hold(again.node.as_deref() == Some(&victim), || format!("{BOUND} is on {:?}", again.node))?;
    let text = site.operator.exec(BOUND, &format!("cat {}", super::journal::FILE))?;
    super::journal::check(&text, &[journal])?;
    let told = timeline(site, &format!("{victim} stopped for {} s", FROZEN.as_secs()), &takeover);
    site.operator.lodge(&["env", "destroy", BOUND, "--yes", "--wait"])?;
    scene.strike(site)?;
    bench.say(&format!("{told}  {without}\n  with it, its disk was the same at {looks} looks until {victim} had restarted"));
    Ok(())
}

/// Nothing is taken over, nothing is fenced: the copy that stood still for longer than its lease writes on.
fn without_a_fence(site: &Site, scene: &Scene, bound: &EnvironmentView, journal: &Journal) -> Result<String> {
    site.operator.lodge(&["cluster", "disarm", "--reason", "a node is stopped and goes on"])?;
    let machine = scene.victim(site)?;
    machine.freeze()?;
    sleep(SHORT);
    // Not read: whoever opens the file on its server takes the delegation, and with it the locks, from a client that does not answer.
    let before = changed(site, bound)?;
    machine.thaw()?;
    let more = journal.more(site, journal.acknowledged(site)? + LINES)?;
    hold(changed(site, bound)? != before, || "it wrote, and its disk is as it was: the test proves nothing".into())?;
    ready_in_center(site, &scene.victim)?;
    site.operator.lodge(&["cluster", "arm"])?;
    Ok(format!("without a fence it wrote on after {} s, up to line {more}", SHORT.as_secs()))
}

/// From the moment it goes on until it has restarted, its disk stays as it was.
fn not_one_byte(
    site: &Site,
    machine: &Machine,
    from: usize,
    bound: &EnvironmentView,
    (time, digest): &(String, String),
) -> Result<(usize, u32)> {
    let mut looks = 0;
    let from = ask_until(site.rack.host.scale(super::RESTART), &format!("a restart of {}", machine.spec.name), || {
        hold(changed(site, bound)? == *time, || format!("{} has written to a disk that it was cut from", machine.spec.name))?;
        looks += 1;
        let restarted = machine.console.lines.wait(from, Duration::ZERO, |line| line.text.contains("BdsDxe").then_some(()));
        Ok(if let Waited::Found((), at) = restarted { Some(at) } else { None })
    })?;
    hold(self::digest(site, bound)? == *digest, || format!("the disk that {} was cut from is another", machine.spec.name))?;
    Ok((from, looks))
}

/// When the server last changed it, to the nanosecond.
fn changed(site: &Site, environment: &EnvironmentView) -> Result<String> {
    site.rack.machine(CENTER)?.run(&format!("stat -c '%.Y %.Z' {}", disk(environment)))
}

/// What the server has, whatever clients believe.
fn digest(site: &Site, environment: &EnvironmentView) -> Result<String> {
    site.rack.machine(CENTER)?.run(&format!("sha256sum {}", disk(environment)))
}

fn disk(environment: &EnvironmentView) -> String {
    format!("{}/{}/{}", paths::SHARE_DATA, share::environment(environment.id), share::DISK)
}

/// The environments of a node whose agent hangs work on and answer; they are given to others all the same, once init has restarted the
/// node: nobody vouches for them.
fn agent_stops(bench: &mut Bench) -> Result<()> {
    let site = bench.site()?;
    let mut scene = Scene::set(site, "hung1")?;
    scene.note(site)?;
    let victim = scene.victim.clone();
    let machine = site.rack.machine(&victim)?;
    let from = machine.now();
    machine.run(&format!("kill -STOP {}", agent_pid(machine)?))?;
    let since = Instant::now();
    fenced(site, &victim)?;
    machine.wait_text(from, "nobody vouches", super::RESTART)?;
    let from = restarts(machine, from)?;
    let takeover = scene.taken_over(site, since)?;
    scene.back(site, from)?;
    let told = timeline(site, &format!("the agent of {victim} stopped"), &takeover);
    scene.strike(site)?;
    bench.say(told.trim_end());
    Ok(())
}
