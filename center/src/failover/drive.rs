//! What is done about a ban: facts are gathered, `methods::next` decides, each act is noted before it is done, and what came of it after.
//!
//! What takes time is an *errand*: decided and noted in a transaction, run outside of it by the center, and told to the records when it has
//! ended. A center that dies meanwhile decides the same again: an errand looks first, and does nothing to a machine that is as it should be.

use std::time::Duration;

use anyhow::{Context as _, Result};
use jiff::Timestamp;
use lodge_model::ids::{NodeId, TaskId};
use lodge_model::incident::{Case as Wrong, Method, Step};

use super::bmc::Bmc;
use super::bmc::redfish::{Limits, Redfish, Switched};
use super::incident;
use super::methods::{Act, BmcRule, Case, lease, next};
use super::plan::Facts;
use super::records::{Ban, Confirmed, Failed, Incident};
use crate::environments::drain::request::settings;
use crate::fault::Fault;
use crate::flow::World;
use crate::records::Node;
use crate::store::{Store, Tx};

/// Something to be done outside of a transaction.
#[derive(Clone, Debug)]
pub struct Errand {
    /// The node it is about. There is one errand of a node at a time.
    pub node: NodeId,
    ban: TaskId,
    switch: Switch,
    bmc: Bmc,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Switch {
    Off,
    On,
}

/// Do what is to be done now about the ban of a node's present boot.
pub fn drive(
    tx: &Tx,
    world: &World,
    node: &Node,
    ban: &Ban,
    incident: &mut Incident,
    facts: &Facts,
) -> Result<Vec<Errand>, Fault> {
    let bmc = tx.get::<Bmc>(&node.id)?;
    let case = Case {
        now: facts.now,
        timing: facts.timing,
        name: &node.name,
        ban,
        confirmed_off: node.confirmed_off == Some(ban.boot),
        is_gone: node.off.is_some(),
        share: facts.share.as_ref(),
        bmc: bmc.as_ref().map(|bmc| BmcRule { stays_off: bmc.stays_off }),
        lease: lease(tx, world, node, ban, facts)?,
    };
    let next = next(&case);
    if incident.method.is_none() {
        incident.waits = next.waits;
    }
    let mut node = node.clone();
    let mut errands = Vec::new();
    for (method, act) in next.acts {
        let switch = match act {
            Act::Believe(proof) => {
                proven(tx, &mut node, incident, method, &format!("{}: {proof}", method.words()), facts.now)?;
                continue;
            }
            Act::SwitchOff(why) => {
                begin(tx, &mut node, incident, &why, facts.now)?;
                Switch::Off
            }
            Act::SwitchOn => Switch::On,
        };
        errands.extend(bmc.clone().map(|bmc| Errand { node: node.id, ban: ban.id, switch, bmc }));
    }
    Ok(errands)
}

/// What is known of its lease. Whoever could have renewed it, center and share node, must be able to say that they did not: a share node that is
/// silent or does not know the node's file cannot, and a center that has just started counts from its start.
fn lease(tx: &Tx, world: &World, node: &Node, ban: &Ban, facts: &Facts) -> Result<lease::Facts, Fault> {
    let wait = settings(tx)?.lease_wait;
    let unheard = world.live.signs.unheard(node.id, world.live.last(node.id, node.seen), facts.up_for);
    let mark = world.live.signs.mark(node.id).filter(|(mark, said)| mark.boot == ban.boot && is_fresh(*said, facts));
    Ok(lease::Facts {
        wait: (wait > 0).then(|| Duration::from_secs(wait.into())),
        guard: node.guard.clone(),
        quiet: mark.map(|(mark, _)| Duration::from_millis(mark.age_ms).min(unheard)),
    })
}

fn is_fresh(said: Timestamp, facts: &Facts) -> bool {
    let since = facts.now.duration_since(said);
    !since.is_negative() && Duration::try_from(since).is_ok_and(|since| since <= facts.timing.suspect)
}

/// The intent, before the BMC is told.
fn begin(tx: &Tx, node: &mut Node, incident: &mut Incident, why: &str, now: Timestamp) -> Result<(), Fault> {
    let Some(ban) = node.ban.as_mut().filter(|ban| ban.bmc.began.is_none()) else { return Ok(()) };
    ban.bmc.began = Some(now);
    incident.add(now, Step::FenceOrdered, format!("its BMC is to switch it off: {why}"));
    tx.put(node)
}

/// Nothing of a banned boot is written any more, by this proof. The first one counts; those after it are told.
pub fn proven(
    tx: &Tx,
    node: &mut Node,
    incident: &mut Incident,
    method: Method,
    what: &str,
    now: Timestamp,
) -> Result<(), Fault> {
    let Some(ban) = &mut node.ban else { return Ok(()) };
    ban.confirmed.get_or_insert_with(|| Confirmed { at: now, proof: what.to_owned() });
    tx.put(node)?;
    tx.replan();
    incident.method.get_or_insert(method);
    incident.waits.clear();
    incident.add(now, Step::Fenced, what);
    Ok(())
}

impl Errand {
    /// Run it: what was read back, or why it did not work. Takes no longer than the limits of the BMC.
    pub async fn run(&self, store: &Store) -> Result<Switched> {
        let redfish = Redfish::new(&self.bmc, Limits::default())?;
        match self.switch {
            Switch::Off => redfish.switch_off(self.is_wanted(store)).await,
            Switch::On => redfish.switch_on(self.is_wanted(store)).await,
        }
    }

