//! How each environment of a drain stands, and what the drain as a whole waits for. Pure: computed from the records, so that it says the
//! same after a restart of the center.

use jiff::Timestamp;
use lodge_model::drain::{DrainItem, DrainState, Verdict};
use lodge_model::environment::order::Want;
use lodge_model::ids::EnvironmentId;

use super::Drain;
use super::moves::{LIVE, RESTART, is_under_way, way_word};
use crate::environments::place::Room;
use crate::environments::records::{Environment, Goal, Move};
use crate::environments::settle::Cluster;

/// Bring all drains up to date.
pub fn judge(cluster: &mut Cluster, now: Timestamp) {
    let mut drains = std::mem::take(&mut cluster.drains);
    for drain in drains.values_mut() {
        let before = drain.clone();
        items(drain, cluster, now);
        stand(drain, cluster, now);
        if *drain != before {
            drain.version += 1;
        }
    }
    cluster.drains = drains;
}

/// What belongs to a boot that has ended goes with it. The nodes whose drain is over.
pub fn end_with_boot(cluster: &mut Cluster) {
    let boots: Vec<_> = cluster.rooms.iter().map(|room| (room.node, room.boot)).collect();
    cluster.drains.retain(|node, drain| {
        let Some((_, boot)) = boots.iter().find(|(known, _)| known == node) else { return false };
        if *boot == drain.boot {
            return true;
        }
        if drain.stays {
            (drain.boot, drain.then, drain.deadline, drain.goes_down) = (*boot, None, None, false);
            drain.version += 1;
        }
        drain.stays
    });
}

fn items(drain: &mut Drain, cluster: &Cluster, now: Timestamp) {
    for (id, environment) in &cluster.environments {
        let is_here = environment.place.as_ref().is_some_and(|place| place.node == drain.node && !place.to_remove);
        let leaves = environment.moving.as_ref().is_some_and(|moving| moving.from == drain.node);
        if is_here || leaves {
            drain.items.insert(*id, item(drain, environment, now));
        }
    }
    for (id, item) in &mut drain.items {
        if !matches!(item.verdict, Verdict::Moved | Verdict::MovedLive) {
            finish(item, *id, drain.node, &drain.name, drain.ordered, cluster);
        }
    }
}

/// It is still here, or on its way.
fn item(drain: &Drain, environment: &Environment, now: Timestamp) -> DrainItem {
    let (verdict, reason) = match &environment.moving {
        Some(moving) if moving.from == drain.node => on_its_way(environment, moving, now),
        _ => match environment.goal {
            Goal::Running => (Verdict::Waits, String::new()),
            Goal::Destroyed => (Verdict::Stopping, "it is being destroyed".to_owned()),
            Goal::Stopped | Goal::Killed | Goal::Ended => (Verdict::Stopping, String::new()),
        },
    };
    DrainItem {
        environment: environment.spec.name.clone(),
        to: environment.moving.as_ref().and_then(|moving| moving.to.as_ref()).map(|(_, name)| name.clone()),
        way: environment.moving.as_ref().map_or(RESTART, way_word).to_owned(),
        because: environment.moving.as_ref().map(|moving| moving.way.because.clone()).unwrap_or_default(),
        verdict,
        reason,
        expected_ms: environment.moves.last().and_then(|last| last.gap_ms),
        gap_ms: None,
    }
}

fn on_its_way(environment: &Environment, moving: &Move, now: Timestamp) -> (Verdict, String) {
    let problem = environment.report.as_ref().map(|report| report.problem.clone()).unwrap_or_default();
    match (moving.begun, moving.released) {
        (None, _) => (Verdict::Waits, moving.waits.clone()),
        (Some(_), None) => (Verdict::Stopping, problem),
        (Some(_), Some(_)) if environment.place.is_none() && moving.to.is_none() => {
            let why = if moving.waits.is_empty() { environment.waits.clone() } else { moving.waits.clone() };
            (down(environment), why)
        }
        (Some(_), Some(_)) if !is_under_way(moving, now) => (down(environment), format!("it does not start: {problem}")),
        (Some(_), Some(_)) => (Verdict::Starting, problem),
    }
}

