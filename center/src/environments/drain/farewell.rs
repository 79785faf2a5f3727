//! Last words of nodes that went down while the center was away, as other nodes read them on the share. A word counts if it is signed with
//! the key that the node's own certificate holds, is of the boot that is registered, and counts nothing.

use std::collections::BTreeSet;

use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use jiff::Timestamp;
use lodge_model::farewell::{LastWord, SignedWord};
use lodge_model::ids::{BootId, NodeId, hex};
use lodge_model::node::Role;
use sha2::{Digest as _, Sha256};

use super::{leaving, view};
use crate::environments::place::Room;
use crate::environments::settle::Cluster;
use crate::fault::Fault;
use crate::records::Node;
use crate::store::Tx;

/// Nodes that are silent and have not said why, or have something still: somebody who is well is to look for their last words. The server of
/// the share sees them first.
pub fn absent(cluster: &Cluster, nodes: &[Node]) -> Vec<NodeId> {
    let places = cluster.environments.values().filter_map(|environment| environment.place.as_ref());
    let holders: BTreeSet<(NodeId, BootId)> = places.map(|place| (place.node, place.boot)).collect();
    let is_off = |room: &Room| nodes.iter().any(|node| node.id == room.node && node.off.is_some());
    let is_missed = |room: &Room| {
        room.boot.is_some_and(|boot| !room.has_ended(boot) && (holders.contains(&(room.node, boot)) || !is_off(room)))
    };
    cluster.rooms.iter().filter(|room| !room.silent.is_empty() && is_missed(room)).map(|room| room.node).collect()
}

/// Who looks.
pub fn reader(cluster: &Cluster, nodes: &[Node]) -> Option<NodeId> {
    let is_well = |node: &&Node| {
        cluster.rooms.iter().any(|room| room.node == node.id && room.unready.is_empty() && room.silent.is_empty())
    };
    nodes.iter().filter(is_well).min_by_key(|node| (!node.roles.contains(&Role::Share), node.id)).map(|node| node.id)
}

/// Take one in. What is not good is not used, and told once in the center's own log.
pub fn take_in(tx: &Tx, word: &SignedWord, now: Timestamp) -> Result<(), Fault> {
    let said: LastWord = match serde_json::from_str(&word.signed.payload) {
        Ok(said) => said,
        Err(error) => {
            tracing::debug!("a last word that cannot be read: {error}");
            return Ok(());
        }
    };
    let Some(mut node) = tx.get::<Node>(&said.node)? else { return Ok(()) };
    let is_current = node.registered.as_ref().is_some_and(|registered| registered.boot == said.last_of);
    if !is_current || node.said_farewell == Some(said.last_of) {
        return Ok(());
    }
    if let Err(error) = check(&node, word, &said) {
        tracing::warn!("the last word of {}: {error:#}", node.name);
        return Ok(());
    }
    let power = format!("{:?}", said.power).to_lowercase();
    let how = format!("{power} by {}, as its last word on the share says", said.cause.words());
    node.said_farewell = Some(said.last_of);
    node.off = Some(how.clone());
    tx.put(&node)?;
    tx.show();
    tx.replan();
    view::log(
        tx,
        node.id,
        &format!("{} went down while the center did not hear it ({how}); nothing is left of it", node.name),
        now,
    )
}

fn check(node: &Node, word: &SignedWord, said: &LastWord) -> anyhow::Result<()> {
    let der = BASE64.decode(&word.signer).context("its certificate is not base64")?;
    let digest = hex(&Sha256::digest(&der));
    anyhow::ensure!(node.certificate.as_deref() == Some(&digest), "it is signed with another certificate than the node's");
    leaving::check_signature(&word.signed, &der)?;
    anyhow::ensure!(said.counts.are_zero(), "it counts {}", said.counts.words());
    Ok(())
}
