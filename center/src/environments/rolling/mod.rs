//! The reboot of a whole cluster: every worker in turn is drained, restarted and waited for.
//!
//! Like a drain it is a record, carried on by `settle` from the records alone; each turn of it is an ordinary drain that ends in a
//! restart. It stops at the first node that does not come back, because what broke one node may break the next.
//!
//! So that nobody moves more often than needed, nodes whose turn is still to come are the last that environments are given to: what leaves
//! the first nodes moves once more at most.
//!
//! | file | what |
//! |---|---|
//! | `carry_on.rs` | whose turn it is, and what has become of those before; pure |
//! | `plan.rs` | the same played through on a copy; pure |
//! | `request.rs` | what operators ask for |
//! | `view.rs` | what they are shown, and the event log |

pub mod carry_on;
pub mod plan;
pub mod request;
#[cfg(test)]
mod tests;
pub mod view;

use jiff::{SignedDuration, Timestamp};
use lodge_model::ids::{BootId, NodeId, TaskId};
use lodge_model::rolling::{RebootState, TurnState};
use serde::{Deserialize, Serialize};

use crate::store::Record;

/// The newest reboot of the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rolling {
    /// When it was ordered.
    pub ordered: Timestamp,
    /// Nodes at a time.
    pub at_once: u32,
    /// Seconds until what could not be moved off a node is stopped.
    pub deadline: u32,
    /// Seconds that a node may take to come back.
    pub patience: u32,
    /// Why, for people.
    pub reason: String,
    /// How it stands.
    pub state: RebootState,
    /// Why it does not go on, for people.
    pub waits: String,
    /// The nodes, in their order.
    pub turns: Vec<Turn>,
    /// Grows with every change.
    pub version: u64,
}

/// One node of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Turn {
    /// The node.
    pub node: NodeId,
    /// Its name.
    pub name: String,
    /// Names the certificate of its drain.
    pub question: TaskId,
    /// How it stands.
    pub state: TurnState,
    /// The boot that is to end.
    pub boot: Option<BootId>,
    /// Since when it has not been ready; it has the order's patience from then on.
    pub missing: Option<Timestamp>,
    /// How far it is, or what is the matter, for people.
    pub told: String,
}

impl Rolling {
    /// Whether a node will be restarted by it that has not been told yet.
    pub fn comes_to(&self, node: NodeId) -> bool {
        self.state == RebootState::Running && self.turns.iter().any(|turn| turn.node == node && turn.state == TurnState::Waits)
    }

    fn has_patience(&self, since: Timestamp, now: Timestamp) -> bool {
        now.duration_since(since) < SignedDuration::from_secs(self.patience.into())
    }
}

impl Turn {
    /// It is drained or restarts.
    pub fn is_under_way(&self) -> bool {
        matches!(self.state, TurnState::Draining | TurnState::Restarting)
    }
}

impl Record for Rolling {
    const KIND: &'static str = "rolling";
    fn key(&self) -> String {
        "rolling".to_owned()
    }
}
