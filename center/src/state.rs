//! Where a machine or node stands: computed from its records and the time, never stored. Pure.

use jiff::{SignedDuration, Timestamp};
use lodge_model::api::{NodeState, ShareHealth};
use lodge_model::node::Role;
use lodge_model::timing::{LONG_POLL, SILENT_AFTER};

use crate::records::{Machine, Node, TicketRecord, TicketState};

/// Its state, and what it waits for or why it is not ready; an empty reason when all is well.
pub fn state(machine: &Machine, node: Option<&Node>, ticket: Option<&TicketRecord>, now: Timestamp) -> (NodeState, String) {
    let Some(node) = node else {
        return (NodeState::Waiting, machine.reason.clone());
    };
    if is_installing(node, ticket, now) {
        return (NodeState::Installing, installing_reason(machine, now));
    }
    let Some(registered) = node.registered.as_ref().filter(|_| !node.is_fresh) else {
        return match node.is_fresh || (node.certificate.is_some() && ticket.is_none()) {
            true => (NodeState::Installed, "its first registration is awaited".to_owned()),
            false => (NodeState::Waiting, machine.reason.clone()),
        };
    };
    let seen = node.seen.unwrap_or(registered.at);
    if let Some(reason) = &node.off {
        return (NodeState::Off, format!("expected: {reason}"));
    }
    if is_older(seen, SILENT_AFTER, now) {
        return (NodeState::Silent, format!("no word from it since {seen:.0}"));
    }
    match unready(node) {
        Some(reason) => (NodeState::Registered, reason),
        None => (NodeState::Ready, String::new()),
    }
}

fn is_installing(node: &Node, ticket: Option<&TicketRecord>, now: Timestamp) -> bool {
    ticket.is_some_and(|ticket| match ticket.state {
        TicketState::Used => true,
        TicketState::Open => !node.is_complete() && !ticket.has_expired(now),
        TicketState::Done | TicketState::Withdrawn => false,
    })
}

/// An installer that works or waits says something at least once a long poll.
fn installing_reason(machine: &Machine, now: Timestamp) -> String {
    if machine.reason.is_empty() && is_older(machine.seen, LONG_POLL + SILENT_AFTER, now) {
        return format!("no word from its installer since {:.0}", machine.seen);
    }
    machine.reason.clone()
}

fn unready(node: &Node) -> Option<String> {
    if node.confirmed_off.is_some() && node.registered.as_ref().map(|registered| registered.boot) == node.confirmed_off {
        let why = "an operator said that this machine is off, and its environments were given to other nodes; restart it";
        return Some(why.to_owned());
    }
    if node.ban.as_ref().is_some_and(|ban| node.registered.as_ref().is_some_and(|registered| registered.boot == ban.boot)) {
        return Some("it is cut off the share since it fell silent; it is let in again when it has restarted".to_owned());
    }
    if let Some(problem) = &node.problem {
        return Some(problem.clone());
    }
    let serves = node.roles.contains(&Role::Share);
    match &node.share {
        ShareHealth::Serving if serves => None,
        ShareHealth::Mounted { .. } if !serves => None,
        ShareHealth::Failed { error } => Some(error.clone()),
        _ if serves => Some("it does not serve the share yet".to_owned()),
        _ if node.orders.as_ref().is_none_or(|orders| orders.share.is_none()) => {
            Some("no share node is registered yet".to_owned())
        }
        _ => Some("the share is not mounted yet".to_owned()),
    }
}

fn is_older(then: Timestamp, limit: std::time::Duration, now: Timestamp) -> bool {
    SignedDuration::try_from(limit).is_ok_and(|limit| now.duration_since(then) > limit)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{self, at};
    use lodge_model::api::ShareMount;

    fn told(node: &Node, ticket: Option<&TicketRecord>, now: i64) -> (NodeState, String) {
        state(&testing::machine(2), Some(node), ticket, at(now))
    }

    #[test]
    fn a_node_becomes_ready_silent_and_off() {
        let mut node = testing::registered("node1", 2, "10.0.0.2");
        node.seen = Some(at(100));
        assert_eq!(told(&node, None, 101), (NodeState::Registered, "no share node is registered yet".into()));
        node.share = ShareHealth::Mounted { probe_ms: 3 };
        assert_eq!(told(&node, None, 101), (NodeState::Ready, String::new()));
        assert_eq!(told(&node, None, 112).0, NodeState::Ready);
        assert_eq!(told(&node, None, 113).0, NodeState::Silent);
        node.off = Some("power button".into());
        let (state, reason) = told(&node, None, 200);
        assert!(state == NodeState::Off && reason.contains("power button"), "{reason}");
    }

    #[test]
    fn what_is_wrong_is_told() {
        let mut node = testing::registered("node1", 2, "10.0.0.2");
        node.seen = Some(at(100));
        node.share = ShareHealth::Failed { error: "mounting 10.0.0.1:/: permission denied".into() };
        assert!(told(&node, None, 101).1.contains("permission denied"));
        node.share = ShareHealth::Unknown;
        crate::orders::refresh(&mut node, &testing::topology(), false);
        assert!(matches!(node.orders.as_ref().unwrap().share, Some(ShareMount::Nfs { .. })));
        assert_eq!(told(&node, None, 101).1, "the share is not mounted yet");
        // A worker that claims to serve is not in order.
        node.share = ShareHealth::Serving;
        assert_eq!(told(&node, None, 101).0, NodeState::Registered);
    }

    #[test]
    fn a_reinstall_shows_when_it_begins_and_until_the_node_is_back() {
        let mut node = testing::registered("node1", 2, "10.0.0.2");
        node.share = ShareHealth::Mounted { probe_ms: 3 };
        node.seen = Some(at(100));
        let mut ticket = testing::ticket(2, "S1", 100);
        assert_eq!(told(&node, Some(&ticket), 101).0, NodeState::Ready);
        ticket.state = TicketState::Used;
        node.off = Some("reinstall".into());
        assert_eq!(told(&node, Some(&ticket), 150).0, NodeState::Installing);
        ticket.state = TicketState::Done;
        (node.installed, node.is_fresh) = (Some(testing::installed(160)), true);
        assert_eq!(told(&node, Some(&ticket), 170).0, NodeState::Installed);
    }

    #[test]
    fn a_machine_that_waits_says_why() {
        let mut machine = testing::machine(2);
        machine.reason = "2 disks match".into();
        assert_eq!(state(&machine, None, None, at(0)), (NodeState::Waiting, "2 disks match".into()));
        let node = testing::admitted("node1", 2);
        let ticket = testing::ticket(2, "S1", 0);
        machine.reason = "failed: write-root: no space".into();
        let (state, reason) = state(&machine, Some(&node), Some(&ticket), at(5));
        assert!(state == NodeState::Installing && reason.contains("write-root"), "{reason}");
    }
}
