//! Fencing: cutting one boot of one node from the share, with proof, and the signs by which a node is known to live.
//!
//! ```text
//! worker ── every 2 s ──► heartbeat file on the share ──► share node: its age (`Signs::marks`) ──┐
//! worker ── heartbeat ──────────────────────────────────────────────────────────────────────────┼──► center
//! its neighbours: `FenceOrders::ask_about` ──► `Signs::peers` ───────────────────────────────────┘
//! center: silence → suspect → corroborate → brake → ban stored (intended) → `FenceOrders::banned` of the share node
//! share node: address dropped → export removed → client expired → read back as gone → `Signs::fenced` → confirmed → placed elsewhere
//! ```
//!
//! A ban is of a *boot*: it is lifted only when the node registers with another one. Once it is intended there is no way back, because
//! nobody can know how far the share node has got; a node that is alive after all learns it from `FenceOrders::fenced` or from errors on
//! the share, ends what it runs, and restarts.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::guard::Guard;
use crate::ids::{BootId, NodeId, TaskId};

/// The heartbeat file of a node on the share, relative to its root: a `Mark` as JSON, written (in place, fsync) every `timing::MARK` while
/// the node is up. That a write succeeds is what keeps the node's environments on its network; how old the file is tells the others.
pub fn mark_path(node: NodeId) -> String {
    format!("nodes/{node}/heartbeat")
}

/// Contents of a heartbeat file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mark {
    /// The boot that writes it.
    pub boot: BootId,
    /// Grows by one with each write of this boot: a file that is only touched is no sign of life.
    pub count: u64,
}

/// What a node is to know and do about fencing. Travels in `Orders`; the whole desired state, like all of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct FenceOrders {
    /// For the share node: every boot that is not to reach the share. What is not in it (any more) is let in again.
    pub banned: Vec<Ban>,
    /// Nodes that have fallen silent: try to reach them, and say so in `Signs::peers`. Until they are not in it any more.
    pub ask_about: Vec<Peer>,
    /// This boot of the node itself is banned: what is left of its environments is ended, and it restarts.
    pub fenced: Option<BootId>,
    /// What `timing::Timing` is made with.
    pub patience: u32,
    /// Nodes hold themselves to a lease (`guard`).
    pub lease: bool,
}

impl Default for FenceOrders {
    fn default() -> Self {
        Self { banned: Vec::new(), ask_about: Vec::new(), fenced: None, patience: 1, lease: false }
    }
}

/// One boot of one node is not to reach the share, whatever `Orders::exports` says of its addresses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Ban {
    /// Names it, in `Signs::fenced` too.
    pub id: TaskId,
    /// The node.
    pub node: NodeId,
    /// Its boot.
    pub boot: BootId,
    /// Addresses by which the share knows the node, as recorded when it registered: never discovered when it is fenced.
    #[schema(value_type = Vec<String>)]
    pub addresses: Vec<IpAddr>,
}

/// A node to ask after.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Peer {
    /// The node.
    pub node: NodeId,
    /// Where it is to be found.
    #[schema(value_type = String)]
    pub address: IpAddr,
}

/// What a node says about fencing and of others. Travels in `Heartbeat`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Signs {
    /// Of the share node: how each ban of its orders stands.
    pub fenced: Vec<Fenced>,
    /// Of the share node: how old each node's heartbeat file is. A node that never wrote one is not in it.
    pub marks: Vec<MarkAge>,
    /// What came of asking after `FenceOrders::ask_about`.
    pub peers: Vec<PeerWord>,
    /// Of a worker: what would end its environments if nobody reached it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub guard: Option<Guard>,
}

/// How a ban stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Fenced {
    /// The ban.
    pub id: TaskId,
    /// How it stands.
    pub outcome: FenceOutcome,
}

/// How a ban stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case", tag = "outcome")]
pub enum FenceOutcome {
    /// Read back as gone: no write of that boot reaches the share any more, nor is one in flight.
    Confirmed {
        /// Seconds since 1970, by the share node's clock.
        at: i64,
        /// What was read back, for people.
        proof: String,
    },
    /// Not yet; it is tried again.
    Failed {
        /// For people.
        error: String,
    },
}

/// How old the heartbeat file of a node is, by the share node's clock alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct MarkAge {
    /// The node.
    pub node: NodeId,
    /// The boot that wrote it.
    pub boot: BootId,
    /// Milliseconds since the share node saw it change.
    pub age_ms: u64,
}

/// A neighbour's word. It tells people (and the choice of the case) what was seen; nothing is ever taken over because of it alone, and a
/// node that answers its neighbours is not spared: an I/O is dead only behind a fence.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PeerWord {
    /// The node that was asked after.
    pub node: NodeId,
    /// It answered at its address within the last `timing::MARK`.
    pub answers: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_older_program_says_nothing_of_it_and_is_understood() {
        assert_eq!(serde_json::from_str::<FenceOrders>("{}").unwrap(), FenceOrders::default());
        assert_eq!(serde_json::from_str::<Signs>("{}").unwrap(), Signs::default());
        assert_eq!(FenceOrders::default().patience, 1);
    }
}
