//! The share's server is restarted, which is no reason to take anything over; and the power of the whole site goes at once and comes back.

use std::{
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::Result;
use lodge_model::environment::view::Phase;

use super::{BOOT_LIMIT, Journal, LINES, Scene, until};
use crate::{
    rack::CENTER,
    scenario::hold,
    tests::{Bench, ready_in_center},
};

/// The server serves nobody for so long: longer than any lease.
const DOWN: Duration = Duration::from_secs(40);

pub fn run(bench: &mut Bench) -> Result<()> {
    share_is_restarted(bench)?;
    everything_goes_off(bench)
}

fn share_is_restarted(bench: &mut Bench) -> Result<()> {
    let site = bench.site()?;
    let scene = Scene::set(site, "restart1")?;
    let center = site.rack.machine(CENTER)?;
    center.run("rpc.nfsd 0")?;
    sleep(DOWN);
    center.run("init restart nfsd")?;
    scene.undisturbed(site)?;
    let cases: Vec<_> = site.operator.incidents()?.into_iter().filter(|incident| incident.closed.is_none()).collect();
    hold(cases.iter().all(|incident| incident.method.is_none()), || format!("somebody was fenced: {cases:?}"))?;
    scene.strike(site)?;
    bench.say(&format!("  the share served nobody for {} s: nobody was fenced, nothing was started again", DOWN.as_secs()));
    Ok(())
}

fn everything_goes_off(bench: &mut Bench) -> Result<()> {
    let site = bench.site()?;
    let mut scene = Scene::set(site, "power1")?;
    scene.note(site)?;
    let names: Vec<String> = [CENTER.to_owned()].into_iter().chain(site.node_names()).collect();
    for name in &names {
        site.rack.machine_mut(name)?.switch_off();
    }
    let since = Instant::now();
    let mut from = Vec::new();
    for name in &names {
        let machine = site.rack.machine_mut(name)?;
        from.push(machine.now());
        machine.switch_on()?;
    }
    for (name, from) in names.iter().zip(from) {
        site.rack.machine(name)?.wait_ready(from, BOOT_LIMIT)?;
        ready_in_center(site, name)?;
    }
    let there =
        until(site, "power1", "running again", |found| found.phase == Phase::Running && found.epoch > scene.made.epoch)?;
    let took = since.elapsed().as_secs_f64();
    scene.whole(site)?;
    let journal = Journal::start(site, &there)?;
    journal.more(site, LINES)?;
    scene.journals.push(journal);
    scene.strike(site)?;
    bench.say(&format!("  all power gone at once: everything ready and running again {took:.1} s later, all lines there"));
    Ok(())
}
