//! What operators and users ask of environments: create, change, start, stop, restart, kill, destroy. Each stores an intent and wakes
//! the planner; the rest is `settle`'s.

use jiff::Timestamp;
use lodge_model::environment::order::{State, Want};
use lodge_model::environment::spec::{Change, Spec};
use lodge_model::environment::view::{EnvironmentView, Phase};
use lodge_model::ids::EnvironmentId;
use lodge_model::layout::MIB;

use super::records::{Disk, Environment, Goal};
use super::{capacity, claims, quota, reconcile, tasks, view};
use crate::auth::Caller;
use crate::fault::Fault;
use crate::flow::World;
use crate::records::NameClaim;
use crate::store::Tx;
use crate::templates;
use crate::users::User;

/// Create one. Answers at once; it is placed as soon as a node has room.
///
/// `force` is for what would leave no room for the environments of a node that dies: an operator may insist.
pub fn create(
    tx: &Tx,
    world: &World,
    caller: &Caller,
    spec: &Spec,
    force: bool,
    now: Timestamp,
) -> Result<EnvironmentView, Fault> {
    spec.check().map_err(|error| Fault::bad_input(error.to_string()))?;
    if let Some(node) = &spec.node
        && tx.get::<NameClaim>(node)?.is_none()
    {
        return Err(Fault::bad_input(format!("node: there is no node {node}; lodge node ls lists them")));
    }
    let template = templates::find(tx, &spec.template)?;
    let mut environment = new(tx, caller.owner(), spec, template, Disk::Own, now)?;
    admit(tx, world, caller, force, (None, &environment), now)?;
    reconcile::save(tx, &mut environment, None, now)?;
    view::one(tx, world, &environment)
}

/// Refuse what would leave no room for the environments of a node that dies: one that is to run and did not before, or needs more memory
/// than before. An operator may insist.
pub fn admit(
    tx: &Tx,
    world: &World,
    caller: &Caller,
    force: bool,
    (before, after): (Option<&Environment>, &Environment),
    now: Timestamp,
) -> Result<(), Fault> {
    if force && caller.owner().is_some() {
        return Err(Fault::forbidden("force: only an operator may use up the room that is kept for the death of a node"));
    }
    let takes_more = before.is_none_or(|before| before.goal != Goal::Running || before.spec.memory < after.spec.memory);
    match after.goal == Goal::Running && takes_more && !force {
        true => capacity::check(tx, world, after, now),
        false => Ok(()),
    }
}

/// A new environment with all that is unique about it. Not saved yet.
pub fn new(
    tx: &Tx,
    owner: Option<&str>,
    spec: &Spec,
    template: lodge_model::environment::order::TemplateRef,
    disk: Disk,
    now: Timestamp,
) -> Result<Environment, Fault> {
    check_quota(tx, owner, spec, None)?;
    let id = EnvironmentId(tx.new_id());
    claims::take_name(tx, &spec.name, id)?;
    let (addresses, dns) = claims::take_addresses(tx, &spec.addresses, id)?;
    let (mac, id_range) = (claims::take_mac(tx, id)?, claims::take_id_range(tx, id)?);
    tx.replan();
    Ok(Environment {
        id,
        spec: spec.clone(),
        template,
        owner: owner.map(str::to_owned),
        created: now,
        id_range,
        mac,
        addresses,
        dns,
        goal: Goal::Running,
        disk,
        epoch: 0,
        place: None,
        last: None,
        given_back: None,
        report: None,
        last_exit: String::new(),
        restarts_asked: 0,
        snapshots: Vec::new(),
        failed: Vec::new(),
        phase: Phase::Waiting,
        reason: "it is about to be placed".to_owned(),
        waits: "it is about to be placed".to_owned(),
        moving: None,
        moves: Vec::new(),
        check: None,
        old: None,
        reinstalls: 0,
        disk_check: None,
        repair: None,
        counts_from: None,
        version: 0,
    })
}

