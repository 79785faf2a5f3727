//! What operators and users ask for: drain, undrain, move, settings. Each stores an intent; what follows from it is planned in the same
//! transaction, so that nothing new comes to a node from the instant at which its drain is stored.

use jiff::{SignedDuration, Timestamp};
use lodge_model::drain::{
    Cause, CertificateView, DEADLINES, DrainOrder, DrainState, DrainView, MoveOrder, Settings, SettingsChange, Verdict,
};
use lodge_model::environment::order::Want;
use lodge_model::environment::view::EnvironmentView;
use lodge_model::ids::{BootId, NodeId, TaskId};
use lodge_model::live::MoveBy;
use lodge_model::node::Role;

use super::way::{self, Way};
use super::{Certified, Drain, SettingsRecord, judge, moves, view};
use crate::auth::Caller;
use crate::environments::place::{self, Demand};
use crate::environments::records::{Asked, Environment, Goal, Move};
use crate::environments::{capacity, reconcile, request, settle};
use crate::failover::attested;
use crate::fault::Fault;
use crate::flow::{World, operator};
use crate::records::{NameClaim, Node};
use crate::store::Tx;

/// Drain a node; an order for one that is drained already changes that drain.
pub fn drain(tx: &Tx, world: &World, name: &str, order: &DrainOrder, now: Timestamp) -> Result<DrainView, Fault> {
    let node = find(tx, name)?;
    if let Some(seconds) = order.deadline.filter(|seconds| !DEADLINES.contains(seconds)) {
        let (least, most) = (DEADLINES.start(), DEADLINES.end());
        return Err(Fault::bad_input(format!("deadline: {seconds} s; from {least} s to {most} s is possible")));
    }
    if order.then.is_some() {
        may_go_down(tx, &node)?;
    }
    let former = tx.get::<Drain>(&node.id)?;
    let default = order.then.map(|_| settings(tx)).transpose()?.map(|settings| settings.operator_deadline);
    let seconds = order.deadline.or(default);
    let deadline = seconds.and_then(|seconds| now.checked_add(SignedDuration::from_secs(seconds.into())).ok());
    let mut drain = former.clone().unwrap_or_else(|| new(&node, Cause::Operator, now));
    // One that was ordered to stay stays, whatever comes after it.
    drain.stays = former.as_ref().is_some_and(|former| former.stays) || order.then.is_none();
    drain.deadline = match former.as_ref().filter(|former| former.goes_down) {
        // The machine goes down by then, whatever is ordered.
        Some(former) => [former.deadline, deadline].into_iter().flatten().min(),
        None => deadline,
    };
    drain.then = order.then.or(drain.then);
    if !order.reason.is_empty() {
        drain.reason.clone_from(&order.reason);
    }
    drain.version += 1;
    if order.dry_run {
        return plan(tx, world, drain, now);
    }
    if !order.force && former.is_none() {
        capacity::check_drain(tx, world, node.id, now)?;
    }
    let then = order.then.map_or(String::new(), |power| format!(", and goes down then ({power:?})").to_lowercase());
    let why = if drain.reason.is_empty() { String::new() } else { format!(": {}", drain.reason) };
    tx.put(&drain)?;
    view::log(tx, node.id, &format!("an operator has {name} drained{then}{why}"), now)?;
    tx.show();
    planned(tx, world, &node, now)
}

/// A drain that has just been ordered.
pub fn new(node: &Node, cause: Cause, now: Timestamp) -> Drain {
    let boot = node.registered.as_ref().map(|registered| registered.boot);
    fresh(node.id, &node.name, boot, cause, TaskId(uuid::Uuid::new_v4()), now)
}

/// The same from plain values; `question` names its certificate.
pub fn fresh(node: NodeId, name: &str, boot: Option<BootId>, cause: Cause, question: TaskId, now: Timestamp) -> Drain {
    Drain {
        node,
        name: name.to_owned(),
        boot,
        cause,
        reason: String::new(),
        ordered: now,
        deadline: None,
        then: None,
        goes_down: false,
        stays: false,
        state: DrainState::Draining,
        question,
        items: std::collections::BTreeMap::new(),
        waits: String::new(),
        version: 0,
    }
}

