//! The center is killed after it has stored that a node is to be fenced, and before the fence is confirmed.

use std::time::Instant;

use anyhow::{Context, Result};
use lodge_model::incident::Step;

use super::{Scene, newest, timeline};
use crate::{
    rack::CENTER,
    scenario::hold,
    tests::{Bench, ask_until},
};

pub fn run(bench: &mut Bench) -> Result<()> {
    let site = bench.site()?;
    let mut scene = Scene::set(site, "intent1")?;
    scene.note(site)?;
    let victim = scene.victim.clone();
    let center = site.rack.machine(CENTER)?;
    // The share node's packet filter fails: the fence is ordered, and cannot be confirmed.
    center.run("mount --bind /bin/false /usr/sbin/nft")?;
    let since = Instant::now();
    site.rack.machine_mut(&victim)?.switch_off();
    let ordered = ask_until(site.rack.host.scale(super::TAKEOVER), "a fence that fails", || {
        let has_failed = |step: Step| step == Step::FenceFailed;
        Ok(newest(site, &victim)?.filter(|incident| incident.timeline.iter().any(|entry| has_failed(entry.step))))
    })?;
    hold(ordered.method.is_none(), || format!("fenced without a packet filter: {ordered:?}"))?;
    let waits = site.operator.environment("intent1")?;
    hold(waits.epoch == scene.made.epoch, || format!("given away before the fence was confirmed: {waits:?}"))?;
    let center = site.rack.machine(CENTER)?;
    let killed = center.run("pid=$(pidof center); kill -9 $pid; echo $pid").context("killing the center")?;
    center.run("umount /usr/sbin/nft")?;
    let limit = site.rack.host.scale(super::TAKEOVER);
    ask_until(limit, "the center again", || Ok(site.operator.nodes().ok().map(drop)))?;
    let takeover = scene.taken_over(site, since)?;
    hold(center.run("pidof center")? != killed, || "the center was not killed".into())?;
    let told = timeline(site, &format!("{victim} lost power, and the center was killed before the fence"), &takeover);
    let machine = site.rack.machine_mut(&victim)?;
    let from = machine.now();
    machine.switch_on()?;
    scene.back(site, from)?;
    scene.strike(site)?;
    bench.say(told.trim_end());
    Ok(())
}
