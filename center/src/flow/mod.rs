//! What happens on a request: one function a request, over one transaction and the time. They read the records, ask the pure
//! rules (`decide`, `orders`, `state`), and write what came out. They know neither HTTP nor the clock.

pub mod machine;
pub mod node;
pub mod operator;

use std::collections::BTreeMap;
use std::net::IpAddr;

use jiff::Timestamp;
use lodge_model::api::{NodeState, ShareHealth};
use lodge_model::ids::{MachineId, NodeId};
use lodge_model::node::Role;

use crate::ca::Ca;
use crate::environments::drain::Drain;
use crate::fault::Fault;
use crate::live::Live;
use crate::orders::{self, Topology};
use crate::records::{Machine, NameClaim, Node, TicketRecord};
use crate::state;
use crate::store::{EventDraft, Tx};

/// What the flows need besides the records.
pub struct World {
    /// The authority.
    pub ca: Ca,
    /// `https://ADDRESS:PORT`, as machines are told.
    pub url: String,
    /// Who is alive.
    pub live: Live,
}

/// A machine with what belongs to it.
pub struct Whole {
    /// The machine.
    pub machine: Machine,
    /// The node it is.
    pub node: Option<Node>,
    /// Its newest ticket.
    pub ticket: Option<TicketRecord>,
    /// Its drain.
    pub drain: Option<Drain>,
}

impl Whole {
    /// Everything of a machine's record.
    pub fn of(tx: &Tx, machine: Machine) -> Result<Self, Fault> {
        let node = machine.node.map(|id| tx.get(&id)).transpose()?.flatten();
        let ticket = machine.ticket.map(|id| tx.get(&id)).transpose()?.flatten();
        let drain = drain(tx, node.as_ref())?;
        Ok(Self { machine, node, ticket, drain })
    }

    /// Everything of a node's record.
    pub fn of_node(tx: &Tx, node: Node) -> Result<Self, Fault> {
        let machine: Option<Machine> = tx.get(&node.machine)?;
        let machine = machine.ok_or_else(|| anyhow::anyhow!("node {} has no machine record", node.name))?;
        let ticket = machine.ticket.map(|id| tx.get(&id)).transpose()?.flatten();
        let drain = drain(tx, Some(&node))?;
        Ok(Self { machine, node: Some(node), ticket, drain })
    }

    /// Where it stands.
    pub fn state(&self, live: &Live, now: Timestamp) -> (NodeState, String) {
        let node = self.node.clone().map(|node| Node { seen: live.last(node.id, node.seen), ..node });
        state::state(&self.machine, node.as_ref(), self.ticket.as_ref(), now)
    }

    /// Name of the node, if it is one.
    pub fn name(&self) -> Option<&str> {
        self.node.as_ref().map(|node| node.name.as_str())
    }

    /// Log something about it.
    pub fn log(&self, tx: &Tx, kind: &str, text: impl Into<String>, now: Timestamp) -> Result<(), Fault> {
        let event =
            EventDraft { at: now, machine: Some(self.machine.id), node: self.name(), kind, text: text.into(), detail: None };
        tx.log(&event)
    }

    /// Write it back, its node with its own part of the orders up to date, and log a change of state. What changes orders of
    /// other nodes is followed by `refresh_all`; a heartbeat must not cost a look at every node.
    pub fn save(&mut self, tx: &Tx, world: &World, now: Timestamp) -> Result<(), Fault> {
        let reinstall_is_open = self.ticket.as_ref().is_some_and(|ticket| ticket.is_open(now));
        if let Some(node) = &mut self.node
            && orders::refresh_reinstall(node, reinstall_is_open)
        {
            tx.wake();
        }
        let (state, reason) = self.state(&world.live, now);
        if let Some(node) = &mut self.node {
            if node.told != Some(state) {
                node.told = Some(state);
                tx.replan();
                tx.log(&state_event(node, state, &reason, now))?;
            }
            tx.put(node)?;
        }
        if let Some(ticket) = &self.ticket {
            tx.put(ticket)?;
        }
        tx.put(&self.machine)
    }
}

