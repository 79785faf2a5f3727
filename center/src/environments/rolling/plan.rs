//! The reboot of a cluster played through on a copy of everything: which nodes in which order, and who moves where each time. Pure.

use std::collections::BTreeMap;

use jiff::Timestamp;
use lodge_model::drain::DrainItem;
use lodge_model::ids::{EnvironmentId, TaskId};
use lodge_model::node::Role;
use lodge_model::rolling::{RebootState, TurnState};

use super::{Rolling, Turn, carry_on};
use crate::environments::drain::{judge, moves};
use crate::environments::records::Place;
use crate::environments::settle::{self, Cluster};
use crate::records::Node;

/// The turns of all workers: those with the least on them first, because what leaves the first ones moves twice. A node that serves the
/// share or the center is left out: it takes the others' disks, or their center, with it.
pub fn turns(cluster: &Cluster, nodes: &[Node]) -> Vec<Turn> {
    let mut held: BTreeMap<_, u64> = BTreeMap::new();
    for environment in cluster.environments.values() {
        if let Some(place) = &environment.place {
            *held.entry(place.node).or_default() += environment.spec.memory;
        }
    }
    let mut turns: Vec<Turn> = nodes.iter().filter(|node| node.registered.is_some()).map(turn).collect();
    turns.sort_by_key(|turn| {
        let memory = held.get(&turn.node).copied().unwrap_or(0);
        (turn.state == TurnState::LeftOut, memory, turn.name.clone())
    });
    turns
}

fn turn(node: &Node) -> Turn {
    let others: Vec<String> = node.roles.iter().filter(|role| **role != Role::Worker).map(ToString::to_string).collect();
    let (state, told) = match others.as_slice() {
        [] => (TurnState::Waits, String::new()),
        roles => {
            let why = format!("it is the {} of all others: lodge node reboot {}", roles.join(" and the "), node.name);
            (TurnState::LeftOut, why)
        }
    };
    let question = TaskId(uuid::Uuid::new_v4());
    Turn { node: node.id, name: node.name.clone(), question, state, boot: None, missing: None, told }
}

/// What leaves each node, in the order of the turns, and how often each environment moves.
pub struct Played {
    /// One list a turn.
    pub items: Vec<Vec<DrainItem>>,
    /// Moves of each environment that moves.
    pub moves: BTreeMap<EnvironmentId, u32>,
}

/// Play it through, as if every node came back.
pub fn play(cluster: &mut Cluster, rolling: &Rolling, now: Timestamp) -> Played {
    let mut played = Played { items: vec![Vec::new(); rolling.turns.len()], moves: BTreeMap::new() };
    let mut rolling = Rolling { state: RebootState::Running, ..rolling.clone() };
    let waiting: Vec<usize> = (0..rolling.turns.len()).filter(|at| rolling.turns[*at].state == TurnState::Waits).collect();
    for wave in waiting.chunks(usize::try_from(rolling.at_once.max(1)).unwrap_or(1)) {
        let former = cluster.drains.clone();
        for at in wave {
            let boot = cluster.rooms.iter().find(|room| room.node == rolling.turns[*at].node).and_then(|room| room.boot);
            let turn = &mut rolling.turns[*at];
            (turn.state, turn.boot) = (TurnState::Draining, boot);
            let drain = carry_on::drain(&rolling, &rolling.turns[*at], former.get(&rolling.turns[*at].node), now);
            cluster.drains.insert(drain.node, drain);
        }
        cluster.rolling = Some(rolling.clone());
        settle::cordon(cluster);
        moves::reserve(cluster, now);
        judge::judge(cluster, now);
        for at in wave {
            let turn = &mut rolling.turns[*at];
            turn.state = TurnState::Done;
            let drain = cluster.drains.get(&turn.node);
            played.items[*at] = drain.map(|drain| drain.items.values().cloned().collect()).unwrap_or_default();
        }
        arrive(cluster, &mut played.moves);
        cluster.drains = former;
    }
    played
}

/// Everything that moves is where it goes to; what found no node is stopped, and back where it was.
fn arrive(cluster: &mut Cluster, moved: &mut BTreeMap<EnvironmentId, u32>) {
    for environment in cluster.environments.values_mut() {
        let Some(moving) = environment.moving.take() else { continue };
        let room = moving.to.as_ref().and_then(|(to, _)| cluster.rooms.iter().find(|room| room.node == *to));
        let (Some(room), Some(place)) = (room, &environment.place) else { continue };
        let Some(boot) = room.boot else { continue };
        environment.last = Some(place.node);
        environment.place = Some(Place { node: room.node, name: room.name.clone(), boot, ..place.clone() });
        *moved.entry(environment.id).or_default() += 1;
    }
}