fn down(environment: &Environment) -> Verdict {
    if environment.last_exit.starts_with("killed") { Verdict::Killed } else { Verdict::Stopped }
}

/// It has left: what has become of it.
fn finish(
    item: &mut DrainItem,
    id: EnvironmentId,
    node: lodge_model::ids::NodeId,
    name: &str,
    since: Timestamp,
    cluster: &Cluster,
) {
    let Some(environment) = cluster.environments.get(&id) else {
        if !item.verdict.is_final() {
            (item.verdict, item.reason) = (Verdict::Stopped, "it was destroyed".to_owned());
        }
        return;
    };
    let is_here = environment.place.as_ref().is_some_and(|place| place.node == node);
    if is_here || environment.moving.as_ref().is_some_and(|moving| moving.from == node) {
        return;
    }
    let done = environment.moves.iter().rev().find(|done| done.from == name && done.at.is_some_and(|at| at >= since));
    match done {
        Some(done) => {
            let verdict = if done.way == LIVE { Verdict::MovedLive } else { Verdict::Moved };
            (item.verdict, item.to, item.gap_ms) = (verdict, done.to.clone(), done.gap_ms);
            item.way.clone_from(&done.way);
            item.because.clone_from(&done.because);
            item.reason.clone_from(&done.note);
        }
        None => {
            // It was stopped or ended by whoever it belongs to, or its node let go of it by itself.
            let place = environment.place.as_ref().filter(|place| place.want == Want::Running);
            (item.verdict, item.to) = (down(environment), place.map(|place| place.name.clone()));
            item.reason.clone_from(&environment.last_exit);
        }
    }
}

fn stand(drain: &mut Drain, cluster: &Cluster, now: Timestamp) {
    let assigned = cluster.environments.values().filter(|environment| {
        environment.place.as_ref().is_some_and(|place| place.node == drain.node && Some(place.boot) == drain.boot)
    });
    let assigned = assigned.count();
    let works = cluster.tasks.values().any(|task| task.node.is_some_and(|(node, _)| node == drain.node));
    let is_late = drain.is_late(now);
    let open: Vec<&DrainItem> = drain.items.values().filter(|item| !item.verdict.is_final()).collect();
    let is_empty = assigned == 0 && !works;
    drain.state = match drain.state {
        // Nothing comes back to it, whatever becomes elsewhere of what has left.
        DrainState::Drained if is_empty => DrainState::Drained,
        _ if is_empty && (open.is_empty() || is_late) => DrainState::Certifying,
        _ => DrainState::Draining,
    };
    drain.waits = waits(drain, &open, cluster.rooms.iter().find(|room| room.node == drain.node), works);
}

fn waits(drain: &Drain, open: &[&DrainItem], room: Option<&Room>, works: bool) -> String {
    let silent = room.map_or("it is not known any more", |room| room.silent.as_str());
    if drain.state == DrainState::Drained {
        return String::new();
    }
    if !silent.is_empty() {
        return format!("{}: {silent}", drain.name);
    }
    let stuck: Vec<&&DrainItem> =
        open.iter().filter(|item| item.verdict == Verdict::Waits && item.to.is_none() && !item.reason.is_empty()).collect();
    match (stuck.as_slice(), drain.state) {
        ([], DrainState::Certifying) => format!("{} counts what is left on it", drain.name),
        ([], _) if works && open.is_empty() => format!("{} is still working on a disk", drain.name),
        ([], _) => String::new(),
        ([one], _) => format!("no node takes {}: {}", one.environment, one.reason),
        ([one, ..], _) => format!("no node takes {} and {} more: {}", one.environment, stuck.len() - 1, one.reason),
    }
}
