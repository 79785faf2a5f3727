//! What each node is told about fencing. Pure.

use std::collections::BTreeSet;

use lodge_model::fence::{Ban, FenceOrders, Peer};
use lodge_model::ids::NodeId;
use lodge_model::node::Role;
use lodge_model::settings::Settings;

use super::records::Incident;
use crate::orders::Topology;
use crate::records::Node;

/// So many workers are asked after a silent node, besides the share node.
const ASKED: usize = 3;

/// What all nodes' orders about fencing have in common.
pub struct Fencing {
    server: Option<NodeId>,
    asked: BTreeSet<NodeId>,
    banned: Vec<Ban>,
    peers: Vec<Peer>,
    patience: u32,
    lease: bool,
}

impl Fencing {
    /// Of the nodes and the incidents that are open.
    pub fn of(nodes: &[Node], open: &[Incident], settings: &Settings) -> Self {
        let server = Topology::of(nodes).share.map(|(server, _)| server);
        let silent: BTreeSet<NodeId> = open.iter().filter(|incident| !incident.is_back).map(|incident| incident.node).collect();
        let is_asked = |node: &&Node| {
            node.roles.contains(&Role::Worker) && node.registered.is_some() && node.off.is_none() && !silent.contains(&node.id)
        };
        let mut asked: BTreeSet<NodeId> = nodes.iter().filter(is_asked).map(|node| node.id).take(ASKED).collect();
        asked.extend(server);
        let banned = nodes.iter().filter_map(|node| Some(node.ban.as_ref()?.order(node.id))).collect();
        let address = |node: &Node| Some(Peer { node: node.id, address: node.address.as_ref()?.parse().ok()? });
        let peers = nodes.iter().filter(|node| silent.contains(&node.id)).filter_map(address).collect();
        Self { server, asked, banned, peers, patience: settings.patience, lease: settings.lease_wait > 0 }
    }

    /// The orders of one node.
    pub fn orders(&self, node: &Node) -> FenceOrders {
        let boot = node.registered.as_ref().map(|registered| registered.boot);
        FenceOrders {
            banned: if self.server == Some(node.id) { self.banned.clone() } else { Vec::new() },
            ask_about: if self.asked.contains(&node.id) { self.peers.clone() } else { Vec::new() },
            fenced: node.ban.as_ref().map(|ban| ban.boot).filter(|banned| Some(*banned) == boot),
            patience: self.patience,
            lease: self.lease,
        }
    }
}
