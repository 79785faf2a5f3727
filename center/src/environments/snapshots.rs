//! What operators and users ask of an environment's disk: snapshots, rollback, clones. Each orders a task.

use jiff::Timestamp;
use lodge_model::environment::order::{TaskKind, TaskOutcome};
use lodge_model::environment::view::{EnvironmentView, SnapshotView};
use lodge_model::ids::TaskId;
use lodge_model::node::check_name;

use super::records::{Disk, Environment, Goal, Snapshot};
use super::repair::reinstall::System;
use super::{reconcile, request, tasks, view};
use crate::auth::Caller;
use crate::fault::Fault;
use crate::flow::World;
use crate::store::Tx;

/// Most snapshots of one environment.
const SNAPSHOTS: usize = 100;

/// All snapshots of an environment, oldest first.
pub fn list(tx: &Tx, caller: &Caller, name: &str) -> Result<Vec<SnapshotView>, Fault> {
    Ok(request::find(tx, caller, name)?.snapshots.into_iter().map(shown).collect())
}

/// Keep the disk as it is now.
pub fn take(tx: &Tx, caller: &Caller, name: &str, snapshot: Option<&str>, now: Timestamp) -> Result<SnapshotView, Fault> {
    let environment = with_disk(request::find_kept(tx, caller, name)?)?;
    let snapshot = snapshot.map_or_else(|| now.strftime("%Y%m%d-%H%M%S").to_string(), str::to_owned);
    check_name(&snapshot).map_err(|why| Fault::bad_input(format!("name: {why}")))?;
    if environment.snapshots.len() >= SNAPSHOTS {
        return Err(Fault::conflict(format!("{name} has {SNAPSHOTS} snapshots, and no more are possible; remove one first")));
    }
    let has_failed = |kept: &Snapshot| matches!(kept.outcome, TaskOutcome::Failed { .. });
    if environment.snapshots.iter().any(|kept| kept.name == snapshot && !has_failed(kept)) {
        return Err(Fault::conflict(format!("{name} has a snapshot {snapshot} already; choose another name")));
    }
    tasks::order(tx, TaskKind::Snapshot { environment: environment.id, snapshot: snapshot.clone() }, now)?;
    let system = Some(System::of(&environment));
    let kept = Snapshot { name: snapshot, created: now, outcome: TaskOutcome::Running { percent: 0 }, system };
    let mut changed = reload(tx, &environment)?;
    changed.snapshots.retain(|other| other.name != kept.name);
    changed.snapshots.push(kept.clone());
    reconcile::save(tx, &mut changed, Some(&environment), now)?;
    Ok(shown(kept))
}

/// Remove a snapshot.
pub fn remove(tx: &Tx, caller: &Caller, name: &str, snapshot: &str, now: Timestamp) -> Result<(), Fault> {
    let environment = request::find_kept(tx, caller, name)?;
    let kept = find(&environment, snapshot)?;
    match kept.outcome {
        TaskOutcome::Failed { .. } => {
            let mut changed = environment.clone();
            changed.snapshots.retain(|other| other.name != snapshot);
            reconcile::save(tx, &mut changed, Some(&environment), now)
        }
        TaskOutcome::Running { .. } => {
            Err(Fault::conflict(format!("snapshot {snapshot} of {name} is still being made; wait for it")))
        }
        TaskOutcome::Done { .. } | TaskOutcome::Checked(_) => {
            refuse_twice(tx, &environment, snapshot)?;
            let what = TaskKind::RemoveSnapshot { environment: environment.id, snapshot: snapshot.to_owned() };
            tasks::order(tx, what, now).map(drop)
        }
    }
}

