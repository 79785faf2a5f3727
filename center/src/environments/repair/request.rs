//! What operators and users ask about repairs: begin one, end it.

use jiff::Timestamp;
use lodge_model::environment::order::{TaskKind, TemplateRef, Want};
use lodge_model::environment::spec::check_ssh_key;
use lodge_model::environment::view::{CheckOrder, EnvironmentView, RepairEnd, RepairOrder};

use super::{Addresses, Repair, is_whole};
use crate::auth::Caller;
use crate::environments::records::{Environment, Goal};
use crate::environments::{claims, reconcile, request, snapshots, tasks, view};
use crate::fault::Fault;
use crate::flow::World;
use crate::records::NameClaim;
use crate::store::Tx;
use crate::templates;

/// Open its files to a clean system: it is stopped, kept as a snapshot, and its next epoch is that of its repair environment. `force` as for
/// its start, where it does not run.
pub fn begin(
    tx: &Tx,
    world: &World,
    caller: &Caller,
    name: &str,
    (order, force): (&RepairOrder, bool),
    now: Timestamp,
) -> Result<EnvironmentView, Fault> {
    for key in &order.ssh_keys {
        check_ssh_key(key).map_err(|error| Fault::bad_input(error.to_string()))?;
    }
    let found = snapshots::with_disk(request::find_kept(tx, caller, name)?)?;
    refuse(tx, &found, order)?;
    let snapshot = order.snapshot.then(|| format!("before-repair-{}", now.strftime("%Y%m%d-%H%M%S")));
    if let Some(snapshot) = &snapshot {
        snapshots::take(tx, caller, name, Some(snapshot), now)?;
    }
    let before = request::find_kept(tx, caller, name)?;
    let (template_name, template) = clean(tx, &before, order.template.as_deref())?;
    let addresses = match &order.addresses {
        None => None,
        Some(asked) => {
            let (addresses, dns) = claims::take_addresses(tx, asked, before.id)?;
            Some(Addresses { addresses, dns })
        }
    };
    let mut environment = before.clone();
    environment.repair = Some(Repair {
        template,
        template_name,
        node: order.node.clone(),
        addresses,
        ssh_keys: order.ssh_keys.clone(),
        snapshot,
        since: now,
        after: before.epoch,
        was: before.goal,
        ends: false,
        mended: String::new(),
    });
    hand_over(&mut environment);
    request::admit(tx, world, caller, force, (Some(&before), &environment), now)?;
    reconcile::log(tx, &environment, &format!("{name} is to be repaired"), now)?;
    request::finish(tx, world, &before, environment, now)
}

/// End a repair: disk and addresses go back, and the environment is started, with the contents of the snapshot if asked.
pub fn finish(
    tx: &Tx,
    world: &World,
    caller: &Caller,
    name: &str,
    end: RepairEnd,
    now: Timestamp,
) -> Result<EnvironmentView, Fault> {
    let found = request::find_kept(tx, caller, name)?;
    let Some(repair) = &found.repair else {
        return Err(Fault::conflict(format!("{name} is not under repair; to begin: lodge env repair {name}")));
    };
    if repair.ends {
        return Err(Fault::conflict(format!(
            "the repair of {name} is being ended already; lodge env show {name} says how it stands"
        )));
    }
    if end.rollback {
        let Some(snapshot) = repair.snapshot.clone() else {
            return Err(Fault::conflict(format!(
                "no snapshot of {name} was taken before its repair; finish it without --rollback"
            )));
        };
        if !is_whole(&found, &snapshot) {
            let why =
                format!("snapshot {snapshot} of {name} is not there, or not complete; lodge env snapshots {name} lists them");
            return Err(Fault::conflict(why));
        }
        tasks::order(tx, TaskKind::Rollback { environment: found.id, snapshot }, now)?;
    }
    let before = request::find_kept(tx, caller, name)?;
    let mut environment = before.clone();
    if let Some(repair) = &mut environment.repair {
        repair.ends = true;
    }
    hand_over(&mut environment);
    reconcile::log(tx, &environment, &format!("the repair of {name} is to end"), now)?;
    request::finish(tx, world, &before, environment, now)
}

/// Check the disk of one that is stopped, and mend it if asked.
pub fn check(
    tx: &Tx,
    world: &World,
    caller: &Caller,
    name: &str,
    order: CheckOrder,
    now: Timestamp,
) -> Result<EnvironmentView, Fault> {
    let environment = snapshots::with_disk(request::find_kept(tx, caller, name)?)?;
    if environment.goal == Goal::Running || environment.place.is_some() {
        return Err(Fault::conflict(format!("{name} has not been stopped; stop it first: lodge env stop {name}")));
    }
    is_idle(tx, &environment)?;
    tasks::order(tx, TaskKind::CheckDisk { environment: environment.id, mend: order.mend }, now)?;
    view::named(tx, world, caller, name)
}

/// What keeps it from being repaired now.
fn refuse(tx: &Tx, environment: &Environment, order: &RepairOrder) -> Result<(), Fault> {
    let name = &environment.spec.name;
    if let Some(repair) = &environment.repair {
        return Err(Fault::conflict(format!(
            "{name} is under repair already, since {}; lodge env show {name} says how it stands, lodge env repair {name} --finish \
             ends it",
            repair.since
        )));
    }
    is_idle(tx, environment)?;
    match &order.node {
        Some(node) if tx.get::<NameClaim>(node)?.is_none() => {
            Err(Fault::bad_input(format!("node: there is no node {node}; lodge node ls lists them")))
        }
        _ => Ok(()),
    }
}

/// Nobody works on its disk.
pub(super) fn is_idle(tx: &Tx, environment: &Environment) -> Result<(), Fault> {
    let Some(task) = tasks::about(tx, environment.id)?.into_iter().next() else { return Ok(()) };
    let (name, what) = (&environment.spec.name, tasks::words(&task.what, environment.id));
    Err(Fault::conflict(format!("{name}: the {what} is not done yet; wait for it")))
}

/// The clean system.
fn clean(tx: &Tx, environment: &Environment, asked: Option<&str>) -> Result<(String, TemplateRef), Fault> {
    let (name, found) = match asked {
        Some(name) => (name.to_owned(), templates::find(tx, name)?),
        None => (environment.spec.template.clone(), environment.template.clone()),
    };
    Ok((name, found))
}

/// Whoever has the disk lets go of it, cleanly; what it is next is started in another epoch.
pub(super) fn hand_over(environment: &mut Environment) {
    environment.moving = None;
    environment.given_back = None;
    environment.goal = Goal::Running;
    if let Some(place) = environment.place.as_mut().filter(|place| matches!(place.want, Want::Running | Want::Suspended)) {
        place.want = Want::Stopped;
    }
}
