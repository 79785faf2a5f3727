//! Who may run what, over all environments, tasks and nodes at once. Pure: it changes the records in memory, and the caller writes what
//! has changed.
//!
//! The one rule of it: the right to run an environment is given anew, with the next epoch, only after the old right has ended. It has
//! ended when its holder said so in that very boot and epoch (`State::Released`), when that boot has certainly ended (the node has
//! registered with another one), when it is fenced with proof, or when an operator said that the machine is off. Removals come before placements.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use lodge_model::drain::Settings;
use lodge_model::environment::order::{State, TaskKind, Want};
use lodge_model::ids::{BootId, EnvironmentId, NodeId, TaskId};

use super::drain::{Drain, judge, moves, view};
use super::place::{self, Demand, Room};
use super::records::{Disk, Environment, GivenBack, Goal, Place, Task};
use super::rolling::{Rolling, carry_on::carry_on};
use super::{phase, reach, repair};

/// Everything that is settled.
pub struct Cluster {
    /// All environments.
    pub environments: BTreeMap<EnvironmentId, Environment>,
    /// All tasks that are not done.
    pub tasks: BTreeMap<TaskId, Task>,
    /// All nodes. What they hold is computed here.
    pub rooms: Vec<Room>,
    /// Nodes that are drained.
    pub drains: BTreeMap<NodeId, Drain>,
    /// The newest reboot of the whole cluster.
    pub rolling: Option<Rolling>,
    /// Budgets.
    pub settings: Settings,
    /// The center has listened long enough for silence to mean something.
    pub listens: bool,
}

impl Cluster {
    /// Count what the nodes hold, and what is reserved on them.
    pub fn count(&mut self) {
        let mut at: BTreeMap<NodeId, &mut Room> = self.rooms.iter_mut().map(|room| (room.node, room)).collect();
        for room in at.values_mut() {
            room.held = place::Held::default();
        }
        for environment in self.environments.values() {
            if let Some(room) = environment.place.as_ref().and_then(|place| at.get_mut(&place.node)) {
                room.held.add(environment);
            }
            let reserved = environment.moving.as_ref().and_then(|moving| moving.to.as_ref()).map(|(node, _)| *node);
            let reserved = reserved.filter(|node| environment.place.as_ref().is_none_or(|place| place.node != *node));
            if let Some(room) = reserved.and_then(|node| at.get_mut(&node)) {
                room.held.reserve(environment);
            }
        }
    }
}

/// Settle. Returns the environments that are gone for good; they are in the map no more.
pub fn settle(cluster: &mut Cluster, now: Timestamp) -> Vec<EnvironmentId> {
    judge::end_with_boot(cluster);
    carry_on(cluster, now);
    cordon(cluster);
    let mut gone = Vec::new();
    for environment in cluster.environments.values_mut() {
        release_after_boot(environment, &cluster.rooms);
        if take_report(environment, now) {
            gone.push(environment.id);
        }
        moves::follow(environment, now);
        tell(environment);
    }
    gone.extend(cluster.environments.values().filter(|environment| never_was(environment)).map(|environment| environment.id));
    for id in &gone {
        cluster.environments.remove(id);
    }
    let known = &cluster.environments;
    cluster.tasks.retain(|_, task| task.about().iter().all(|id| known.contains_key(id)));
    release_tasks(cluster);
    repair::follow(cluster);
    moves::reserve(cluster, now);
    place_all(cluster, now);
    home_tasks(cluster);
    let busy = cluster.tasks.values().filter(|task| task.is_open() && task.node.is_some()).flat_map(Task::about).collect();
    moves::begin(cluster, &busy, now);
    reach::assign(cluster, now);
    judge::judge(cluster, now);
    describe(cluster);
    gone
}

/// Nothing new comes to a node that is drained, and no more than must to one that will be soon.
pub fn cordon(cluster: &mut Cluster) {
    for room in &mut cluster.rooms {
        room.leaves_soon = cluster.rolling.as_ref().is_some_and(|rolling| rolling.comes_to(room.node));
        room.cordoned = cluster.drains.get(&room.node).map_or(String::new(), view::cordoned);
    }
}

fn room(rooms: &[Room], node: NodeId) -> Option<&Room> {
    rooms.iter().find(|room| room.node == node)
}

fn release(environment: &mut Environment) {
    environment.last = environment.place.take().map(|place| place.node).or(environment.last);
    environment.report = None;
}

fn release_after_boot(environment: &mut Environment, rooms: &[Room]) {
    let Some(place) = &environment.place else { return };
    if room(rooms, place.node).is_some_and(|room| room.has_ended(place.boot)) {
        release(environment);
    }
}

