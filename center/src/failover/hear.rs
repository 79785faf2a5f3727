//! What nodes say that concerns failover.

use jiff::Timestamp;
use lodge_model::fence::{FenceOutcome, Fenced, Signs};
use lodge_model::ids::BootId;
use lodge_model::incident::{Case, Method, Step};
use lodge_model::node::Role;

use super::drive::proven;
use super::incident;
use super::records::Word;
use crate::fault::Fault;
use crate::flow::{World, topology};
use crate::records::Node;
use crate::store::Tx;

/// The part of a heartbeat about fencing. Only the node that serves the share is believed about the share.
pub fn signs(tx: &Tx, world: &World, node: &Node, said: &Signs, now: Timestamp) -> Result<(), Fault> {
    world.live.signs.words(node.id, &said.peers, now);
    let serves = node.roles.contains(&Role::Share) && topology(tx)?.share.is_some_and(|(server, _)| server == node.id);
    if !serves {
        return Ok(());
    }
    world.live.signs.marks(&said.marks, now);
    if said.fenced.is_empty() {
        return Ok(());
    }
    for banned in tx.list::<Node>()? {
        let word = banned.ban.as_ref().and_then(|ban| said.fenced.iter().find(|fenced| fenced.id == ban.id));
        if let Some(word) = word {
            fenced(tx, world, banned, &node.name, word, now)?;
        }
    }
    Ok(())
}

fn fenced(tx: &Tx, world: &World, mut node: Node, share: &str, word: &Fenced, now: Timestamp) -> Result<(), Fault> {
    let Some(ban) = node.ban.as_mut().filter(|ban| ban.share != Word::Confirmed) else { return Ok(()) };
    let (boot, since) = (ban.boot, ban.since);
    let said = match &word.outcome {
        FenceOutcome::Confirmed { .. } => Word::Confirmed,
        FenceOutcome::Failed { error } => Word::Failed(error.clone()),
    };
    if ban.share == said {
        return Ok(());
    }
    ban.share = said;
    let heard = world.live.last(node.id, node.seen).unwrap_or(since);
    let mut incident = incident::of(tx, &node, boot, Case::NodeSilent, heard, now)?;
    let before = (incident.version > 0).then(|| incident.clone());
    match &word.outcome {
        FenceOutcome::Confirmed { proof, .. } => {
            let took = now.duration_since(since).as_secs_f64();
            let what = format!("{} by {share}, in {took:.1} s: {proof}", Method::Share.words());
            proven(tx, &mut node, &mut incident, Method::Share, &what, now)?;
        }
        FenceOutcome::Failed { error } => {
            tx.put(&node)?;
            incident.add(now, Step::FenceFailed, format!("{share} could not yet: {error}"));
        }
    }
    incident::save(tx, &mut incident, before.as_ref())
}

/// The machine of a node is being installed: whatever boot of it was banned has ended, and its installer has to reach the share.
pub fn installs(tx: &Tx, node: &mut Node) {
    if let Some(ban) = node.ban.take() {
        node.confirmed_off = Some(ban.boot);
        tx.replan();
    }
}

/// A node has registered with this boot: whatever was banned of it before has ended, and it may reach the share again.
pub fn started_anew(tx: &Tx, node: &mut Node, boot: BootId, now: Timestamp) -> Result<(), Fault> {
    if node.ban.as_ref().is_some_and(|ban| ban.boot != boot) {
        node.ban = None;
        tx.replan();
    }
    incident::let_in(tx, node.id, boot, now)
}
