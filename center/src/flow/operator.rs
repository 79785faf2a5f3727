//! What an operator asks for: lists, approval, reinstall, forgetting, tokens.

use jiff::Timestamp;
use lodge_model::answer::CenterAnswer;
use lodge_model::api::{ClusterView, InstallOrder, NodeDetail, NodeState, NodeView, TicketView, TokenView};
use lodge_model::environment::view::Labels;
use lodge_model::ids::{MachineId, NodeId};
use lodge_model::keywords::center_words;
use lodge_model::node::{Role, check_name};
use lodge_model::timing::SILENT_AFTER;

use super::machine::{BundleUrl, issue, new_ticket, withdraw};
use super::{Whole, World, refresh_all};
use crate::decide::Grant;
use crate::environments::drain::{Certified, Drain};
use crate::environments::reconcile;
use crate::failover;
use crate::fault::Fault;
use crate::records::{Machine, NameClaim, Node, TicketRecord};
use crate::store::Tx;
use crate::{token, view};

/// All machines: nodes in order of admission, then those that wait.
pub fn nodes(tx: &Tx, world: &World, now: Timestamp) -> Result<Vec<NodeView>, Fault> {
    let mut all = Vec::new();
    for machine in tx.list::<Machine>()? {
        all.push(Whole::of(tx, machine)?);
    }
    all.sort_by_key(|whole| (whole.node.is_none(), whole.node.as_ref().map(|node| node.admitted), whole.machine.id));
    Ok(all.iter().map(|whole| view::line(whole, &world.live, now)).collect())
}

/// One of them.
pub fn node(tx: &Tx, world: &World, name: &str, now: Timestamp) -> Result<NodeDetail, Fault> {
    Ok(view::detail(&find(tx, name)?, &world.live, now))
}

/// The machine or node of a name, a machine id or a node id.
pub fn find(tx: &Tx, name: &str) -> Result<Whole, Fault> {
    if let Some(claim) = tx.get::<NameClaim>(&name)?
        && let Some(node) = tx.get::<Node>(&claim.node)?
    {
        return Whole::of_node(tx, node);
    }
    if let Ok(id) = name.parse::<MachineId>()
        && let Some(machine) = tx.get::<Machine>(&id)?
    {
        return Whole::of(tx, machine);
    }
    if let Ok(id) = name.parse::<NodeId>()
        && let Some(node) = tx.get::<Node>(&id)?
    {
        return Whole::of_node(tx, node);
    }
    Err(Fault::not_found(format!("there is no node or machine {name:?}; lodge node ls lists them")))
}

/// Let a machine in that waits.
pub fn approve(tx: &Tx, world: &World, id: MachineId, order: &InstallOrder, now: Timestamp) -> Result<(), Fault> {
    let mut whole = find(tx, &id.to_string())?;
    if let Some(node) = whole.node.as_ref().filter(|node| node.is_complete()) {
        let why = format!("machine {id} is installed already as {0}; to install it again: lodge node reinstall {0}", node.name);
        return Err(Fault::conflict(why));
    }
    check_disk(&whole, order)?;
    if let Some(name) = &order.name {
        check_name(name).map_err(|why| Fault::bad_input(format!("name: {why}")))?;
        let owner = tx.get::<NameClaim>(name)?.map(|claim| claim.node);
        if owner.is_some() && owner != whole.machine.node {
            return Err(Fault::conflict(format!("the name {name} is taken by another node; choose another one")));
        }
    }
    if order.disk.is_some() || order.wipe {
        withdraw(tx, &mut whole)?;
    }
    whole.machine.order = Some(order.clone());
    whole.log(tx, "approved", format!("an operator lets machine {id} in{}", describe(order)), now)?;
    tx.wake();
    whole.save(tx, world, now)
}

