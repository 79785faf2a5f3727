//! The promise of machines that are not emulated: a node's environments serve again within 15 seconds of its last sign of life. The
//! patience of such machines is set for it. What is waited for by the clock takes as long on machines that are emulated; what processors
//! do takes longer there, and only that is scaled.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use lodge_model::incident::Step;

use super::{BOOT_LIMIT, Scene, newest, ready_in_center, timeline};
use crate::{
    accel::{Accel, Host},
    scenario::{Site, hold},
    tests::{Bench, ask_until},
};

/// From the last sign of life until its environments are given to others, by the center's clock: silence, proofs, fence.
const DECIDED: Duration = Duration::from_secs(11);
/// From then until they answer: what remains of the 15 seconds.
const STARTED: Duration = Duration::from_secs(4);
/// How many times longer processors take for it on the reference machine, which emulates, than on one that does not: at least.
const EMULATED: f64 = 3.0;

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
    let [decided, started] = took;
    bench.say(&format!("    decided in {:.1} s, then answering in {:.1} s", decided.as_secs_f64(), started.as_secs_f64()));
    let limit = work_limit(&bench.site()?.rack.host);
    hold(decided <= DECIDED, || format!("given to others {decided:?} after the last sign of life, not within {DECIDED:?}"))?;
    hold(started <= limit, || format!("answering {started:?} after it was given to another node, not within {limit:?}"))
}

fn work_limit(host: &Host) -> Duration {
    match host.accel {
        Accel::Kvm => STARTED,
        Accel::Tcg => host.scale(STARTED.mul_f64(EMULATED)),
    }
}

/// Times from the last sign of life until it is given to another node, and from then until it is reached there, in an incident after the
/// one that is known.
fn reachable(site: &Site, node: &str, known: Option<u64>) -> Result<[Duration; 2]> {
    let limit = site.rack.host.scale(super::TAKEOVER);
    ask_until(limit, "an answer from elsewhere", || {
        let Some(incident) = newest(site, node)?.filter(|incident| Some(incident.id) != known) else { return Ok(None) };
        let at = |step: Step| incident.timeline.iter().find(|entry| entry.step == step).map(|entry| entry.at);
        let Some(reached) = at(Step::Reachable) else { return Ok(None) };
        let (last, placed) =
            at(Step::LastSign).zip(at(Step::Placed)).context("the incident does not tell how it came to that")?;
        Ok(Some([placed.duration_since(last).unsigned_abs(), reached.duration_since(placed).unsigned_abs()]))
    })
}
