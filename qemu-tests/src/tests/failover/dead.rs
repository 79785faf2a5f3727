//! A node that is dead at once: its power is gone, or its kernel has crashed.

use std::time::Instant;

use anyhow::{Result, bail};

use super::{BOOT_LIMIT, Scene, timeline};
use crate::{
    feed::Waited,
    scenario::hold,
    tests::{Bench, ready_in_center},
};

/// Its power is gone.
pub fn power(bench: &mut Bench) -> Result<()> {
    let site = bench.site()?;
    let mut scene = Scene::set(site, "dead1")?;
    scene.note(site)?;
    let since = Instant::now();
    let victim = scene.victim.clone();
    site.rack.machine_mut(&victim)?.switch_off();
    let takeover = scene.taken_over(site, since)?;
    let told = timeline(site, &format!("{victim} lost power"), &takeover);
    let machine = site.rack.machine_mut(&victim)?;
    let from = machine.now();
    machine.switch_on()?;
    scene.back(site, from)?;
    let stays = site.operator.environment("dead1")?;
    hold(stays.node == takeover.there.node && stays.epoch == takeover.there.epoch, || format!("it moved back: {stays:?}"))?;
    scene.strike(site)?;
    bench.say(told.trim_end());
    Ok(())
}

/// A kernel that has crashed restarts by itself: whichever is first, its new boot or the fence, ends the old one.
pub fn crash(bench: &mut Bench) -> Result<()> {
    let site = bench.site()?;
    let mut scene = Scene::set(site, "crash1")?;
    scene.note(site)?;
    let (victim, epoch) = (scene.victim.clone(), scene.made.epoch);
    let machine = site.rack.machine(&victim)?;
    let from = machine.now();
    machine.run("(sleep 1; echo c > /proc/sysrq-trigger) >/dev/null 2>&1 &")?;
    let limit = site.rack.host.scale(super::RESTART);
    let panic = machine.console.lines.wait(from, limit, |line| line.text.contains("Kernel panic").then_some(()));
    let Waited::Found((), from) = panic else { bail!("{victim} did not crash") };
    let since = Instant::now();
    // The panic is on the console: the wait for what comes after it begins behind it.
    let ready = machine.console.lines.wait(from, site.rack.host.scale(BOOT_LIMIT), |line| line.progress().filter(is_ready));
    hold(matches!(ready, Waited::Found(..)), || format!("{victim} did not come back after its kernel crashed"))?;
    ready_in_center(site, &victim)?;
    let there = super::until(site, "crash1", "running again", |found| {
        found.phase == lodge_model::environment::view::Phase::Running && found.epoch > epoch
    })?;
    let took = since.elapsed().as_secs_f64();
    scene.whole(site)?;
    let journal = super::Journal::start(site, &there)?;
    journal.more(site, super::LINES)?;
    scene.journals.push(journal);
    scene.strike(site)?;
    let node = there.node.unwrap_or_default();
    bench.say(&format!("  {victim}: kernel crashed; all lines there on {node}, {took:.1} s later"));
    Ok(())
}

fn is_ready(progress: &lodge_model::progress::Progress) -> bool {
    matches!(progress, lodge_model::progress::Progress::Ready(_))
}
