//! Records as operators see them. Pure.

use jiff::Timestamp;
use lodge_model::api::{NodeDetail, NodeView, ShareHealth, TicketView};

use crate::environments::drain;
use crate::flow::Whole;
use crate::live::Live;
use crate::records::TicketRecord;

/// One line of the list.
pub fn line(whole: &Whole, live: &Live, now: Timestamp) -> NodeView {
    let (state, reason) = whole.state(live, now);
    let node = whole.node.as_ref();
    let installed = node.and_then(|node| node.installed.as_ref());
    let registered = node.and_then(|node| node.registered.as_ref());
    let seen = node.and_then(|node| live.last(node.id, node.seen));
    NodeView {
        name: node.map_or_else(|| whole.machine.id.to_string(), |node| node.name.clone()),
        node: node.map(|node| node.id),
        machine: whole.machine.id,
        state,
        reason,
        roles: node.map(|node| node.roles.clone()).unwrap_or_default(),
        address: node.and_then(|node| node.address.clone()),
        version: registered.map(|told| told.version.clone()).or_else(|| installed.map(|told| told.version.clone())),
        step: whole.machine.step.clone(),
        seen: seen.max(Some(whole.machine.seen)),
        drain: whole.drain.as_ref().map(drain::view::cordoned).unwrap_or_default(),
    }
}

/// Everything about one.
pub fn detail(whole: &Whole, live: &Live, now: Timestamp) -> NodeDetail {
    let node = whole.node.as_ref();
    let installed = node.and_then(|node| node.installed.as_ref());
    let registered = node.and_then(|node| node.registered.as_ref());
    let disk = registered.map(|told| &told.disk_serial).or_else(|| installed.map(|told| &told.disk_serial));
    NodeDetail {
        node: line(whole, live, now),
        facts: whole.machine.facts.clone(),
        boot: registered.map(|told| told.boot),
        kernel: registered.map(|told| told.kernel.clone()),
        slot: registered.map(|told| told.slot).or_else(|| installed.map(|told| told.slot)),
        disk_serial: disk.cloned(),
        share: node.map_or(ShareHealth::Unknown, |node| node.share.clone()),
        install: whole.machine.install.clone(),
        phases: registered.map(|told| told.phases.clone()).unwrap_or_default(),
        labels: node.map(|node| node.labels.clone()).unwrap_or_default(),
    }
}

/// A ticket.
pub fn ticket(record: &TicketRecord, now: Timestamp) -> TicketView {
    TicketView {
        id: record.ticket.id,
        machine: record.ticket.machine,
        node: record.ticket.name.clone(),
        disk_serial: record.ticket.disk_serial.clone(),
        wipe: record.ticket.wipe,
        state: record.state_word(now).to_owned(),
        created: record.created,
        expires: Timestamp::from_second(record.ticket.expires).unwrap_or(Timestamp::MAX),
    }
}