    /// Its boot may have ended by itself meanwhile, and the next one must not be switched off for it.
    async fn is_wanted(&self, store: &Store) -> Result<bool> {
        let (id, errand) = (self.node, self.clone());
        let node = store.transact(move |tx| tx.get::<Node>(&id)).await;
        let node = node.map_err(|fault| anyhow::anyhow!("{fault:?}")).context("reading the node's record")?;
        Ok(node.as_ref().and_then(|node| errand.of(node)).is_some())
    }

    /// The ban that it is about, while that needs it.
    fn of<'a>(&self, node: &'a Node) -> Option<&'a Ban> {
        let ban = node.ban.as_ref().filter(|ban| ban.id == self.ban)?;
        let is_open = match self.switch {
            Switch::Off => ban.bmc.off.is_none(),
            Switch::On => ban.bmc.off.is_some() && !ban.bmc.on,
        };
        is_open.then_some(ban)
    }

    /// Note what came of it.
    pub fn ended(&self, tx: &Tx, world: &World, outcome: &Result<Switched, String>, now: Timestamp) -> Result<(), Fault> {
        let Some(mut node) = tx.get::<Node>(&self.node)?.filter(|node| self.of(node).is_some()) else { return Ok(()) };
        let Some((boot, since)) = node.ban.as_ref().map(|ban| (ban.boot, ban.since)) else { return Ok(()) };
        let heard = world.live.last(node.id, node.seen).unwrap_or(since);
        let mut incident = incident::of(tx, &node, boot, Wrong::NodeSilent, heard, now)?;
        let before = (incident.version > 0).then(|| incident.clone());
        let Some(Ban { bmc, .. }) = &mut node.ban else { return Ok(()) };
        let began = bmc.began.unwrap_or(since);
        match (outcome, self.switch) {
            (Err(why), _) => {
                let tries = bmc.failed.as_ref().map_or(0, |failed| failed.tries).saturating_add(1);
                bmc.failed = Some(Failed { tries, at: now, why: why.clone() });
                tx.put(&node)?;
                let text = format!("its BMC: {why}");
                if incident.last(Step::FenceFailed) != Some(&text) {
                    incident.add(now, Step::FenceFailed, text);
                }
            }
            (Ok(Switched { proof, was_so }), Switch::Off) => {
                (bmc.off, bmc.was_off, bmc.failed) = (Some(now), *was_so, None);
                let took = now.duration_since(began).as_secs_f64();
                let what = format!("{} at {}, in {took:.1} s: {proof}", Method::Bmc.words(), self.bmc.url);
                proven(tx, &mut node, &mut incident, Method::Bmc, &what, now)?;
            }
            (Ok(Switched { proof, .. }), Switch::On) => {
                (bmc.on, bmc.failed) = (true, None);
                tx.put(&node)?;
                incident.add(now, Step::SwitchedOn, format!("by its BMC: {proof}"));
            }
        }
        incident::save(tx, &mut incident, before.as_ref())
    }
}