/// Plan in this very transaction, and say what came of it.
pub fn planned(tx: &Tx, world: &World, node: &Node, now: Timestamp) -> Result<DrainView, Fault> {
    reconcile::run(tx, world, false, now)?;
    tx.replan();
    let drain = tx.get::<Drain>(&node.id)?;
    drain.as_ref().map(view::of).ok_or_else(|| Fault::conflict(format!("{} has started anew meanwhile", node.name)))
}

/// The plan alone: the same steps on a copy, and nothing is begun.
fn plan(tx: &Tx, world: &World, drain: Drain, now: Timestamp) -> Result<DrainView, Fault> {
    let (mut cluster, _) = reconcile::load(tx, world, false, now)?;
    let id = drain.node;
    cluster.drains.insert(id, drain);
    settle::cordon(&mut cluster);
    moves::reserve(&mut cluster, now);
    judge::judge(&mut cluster, now);
    let drain = cluster.drains.get(&id).ok_or_else(|| Fault::not_found("the node has vanished"))?;
    Ok(DrainView { state: DrainState::Planned, ..view::of(drain) })
}

/// How the drain of a node stands.
pub fn show(tx: &Tx, name: &str) -> Result<DrainView, Fault> {
    Ok(view::of(&found(tx, name)?.1))
}

/// The node takes environments again; what has not been told to stop stays where it is.
pub fn undrain(tx: &Tx, world: &World, name: &str, now: Timestamp) -> Result<(), Fault> {
    let (node, drain) = found(tx, name)?;
    if !may_end(&drain) {
        let why = "goes down already, and that cannot be taken back; its drain ends when it is back";
        return Err(Fault::conflict(format!("{name} {why}")));
    }
    tx.delete::<Drain>(&node.id)?;
    let left = drain.items.values().filter(|item| item.verdict == Verdict::Waits).count();
    let text = match drain.state {
        DrainState::Drained => format!("an operator lets {name} take environments again"),
        _ => format!("an operator has the drain of {name} cancelled: {left} environments stay there"),
    };
    view::log(tx, node.id, &text, now)?;
    tx.show();
    tx.replan();
    reconcile::run(tx, world, false, now).map(drop)
}

/// Whether it can be taken back: the machine does not go down yet.
pub fn may_end(drain: &Drain) -> bool {
    !drain.goes_down && (drain.then.is_none() || drain.state != DrainState::Drained)
}

/// The newest certificate of a node.
pub fn certificate(tx: &Tx, name: &str) -> Result<CertificateView, Fault> {
    let node = find(tx, name)?;
    let certified = tx.get::<Certified>(&node.id)?;
    let none = || Fault::not_found(format!("{name} has no certificate: it has not been drained; lodge node drain {name}"));
    Ok(certified.ok_or_else(none)?.view)
}

/// Move an environment to another node.
pub fn move_one(
    tx: &Tx,
    world: &World,
    caller: &Caller,
    name: &str,
    order: &MoveOrder,
    now: Timestamp,
) -> Result<EnvironmentView, Fault> {
    let before = request::find_kept(tx, caller, name)?;
    let mut environment = before.clone();
    let to = order.to.as_ref().map(|to| find(tx, to)).transpose()?;
    let (mut cluster, _) = reconcile::load(tx, world, false, now)?;
    settle::cordon(&mut cluster);
    cluster.count();
    let (from, from_name) = may_move(&environment, to.as_ref())?;
    let by = order.by.unwrap_or_default();
    if by == MoveBy::Live && !environment.template_now().meta.movable {
        let template = &environment.spec.template;
        return Err(Fault::conflict(format!(
            "the template {template} does not say that it can be moved live (movable in its lodge-template.toml); \
             lodge env move {name} stops it here and starts it there"
        )));
    }
    let only = to.as_ref().map(|node| node.id);
    let demand = Demand { environment: &before, only, leaves: Some(from), removal: false, now };
    let room = place::choose(&cluster.rooms, &demand).map(|at| &cluster.rooms[at]);
    let room = room.map_err(|why| Fault::conflict(format!("{name} cannot move: {why}")))?;
    let moving = Move {
        from,
        from_name,
        epoch: environment.epoch,
        to: Some((room.node, room.name.clone())),
        asked: Some(Asked { to: only }),
        planned: now,
        begun: None,
        released: None,
        waits: String::new(),
        by,
        way: Way::default(),
        live: None,
    };
    environment.moving = Some(moving.clone());
    let way = way::of_move(&environment, &moving, cluster.settings.move_by, &cluster.rooms, false);
    environment.moving = Some(Move { way, ..moving });
    if order.dry_run {
        return crate::environments::view::one(tx, world, &environment);
    }
    reconcile::save(tx, &mut environment, Some(&before), now)?;
    reconcile::run(tx, world, false, now)?;
    tx.replan();
    crate::environments::view::named(tx, world, caller, name)
}