/// Change one. Limits hold at once where it runs.
pub fn change(
    tx: &Tx,
    world: &World,
    caller: &Caller,
    name: &str,
    (wanted, force): (&Change, bool),
    now: Timestamp,
) -> Result<EnvironmentView, Fault> {
    wanted.check().map_err(|error| Fault::bad_input(error.to_string()))?;
    let before = find_kept(tx, caller, name)?;
    let mut environment = before.clone();
    apply(&mut environment.spec, wanted);
    if environment.spec == before.spec && wanted.move_by.is_none() {
        return view::one(tx, world, &before);
    }
    if environment.spec.disk < before.spec.disk {
        return Err(Fault::bad_input(format!(
            "disk: {name} has {} MiB, and a disk only grows; clone what is in it into a smaller environment instead",
            before.spec.disk / MIB
        )));
    }
    check_quota(tx, environment.owner.as_deref(), &environment.spec, Some(&before.spec))?;
    if environment.spec.memory > before.spec.memory {
        check_room(tx, world, &environment, environment.spec.memory - before.spec.memory, now)?;
    }
    admit(tx, world, caller, force, (Some(&before), &environment), now)?;
    if environment.spec.name != before.spec.name {
        claims::take_name(tx, &environment.spec.name, environment.id)?;
        claims::give_name_back(tx, &before.spec.name)?;
    }
    environment.counts_from = Some(now);
    tx.replan();
    reconcile::save(tx, &mut environment, Some(&before), now)?;
    view::one(tx, world, &environment)
}

fn apply(spec: &mut Spec, change: &Change) {
    let Change { name, disk, memory, cpu_millis, priority, anti_affinity, restart, move_by } = change.clone();
    spec.name = name.unwrap_or_else(|| spec.name.clone());
    spec.disk = disk.unwrap_or(spec.disk);
    spec.memory = memory.unwrap_or(spec.memory);
    spec.cpu_millis = cpu_millis.unwrap_or(spec.cpu_millis);
    spec.priority = priority.unwrap_or(spec.priority);
    spec.restart = restart.unwrap_or(spec.restart);
    spec.move_by = move_by.unwrap_or(spec.move_by);
    if let Some(group) = anti_affinity {
        spec.anti_affinity = Some(group).filter(|group| !group.is_empty());
    }
}

/// Its node must have the memory that it grows by: nothing is promised twice.
fn check_room(tx: &Tx, world: &World, environment: &Environment, more: u64, now: Timestamp) -> Result<(), Fault> {
    let Some(place) = &environment.place else { return Ok(()) };
    let (mut cluster, _) = reconcile::load(tx, world, true, now)?;
    cluster.count();
    let free = cluster.rooms.iter().find(|room| room.node == place.node).map_or(0, super::place::Room::free);
    if free >= more {
        return Ok(());
    }
    let (name, node) = (&environment.spec.name, &place.name);
    Err(Fault::conflict(format!(
        "memory: {node}, which runs {name}, has only {} MiB left; to let another node run it: lodge env stop {name}, set the memory, \
         lodge env start {name}",
        free / MIB
    )))
}

/// Let it run.
pub fn start(
    tx: &Tx,
    world: &World,
    caller: &Caller,
    name: &str,
    force: bool,
    now: Timestamp,
) -> Result<EnvironmentView, Fault> {
    aim(tx, world, caller, (name, force), now, |environment| {
        // An end that has been reported already is the end of that epoch; it must not undo this start.
        if let (Some(place), Some(report)) = (&mut environment.place, &environment.report)
            && matches!(report.state, State::Ended | State::Released)
            && place.want == Want::Running
            && environment.goal == Goal::Running
        {
            place.want = Want::Stopped;
        }
        environment.given_back = None;
        environment.goal = Goal::Running;
        environment.counts_from = Some(now);
    })
}

/// Let its init shut it down.
pub fn stop(tx: &Tx, world: &World, caller: &Caller, name: &str, now: Timestamp) -> Result<EnvironmentView, Fault> {
    aim(tx, world, caller, (name, false), now, |environment| environment.goal = Goal::Stopped)
}