/// Act on what its node said of it. Says whether it is gone.
fn take_report(environment: &mut Environment, now: Timestamp) -> bool {
    let (Some(place), Some(report)) = (&environment.place, &environment.report) else { return false };
    match (&report.state, place.want) {
        (State::Destroyed, Want::Destroyed) => return true,
        (State::Ended, Want::Running) if environment.goal == Goal::Running => {
            let will_restart = report.restarts_done < environment.restarts_asked;
            if !will_restart {
                environment.goal = Goal::Ended;
            }
        }
        (State::Released, Want::Running) => {
            environment.given_back = Some(GivenBack { node: place.node, at: now });
            release(environment);
        }
        (State::Released, Want::Suspended) => {
            moves::let_go(environment);
            release(environment);
        }
        (State::Released, Want::Stopped | Want::Killed) => release(environment),
        _ => {}
    }
    false
}

/// Tell its node what is wanted. Within an epoch that never goes back: see `Place::want`.
fn tell(environment: &mut Environment) {
    let wanted = want(environment.goal);
    if let Some(place) = &mut environment.place
        && rank(wanted) > rank(place.want)
    {
        place.want = wanted;
        // What was said before it was told is no answer.
        environment.report.take_if(|report| report.state == State::Destroyed);
    }
}

fn want(goal: Goal) -> Want {
    match goal {
        Goal::Running => Want::Running,
        Goal::Stopped | Goal::Ended => Want::Stopped,
        Goal::Killed => Want::Killed,
        Goal::Destroyed => Want::Destroyed,
    }
}

fn rank(want: Want) -> u8 {
    match want {
        Want::Running => 0,
        Want::Suspended => 1,
        Want::Stopped => 2,
        Want::Killed => 3,
        Want::Destroyed => 4,
    }
}

/// It is to be removed and nothing of it has ever been on the share.
fn never_was(environment: &Environment) -> bool {
    environment.goal == Goal::Destroyed
        && environment.epoch == 0
        && match environment.disk {
            Disk::Own | Disk::Lost(_) => true,
            Disk::Copying(_) | Disk::Copied => false,
        }
}

/// Tasks of boots that have ended look for another node.
fn release_tasks(cluster: &mut Cluster) {
    for task in cluster.tasks.values_mut().filter(|task| task.is_open()) {
        let ended = |(node, boot): (NodeId, BootId)| room(&cluster.rooms, node).is_none_or(|room| room.has_ended(boot));
        if task.node.is_some_and(ended) {
            task.node = None;
        }
    }
}

/// What tasks that are not done mean for placing the environments that they are about.
enum Hold {
    /// The disk changes under it: not at all.
    Wait(String),
    /// Only where the task works.
    Only(NodeId),
}

fn is_kept_by(cluster: &Cluster, environment: EnvironmentId, snapshot: &str) -> bool {
    cluster.environments.get(&environment).is_some_and(|environment| environment.is_kept_by(snapshot))
}

fn holds(cluster: &Cluster) -> BTreeMap<EnvironmentId, Hold> {
    let mut holds = BTreeMap::new();
    for task in cluster.tasks.values().filter(|task| task.is_open()) {
        let works_on = match &task.what {
            TaskKind::Rollback { environment, snapshot } => {
                holds.insert(*environment, Hold::Wait(format!("its disk is being put back to snapshot {snapshot}")));
                continue;
            }
            TaskKind::CheckDisk { environment, .. } => {
                holds.insert(*environment, Hold::Wait("its disk is being checked".to_owned()));
                continue;
            }
            TaskKind::Clone { from, to } => {
                holds.insert(*to, Hold::Wait("its disk is being copied".to_owned()));
                from
            }
            TaskKind::Snapshot { environment, snapshot } if is_kept_by(cluster, *environment, snapshot) => {
                holds.insert(*environment, Hold::Wait(format!("its disk is being kept as snapshot {snapshot} first")));
                continue;
            }
            TaskKind::Snapshot { environment, .. } | TaskKind::RemoveSnapshot { environment, .. } => environment,
            TaskKind::ImportTemplate { .. } | TaskKind::RemoveTemplate { .. } => continue,
        };
        if let Some((node, _)) = task.node {
            holds.entry(*works_on).or_insert(Hold::Only(node));
        }
    }
    holds
}

