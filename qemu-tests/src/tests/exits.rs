//! Every way in which a node goes down is a drain first: its console and the center's timeline say so, its environments run elsewhere, and
//! its certificate names the cause.

use std::time::Duration;

use anyhow::{Context, Result};
use lodge_model::{
    api::NodeState,
    drain::{Cause, CertificateView, Verdict},
};

use super::{Bench, ask_until, crowd::Crowd, install::BOOT_LIMIT, ready_in_center};
use crate::{
    hosting::Hosting,
    machine::Machine,
    scenario::{Site, hold},
};

/// A few environments are moved and the machine is down within this on the reference machine.
const DOWN: Duration = Duration::from_secs(240);
const LOGIN1: &str = "org.freedesktop.login1 /org/freedesktop/login1 org.freedesktop.login1.Manager";
const COUNT: usize = 2;

/// A way to go down.
struct Exit {
    name: &'static str,
    begin: fn(&Site, &Machine) -> Result<()>,
    /// What init says on the console.
    says: &'static str,
    cause: Cause,
}

const EXITS: [Exit; 6] = [
    Exit {
        name: "power button",
        begin: |_, node| node.press_power_button(),
        says: "shutdown: poweroff, by the power button",
        cause: Cause::Button,
    },
    Exit {
        name: "Ctrl-Alt-Del",
        begin: |_, node| node.monitor("send-key", three_keys()),
        says: "shutdown: reboot, by Ctrl-Alt-Del",
        cause: Cause::Button,
    },
    Exit {
        name: "SIGPWR",
        begin: |_, node| node.run("kill -PWR 1").map(drop),
        says: "shutdown: poweroff, by the power supply (SIGPWR)",
        cause: Cause::Ups,
    },
    Exit {
        name: "busctl PowerOff",
        begin: |_, node| node.run(&format!("busctl --system call {LOGIN1} PowerOff b false")).map(drop),
        says: "shutdown: poweroff, by request",
        cause: Cause::Request,
    },
    Exit {
        name: "lodge node reboot",
        begin: |site, node| site.operator.lodge(&["node", "reboot", &node.spec.name, "--yes", "--no-wait"]).map(drop),
        says: "shutdown: reboot, by request",
        cause: Cause::Operator,
    },
    Exit {
        name: "lodge node poweroff",
        begin: |site, node| site.operator.lodge(&["node", "poweroff", &node.spec.name, "--yes", "--wait"]).map(drop),
        says: "shutdown: poweroff, by request",
        cause: Cause::Operator,
    },
];

pub fn run(bench: &mut Bench) -> Result<()> {
    let site = bench.pair()?;
    let hosting = Hosting::prepare(&site.rack, &site.operator)?;
    let names = site.node_names();
    let (mut leaves, mut takes) = (names[0].clone(), names[1].clone());
    let crowd = Crowd::on(site, &hosting, &leaves, "exit", COUNT, "64M")?;
    crowd.write(site, 0..COUNT, "0.3")?;
    let mut told = String::new();
    for exit in &EXITS {
        let gaps = drains(site, &crowd, exit, &leaves, &takes).with_context(|| format!("{} on {leaves}", exit.name))?;
        told += &format!("  {}: {leaves} drained, {gaps}\n", exit.name);
        std::mem::swap(&mut leaves, &mut takes);
    }
    let epochs = crowd.whole(site, 0..COUNT)?;
    crowd.destroy(site)?;
    bench.say(&format!("{told}  journals whole, epochs {epochs:?}"));
    Ok(())
}

fn drains(site: &mut Site, crowd: &Crowd, exit: &Exit, leaves: &str, takes: &str) -> Result<String> {
    let machine = site.rack.machine(leaves)?;
    let (from, known) = (machine.now(), site.operator.events(leaves)?.last().map_or(0, |event| event.id));
    (exit.begin)(site, machine)?;
    machine.wait_text(from, exit.says, DOWN)?;
    let restarts = exit.says.contains("reboot");
    machine.wait_text(from, if restarts { "restarting the machine" } else { "switching the machine off" }, DOWN)?;
    crowd.until(site, &format!("all on {takes}"), |found| found.node.as_deref() == Some(takes))?;
    if !restarts {
        machine.wait_off(BOOT_LIMIT)?;
        let node = site.operator.node(leaves)?.node;
        hold(node.state == NodeState::Off && node.reason.starts_with("expected"), || format!("{leaves} is shown as {node:?}"))?;
    }
    let gaps = certified(site, leaves, exit)?;
    let events = site.operator.events(leaves)?;
    let timeline: Vec<&str> = events.iter().filter(|event| event.id > known).map(|event| event.text.as_str()).collect();
    for part in ["is about to go down (", "its certificate is issued", "is off: expected"] {
        hold(timeline.iter().any(|text| text.contains(part)), || format!("the timeline does not say {part:?}: {timeline:#?}"))?;
    }
    let machine = site.rack.machine_mut(leaves)?;
    if !restarts {
        machine.switch_on()?;
    }
    machine.wait_ready(from, BOOT_LIMIT)?;
    ready_in_center(site, leaves)?;
    let over = || Ok((!site.operator.try_lodge(&["node", "certificate", leaves])?.stdout.is_empty()).then_some(()));
    ask_until(site.rack.host.scale(DOWN), "the certificate, still shown", over)?;
    Ok(gaps)
}

fn certified(site: &Site, node: &str, exit: &Exit) -> Result<String> {
    let text = site.operator.lodge(&["node", "certificate", node, "--json"])?;
    let shown: CertificateView = serde_json::from_str(&text).with_context(|| format!("reading {text}"))?;
    hold(shown.certificate.counts.are_zero() && shown.cause == exit.cause, || format!("the certificate says {shown:?}"))?;
    let moved: Vec<String> = shown
        .items
        .iter()
        .filter(|item| item.verdict == Verdict::Moved)
        .map(|item| format!("{} away {:.1} s", item.environment, item.gap_ms.unwrap_or_default() as f64 / 1000.0))
        .collect();
    hold(moved.len() == COUNT, || format!("not all were moved: {:?}", shown.items))?;
    Ok(moved.join(", "))
}

fn three_keys() -> serde_json::Value {
    let key = |code: &str| serde_json::json!({ "type": "qcode", "data": code });
    serde_json::json!({ "keys": [key("ctrl"), key("alt"), key("delete")] })
}
