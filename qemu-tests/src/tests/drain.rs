//! A node is drained, by an operator and by its power button: its environments run elsewhere with everything they had acknowledged, the
//! node proves that nothing is left on it, and the center shows it as off, not as lost.

use std::{
    io::{BufRead as _, BufReader},
    process::Child,
    thread::JoinHandle,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use lodge_model::{
    api::NodeState,
    drain::{CertificateView, Verdict},
    environment::view::{EnvironmentView, Phase},
};

use super::{Bench, ask_until, install::BOOT_LIMIT, node_loss::WRITER, ready_in_center, records::complete};
use crate::{
    hosting::{Hosting, Wanted, address, http_get},
    scenario::{Site, hold},
};

/// Environments that are moved.
const NAMES: [&str; 3] = ["app1", "app2", "app3"];
/// All of them are moved within this on the reference machine.
const DRAIN: Duration = Duration::from_secs(240);

pub fn run(bench: &mut Bench) -> Result<()> {
    let site = bench.pair()?;
    let hosting = Hosting::prepare(&site.rack, &site.operator)?;
    let [first, other] = [site.node_names()[0].clone(), site.node_names()[1].clone()];
    on_one_node(site, &hosting, &first, &other)?;
    let by_operator = drained_by_operator(site, &first, &other)?;
    let by_button = drained_by_button(site, &other, &first)?;
    site.operator.lodge(&[&["env", "destroy"], &NAMES[..], &["--yes", "--wait"]].concat())?;
    bench.say(&format!("  drained by an operator: {by_operator}\n  drained by the power button: {by_button}"));
    Ok(())
}

/// All environments on one node, because the other takes nothing.
fn on_one_node(site: &Site, hosting: &Hosting, node: &str, other: &str) -> Result<()> {
    site.operator.lodge(&["node", "drain", other, "--wait"])?;
    for name in NAMES {
        let made = hosting.create(&site.operator, &Wanted { name, memory: "96M", more: &[] })?;
        hold(made.node.as_deref() == Some(node), || format!("{name} was placed on {:?}, which is drained", made.node))?;
    }
    site.operator.lodge(&["node", "undrain", other]).map(drop)
}

fn drained_by_operator(site: &Site, node: &str, other: &str) -> Result<String> {
    let planned = site.operator.lodge(&["node", "drain", node, "--dry-run"])?;
    hold(NAMES.iter().all(|name| planned.contains(name)), || format!("the plan does not name all: {planned}"))?;
    hold(all_on(site, node)?, || "a dry run moved something".into())?;
    let writer = Acknowledged::start(site, NAMES[0])?;
    site.operator.lodge(&["node", "drain", node, "--reason", "a test", "--wait"])?;
    hold(all_on(site, other)?, || format!("not all run on {other}: {:?}", site.operator.environments()))?;
    let acknowledged = writer.end()?;
    complete(&site.operator.exec(NAMES[0], "cat /root/records")?, acknowledged)?;
    for name in NAMES {
        let page = http_get(&site.rack, site.rack.forward(address(&site.operator.environment(name)?)?, 80)?, "/")?;
        hold(page.contains(name), || format!("{name} answers {page:?} at its address"))?;
    }
    let certificate = certified(site, node)?;
    site.operator.lodge(&["node", "undrain", node])?;
    Ok(format!("{acknowledged} records kept; {}", gaps(&certificate)))
}

fn drained_by_button(site: &mut Site, node: &str, other: &str) -> Result<String> {
    let machine = site.rack.machine(node)?;
    machine.press_power_button()?;
    machine.wait_off(DRAIN + BOOT_LIMIT)?;
    let limit = site.rack.host.scale(DRAIN);
    ask_until(limit, &format!("all on {other}"), || Ok(all_on(site, other)?.then_some(())))?;
    let state = site.operator.node(node)?.node.state;
    hold(state == NodeState::Off, || format!("{node} is shown as {state:?}, not as off"))?;
    let certificate = certified(site, node)?;
    let machine = site.rack.machine_mut(node)?;
    let from = machine.now();
    machine.switch_on()?;
    machine.wait_ready(from, BOOT_LIMIT)?;
    ready_in_center(site, node)?;
    // A node that comes back takes environments again by itself.
    site.operator.lodge(&["env", "move", NAMES[2], "--to", node, "--wait"])?;
    let moved = site.operator.environment(NAMES[2])?;
    hold(moved.node.as_deref() == Some(node) && moved.phase == Phase::Running, || format!("it was not moved back: {moved:?}"))?;
    Ok(gaps(&certificate))
}

fn all_on(site: &Site, node: &str) -> Result<bool> {
    let is_there = |found: &EnvironmentView| found.node.as_deref() == Some(node) && found.phase == Phase::Running;
    Ok(site.operator.environments()?.iter().all(is_there))
}

/// The certificate counts nothing, and every environment was moved.
fn certified(site: &Site, node: &str) -> Result<CertificateView> {
    let text = site.operator.lodge(&["node", "certificate", node, "--json"])?;
    let certificate: CertificateView = serde_json::from_str(&text).with_context(|| format!("reading {text}"))?;
    hold(certificate.certificate.counts.are_zero(), || format!("the certificate says {:?}", certificate.certificate))?;
    let moved = certificate.items.iter().filter(|item| item.verdict == Verdict::Moved).count();
    hold(moved == NAMES.len(), || format!("not all were moved: {:?}", certificate.items))?;
    Ok(certificate)
}

fn gaps(certificate: &CertificateView) -> String {
    let gap = |item: &lodge_model::drain::DrainItem| {
        format!("{} away {:.1} s", item.environment, item.gap_ms.unwrap_or_default() as f64 / 1000.0)
    };
    certificate.items.iter().map(gap).collect::<Vec<_>>().join(", ")
}

/// Records that an environment writes and acknowledges to this host, until it is stopped.
struct Acknowledged {
    writer: Child,
    last: JoinHandle<u64>,
}

impl Acknowledged {
    /// Start, and wait for the first record.
    fn start(site: &Site, name: &str) -> Result<Self> {
        let mut writer = site.operator.spawn(&["env", "exec", name, "--", "sh", "-c", WRITER])?;
        let mut lines = BufReader::new(writer.stdout.take().context("no standard output")?).lines();
        let first = lines.next().context("the writer says nothing")?.context("reading a record")?;
        if first.trim() != "1" {
            bail!("the first record is {first:?}");
        }
        let read = move || lines.map_while(|line| line.ok()?.trim().parse().ok()).last().unwrap_or(1);
        let last = std::thread::Builder::new().name("records".into()).spawn(read).context("starting a thread")?;
        Ok(Self { writer, last })
    }

    /// Number of the last record that came, once its environment was stopped.
    fn end(mut self) -> Result<u64> {
        let last = self.last.join().map_err(|_| anyhow::anyhow!("the reader panicked"))?;
        self.writer.wait().context("waiting for the writer")?;
        Ok(last)
    }
}