/// Put a snapshot in place of the disk. What the disk holds now is lost.
pub fn rollback(
    tx: &Tx,
    world: &World,
    caller: &Caller,
    name: &str,
    snapshot: &str,
    now: Timestamp,
) -> Result<EnvironmentView, Fault> {
    let environment = request::find_kept(tx, caller, name)?;
    if !matches!(find(&environment, snapshot)?.outcome, TaskOutcome::Done { .. }) {
        return Err(Fault::conflict(format!("snapshot {snapshot} of {name} is not complete; lodge env show {name} says why")));
    }
    if environment.goal == Goal::Running || environment.place.is_some() {
        return Err(Fault::conflict(format!("{name} has not been stopped; stop it first: lodge env stop {name}")));
    }
    refuse_twice(tx, &environment, snapshot)?;
    let what = TaskKind::Rollback { environment: environment.id, snapshot: snapshot.to_owned() };
    tasks::order(tx, what, now)?;
    view::one(tx, world, &reload(tx, &environment)?)
}

/// Make a new environment with a copy of the disk. It has the same settings, new addresses, and starts when the copy is complete.
pub fn clone(
    tx: &Tx,
    world: &World,
    caller: &Caller,
    name: &str,
    (new_name, force): (&str, bool),
    now: Timestamp,
) -> Result<EnvironmentView, Fault> {
    let from = with_disk(request::find_kept(tx, caller, name)?)?;
    let mut spec = from.spec.clone();
    new_name.clone_into(&mut spec.name);
    spec.addresses.clear();
    spec.check().map_err(|error| Fault::bad_input(error.to_string()))?;
    let owner = caller.owner().or(from.owner.as_deref());
    let mut to = request::new(tx, owner, &spec, from.template.clone(), Disk::Copying(TaskId(uuid::Uuid::nil())), now)?;
    request::admit(tx, world, caller, force, (None, &to), now)?;
    let task = tasks::order(tx, TaskKind::Clone { from: from.id, to: to.id }, now)?;
    to.disk = Disk::Copying(task);
    (to.old, to.reinstalls) = (from.old.clone(), from.reinstalls);
    "its disk is being copied".clone_into(&mut to.reason);
    to.waits.clone_from(&to.reason);
    reconcile::save(tx, &mut to, None, now)?;
    view::one(tx, world, &to)
}

/// An environment that has a disk; refused where it has none.
pub(super) fn with_disk(environment: Environment) -> Result<Environment, Fault> {
    let has_disk = environment.epoch > 0 || environment.disk == Disk::Copied;
    if has_disk {
        return Ok(environment);
    }
    let name = &environment.spec.name;
    Err(Fault::conflict(format!(
        "{name} has no disk yet: it has never been started; lodge env show {name} says what it waits for"
    )))
}

fn find<'a>(environment: &'a Environment, snapshot: &str) -> Result<&'a Snapshot, Fault> {
    let name = &environment.spec.name;
    let found = environment.snapshots.iter().find(|kept| kept.name == snapshot);
    found.ok_or_else(|| Fault::not_found(format!("{name} has no snapshot {snapshot:?}; lodge env snapshots {name} lists them")))
}

/// Nothing else may be going on with that very snapshot.
fn refuse_twice(tx: &Tx, environment: &Environment, wanted: &str) -> Result<(), Fault> {
    let is_same = |what: &TaskKind| match what {
        TaskKind::Rollback { snapshot, .. } | TaskKind::RemoveSnapshot { snapshot, .. } => snapshot == wanted,
        _ => false,
    };
    match tasks::about(tx, environment.id)?.into_iter().find(|task| is_same(&task.what)) {
        None => Ok(()),
        Some(task) => Err(Fault::conflict(format!(
            "{}: the {} is not done yet; wait for it",
            environment.spec.name,
            tasks::words(&task.what, environment.id)
        ))),
    }
}

fn reload(tx: &Tx, environment: &Environment) -> Result<Environment, Fault> {
    let found = tx.get::<Environment>(&environment.id)?;
    found.ok_or_else(|| Fault::not_found(format!("{} is gone", environment.spec.name)))
}

fn shown(snapshot: Snapshot) -> SnapshotView {
    SnapshotView { name: snapshot.name, created: snapshot.created, outcome: snapshot.outcome }
}