/// Install a node again: a ticket for its own disk, and the order to come and get it.
pub fn reinstall(
    tx: &Tx,
    world: &World,
    bundle: &BundleUrl,
    name: &str,
    order: &InstallOrder,
    now: Timestamp,
) -> Result<(), Fault> {
    let mut whole = find(tx, name)?;
    let node = may_reinstall(&whole, order)?.clone();
    check_disk(&whole, order)?;
    let own = own_disk(&node).ok_or_else(|| Fault::conflict(format!("{name} has never told which disk it is on")))?;
    let disk_serial = order.disk.clone().unwrap_or_else(|| own.clone());
    let wipe = order.wipe || disk_serial == own;
    let url = bundle.clone().map_err(Fault::conflict)?;
    let grant = Grant { name: node.name.clone(), roles: node.roles.clone(), disk_serial, wipe };
    whole.log(tx, "reinstall", format!("an operator has {} installed again", node.name), now)?;
    let ticket = new_ticket(node.id, whole.machine.id, &grant, url, now);
    issue(tx, world, &mut whole, ticket, now)?;
    let (token, _) = token::mint_join(tx, Some(whole.machine.id), now)?;
    if let Some(node) = &mut whole.node {
        node.reinstall = Some(CenterAnswer { url: world.url.clone(), ca: world.ca.fingerprint(), token });
    }
    whole.save(tx, world, now)
}

/// Remove a machine or node and all that is known of it. Its certificate is worth nothing from then on.
pub fn forget(tx: &Tx, world: &World, name: &str, now: Timestamp) -> Result<MachineId, Fault> {
    let whole = find(tx, name)?;
    let id = whole.machine.id;
    if let Some(node) = &whole.node {
        may_forget(&whole, node, world, now)?;
        let held = reconcile::on_node(tx, node)?;
        if !held.is_empty() {
            return Err(Fault::conflict(format!(
                "{name} still has the right to run {}; stop or destroy them, or switch {name} off and say so: lodge node \
                 confirm-off {name}",
                held.join(", ")
            )));
        }
        tx.delete::<NameClaim>(&node.name)?;
        tx.delete::<Node>(&node.id)?;
        tx.delete::<Drain>(&node.id)?;
        tx.delete::<Certified>(&node.id)?;
        tx.delete::<failover::bmc::Bmc>(&node.id)?;
        world.live.forget(node.id);
    }
    for record in tx.list::<TicketRecord>()?.iter().filter(|record| record.ticket.machine == id) {
        tx.delete::<TicketRecord>(&record.ticket.id)?;
    }
    token::revoke(tx, id)?;
    whole.log(tx, "forgotten", format!("an operator has {name} forgotten"), now)?;
    tx.delete::<Machine>(&id)?;
    refresh_all(tx, now)?;
    Ok(id)
}

/// Set labels of a node; an empty value removes one.
pub fn label(tx: &Tx, name: &str, labels: &Labels, now: Timestamp) -> Result<(), Fault> {
    let mut whole = find(tx, name)?;
    let Some(node) = &mut whole.node else {
        return Err(Fault::conflict(format!("machine {name} is no node yet; let it in first: lodge node approve {name}")));
    };
    for (key, value) in labels {
        check_label(key, value).map_err(Fault::bad_input)?;
        match value.is_empty() {
            true => node.labels.remove(key),
            false => node.labels.insert(key.clone(), value.clone()),
        };
    }
    tx.put(node)?;
    tx.replan();
    let told: Vec<String> = labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    whole.log(tx, "labels", format!("an operator labels {name}: {}", told.join(", ")), now)
}

fn check_label(key: &str, value: &str) -> Result<(), String> {
    check_name(key).map_err(|why| format!("label: {why}"))?;
    let is_plain = value.len() <= 63 && value.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
    if is_plain {
        Ok(())
    } else {
        Err(format!("label {key}: {value:?} is not a value: use letters, digits, - _ and ., at most 63"))
    }
}

/// An operator says that a node's machine is off. What it held may be given to others; its present boot gets nothing any more.
pub fn confirm_off(tx: &Tx, world: &World, name: &str, now: Timestamp) -> Result<(), Fault> {
    let mut whole = find(tx, name)?;
    let (state, _) = whole.state(&world.live, now);
    let boot = whole.node.as_ref().and_then(|node| node.registered.as_ref()).map(|registered| registered.boot);
    let (Some(node), Some(boot)) = (&mut whole.node, boot) else {
        return Err(Fault::conflict(format!("{name} has never registered: it holds nothing, and nothing waits for it")));
    };
    if matches!(state, NodeState::Ready | NodeState::Registered) && node.confirmed_off != Some(boot) {
        return Err(Fault::conflict(format!(
            "{name} is not off: it said something less than {} s ago; switch the machine off first",
            SILENT_AFTER.as_secs()
        )));
    }
    if node.confirmed_off != Some(boot) {
        node.confirmed_off = Some(boot);
        failover::request::confirmed_off(tx, world, node, boot, now)?;
    }
    tx.replan();
    whole.log(tx, "confirmed-off", format!("an operator says that {name} is off; its environments go to other nodes"), now)?;
    whole.save(tx, world, now)
}