/// Give every environment that needs a node one, or say why there is none: removals first, then by priority, then by age.
fn place_all(cluster: &mut Cluster, now: Timestamp) {
    let holds = holds(cluster);
    let needs_node = |environment: &&mut Environment| {
        environment.place.is_none() && matches!(environment.goal, Goal::Running | Goal::Destroyed)
    };
    let mut waiting: Vec<&mut Environment> = cluster.environments.values_mut().filter(needs_node).collect();
    waiting.sort_by_key(|environment| {
        let running = environment.goal == Goal::Running;
        (running, std::cmp::Reverse(environment.spec.priority), environment.created, environment.id)
    });
    for environment in waiting {
        let removal = environment.goal == Goal::Destroyed;
        let only = match (holds.get(&environment.id), &environment.disk) {
            (Some(Hold::Wait(why)), _) => Err(why.clone()),
            (_, Disk::Copying(_)) => Err("its disk is being copied".to_owned()),
            (_, Disk::Lost(why)) if !removal => Err(format!("its disk could not be copied: {why}")),
            (Some(Hold::Only(node)), _) => Ok(Some(*node)),
            (None, _) => Ok(None),
        };
        // What moves has its node already, and its memory there.
        let reserved = environment.moving.as_ref().filter(|_| !removal);
        let reserved = reserved.map(|moving| moving.to.as_ref().map(|(node, _)| *node).ok_or_else(|| moving.waits.clone()));
        let chosen = only.and_then(|only| match &reserved {
            None => place::choose(&cluster.rooms, &Demand { environment, only, leaves: None, removal, now }),
            Some(Err(why)) => Err(why.clone()),
            Some(Ok(to)) if only.is_some_and(|only| only != *to) => Err("another node is working on its disk".to_owned()),
            Some(Ok(to)) => cluster.rooms.iter().position(|room| room.node == *to).ok_or_else(|| "its node is gone".to_owned()),
        });
        match chosen {
            Ok(at) => give(environment, &mut cluster.rooms[at], reserved.is_some()),
            Err(why) => environment.waits = why,
        }
    }
}

/// Give a node the right to run an environment. The only place where an epoch grows.
fn give(environment: &mut Environment, room: &mut Room, is_reserved: bool) {
    let Some(boot) = room.boot else { return };
    environment.epoch += 1;
    let want = want(environment.goal);
    let to_remove = want == Want::Destroyed;
    environment.place = Some(Place { node: room.node, name: room.name.clone(), boot, want, to_remove });
    environment.report = None;
    environment.given_back = None;
    environment.waits.clear();
    if !is_reserved {
        room.held.add(environment);
    }
}

/// Give every task that has none a node: that of its environment, else any. Environments are worked on by one task at a time.
fn home_tasks(cluster: &mut Cluster) {
    let homed = |task: &&Task| task.is_open() && task.node.is_some();
    let mut busy: BTreeSet<EnvironmentId> = cluster.tasks.values().filter(homed).flat_map(Task::about).collect();
    let mut load: BTreeMap<NodeId, u32> = BTreeMap::new();
    for (node, _) in cluster.tasks.values().filter_map(|task| task.node) {
        *load.entry(node).or_default() += 1;
    }
    let mut waiting: Vec<&mut Task> = cluster.tasks.values_mut().filter(|task| task.is_open() && task.node.is_none()).collect();
    waiting.sort_by_key(|task| (task.created, task.id));
    for task in waiting {
        let about = task.about();
        let is_busy = about.iter().any(|id| busy.contains(id));
        busy.extend(&about);
        if is_busy {
            continue;
        }
        task.node = home(task, &cluster.environments, &cluster.rooms, &load);
        if let Some((node, _)) = task.node {
            *load.entry(node).or_default() += 1;
        }
    }
}

fn home(
    task: &Task,
    environments: &BTreeMap<EnvironmentId, Environment>,
    rooms: &[Room],
    load: &BTreeMap<NodeId, u32>,
) -> Option<(NodeId, BootId)> {
    let environment = task.about().first().and_then(|id| environments.get(id));
    let place = environment.and_then(|environment| environment.place.as_ref());
    match (&task.what, place) {
        (TaskKind::Rollback { .. } | TaskKind::CheckDisk { .. }, Some(_)) => return None,
        (TaskKind::Snapshot { snapshot, .. }, Some(_)) if environment.is_some_and(|one| one.is_kept_by(snapshot)) => {
            return None;
        }
        (_, Some(place)) => return Some((place.node, place.boot)),
        (_, None) => {}
    }
    let last = environment.and_then(|environment| environment.last);
    let rank = |room: &&Room| (last != Some(room.node), load.get(&room.node).copied().unwrap_or(0), room.node);
    let best = rooms.iter().filter(|room| room.takes()).min_by_key(rank)?;
    Some((best.node, best.boot?))
}

/// Say where each stands. Of a node that has not been heard since the center started, what was said before still stands for a while.
fn describe(cluster: &mut Cluster) {
    for environment in cluster.environments.values_mut() {
        let silent = match &environment.place {
            Some(place) => room(&cluster.rooms, place.node).map_or("its node is not known any more", |room| &room.silent),
            None => "",
        };
        if silent.is_empty() || cluster.listens {
            (environment.phase, environment.reason) = phase::of(environment, silent);
        }
    }
}

#[cfg(test)]
mod tests;
