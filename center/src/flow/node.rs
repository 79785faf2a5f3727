//! What an agent says: register, heartbeat, going down.

use jiff::{SignedDuration, Timestamp};
use lodge_model::api::{Heartbeat, Orders, Register, ShareHealth};
use lodge_model::ids::NodeId;

use super::{Whole, World, parse_address, refresh_all};
use crate::environments::report;
use crate::failover::hear;
use crate::fault::Fault;
use crate::live::WRITE_AFTER;
use crate::records::{FORMER_KEPT, Node, Registered};
use crate::store::Tx;

/// The node that a client certificate speaks for. A forgotten node's is refused, and so is one that a newer one has replaced.
pub fn identify(tx: &Tx, id: NodeId, certificate: &str) -> Result<Node, Fault> {
    let node = known(tx, id)?;
    if node.certificate.as_deref() != Some(certificate) {
        let why = format!("this certificate of {} has been replaced by a newer one; only the newest is accepted", node.name);
        return Err(Fault::forbidden(why));
    }
    Ok(node)
}

/// Once per start of an agent.
pub fn register(tx: &Tx, world: &World, id: NodeId, said: &Register, now: Timestamp) -> Result<Orders, Fault> {
    let address = parse_address(&said.address)?;
    let mut whole = find(tx, id)?;
    if said.facts.machine != whole.machine.id {
        return Err(Fault::forbidden(format!(
            "the certificate is for machine {}, this is machine {}: a copied disk does not make a node; install this machine",
            whole.machine.id, said.facts.machine
        )));
    }
    let node = whole.node.as_mut().ok_or_else(|| anyhow::anyhow!("node {id} has vanished"))?;
    if node.former.contains(&said.boot) {
        return Err(Fault::conflict(format!("boot {} of {} is over: it has started anew since", said.boot, node.name)));
    }
    whole.machine.facts = Some(said.facts.clone());
    let is_new_boot = node.registered.as_ref().is_none_or(|last| last.boot != said.boot);
    node.former.extend(node.registered.as_ref().map(|last| last.boot).filter(|_| is_new_boot));
    let surplus = node.former.len().saturating_sub(FORMER_KEPT);
    node.former.drain(..surplus);
    node.address = Some(address);
    node.registered = Some(Registered {
        at: now,
        boot: said.boot,
        version: said.version.clone(),
        kernel: said.kernel.clone(),
        slot: said.slot,
        disk_serial: said.disk_serial.clone(),
        phases: said.phases.clone(),
    });
    node.is_fresh = false;
    node.seen = Some(now);
    node.off = None;
    node.problem = None;
    if is_new_boot {
        node.criu = None;
        world.live.has_seen_nothing(id);
        tx.replan();
        node.share = ShareHealth::Unknown;
        node.carried_out = 0;
        node.told = None;
        hear::started_anew(tx, node, said.boot, now)?;
    }
    world.live.saw(id, now);
    whole.save(tx, world, now)?;
    refresh_all(tx, now)?;
    orders(tx, id)
}

/// A heartbeat is taken in.
pub fn beat(tx: &Tx, world: &World, id: NodeId, said: &Heartbeat, now: Timestamp) -> Result<Orders, Fault> {
    let mut whole = find(tx, id)?;
    let node = whole.node.as_mut().ok_or_else(|| anyhow::anyhow!("node {id} has vanished"))?;
    // Who has said that the node goes down says nothing after it: this was said before, and whoever is there still registers.
    if node.off.is_some() || node.registered.as_ref().is_none_or(|registered| registered.boot != said.boot) {
        let known = node.orders.clone();
        return Ok(Orders { register_again: true, ..known.unwrap_or_else(|| Orders::none(&node.name)) });
    }
    let told_before = (node.share.clone(), node.carried_out, node.problem.clone(), node.seen);
    let attested = std::mem::replace(&mut node.guard, said.signs.guard.clone());
    node.share = said.share.clone();
    node.carried_out = said.generation;
    node.problem = said.problem.clone();
    node.seen = Some(now);
    let has_phases = !said.phases.is_empty();
    if let Some(registered) = node.registered.as_mut().filter(|_| has_phases) {
        registered.phases.clone_from(&said.phases);
    }
    let is_criu_news = said.criu.is_some() && node.criu != said.criu;
    if is_criu_news {
        node.criu.clone_from(&said.criu);
    }
    if told_before.1 != node.carried_out {
        tx.wake();
    }
    let is_same = (&node.share, node.carried_out, &node.problem, &node.guard)
        == (&told_before.0, told_before.1, &told_before.2, &attested);
    if world.live.has_warm(id, &said.warm) | world.live.saw(id, now) {
        tx.replan();
    }
    hear::signs(tx, world, node, &said.signs, now)?;
    report::take_in(tx, world, id, said, now)?;
    let (state, _) = whole.state(&world.live, now);
    let node_told = whole.node.as_ref().and_then(|node| node.told);
    if !is_same
        || has_phases
        || is_criu_news
        || node_told != Some(state)
        || is_due(told_before.3, now)
        || order_is_old(&whole, now)
    {
        whole.save(tx, world, now)?;
    }
    orders(tx, id)
}

/// The newest orders, while a heartbeat is held. Of the node's record alone: whoever is waited for waits for this.
pub fn orders(tx: &Tx, id: NodeId) -> Result<Orders, Fault> {
    let node = known(tx, id)?;
    Ok(node.orders.unwrap_or_else(|| Orders::none("")))
}

/// A node disconnects, and that is expected.
pub fn off(tx: &Tx, world: &World, id: NodeId, reason: &str, now: Timestamp) -> Result<(), Fault> {
    let mut whole = find(tx, id)?;
    if let Some(node) = &mut whole.node {
        node.off = Some(reason.to_owned());
        node.seen = Some(now);
    }
    world.live.saw(id, now);
    whole.save(tx, world, now)
}

/// Log what time alone has changed: nodes that have fallen silent, reinstalls that nobody came for.
pub fn look_around(tx: &Tx, world: &World, now: Timestamp) -> Result<(), Fault> {
    for node in tx.list::<Node>()? {
        let mut whole = Whole::of_node(tx, node)?;
        let (state, _) = whole.state(&world.live, now);
        let told = whole.node.as_ref().and_then(|node| node.told);
        if told != Some(state) || order_is_old(&whole, now) {
            whole.save(tx, world, now)?;
        }
    }
    Ok(())
}

fn find(tx: &Tx, id: NodeId) -> Result<Whole, Fault> {
    Whole::of_node(tx, known(tx, id)?)
}

/// Its record; refused where there is none, as after it was forgotten.
pub fn known(tx: &Tx, id: NodeId) -> Result<Node, Fault> {
    let node: Option<Node> = tx.get(&id)?;
    node.ok_or_else(|| Fault::forbidden(format!("node {id} is not known here (any more); reinstall the machine")))
}

fn is_due(stored: Option<Timestamp>, now: Timestamp) -> bool {
    let limit = SignedDuration::try_from(WRITE_AFTER).unwrap_or(SignedDuration::ZERO);
    stored.is_none_or(|stored| now.duration_since(stored) >= limit)
}

/// A reinstall is still in the orders though its ticket is not open any more.
fn order_is_old(whole: &Whole, now: Timestamp) -> bool {
    let ordered = whole.node.as_ref().and_then(|node| node.orders.as_ref()).is_some_and(|orders| orders.reinstall.is_some());
    ordered && whole.ticket.as_ref().is_none_or(|ticket| ticket.has_expired(now))
}
