//! Whether any one node may die: for each worker, its death is played with the very rule that would place what ran there.
//!
//! Whoever asks for more than the cluster could bear is refused, and told which environments would be lost to which death; an operator
//! may insist. Only what makes things worse is refused, and only where two workers at least would be left: a cluster of one worker bears
//! no death whatever is asked for, and is of use all the same.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use lodge_model::environment::order::Want;
use lodge_model::ids::{EnvironmentId, NodeId};
use lodge_model::incident::{CapacityView, NodeLoss, Stranded};

use super::place::{self, Demand, Room};
use super::reconcile;
use super::records::{Environment, Goal, Place};
use super::settle::{self, Cluster};
use crate::fault::Fault;
use crate::flow::World;
use crate::store::Tx;

/// Above so many pairs of environments and nodes, a creation is not checked: it would take seconds. The proof on demand still is exact.
const PAIRS: usize = 4_000_000;

/// The proof, for an operator.
pub fn show(tx: &Tx, world: &World, now: Timestamp) -> Result<CapacityView, Fault> {
    let (mut cluster, _) = reconcile::load(tx, world, true, now)?;
    settle::cordon(&mut cluster);
    Ok(prove(&mut cluster, now))
}

/// Play the death of every worker.
pub fn prove(cluster: &mut Cluster, now: Timestamp) -> CapacityView {
    cluster.count();
    let mut at: BTreeMap<NodeId, Vec<&Environment>> = BTreeMap::new();
    for environment in cluster.environments.values() {
        if let Some(place) = environment.place.as_ref().filter(|place| place.want == Want::Running) {
            at.entry(place.node).or_default().push(environment);
        }
    }
    let workers = cluster.rooms.iter().filter(|room| room.is_worker && (room.is_ready() || at.contains_key(&room.node)));
    let nodes: Vec<NodeLoss> =
        workers.map(|room| death(&cluster.rooms, room, at.get(&room.node).map_or(&[][..], Vec::as_slice), now)).collect();
    let holds = !nodes.is_empty() && nodes.iter().flat_map(|node| &node.stranded).all(|stranded| stranded.bound);
    CapacityView { holds, nodes }
}

fn death(rooms: &[Room], dead: &Room, environments: &[&Environment], now: Timestamp) -> NodeLoss {
    let mut left: Vec<Room> = rooms.iter().filter(|room| room.node != dead.node).cloned().collect();
    let mut order = environments.to_vec();
    order.sort_by_key(|one| (std::cmp::Reverse(one.spec.priority), one.created, one.id));
    let (mut fits, mut stranded) = (0, Vec::new());
    for environment in order {
        let demand = Demand { environment, only: None, leaves: Some(dead.node), removal: false, now };
        let is_reserved = environment.moving.as_ref().is_some_and(|moving| moving.to.is_some());
        match place::choose(&left, &demand) {
            _ if is_reserved => fits += 1,
            Ok(at) => {
                left[at].held.add(environment);
                fits += 1;
            }
            Err(why) => {
                let bound = place::is_hopeless(rooms, &demand) || place::is_kept_apart(&left, &demand);
                stranded.push(Stranded { environment: environment.spec.name.clone(), why, bound });
            }
        }
    }
    NodeLoss { node: dead.name.clone(), fits, stranded }
}

/// Refuse an environment that is to run, or to be larger, where a death would then cost more than now.
pub fn check(tx: &Tx, world: &World, wanted: &Environment, now: Timestamp) -> Result<(), Fault> {
    let (mut cluster, _) = reconcile::load(tx, world, true, now)?;
    settle::cordon(&mut cluster);
    if !cluster.settings.spare || cluster.environments.len().saturating_mul(cluster.rooms.len()) > PAIRS {
        return Ok(());
    }
    bears(&mut cluster, wanted, now)
}

fn bears(cluster: &mut Cluster, wanted: &Environment, now: Timestamp) -> Result<(), Fault> {
    let before = prove(cluster, now);
    cluster.environments.remove(&wanted.id);
    cluster.count();
    let mut after = wanted.clone();
    if after.place.as_ref().is_none_or(|place| place.want != Want::Running) {
        let demand = Demand { environment: wanted, only: None, leaves: None, removal: false, now };
        // What no node takes now waits, and takes nothing from anybody.
        let Ok(at) = place::choose(&cluster.rooms, &demand) else { return Ok(()) };
        after.place = placed_on(&cluster.rooms[at]);
    }
    cluster.environments.insert(after.id, after);
    compare(&before, &prove(cluster, now), &cluster.rooms)
}

/// Refuse to empty a node where the death of another one would then cost more than now.
pub fn check_drain(tx: &Tx, world: &World, leaves: NodeId, now: Timestamp) -> Result<(), Fault> {
    let (mut cluster, _) = reconcile::load(tx, world, true, now)?;
    settle::cordon(&mut cluster);
    if !cluster.settings.spare {
        return Ok(());
    }
    let mut before = prove(&mut cluster, now);
    let Some(at) = cluster.rooms.iter().position(|room| room.node == leaves) else { return Ok(()) };
    let drained = cluster.rooms.remove(at);
    before.nodes.retain(|loss| loss.node != drained.name);
    let moving: Vec<EnvironmentId> = cluster.environments.values().filter(|one| is_on(one, leaves)).map(|one| one.id).collect();
    for id in moving {
        let Some(mut environment) = cluster.environments.remove(&id) else { continue };
        environment.moving = None;
        environment.place = None;
        let demand = Demand { environment: &environment, only: None, leaves: Some(leaves), removal: false, now };
        if let Ok(at) = place::choose(&cluster.rooms, &demand) {
            environment.place = placed_on(&cluster.rooms[at]);
            cluster.rooms[at].held.add(&environment);
            cluster.environments.insert(id, environment);
        }
    }
    compare(&before, &prove(&mut cluster, now), &cluster.rooms)
}

fn is_on(environment: &Environment, node: NodeId) -> bool {
    environment.goal == Goal::Running && environment.place.as_ref().is_some_and(|place| place.node == node)
}

fn placed_on(room: &Room) -> Option<Place> {
    Some(Place { node: room.node, name: room.name.clone(), boot: room.boot?, want: Want::Running, to_remove: false })
}

fn compare(before: &CapacityView, after: &CapacityView, rooms: &[Room]) -> Result<(), Fault> {
    if rooms.iter().filter(|room| room.takes()).count() < 2 {
        return Ok(());
    }
    let known: BTreeSet<&str> = lost(before).map(|(_, stranded)| stranded.environment.as_str()).collect();
    let Some((node, first)) = lost(after).find(|(_, stranded)| !known.contains(stranded.environment.as_str())) else {
        return Ok(());
    };
    let (name, why) = (&first.environment, &first.why);
    Err(Fault::conflict(format!(
        "no node could die any more without loss: after the death of {node}, {name} would not run ({why}); add a node or memory, or insist: \
         --force; lodge cluster capacity shows all of it"
    )))
}

fn lost(view: &CapacityView) -> impl Iterator<Item = (&str, &Stranded)> {
    let nodes = view.nodes.iter();
    nodes
        .flat_map(|loss| loss.stranded.iter().filter(|stranded| !stranded.bound).map(|stranded| (loss.node.as_str(), stranded)))
}

#[cfg(test)]
mod tests;
