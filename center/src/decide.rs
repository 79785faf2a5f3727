//! What becomes of a machine that asks: pure, and the only place where it is decided.
//!
//! A ticket that has not been used is given again as it is. One whose installation has begun (`used`) is, while it has not
//! expired, replaced by a new one for the same disk that may overwrite: what is on that disk now is the half-written
//! installation itself, because the disk was blank or given free when the first ticket was used. That is how a machine goes
//! on after a power cut. Once a begun installation's ticket has expired, nothing is assumed any more and the disk's content
//! counts again.

use std::collections::BTreeSet;

use jiff::Timestamp;
use lodge_model::answer::{Admit, SiteAnswer};
use lodge_model::api::InstallOrder;
use lodge_model::disk::DiskRule;
use lodge_model::facts::Facts;
use lodge_model::node::{Role, check_name};

use crate::records::{Node, TicketRecord, TicketState};

/// Everything a decision depends on.
pub struct Case<'a> {
    /// The machine as it says it is.
    pub facts: &'a Facts,
    /// The name it asks for.
    pub asked_name: Option<&'a str>,
    /// The site's rules.
    pub site: &'a SiteAnswer,
    /// An operator's word for this machine.
    pub order: Option<&'a InstallOrder>,
    /// The node it already is.
    pub node: Option<&'a Node>,
    /// Its newest ticket.
    pub ticket: Option<&'a TicketRecord>,
    /// Names that are taken.
    pub names: &'a BTreeSet<String>,
    /// Why nothing can be installed at all, if so.
    pub no_bundle: Option<&'a str>,
    /// The time.
    pub now: Timestamp,
}

/// What is decided.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Not yet, for this reason.
    Wait(String),
    /// Its ticket, as it is.
    Give,
    /// A new ticket; a former one is withdrawn.
    Grant(Grant),
    /// It is installed: start its disk.
    BootDisk,
}

/// What a new ticket says.
#[derive(Debug, PartialEq, Eq)]
pub struct Grant {
    /// Host name.
    pub name: String,
    /// Roles.
    pub roles: Vec<Role>,
    /// The disk.
    pub disk_serial: String,
    /// It may be overwritten.
    pub wipe: bool,
}

/// Decide.
pub fn decide(case: &Case) -> Verdict {
    match (case.ticket, case.node) {
        (Some(ticket), _) if ticket.is_active(case.now) => resume(case, ticket),
        (Some(ticket), Some(node)) if node.is_complete() && ticket.state == TicketState::Used => Verdict::Wait(format!(
            "the ticket for reinstalling {0} expired before the installation was complete; order it again: lodge node reinstall {0}",
            node.name
        )),
        (_, Some(node)) if node.is_complete() => Verdict::BootDisk,
        _ => admit(case),
    }
}

fn resume(case: &Case, ticket: &TicketRecord) -> Verdict {
    let complete = case.node.is_some_and(Node::is_complete);
    let serial = &ticket.ticket.disk_serial;
    if ticket.state == TicketState::Open {
        return match ticket.ticket.disk(case.facts, case.now.as_second()) {
            Ok(_) => Verdict::Give,
            Err(error) if complete => Verdict::Wait(error.to_string()),
            Err(_) => admit(case),
        };
    }
    let again = DiskRule { wipe: true, ..DiskRule::by_serial(serial) };
    match again.choose(&case.facts.disks) {
        Ok(_) => Verdict::Grant(Grant {
            name: ticket.ticket.name.clone(),
            roles: ticket.ticket.roles.clone(),
            disk_serial: serial.clone(),
            wipe: true,
        }),
        Err(refusal) => Verdict::Wait(format!("an installation on disk {serial} has begun, but {refusal}")),
    }
}

fn admit(case: &Case) -> Verdict {
    if case.order.is_none() && case.site.admit == Admit::Approve {
        return Verdict::Wait(format!("an operator has to let it in: lodge node approve {}", case.facts.machine));
    }
    if let Some(why) = case.no_bundle {
        return Verdict::Wait(why.to_owned());
    }
    let rule = disk_rule(case);
    let disk = match rule.choose(&case.facts.disks) {
        Ok(disk) => disk,
        Err(refusal) => return Verdict::Wait(refusal.to_string()),
    };
    Verdict::Grant(Grant {
        name: name(case),
        roles: case.node.map_or_else(|| vec![Role::Worker], |node| node.roles.clone()),
        disk_serial: disk.serial.clone(),
        wipe: rule.wipe,
    })
}

fn disk_rule(case: &Case) -> DiskRule {
    let Some(order) = case.order else {
        return case.site.disk.clone();
    };
    let mut rule = match &order.disk {
        Some(serial) => DiskRule::by_serial(serial),
        None => case.site.disk.clone(),
    };
    rule.wipe |= order.wipe;
    rule
}

/// A node keeps its name; else the operator's, else the machine's own wish, else the first free of node1, node2…
fn name(case: &Case) -> String {
    if let Some(node) = case.node {
        return node.name.clone();
    }
    let ordered = case.order.and_then(|order| order.name.as_deref());
    let wished = [ordered, case.asked_name].into_iter().flatten();
    let free = |name: &&str| check_name(name).is_ok() && !case.names.contains(*name);
    if let Some(name) = wished.into_iter().find(free) {
        return name.to_owned();
    }
    let mut number = 1u64;
    loop {
        let name = format!("node{number}");
        if !case.names.contains(&name) {
            return name;
        }
        number += 1;
    }
}

impl Node {
    /// Whether there is a whole installation of it: reported by its installer, or running.
    pub fn is_complete(&self) -> bool {
        self.registered.is_some() || self.installed.is_some()
    }
}

#[cfg(test)]
mod tests;