/// All tickets, newest first.
pub fn tickets(tx: &Tx, now: Timestamp) -> Result<Vec<TicketView>, Fault> {
    let mut tickets: Vec<TicketView> = tx.list::<TicketRecord>()?.iter().map(|record| view::ticket(record, now)).collect();
    tickets.sort_by_key(|ticket| std::cmp::Reverse((ticket.created, ticket.id)));
    Ok(tickets)
}

/// A new join token.
pub fn mint_token(tx: &Tx, world: &World, now: Timestamp) -> Result<TokenView, Fault> {
    let (token, expires) = token::mint_join(tx, None, now)?;
    let answer = CenterAnswer { url: world.url.clone(), ca: world.ca.fingerprint(), token: token.clone() };
    Ok(TokenView { token, expires, words: center_words(&answer) })
}

/// The whole at a glance.
pub fn cluster(tx: &Tx, world: &World, bundle: Option<String>, now: Timestamp) -> Result<ClusterView, Fault> {
    let views = nodes(tx, world, now)?;
    let count = |state: fn(NodeState) -> bool| views.iter().filter(|view| state(view.state)).count();
    let registered =
        count(|state| matches!(state, NodeState::Registered | NodeState::Ready | NodeState::Silent | NodeState::Off));
    Ok(ClusterView {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        now,
        ca: world.ca.fingerprint(),
        bundle,
        nodes: u32::try_from(registered).unwrap_or(u32::MAX),
        ready: u32::try_from(count(|state| state == NodeState::Ready)).unwrap_or(u32::MAX),
    })
}

fn may_reinstall<'a>(whole: &'a Whole, order: &InstallOrder) -> Result<&'a Node, Fault> {
    let node = whole.node.as_ref().filter(|node| node.is_complete()).ok_or_else(|| {
        let id = whole.machine.id;
        Fault::conflict(format!("machine {id} has not been installed yet; to let it in: lodge node approve {id}"))
    })?;
    if order.name.as_ref().is_some_and(|name| *name != node.name) {
        return Err(Fault::bad_input(format!("name: a reinstalled node keeps its name, {}", node.name)));
    }
    if node.roles.contains(&Role::Center) {
        return Err(Fault::conflict(format!(
            "{} runs this center: a reinstall would erase the center itself; install it from the medium instead",
            node.name
        )));
    }
    if node.roles.contains(&Role::Share) && !order.wipe {
        return Err(Fault::conflict(format!(
            "{} holds the share: a reinstall erases all that is on it; say so explicitly (wipe) if that is meant",
            node.name
        )));
    }
    Ok(node)
}

fn may_forget(whole: &Whole, node: &Node, world: &World, now: Timestamp) -> Result<(), Fault> {
    let (state, _) = whole.state(&world.live, now);
    let is_up = matches!(state, NodeState::Ready | NodeState::Registered);
    if is_up && node.roles.contains(&Role::Center) {
        return Err(Fault::conflict(format!("{} runs this center and cannot be forgotten by it", node.name)));
    }
    if is_up && node.roles.contains(&Role::Share) {
        let why = format!("{} serves the share; switch it off before it is forgotten", node.name);
        return Err(Fault::conflict(why));
    }
    Ok(())
}

fn own_disk(node: &Node) -> Option<String> {
    let registered = node.registered.as_ref().map(|told| told.disk_serial.clone());
    registered.or_else(|| node.installed.as_ref().map(|told| told.disk_serial.clone()))
}

fn check_disk(whole: &Whole, order: &InstallOrder) -> Result<(), Fault> {
    let (Some(serial), Some(facts)) = (&order.disk, &whole.machine.facts) else {
        return Ok(());
    };
    if facts.disks.iter().any(|disk| disk.serial == *serial) {
        return Ok(());
    }
    let disks: Vec<String> = facts.disks.iter().map(|disk| disk.describe()).collect();
    Err(Fault::bad_input(format!("disk: the machine has no disk with serial {serial:?}; it has: {}", disks.join(", "))))
}

fn describe(order: &InstallOrder) -> String {
    let disk = order.disk.as_ref().map(|serial| format!(", on disk {serial}")).unwrap_or_default();
    let wipe = if order.wipe { ", which may be overwritten" } else { "" };
    format!("{disk}{wipe}")
}
