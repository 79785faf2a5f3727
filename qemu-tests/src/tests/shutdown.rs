//! Going down in order: inhibitors on the bus hold or delay it, the power button starts it, the log shows its order.

use std::time::Duration;

use anyhow::{Context, Result};
use lodge_model::api::NodeState;

use super::{Bench, ask_until, install::BOOT_LIMIT, ready_in_center};
use crate::{
    feed::Waited,
    machine::Machine,
    scenario::{Site, hold},
};

const LOGIN1: &str = "org.freedesktop.login1 /org/freedesktop/login1 org.freedesktop.login1.Manager";
/// A shutdown in order is done within this, on the reference machine.
const DOWN: Duration = Duration::from_secs(60);
/// A held shutdown shows nothing for this long: longer than any delay inhibitor may hold it.
const QUIET: Duration = Duration::from_secs(10);

pub fn run(bench: &mut Bench) -> Result<()> {
    let site = bench.site()?;
    let names = site.node_names();
    let (first, second) = (names.first().context("no node")?.clone(), names.get(1).context("no second node")?.clone());
    let node = site.rack.machine(&first)?;
    bus_name_is_there(node)?;
    block_holds(node)?;
    let delay = delay_delays(node)?;
    node.wait_off(DOWN)?;
    let button = site.rack.machine(&second)?;
    let from = button.now();
    button.press_power_button()?;
    button.wait_off(DOWN)?;
    in_order(button, from)?;
    told_the_center(site, &[&first, &second])?;
    back_again(site, &[&first, &second])?;
    bench.say(&format!("a delay inhibitor delayed the shutdown by {delay} s"));
    Ok(())
}

fn bus_name_is_there(node: &Machine) -> Result<()> {
    let names = node.run("busctl --system --no-legend --no-pager list")?;
    let there = names.lines().any(|line| line.starts_with("org.freedesktop.login1 "));
    hold(there, || format!("busctl does not see org.freedesktop.login1 on {}: {names}", node.spec.name))?;
    node.run(&format!("busctl --system call {LOGIN1} ListInhibitors")).map(drop)
}

/// Hold a lock in the background until its file is removed; returns once the bus lists it.
fn take_lock(node: &Machine, mode: &str) -> Result<()> {
    node.run(&format!(
        "touch /run/hold-{mode}; (setsid systemd-inhibit --what=shutdown --who=rack --why=test --mode={mode} \
         sh -c 'while test -e /run/hold-{mode}; do sleep 1; done' >/dev/null 2>&1 </dev/null &)"
    ))?;
    node.run(&format!(
        "n=0; until busctl --system call {LOGIN1} ListInhibitors | grep -q '\"{mode}\"'; do \
         n=$((n+1)); test $n -lt 60 || exit 1; sleep 0.5; done"
    ))
    .with_context(|| format!("taking a {mode} lock"))
    .map(drop)
}

/// A `PowerOff` is refused or waits while a block lock is held: the machine does not go down.
fn block_holds(node: &Machine) -> Result<()> {
    take_lock(node, "block")?;
    let from = node.now();
    let said = node.shell()?.try_run(&format!("busctl --system call {LOGIN1} PowerOff b false"), DOWN)?;
    hold(said.status != 0, || "PowerOff went through in spite of a block lock".to_owned())?;
    let down = node.console.lines.wait(from, QUIET, |line| going_down(&line.text).then_some(()));
    hold(matches!(down, Waited::TimedOut) && node.is_on(), || "the machine went down in spite of a block lock".to_owned())?;
    node.run("rm /run/hold-block")?;
    node.run(&format!(
        "n=0; while busctl --system call {LOGIN1} ListInhibitors | grep -q '\"block\"'; do \
         n=$((n+1)); test $n -lt 60 || exit 1; sleep 0.5; done"
    ))
    .context("letting the block lock go")
    .map(drop)
}

/// A `PowerOff` waits for a delay lock, up to its limit, and then goes through. Returns the seconds it waited.
fn delay_delays(node: &Machine) -> Result<u64> {
    take_lock(node, "delay")?;
    let from = node.now();
    let asked = std::time::Instant::now();
    node.run(&format!("busctl --system call {LOGIN1} PowerOff b false"))?;
    let what = "that services are being stopped";
    node.wait_from(from, what, DOWN, |line| stopping_services(&line.text).then_some(()))?;
    let delay = asked.elapsed().as_secs();
    let least = lodge_model::timing::INHIBIT_DELAY_MAX.as_secs() - 1;
    hold(delay >= least, || format!("a delay lock that was never let go held the shutdown for {delay} s only"))?;
    Ok(delay)
}

/// Everything that init says about going down.
const SAYS: &str = "shutdown: ";

fn going_down(text: &str) -> bool {
    text.contains(SAYS)
}

fn stopping_services(text: &str) -> bool {
    text.contains("shutdown: stopping ")
}

/// What init says, in this order: the agent before the share, the share while the network is up, state after every service.
const ORDER: [&str; 7] = [
    "poweroff, by the power button",
    "stopping agent",
    "unmounting the share",
    "stopping network",
    "stopping dbus",
    "unmounting the state",
    "switching the machine off",
];

fn in_order(node: &Machine, from: usize) -> Result<()> {
    let said: Vec<String> = node.console.lines.read(from, |lines| {
        let said = lines.iter().filter_map(|line| line.text.split_once(SAYS));
        said.map(|(_, said)| said.to_owned()).collect()
    });
    let mut at = 0;
    for what in ORDER {
        let found = said.iter().skip(at).position(|line| line.starts_with(what));
        let found = found.with_context(|| format!("the log does not show {what:?} in its place:\n{}", said.join("\n")))?;
        at += found + 1;
    }
    Ok(())
}

/// The center shows them as off, not as lost.
fn told_the_center(site: &Site, names: &[&str]) -> Result<()> {
    ask_until(site.rack.host.scale(Duration::from_secs(5)), "nodes shown as off", || {
        let nodes = site.operator.nodes()?;
        let off = nodes.iter().filter(|node| names.contains(&node.name.as_str()) && node.state == NodeState::Off).count();
        Ok((off == names.len()).then_some(()))
    })
}

fn back_again(site: &mut Site, names: &[&str]) -> Result<()> {
    let mut marks = Vec::new();
    for name in names {
        let machine = site.rack.machine_mut(name)?;
        marks.push(machine.now());
        machine.switch_on()?;
    }
    for (name, from) in names.iter().zip(marks) {
        site.rack.machine(name)?.wait_ready(from, BOOT_LIMIT)?;
        ready_in_center(site, name)?;
    }
    Ok(())
}
