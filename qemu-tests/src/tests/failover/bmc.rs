//! A hung node is switched off by its BMC: to make sure, where the share node has cut it off already; and as the only proof there is, where
//! the share node cannot. Each time it is switched on again, and comes back by itself.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use lodge_model::incident::{IncidentView, Method, Step};

use super::{Scene, newest, timeline};
use crate::{
    bmc::{Bmcs, PASSWORD, URL, USER},
    rack::CENTER,
    scenario::{Site, hold},
    tests::{Bench, ask_until},
};

/// A BMC is waited for this long, on the reference machine.
const SWITCHED: Duration = Duration::from_secs(90);

pub fn run(bench: &mut Bench) -> Result<()> {
    let site = bench.site()?;
    let bmcs = site.rack.start_bmcs()?;
    let told = tell_the_center(site, &bmcs).context("telling the center of the BMCs")?;
    bench.say(&told);
    hung(bench, &bmcs).context("a hung node")?;
    share_cannot(bench, &bmcs).context("a hung node, and a share node that cannot cut it off")?;
    let site = bench.site()?;
    for node in site.node_names() {
        site.operator.lodge(&["node", "bmc", "rm", &node, "--yes"])?;
    }
    Ok(())
}

/// Its certificate has to be vouched for, the password has to be right, and the system has to be that machine.
fn tell_the_center(site: &Site, bmcs: &Bmcs) -> Result<String> {
    let file = site.rack.dir.join("bmc-password");
    std::fs::write(&file, PASSWORD).context("writing a password")?;
    let file = file.display().to_string();
    let set = |node: &str, system: &str, more: &[&str]| {
        let fixed = ["node", "bmc", "set", node, "--url", URL, "--user", USER, "--password-file", &file, "--system", system];
        site.operator.try_lodge(&[&fixed[..], more].concat())
    };
    let refused = |node: &str, system: &str, more: &[&str], wanted: &str| {
        let output = set(node, system, more)?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        hold(output.status.code() == Some(6) && said.contains(wanted), || format!("expected {wanted:?}: {said}"))
    };
    let known = ["--fingerprint", bmcs.fingerprint.as_str()];
    refused("node1", "node1", &[], &bmcs.fingerprint)?;
    refused("node1", "node2", &known, "switching it off would hit another machine")?;
    refused("node1", "node9", &known, "no system node9")?;
    let mut told = String::new();
    for node in site.node_names() {
        let output = set(&node, &node, &known)?;
        hold(output.status.success(), || format!("{node}: {}", String::from_utf8_lossy(&output.stderr)))?;
        let shown = site.operator.lodge(&["node", "bmc", "show", &node, "--json"])?;
        hold(!shown.contains(PASSWORD), || format!("the password is shown: {shown}"))?;
        let test = site.operator.lodge(&["node", "bmc", "test", &node])?;
        hold(test.contains("On") && test.contains("ForceOff"), || test.clone())?;
        told += &format!("  {node}: {}\n", test.split_whitespace().collect::<Vec<_>>().join(" "));
    }
    hold(bmcs.orders().is_empty(), || format!("a test has switched something: {:?}", bmcs.orders()))?;
    Ok(told.trim_end().to_owned())
}

/// The share node is first; the machine, which would stay hung, is reset by its BMC, and comes back.
fn hung(bench: &mut Bench, bmcs: &Bmcs) -> Result<()> {
    let site = bench.site()?;
    let mut scene = Scene::set(site, "hung2")?;
    scene.note(site)?;
    let victim = scene.victim.clone();
    let machine = site.rack.machine(&victim)?;
    let from = machine.now();
    machine.freeze()?;
    let since = Instant::now();
    let mut takeover = scene.taken_over(site, since)?;
    takeover.incident = switched_on_again(site, bmcs, &victim)?;
    hold(takeover.incident.method == Some(Method::Share), || format!("{:?}", takeover.incident))?;
    scene.back(site, from)?;
    let told = timeline(site, &format!("{victim} hung"), &takeover);
    scene.strike(site)?;
    bench.say(told.trim_end());
    Ok(())
}

/// With a packet filter that fails the share node cannot: nothing is given away before the machine is off, and then it is.
fn share_cannot(bench: &mut Bench, bmcs: &Bmcs) -> Result<()> {
    let site = bench.site()?;
    let mut scene = Scene::set(site, "hung3")?;
    scene.note(site)?;
    let victim = scene.victim.clone();
    let before = bmcs.orders().len();
    site.rack.machine(CENTER)?.run("mount --bind /bin/false /usr/sbin/nft")?;
    let machine = site.rack.machine(&victim)?;
    let from = machine.now();
    machine.freeze()?;
    let since = Instant::now();
    let takeover = scene.taken_over(site, since);
    site.rack.machine(CENTER)?.run("umount /usr/sbin/nft")?;
    let mut takeover = takeover?;
    let incident = &takeover.incident;
    hold(incident.method == Some(Method::Bmc) && has(incident, Step::FenceFailed), || format!("{incident:?}"))?;
    hold(bmcs.orders()[before..].contains(&format!("{victim} ForceOff")), || format!("{:?}", bmcs.orders()))?;
    takeover.incident = switched_on_again(site, bmcs, &victim)?;
    scene.back(site, from)?;
    let told = timeline(site, &format!("{victim} hung, and {CENTER} could not cut it off"), &takeover);
    scene.strike(site)?;
    bench.say(told.trim_end());
    Ok(())
}

/// Off and on, once each, and the machine does what was said.
fn switched_on_again(site: &Site, bmcs: &Bmcs, victim: &str) -> Result<IncidentView> {
    let machine = site.rack.machine(victim)?;
    let incident = ask_until(site.rack.host.scale(SWITCHED), &format!("{victim} switched off and on"), || {
        Ok(newest(site, victim)?.filter(|incident| has(incident, Step::SwitchedOn)))
    })?;
    let said = |word: &str| incident.timeline.iter().any(|entry| entry.step == Step::Fenced && entry.what.contains(word));
    hold(said("took ForceOff, and was read back as Off"), || format!("its BMC has proven nothing: {incident:?}"))?;
    let orders: Vec<String> = bmcs.orders().into_iter().rev().take(2).collect();
    hold(orders == [format!("{victim} On"), format!("{victim} ForceOff")], || format!("{:?}", bmcs.orders()))?;
    hold(machine.is_on(), || format!("{victim} is off"))?;
    Ok(incident)
}

fn has(incident: &IncidentView, step: Step) -> bool {
    incident.timeline.iter().any(|entry| entry.step == step)
}
