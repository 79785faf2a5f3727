//! Environments as operators and users see them.

use std::collections::BTreeMap;

use jiff::Timestamp;
use lodge_model::environment::order::{State, Want};
use lodge_model::environment::view::{EnvironmentView, TaskView, WayView};
use lodge_model::ids::EnvironmentId;

use super::drain::way::{self, Side};
use super::records::{Environment, Task};
use super::repair::Old;
use super::{drain, repair, request, tasks};
use crate::auth::Caller;
use crate::fault::Fault;
use crate::flow::World;
use crate::records::Node;
use crate::store::Tx;

/// All that the caller may see, by name.
pub fn all(tx: &Tx, world: &World, caller: &Caller) -> Result<Vec<EnvironmentView>, Fault> {
    let mut about: BTreeMap<EnvironmentId, Vec<Task>> = BTreeMap::new();
    for task in tx.list::<Task>()? {
        for id in task.about() {
            about.entry(id).or_default().push(task.clone());
        }
    }
    let mut seen = tx.list::<Environment>()?;
    seen.retain(|environment| caller.sees(environment.owner.as_deref()));
    seen.sort_by(|a, b| a.spec.name.cmp(&b.spec.name));
    Ok(seen
        .iter()
        .map(|environment| shown(world, environment, about.get(&environment.id).map_or(&[], Vec::as_slice)))
        .collect())
}

/// One by its name.
pub fn named(tx: &Tx, world: &World, caller: &Caller, name: &str) -> Result<EnvironmentView, Fault> {
    one(tx, world, &request::find(tx, caller, name)?)
}

/// One.
pub fn one(tx: &Tx, world: &World, environment: &Environment) -> Result<EnvironmentView, Fault> {
    let way = would_move(tx, world, environment)?;
    Ok(EnvironmentView { way, ..shown(world, environment, &tasks::about(tx, environment.id)?) })
}

/// How it would move now, wherever to; as it does, where it is about to.
fn would_move(tx: &Tx, world: &World, environment: &Environment) -> Result<Option<WayView>, Fault> {
    let Some(place) = environment.place.as_ref().filter(|place| place.want == Want::Running) else { return Ok(None) };
    let way = match &environment.moving {
        Some(moving) => moving.way.clone(),
        None => {
            let criu = tx.get::<Node>(&place.node)?.and_then(|node| node.criu);
            let probes = world.live.probes(place.node);
            let source = Side { name: &place.name, criu: criu.as_ref(), probe: probes.get(&environment.id) };
            way::of(environment, drain::request::settings(tx)?.move_by, source, None, false)
        }
    };
    Ok(Some(WayView { way: way.word().to_owned(), because: way.because }))
}

fn shown(world: &World, environment: &Environment, tasks: &[Task]) -> EnvironmentView {
    let open =
        tasks.iter().map(|task| TaskView { what: tasks::words(&task.what, environment.id), outcome: task.outcome.clone() });
    let started = match environment.report.as_ref().map(|report| &report.state) {
        Some(State::Running { since }) => Timestamp::from_second(*since).ok(),
        _ => None,
    };
    EnvironmentView {
        id: environment.id,
        spec: environment.spec.clone(),
        owner: environment.owner.clone(),
        phase: environment.phase,
        reason: environment.reason.clone(),
        node: environment.place.as_ref().map(|place| place.name.clone()),
        epoch: environment.epoch,
        addresses: environment.addresses_now().0.to_vec(),
        mac: environment.mac.clone(),
        usage: started.and_then(|_| world.live.usage(environment.id)),
        last_exit: environment.last_exit.clone(),
        created: environment.created,
        started,
        tasks: environment.failed.iter().cloned().chain(open).collect(),
        repair: repair::shown(environment),
        old: environment.old.as_ref().map(Old::shown),
        disk_check: environment.disk_check.clone(),
        moving: drain::view::moving(environment),
        moves: environment.moves.clone(),
        way: None,
        version: environment.version,
    }
}
