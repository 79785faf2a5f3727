//! What goes wrong in the middle of a drain: it is cancelled, its target dies, its source dies, the center is killed at five different
//! moments; there is no room; the share's server is frozen; the center is away. No environment ever runs twice, none is lost.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use lodge_model::{
    api::NodeState,
    drain::{DrainState, DrainView, Verdict},
    environment::view::Phase,
};

use super::{Bench, ask_until, crowd::Crowd, install::BOOT_LIMIT, ready_in_center};
use crate::{
    hosting::{Hosting, Wanted},
    rack::CENTER,
    scenario::{Site, hold},
};

/// Every environment runs again within this of the trouble on the reference machine, a takeover included.
const AGAIN: Duration = Duration::from_secs(300);
/// What the issue allows beyond the deadline.
const BEYOND: Duration = Duration::from_secs(30);

/// Cancelled, target dies, source dies: on three nodes.
pub fn middle(bench: &mut Bench) -> Result<()> {
    let site = bench.wide(3)?;
    let hosting = Hosting::prepare(&site.rack, &site.operator)?;
    let crowd = Crowd::on(site, &hosting, "node1", "mid", 6, "64M")?;
    crowd.write(site, 0..6, "0.5")?;
    let cancelled = cancelled(site, &crowd)?;
    let target = target_dies(site, &crowd)?;
    let source = source_dies(site, &crowd)?;
    let epochs = crowd.whole(site, 0..6)?;
    crowd.destroy(site)?;
    bench.say(&format!("  {cancelled}\n  {target}\n  {source}\n  journals whole, epochs {epochs:?}"));
    Ok(())
}

fn cancelled(site: &Site, crowd: &Crowd) -> Result<String> {
    site.operator.lodge(&["node", "drain", "node1", "--no-wait"])?;
    under_way(site, "node1")?;
    site.operator.lodge(&["node", "drain", "node1", "--cancel"])?;
    let views = crowd.until(site, "all running after the drain was cancelled", |found| found.moving.is_none())?;
    let stayed = views.iter().filter(|found| found.node.as_deref() == Some("node1")).count();
    hold((1..6).contains(&stayed), || format!("{stayed} of 6 stayed"))?;
    Ok(format!("cancelled in the middle: {stayed} of 6 stayed, the others had begun and moved"))
}

fn target_dies(site: &mut Site, crowd: &Crowd) -> Result<String> {
    site.operator.lodge(&["node", "drain", "node1", "--no-wait"])?;
    let view = under_way(site, "node1")?;
    let is_on_its_way = |verdict| matches!(verdict, Verdict::Stopping | Verdict::Starting);
    let target = view.items.iter().find(|item| is_on_its_way(item.verdict)).and_then(|item| item.to.clone());
    let target = target.context("nothing is on its way")?;
    site.rack.machine_mut(&target)?.switch_off();
    let since = Instant::now();
    let limit = site.rack.host.scale(AGAIN);
    let elsewhere = |node: Option<&str>| node.is_some() && node != Some("node1") && node != Some(target.as_str());
    ask_until(limit, "all running on the third node", || {
        let views = crowd.views(site)?;
        Ok(views.iter().all(|found| found.phase == Phase::Running && elsewhere(found.node.as_deref())).then_some(()))
    })
    .with_context(|| site.operator.lodge(&["env", "ls"]).unwrap_or_default())?;
    let took = since.elapsed().as_secs();
    on_again(site, &target)?;
    site.operator.lodge(&["node", "undrain", "node1"])?;
    Ok(format!("{target} died as a target: all ran on the third node {took} s later"))
}

fn source_dies(site: &mut Site, crowd: &Crowd) -> Result<String> {
    let views = crowd.views(site)?;
    let source = views.first().and_then(|found| found.node.clone()).context("it runs nowhere")?;
    site.operator.lodge(&["node", "drain", &source, "--no-wait"])?;
    under_way(site, &source)?;
    site.rack.machine_mut(&source)?.switch_off();
    let since = Instant::now();
    ask_until(site.rack.host.scale(AGAIN), "all running elsewhere", || {
        let is_there = |node: Option<&str>| node.is_some() && node != Some(source.as_str());
        let views = crowd.views(site)?;
        Ok(views.iter().all(|found| found.phase == Phase::Running && is_there(found.node.as_deref())).then_some(()))
    })
    .with_context(|| site.operator.lodge(&["env", "ls"]).unwrap_or_default())?;
    let took = since.elapsed().as_secs();
    on_again(site, &source)?;
    site.operator.lodge(&["node", "undrain", &source])?;
    Ok(format!("{source} died as a source: all ran elsewhere {took} s later"))
}

fn on_again(site: &mut Site, name: &str) -> Result<()> {
    let machine = site.rack.machine_mut(name)?;
    let from = machine.now();
    machine.switch_on()?;
    machine.wait_ready(from, BOOT_LIMIT)?;
    ready_in_center(site, name).map(drop)
}