fn drain(tx: &Tx, node: Option<&Node>) -> Result<Option<Drain>, Fault> {
    Ok(node.map(|node| tx.get(&node.id)).transpose()?.flatten())
}

fn state_event<'a>(node: &'a Node, state: NodeState, reason: &str, now: Timestamp) -> EventDraft<'a> {
    let kind = state_word(state);
    let text =
        if reason.is_empty() { format!("{} is {kind}", node.name) } else { format!("{} is {kind}: {reason}", node.name) };
    EventDraft { at: now, machine: Some(node.machine), node: Some(&node.name), kind, text, detail: None }
}

/// A state in the API's words.
pub fn state_word(state: NodeState) -> &'static str {
    match state {
        NodeState::Waiting => "waiting",
        NodeState::Installing => "installing",
        NodeState::Installed => "installed",
        NodeState::Registered => "registered",
        NodeState::Ready => "ready",
        NodeState::Silent => "silent",
        NodeState::Off => "off",
    }
}

/// What all nodes have in common.
pub fn topology(tx: &Tx) -> Result<Topology, Fault> {
    Ok(Topology::of(&tx.list::<Node>()?))
}

/// Bring every node's orders up to date after one of them has changed for the others. Says who shares and which generation of
/// its orders is the newest.
pub fn refresh_all(tx: &Tx, now: Timestamp) -> Result<Option<(NodeId, u64)>, Fault> {
    let topology = topology(tx)?;
    let mut share = None;
    for mut node in tx.list::<Node>()? {
        let open = match &node.reinstall {
            None => false,
            Some(_) => Whole::of_node(tx, node.clone())?.ticket.is_some_and(|ticket| ticket.is_open(now)),
        };
        if orders::refresh(&mut node, &topology, open) {
            tx.put(&node)?;
        }
        if topology.share.as_ref().is_some_and(|(server, _)| *server == node.id) {
            share = Some((node.id, node.orders.as_ref().map_or(0, |orders| orders.generation)));
        }
    }
    tx.wake();
    Ok(share)
}

/// Make a node of a machine, under a name that nobody has.
pub fn create_node(tx: &Tx, machine: MachineId, name: &str, roles: Vec<Role>, now: Timestamp) -> Result<Node, Fault> {
    if tx.get::<NameClaim>(&name)?.is_some() {
        return Err(Fault::conflict(format!("the name {name} is taken by another node; choose another one")));
    }
    let node = Node::new(NodeId(uuid::Uuid::new_v4()), machine, name, roles, now);
    tx.put(&NameClaim { name: name.to_owned(), node: node.id })?;
    Ok(node)
}

/// An address as a machine tells it.
pub fn parse_address(text: &str) -> Result<String, Fault> {
    let address: IpAddr = text
        .parse()
        .map_err(|_| Fault::bad_input(format!("address: {text:?} is not an IP address (give it without prefix length)")))?;
    Ok(address.to_string())
}

impl Node {
    /// A node that has just been admitted.
    pub fn new(id: NodeId, machine: MachineId, name: &str, roles: Vec<Role>, now: Timestamp) -> Self {
        Self {
            id,
            machine,
            name: name.to_owned(),
            roles,
            admitted: now,
            certificate: None,
            address: None,
            installed: None,
            registered: None,
            former: Vec::new(),
            is_fresh: false,
            share: ShareHealth::Unknown,
            carried_out: 0,
            problem: None,
            seen: None,
            off: None,
            orders: None,
            reinstall: None,
            told: None,
            labels: BTreeMap::new(),
            confirmed_off: None,
            said_farewell: None,
            criu: None,
            ban: None,
            guard: None,
        }
    }
}

#[cfg(test)]
mod tests;
