//! Nodes that die, hang or are cut off while environments on them write: what each test does to a node differs, what must hold does not.
//! The environments are started elsewhere by themselves, only behind a confirmed fence or a new boot; no acknowledged line is lost, and no
//! line of an older copy comes after one of a newer. The node comes back by itself, in another boot, and is given work again.

mod bmc;
mod center;
mod cut;
mod dead;
mod frozen;
mod journal;
mod native;
mod power;

pub use bmc::run as bmc;
pub use center::run as center;
pub use cut::run as cut;
pub use dead::{crash, power as dead};
pub use frozen::run as frozen;
pub use native::run as native;
pub use power::run as power;

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use lodge_model::{
    environment::view::{EnvironmentView, Phase},
    incident::{IncidentView, Step},
};

use super::{ask_until, environments::until, install::BOOT_LIMIT, ready_in_center};
use crate::{
    hosting::{Hosting, Wanted, address, http_get},
    machine::Machine,
    scenario::{Site, hold},
};
use journal::Journal;

/// From the last sign of life to serving again on the reference machine, which emulates.
const TAKEOVER: Duration = Duration::from_secs(180);
/// A node that is to restart by itself begins with it within this.
const RESTART: Duration = Duration::from_secs(180);
/// Lines that are acknowledged before anything happens.
const LINES: u64 = 15;

/// One environment that serves and writes, and the node that is going to suffer.
pub struct Scene {
    hosting: Hosting,
    name: &'static str,
    made: EnvironmentView,
    victim: String,
    journals: Vec<Journal>,
    web: u16,
}

/// How a takeover went.
pub struct Takeover {
    there: EnvironmentView,
    /// From the deed to the first answer of the web server.
    serving: Duration,
    incident: IncidentView,
}

impl Scene {
    /// It runs, answers and writes.
    pub fn set(site: &Site, name: &'static str) -> Result<Self> {
        let hosting = Hosting::prepare(&site.rack, &site.operator)?;
        let made = hosting.create(&site.operator, &Wanted { name, memory: "96M", more: &[] })?;
        let victim = made.node.clone().with_context(|| format!("{name} runs nowhere"))?;
        let web = site.rack.forward(address(&made)?, 80)?;
        http_get(&site.rack, web, "/")?;
        let journal = Journal::start(site, &made)?;
        journal.more(site, LINES)?;
        Ok(Self { hosting, name, made, victim, journals: vec![journal], web })
    }

    /// The machine of the node that suffers.
    pub fn victim<'a>(&self, site: &'a Site) -> Result<&'a Machine> {
        site.rack.machine(&self.victim)
    }

    /// What it acknowledged last, before the deed makes it unreadable.
    pub fn note(&mut self, site: &Site) -> Result<()> {
        self.journals.iter_mut().try_for_each(|journal| journal.note(site))
    }

    /// It serves on another node, in another epoch, and its journal is whole; then it writes on there.
    pub fn taken_over(&mut self, site: &Site, since: Instant) -> Result<Takeover> {
        let (name, epoch) = (self.name, self.made.epoch);
        let limit = site.rack.host.scale(TAKEOVER);
        let there = ask_until(limit, &format!("{name} running elsewhere"), || {
            Ok(Some(site.operator.environment(name)?).filter(|found| found.phase == Phase::Running && found.epoch > epoch))
        })
        .with_context(|| site.operator.lodge(&["incident", "ls"]).unwrap_or_default())?;
        http_get(&site.rack, self.web, "/")?;
        let serving = since.elapsed();
        hold(there.node.as_deref() != Some(&self.victim), || format!("{name} came back on {}", self.victim))?;
        let incident = fenced(site, &self.victim)?;
        self.whole(site)?;
        let journal = Journal::start(site, &there)?;
        journal.more(site, LINES)?;
        self.journals.push(journal);
        Ok(Takeover { there, serving, incident })
    }

    /// Nobody was taken over: the same boot of the same node goes on with it.
    pub fn undisturbed(&self, site: &Site) -> Result<()> {
        until(site, self.name, "running", |found| found.phase == Phase::Running)?;
        self.holds(site)
    }

    /// The same, whatever the center can know of it at present.
    pub fn holds(&self, site: &Site) -> Result<()> {
        let now = site.operator.environment(self.name)?;
        hold(now.epoch == self.made.epoch && now.started == self.made.started && now.node == self.made.node, || {
            format!("{} was disturbed: {:?}, now {now:?}", self.name, self.made)
        })?;
        let last = self.journals.last().context("nothing was written")?;
        last.more(site, last.acknowledged(site)? + LINES).map(drop)
    }

    /// Everything acknowledged is there, epoch after epoch.
    pub fn whole(&self, site: &Site) -> Result<()> {
        let text = site.operator.exec(self.name, &format!("cat {}", journal::FILE))?;
        journal::check(&text, &self.journals)
    }

    /// The victim, by itself: ready again, and it takes work.
    pub fn back(&self, site: &Site, from: usize) -> Result<()> {
        self.victim(site)?.wait_ready(from, BOOT_LIMIT)?;
        ready_in_center(site, &self.victim)?;
        let more = ["--node", self.victim.as_str()];
        self.hosting.create(&site.operator, &Wanted { name: "again", memory: "64M", more: &more })?;
        site.operator.lodge(&["env", "destroy", "again", "--yes", "--wait"]).map(drop)
    }

    /// The last look, and nothing is left.
    pub fn strike(mut self, site: &Site) -> Result<()> {
        self.journals.last_mut().map_or(Ok(()), |last| last.note(site))?;
        self.whole(site)?;
        site.operator.lodge(&["env", "destroy", self.name, "--yes", "--wait"]).map(drop)
    }
}

/// The newest incident of a node, once it is fenced.
fn fenced(site: &Site, node: &str) -> Result<IncidentView> {
    let has_proof = |incident: &IncidentView| incident.timeline.iter().any(|entry| entry.step == Step::Fenced);
    ask_until(site.rack.host.scale(TAKEOVER), &format!("that {node} is fenced"), || {
        Ok(newest(site, node)?.filter(|incident| has_proof(incident)))
    })
}

fn newest(site: &Site, node: &str) -> Result<Option<IncidentView>> {
    Ok(site.operator.incidents()?.into_iter().find(|incident| incident.name == node))
}

/// Seconds from the last sign of life on, by the center's clock, and the whole as seen from outside.
fn timeline(site: &Site, what: &str, takeover: &Takeover) -> String {
    let entries = &takeover.incident.timeline;
    let start = entries.iter().find(|entry| entry.step == Step::LastSign).or(entries.first()).map(|entry| entry.at);
    let mut text = format!(
        "  {what}: serving again after {:.1} s (the machine is {:.1} times slower than the reference, which emulates)\n",
        takeover.serving.as_secs_f64(),
        site.rack.host.slowness,
    );
    for entry in entries {
        let seconds = start.map_or(0.0, |start| entry.at.duration_since(start).as_secs_f64());
        text += &format!("    {seconds:>7.1} s  {:<13} {}\n", entry.step.word(), entry.what);
    }
    text
}

/// Wait until a machine begins a new boot of its own; the position after that on its console.
fn restarts(machine: &Machine, from: usize) -> Result<usize> {
    machine
        .wait_text(from, "BdsDxe", RESTART)
        .with_context(|| format!("waiting for {} to restart by itself", machine.spec.name))
}
