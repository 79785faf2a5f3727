//! A node whose network is cut: from everybody, from the center alone, from the share alone. Each is another case, and each is told apart.

use std::{thread::sleep, time::Instant};

use anyhow::{Context, Result};
use lodge_model::{incident::Case, timing::Timing};

use super::{Scene, newest, restarts, timeline};
use crate::{
    machine::Machine,
    scenario::{Site, hold},
    switch::Cut,
    tests::{Bench, ask_until, ready_in_center},
};

pub fn run(bench: &mut Bench) -> Result<()> {
    from_everybody(bench).context("cut from everybody")?;
    from_the_center(bench).context("cut from the center")?;
    from_the_share(bench).context("cut from the share")
}

/// It takes its environments off the network, ends them and restarts by itself, and is let in when it is reached again.
fn from_everybody(bench: &mut Bench) -> Result<()> {
    let site = bench.site()?;
    let mut scene = Scene::set(site, "cut1")?;
    scene.note(site)?;
    let victim = scene.victim.clone();
    let machine = site.rack.machine(&victim)?;
    let from = machine.now();
    site.rack.switch().cut(&victim, Cut::Both)?;
    let since = Instant::now();
    let takeover = scene.taken_over(site, since)?;
    let from = restarts(machine, from)?;
    site.rack.switch().heal(&victim)?;
    scene.back(site, from)?;
    let told = timeline(site, &format!("{victim} was cut from everybody"), &takeover);
    scene.strike(site)?;
    bench.say(told.trim_end());
    Ok(())
}

/// It reaches the share: it works on, and nobody takes anything from it.
fn from_the_center(bench: &mut Bench) -> Result<()> {
    let site = bench.site()?;
    let scene = Scene::set(site, "cut2")?;
    let victim = scene.victim.clone();
    let machine = site.rack.machine(&victim)?;
    drop_port(machine, 8443)?;
    let case = has_case(site, &victim, Case::CenterCut)?;
    sleep(Timing::new(site.rack.host.patience()).give_up);
    scene.holds(site)?;
    undo(machine)?;
    ready_in_center(site, &victim)?;
    scene.undisturbed(site)?;
    scene.strike(site)?;
    bench.say(&format!("  {victim} was cut from the center: {case}"));
    Ok(())
}

/// The center hears it, and that others have the share: it is fenced, told so, and restarts.
fn from_the_share(bench: &mut Bench) -> Result<()> {
    let site = bench.site()?;
    let mut scene = Scene::set(site, "cut3")?;
    scene.note(site)?;
    let victim = scene.victim.clone();
    let machine = site.rack.machine(&victim)?;
    let from = machine.now();
    drop_port(machine, 2049)?;
    let since = Instant::now();
    let takeover = scene.taken_over(site, since)?;
    hold(takeover.incident.case == Case::ShareLost, || format!("told as {:?}", takeover.incident.case))?;
    let from = restarts(machine, from)?;
    scene.back(site, from)?;
    let told = timeline(site, &format!("{victim} was cut from the share"), &takeover);
    scene.strike(site)?;
    bench.say(told.trim_end());
    Ok(())
}

/// Until its next boot the machine neither sends to a port nor hears from it.
fn drop_port(machine: &Machine, port: u16) -> Result<()> {
    let table = "table inet cut { chain out { type filter hook output priority 0; tcp dport PORT drop; }; \
                 chain in { type filter hook input priority 0; tcp sport PORT drop; }; }";
    machine.run(&format!("nft '{}'", table.replace("PORT", &port.to_string()))).map(drop)
}

fn undo(machine: &Machine) -> Result<()> {
    machine.run("nft delete table inet cut").map(drop)
}

/// What is said of the node, once it is told as this case.
fn has_case(site: &Site, node: &str, case: Case) -> Result<String> {
    ask_until(site.rack.host.scale(super::TAKEOVER), &format!("{node} told as {case:?}"), || {
        let incident = newest(site, node)?.filter(|incident| incident.closed.is_none() && incident.case == case);
        Ok(incident.map(|incident| format!("{}; {}", case.words(), incident.waits)))
    })
}