/// End it without asking.
pub fn kill(tx: &Tx, world: &World, caller: &Caller, name: &str, now: Timestamp) -> Result<EnvironmentView, Fault> {
    aim(tx, world, caller, (name, false), now, |environment| environment.goal = Goal::Killed)
}

/// Let its init shut it down, and start it again; one that does not run is started.
pub fn restart(
    tx: &Tx,
    world: &World,
    caller: &Caller,
    name: &str,
    force: bool,
    now: Timestamp,
) -> Result<EnvironmentView, Fault> {
    aim(tx, world, caller, (name, force), now, |environment| {
        environment.goal = Goal::Running;
        let runs = environment.place.as_ref().is_some_and(|place| place.want == Want::Running);
        if runs {
            environment.restarts_asked += 1;
        }
        environment.counts_from = Some(now);
    })
}

/// Remove it, its disk and its snapshots.
pub fn destroy(tx: &Tx, world: &World, caller: &Caller, name: &str, now: Timestamp) -> Result<EnvironmentView, Fault> {
    let environment = find(tx, caller, name)?;
    let is_copied = |task: &super::records::Task| task.about().first() == Some(&environment.id) && task.about().len() > 1;
    if tasks::about(tx, environment.id)?.iter().any(is_copied) {
        let why =
            format!("the disk of {name} is being copied for a clone; destroy {name} when that is done (lodge env show {name})");
        return Err(Fault::conflict(why));
    }
    let before = environment.clone();
    let mut environment = environment;
    environment.goal = Goal::Destroyed;
    finish(tx, world, &before, environment, now)
}

fn aim(
    tx: &Tx,
    world: &World,
    caller: &Caller,
    (name, force): (&str, bool),
    now: Timestamp,
    set: impl FnOnce(&mut Environment),
) -> Result<EnvironmentView, Fault> {
    let before = find_kept(tx, caller, name)?;
    let mut environment = before.clone();
    set(&mut environment);
    admit(tx, world, caller, force, (Some(&before), &environment), now)?;
    finish(tx, world, &before, environment, now)
}

pub(super) fn finish(
    tx: &Tx,
    world: &World,
    before: &Environment,
    mut environment: Environment,
    now: Timestamp,
) -> Result<EnvironmentView, Fault> {
    if environment != *before {
        if environment.goal != before.goal && environment.place.is_none() {
            "it is about to be placed".clone_into(&mut environment.waits);
        }
        if before.phase != Phase::Unknown {
            (environment.phase, environment.reason) = super::phase::of(&environment, "");
        }
        tx.replan();
        reconcile::save(tx, &mut environment, Some(before), now)?;
    }
    view::one(tx, world, &environment)
}

/// The environment of a name or an id, if it is there for the caller.
pub fn find(tx: &Tx, caller: &Caller, name: &str) -> Result<Environment, Fault> {
    let id = match claims::named(tx, name)? {
        Some(id) => Some(id),
        None => name.parse().ok(),
    };
    let found = id.map(|id: EnvironmentId| tx.get::<Environment>(&id)).transpose()?.flatten();
    let found = found.filter(|environment| caller.sees(environment.owner.as_deref()));
    found.ok_or_else(|| Fault::not_found(format!("there is no environment {name:?}; lodge env ls lists them")))
}

/// As `find`, and not being removed.
pub fn find_kept(tx: &Tx, caller: &Caller, name: &str) -> Result<Environment, Fault> {
    let environment = find(tx, caller, name)?;
    match environment.goal {
        Goal::Destroyed => Err(Fault::conflict(format!("{name} is being destroyed; that cannot be taken back"))),
        _ => Ok(environment),
    }
}

/// What has no owner has no limit.
fn check_quota(tx: &Tx, owner: Option<&str>, wanted: &Spec, former: Option<&Spec>) -> Result<(), Fault> {
    let Some(owner) = owner else { return Ok(()) };
    let Some(user) = tx.get::<User>(&owner)? else { return Ok(()) };
    let all = tx.list::<Environment>()?;
    let used = quota::used(all.iter(), owner);
    quota::check(&user.quota, &used, wanted, former).map_err(|why| Fault::conflict(format!("quota of {owner}: {why}")))
}