/// The center answers once init has started it again.
fn answers_again(site: &Site) -> Result<()> {
    ask_until(site.rack.host.scale(AGAIN), "the center again", || Ok(site.operator.nodes().ok().map(drop)))
}

/// Wait until something is on its way.
fn under_way(site: &Site, node: &str) -> Result<DrainView> {
    until(site, node, "something on its way", |view| {
        view.items.iter().any(|item| matches!(item.verdict, Verdict::Stopping | Verdict::Starting))
    })
}

fn until(site: &Site, node: &str, what: &str, is_so: impl Fn(&DrainView) -> bool) -> Result<DrainView> {
    ask_until(site.rack.host.scale(AGAIN), &format!("the drain of {node}: {what}"), || {
        Ok(site.operator.drain(node)?.filter(|view| is_so(view)))
    })
}

/// The moments at which the center is killed, as the drain shows them.
type Moment = (&'static str, fn(&DrainView) -> bool);

const MOMENTS: [Moment; 5] = [
    ("as soon as it is ordered", |_| true),
    ("when the first is being stopped", |view| view.items.iter().any(|item| item.verdict == Verdict::Stopping)),
    ("when the first is being started", |view| view.items.iter().any(|item| item.verdict == Verdict::Starting)),
    ("when the first has moved", |view| view.items.iter().any(|item| item.verdict == Verdict::Moved)),
    ("when all have left", |view| {
        matches!(view.state, DrainState::Certifying | DrainState::Drained)
            || view.items.iter().filter(|item| item.verdict != Verdict::Moved).count() <= 1
    }),
];

/// The center is killed in the middle of a drain, at five different moments.
pub fn center_killed(bench: &mut Bench) -> Result<()> {
    let site = bench.pair()?;
    let hosting = Hosting::prepare(&site.rack, &site.operator)?;
    let names = site.node_names();
    let (mut leaves, mut takes) = (names[0].clone(), names[1].clone());
    let crowd = Crowd::on(site, &hosting, &leaves, "kill", 4, "64M")?;
    crowd.write(site, 0..4, "0.5")?;
    site.operator.lodge(&["cluster", "set", "--moves-per-source", "2"])?;
    let mut told = String::new();
    for (what, is_it) in MOMENTS {
        site.operator.lodge(&["node", "drain", &leaves, "--no-wait"])?;
        until(site, &leaves, what, is_it)?;
        let center = site.rack.machine(CENTER)?;
        center.run("kill -9 $(pidof center)").context("killing the center")?;
        let since = Instant::now();
        answers_again(site)?;
        crowd.until(site, &format!("all on {takes}"), |found| found.node.as_deref() == Some(&takes))?;
        until(site, &leaves, "its certificate", |view| view.state == DrainState::Drained)?;
        told += &format!("  the center killed {what}: drained {} s later\n", since.elapsed().as_secs());
        site.operator.lodge(&["node", "undrain", &leaves])?;
        std::mem::swap(&mut leaves, &mut takes);
    }
    let epochs = crowd.whole(site, 0..4)?;
    hold(epochs.iter().all(|epochs| *epochs == 6), || format!("each was to start six times: {epochs:?}"))?;
    site.operator.lodge(&["cluster", "set", "--moves-per-source", "4"])?;
    crowd.destroy(site)?;
    bench.say(&format!("{told}  journals whole, each of six epochs"));
    Ok(())
}

/// No room anywhere: nothing is stopped until the deadline; then everything is, cleanly, and it starts again when there is room.
pub fn no_room(bench: &mut Bench) -> Result<()> {
    let site = bench.pair()?;
    let hosting = Hosting::prepare(&site.rack, &site.operator)?;
    let names = site.node_names();
    let (full, other) = (names[0].clone(), names[1].clone());
    let crowd = Crowd::on(site, &hosting, &full, "stay", 2, "200M")?;
    crowd.write(site, 0..2, "0.5")?;
    let more = ["--node", other.as_str(), "--force"];
    hosting.create(&site.operator, &Wanted { name: "blocker", memory: "550M", more: &more })?;
    let view: DrainView = serde_json::from_str(&site.operator.lodge(&["node", "drain", &full, "--json", "--no-wait"])?)?;
    let named = view.items.iter().filter(|item| item.to.is_none() && item.reason.contains("not enough free memory")).count();
    hold(named == 2 && view.waits.contains("no node takes"), || format!("the plan does not say why: {view:?}"))?;
    let quiet = site.rack.host.scale(Duration::from_secs(15));
    let deadline = Instant::now() + quiet;
    while Instant::now() < deadline {
        let all_run = crowd.views(site)?.iter().all(|found| found.phase == Phase::Running && found.epoch == 1);
        hold(all_run, || "something was stopped although it can go nowhere".into())?;
        std::thread::sleep(Duration::from_secs(1));
    }
    site.operator.lodge(&["node", "drain", &full, "--deadline", "20s", "--no-wait"])?;
    let ended = until(site, &full, "ended by clean stops", |view| view.state == DrainState::Drained)?;
    let stopped = ended.items.iter().filter(|item| item.verdict == Verdict::Stopped).count();
    hold(stopped == 2, || format!("the verdicts are {:?}", ended.items))?;
    site.operator.lodge(&["env", "destroy", "blocker", "--yes", "--wait"])?;
    let views = crowd.until(site, &format!("all on {other}"), |found| found.node.as_deref() == Some(&other))?;
    let clean = views.iter().all(|found| found.last_exit.contains("shut down as asked"));
    hold(clean, || format!("they were not shut down cleanly: {views:?}"))?;
    let epochs = crowd.whole(site, 0..2)?;
    site.operator.lodge(&["node", "undrain", &full])?;
    crowd.destroy(site)?;
    bench.say(&format!("  waited with a reason, ended by clean stops at the deadline, started with room; epochs {epochs:?}"));
    Ok(())
}

/// The share's server, and the center with it, is frozen while a node with running environments is switched off by its UPS.
pub fn share_frozen(bench: &mut Bench) -> Result<()> {
    let site = bench.site()?;
    let hosting = Hosting::prepare(&site.rack, &site.operator)?;
    let node = site.node_names()[0].clone();
    site.operator.lodge(&["cluster", "set", "--ups-deadline", "60s"])?;
    let crowd = Crowd::on(site, &hosting, &node, "ice", 3, "64M")?;
    crowd.write(site, 0..3, "0.1")?;
    site.rack.machine(CENTER)?.freeze()?;
    let machine = site.rack.machine(&node)?;
    let from = machine.now();
    machine.run("kill -PWR 1")?;
    let since = Instant::now();
    let off = machine.wait_off(Duration::from_secs(600));
    let took = since.elapsed();
    site.rack.machine(CENTER)?.thaw()?;
    off?;
    let said: Vec<String> = site.rack.machine(&node)?.console.lines.read(from, |lines| {
        lines.iter().filter_map(|line| line.text.split_once("shutdown: ").map(|(_, said)| said.to_owned())).collect()
    });
    let limit = Duration::from_secs(60) + BEYOND;
    hold(took <= limit, || {
        format!("off after {:.0} s, not within {:.0} s:\n{}", took.as_secs_f64(), limit.as_secs_f64(), said.join("\n"))
    })?;
    hold(said.iter().any(|said| said.contains("unmounting /share")), || format!("the log does not tell it: {said:#?}"))?;
    let other = site.node_names()[1].clone();
    ready_in_center(site, &other)?;
    on_again(site, &node)?;
    crowd.until(site, "all running again", |_| true)?;
    let epochs = crowd.whole(site, 0..3)?;
    crowd.destroy(site)?;
    bench.say(&format!(
        "  off {:.0} s after SIGPWR with a deadline of 60 s; epochs {epochs:?}\n    {}",
        took.as_secs_f64(),
        said.join("\n    ")
    ));
    Ok(())
}

/// The center is away while a node is switched off: it waits for its deadline, stops what it runs, leaves its word on the share, and its
/// environments start elsewhere as soon as the center is back.
pub fn center_gone(bench: &mut Bench) -> Result<()> {
    let site = bench.pair()?;
    let hosting = Hosting::prepare(&site.rack, &site.operator)?;
    let names = site.node_names();
    let (node, other) = (names[0].clone(), names[1].clone());
    site.operator.lodge(&["cluster", "set", "--ups-deadline", "60s"])?;
    let crowd = Crowd::on(site, &hosting, &node, "word", 2, "64M")?;
    crowd.write(site, 0..2, "0.3")?;
    let center = site.rack.machine(CENTER)?;
    // It is killed, and does not start again: nothing waits for it in a socket when it does.
    let program = center.run("readlink -f /proc/$(pidof center)/exe")?.trim().to_owned();
    center.run(&format!("mount --bind /bin/false {program} && kill -9 $(pidof center)"))?;
    site.rack.machine(&node)?.run("kill -PWR 1")?;
    let since = Instant::now();
    let off = site.rack.machine(&node)?.wait_off(Duration::from_secs(300));
    let took = since.elapsed();
    center.run(&format!("umount {program}"))?;
    off?;
    answers_again(site)?;
    let back = Instant::now();
    hold(took <= Duration::from_secs(60) + BEYOND, || format!("off after {:.0} s", took.as_secs_f64()))?;
    crowd.until(site, &format!("all on {other}"), |found| found.node.as_deref() == Some(&other))?;
    let started = back.elapsed();
    let shown = site.operator.node(&node)?.node;
    hold(shown.state == NodeState::Off && shown.reason.contains("last word"), || format!("{node} is shown as {shown:?}"))?;
    let fenced = site.operator.incidents()?.iter().any(|incident| incident.name == node && incident.method.is_some());
    hold(!fenced, || "it was fenced, although its word was there".into())?;
    let epochs = crowd.whole(site, 0..2)?;
    on_again(site, &node)?;
    crowd.destroy(site)?;
    let (took, started) = (took.as_secs(), started.as_secs());
    bench.say(&format!(
        "  off after {took} s without a center, running elsewhere {started} s after it was back; epochs {epochs:?}"
    ));
    Ok(())
}
