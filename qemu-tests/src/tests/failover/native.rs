//! The promise of a machine that is not emulated: a node's environments serve again within 15 seconds of its last sign of life. The
//! patience of a cluster of such machines is set for it, and where they are emulated all the same the promise is held to them as well.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use lodge_model::incident::Step;

use super::{BOOT_LIMIT, Scene, newest, ready_in_center, timeline};
use crate::{
    scenario::{Site, hold},
    tests::{Bench, ask_until},
};

/// From the last sign of life until it answers, by the center's clock.
const PROMISED: Duration = Duration::from_secs(15);

pub fn run(bench: &mut Bench) -> Result<()> {
    let site = bench.site()?;
    let mut scene = Scene::set(site, "native1")?;
    scene.note(site)?;
    let victim = scene.victim.clone();
    let known = newest(site, &victim)?.map(|incident| incident.id);
    site.operator.lodge(&["cluster", "set", "--patience", "1"])?;
    let since = Instant::now();
    site.rack.machine_mut(&victim)?.switch_off();
    let took = reachable(site, &victim, known);
    // Emulated machines stall for longer than that: nobody else is to be suspected.
    site.operator.lodge(&["cluster", "set", "--patience", &site.rack.host.patience().to_string()])?;
    let took = took?;
    let takeover = scene.taken_over(site, since)?;
    let told = timeline(site, &format!("{victim} lost power, at the patience of a native machine"), &takeover);
    bench.say(told.trim_end());
    let site = bench.site()?;
    let machine = site.rack.machine_mut(&victim)?;
    let from = machine.now();
    machine.switch_on()?;
    machine.wait_ready(from, BOOT_LIMIT)?;
    ready_in_center(site, &victim)?;
    scene.strike(site)?;
    let limit = site.rack.host.scale(PROMISED);
    hold(took <= limit, || format!("it answered {:.1} s after the last sign of life, not within {limit:?}", took.as_secs_f64()))
}

/// Time from the last sign of life until it is reached elsewhere, in an incident after the one that is known.
fn reachable(site: &Site, node: &str, known: Option<u64>) -> Result<Duration> {
    let limit = site.rack.host.scale(super::TAKEOVER);
    ask_until(limit, "an answer from elsewhere", || {
        let Some(incident) = newest(site, node)?.filter(|incident| Some(incident.id) != known) else { return Ok(None) };
        let at = |step: Step| incident.timeline.iter().find(|entry| entry.step == step).map(|entry| entry.at);
        let Some(reached) = at(Step::Reachable) else { return Ok(None) };
        let last = at(Step::LastSign).context("the incident does not begin with a last sign of life")?;
        Ok(Some(reached.duration_since(last).unsigned_abs()))
    })
}