fn may_move(environment: &Environment, to: Option<&Node>) -> Result<(NodeId, String), Fault> {
    let name = &environment.spec.name;
    let place = environment.place.as_ref().filter(|_| environment.goal == Goal::Running);
    let place = place.ok_or_else(|| {
        Fault::conflict(format!("{name} does not run, so there is nothing to move: lodge env start {name} starts it anywhere"))
    })?;
    if let Some(moving) = environment.moving.as_ref().filter(|moving| moving.begun.is_some()) {
        let to = moving.to.as_ref().map_or("another node", |(_, name)| name);
        return Err(Fault::conflict(format!("{name} is on its way from {} to {to} already", moving.from_name)));
    }
    if place.want != Want::Running {
        return Err(Fault::conflict(format!("{name} is being stopped; try again when it runs")));
    }
    if to.is_some_and(|node| node.id == place.node) {
        return Err(Fault::conflict(format!("{name} is on {} already", place.name)));
    }
    Ok((place.node, place.name.clone()))
}

/// The settings.
pub fn settings(tx: &Tx) -> Result<Settings, Fault> {
    Ok(tx.get::<SettingsRecord>(&"settings")?.unwrap_or_default().settings)
}

/// Change settings.
pub fn set(tx: &Tx, change: &SettingsChange, now: Timestamp) -> Result<Settings, Fault> {
    let before = settings(tx)?;
    let settings = before.with(change).map_err(Fault::bad_input)?;
    attested::check(tx, &before, &settings)?;
    if settings != before {
        tx.put(&SettingsRecord { settings: settings.clone() })?;
        tx.replan();
        let text = format!("an operator has changed the cluster's settings: {}", difference(&before, &settings)?);
        tx.log(&crate::store::EventDraft { at: now, machine: None, node: None, kind: "settings", text, detail: None })?;
    }
    Ok(settings)
}

/// `moves_per_source 4 → 1`, for each that differs.
fn difference(before: &Settings, after: &Settings) -> anyhow::Result<String> {
    let [before, after] = [serde_json::to_value(before)?, serde_json::to_value(after)?];
    let all = after.as_object().into_iter().flatten();
    let changed = all.filter(|(key, value)| before.get(key) != Some(value));
    let words = changed.map(|(key, value)| format!("{key} {} → {value}", before.get(key).unwrap_or(&serde_json::Value::Null)));
    Ok(words.collect::<Vec<_>>().join(", "))
}

/// A registered node by its name.
fn find(tx: &Tx, name: &str) -> Result<Node, Fault> {
    let node = operator::find(tx, name)?.node;
    let node = node.filter(|node| node.registered.is_some());
    node.ok_or_else(|| Fault::conflict(format!("{name} has never registered: there is nothing on it")))
}

fn found(tx: &Tx, name: &str) -> Result<(Node, Drain), Fault> {
    let node = find(tx, name)?;
    let drain = tx.get::<Drain>(&node.id)?;
    let none = || Fault::not_found(format!("{name} is not being drained; lodge node drain {name} does it"));
    Ok((node, drain.ok_or_else(none)?))
}

/// Whoever has the share takes the disks of all environments with it.
fn may_go_down(tx: &Tx, node: &Node) -> Result<(), Fault> {
    if !node.roles.contains(&Role::Share) {
        return Ok(());
    }
    let all = tx.list::<Environment>()?;
    let others = all.iter().filter(|environment| environment.place.as_ref().is_some_and(|place| place.node != node.id)).count();
    if others == 0 || tx.get::<NameClaim>(&node.name)?.is_none() {
        return Ok(());
    }
    Err(Fault::conflict(format!(
        "{} serves the share, and {others} environments on other nodes have their disks there; stop them first (lodge env stop)",
        node.name
    )))
}
