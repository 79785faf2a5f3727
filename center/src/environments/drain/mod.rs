//! Draining: every environment leaves a node, the node proves it, and only then it goes.
//!
//! A drain is an intent like every other one: a record, carried on by `settle` whenever anything has happened, from the records alone.
//! So it does not matter who is away in between, or when the center is started anew.
//!
//! | file | what |
//! |---|---|
//! | `way.rs` | whether an environment moves with its processes or by a restart; pure |
//! | `moves.rs` | reserves a node for each environment that leaves, and begins moves within the budgets; pure |
//! | `judge.rs` | how each environment of a drain stands, and the drain as a whole; pure |
//! | `request.rs` | what operators and users ask for: drain, undrain, move, settings |
//! | `leaving.rs` | what a node says when it goes: that it leaves, and its certificate |
//! | `farewell.rs` | what it has left on the share when the center was away |
//! | `view.rs` | what operators are shown, and the event log |

pub mod farewell;
pub mod judge;
pub mod leaving;
pub mod moves;
pub mod request;
#[cfg(test)]
mod tests;
pub mod view;
pub mod way;

use std::collections::BTreeMap;

use jiff::Timestamp;
use lodge_model::drain::{Cause, CertificateView, DrainItem, DrainState, Power, Settings};
use lodge_model::ids::{BootId, EnvironmentId, NodeId, TaskId};
use serde::{Deserialize, Serialize};

use crate::store::Record;

/// A node that is being drained, or has been and takes nothing new.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drain {
    /// The node.
    pub node: NodeId,
    /// Its name.
    pub name: String,
    /// Its boot.
    pub boot: Option<BootId>,
    /// Who wants it.
    pub cause: Cause,
    /// Why, for people.
    pub reason: String,
    /// When it was ordered.
    pub ordered: Timestamp,
    /// When what is left is stopped.
    pub deadline: Option<Timestamp>,
    /// The node is told to go down afterwards.
    pub then: Option<Power>,
    /// The machine goes down by itself, with this boot.
    pub goes_down: bool,
    /// It lasts until an operator ends it; otherwise it ends with the node's boot.
    pub stays: bool,
    /// How it stands.
    pub state: DrainState,
    /// Names its certificate.
    pub question: TaskId,
    /// Its environments.
    pub items: BTreeMap<EnvironmentId, DrainItem>,
    /// What it waits for, for people.
    pub waits: String,
    /// Grows with every change.
    pub version: u64,
}

impl Drain {
    /// Whether the node goes down at the end of it, one way or the other.
    pub fn is_exit(&self) -> bool {
        self.then.is_some() || self.goes_down
    }

    /// Whether its time is over.
    pub fn is_late(&self, now: Timestamp) -> bool {
        self.deadline.is_some_and(|deadline| deadline <= now)
    }
}

/// The newest certificate of a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Certified {
    /// The node.
    pub node: NodeId,
    /// All about it.
    pub view: CertificateView,
}

/// The cluster's settings.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SettingsRecord {
    /// As they are.
    pub settings: Settings,
}

impl Record for Drain {
    const KIND: &'static str = "drain";
    fn key(&self) -> String {
        self.node.to_string()
    }
}

impl Record for Certified {
    const KIND: &'static str = "certificate";
    fn key(&self) -> String {
        self.node.to_string()
    }
}

impl Record for SettingsRecord {
    const KIND: &'static str = "settings";
    fn key(&self) -> String {
        "settings".to_owned()
    }
}
