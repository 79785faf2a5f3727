//! What the center keeps of bans, incidents and of being armed.

use std::collections::BTreeMap;
use std::net::IpAddr;

use jiff::Timestamp;
use lodge_model::fence;
use lodge_model::ids::{BootId, EnvironmentId, NodeId, TaskId};
use lodge_model::incident::{Case, Entry, Method, Step};
use serde::{Deserialize, Serialize};

use crate::records::Node;
use crate::store::Record;

/// One boot of a node is to be cut from the share, or is. Lifted (removed) only when the node registers with another boot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ban {
    /// Names it.
    pub id: TaskId,
    /// The boot.
    pub boot: BootId,
    /// Addresses by which the share knows the node, as they were when it was banned.
    pub addresses: Vec<IpAddr>,
    /// When it was stored.
    pub since: Timestamp,
    /// The first proof that nothing of it is written any more, by whichever way.
    pub confirmed: Option<Confirmed>,
    /// What the share node said of it last.
    #[serde(default)]
    pub share: Word,
    /// How far the BMC is with its machine.
    #[serde(default)]
    pub bmc: Switching,
}

/// The proof.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confirmed {
    /// When it came in.
    pub at: Timestamp,
    /// What was read back, for people.
    pub proof: String,
}

/// What the share node said of a ban.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Word {
    /// Nothing yet.
    #[default]
    None,
    /// It cannot yet, and why.
    Failed(String),
    /// It has read back that nothing of it is left.
    Confirmed,
}

/// How far a BMC is with a machine: off, then on again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Switching {
    /// When it was first told to switch it off.
    pub began: Option<Timestamp>,
    /// Tries of the present step that failed.
    pub failed: Option<Failed>,
    /// When it was read back as off.
    pub off: Option<Timestamp>,
    /// It was off already: whoever has switched it off switches it on.
    pub was_off: bool,
    /// It was switched on again.
    pub on: bool,
}

/// Tries that failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failed {
    /// How many.
    pub tries: u32,
    /// When the last one did.
    pub at: Timestamp,
    /// Why, for people.
    pub why: String,
}

impl Ban {
    /// Of a boot of a node.
    pub fn new(id: TaskId, node: &Node, boot: BootId, now: Timestamp) -> Self {
        let addresses = node.address.iter().filter_map(|address| address.parse().ok()).collect();
        Self { id, boot, addresses, since: now, confirmed: None, share: Word::None, bmc: Switching::default() }
    }

    /// As the share node is told.
    pub fn order(&self, node: NodeId) -> fence::Ban {
        fence::Ban { id: self.id, node, boot: self.boot, addresses: self.addresses.clone() }
    }
}

/// A node that fell silent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Incident {
    /// Its number.
    pub id: u64,
    /// The node.
    pub node: NodeId,
    /// Its name.
    pub name: String,
    /// Its boot.
    pub boot: BootId,
    /// What is wrong, as last judged.
    pub case: Case,
    /// When it was opened.
    pub opened: Timestamp,
    /// When it was over.
    pub closed: Option<Timestamp>,
    /// How that boot was ended.
    pub method: Option<Method>,
    /// The node is back: heard again, or started anew.
    pub is_back: bool,
    /// What is being waited for, for people.
    pub waits: String,
    /// Environments that the boot had the right to run.
    pub taken: BTreeMap<EnvironmentId, Taken>,
    /// What happened, in order.
    pub timeline: Vec<Entry>,
    /// Grows with every change.
    pub version: u64,
}

/// An environment of a node that fell silent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Taken {
    /// The epoch that the silent node has.
    pub epoch: u64,
    /// The newest epoch whose new holder has been told of in the timeline.
    pub placed: u64,
    /// It runs again, or is not to run any more.
    pub is_done: bool,
}

impl Incident {
    /// One more line.
    pub fn add(&mut self, at: Timestamp, step: Step, what: impl Into<String>) {
        self.timeline.push(Entry { at, step, what: what.into() });
    }

    /// What is said last of such a step.
    pub fn last(&self, step: Step) -> Option<&str> {
        self.timeline.iter().rev().find(|entry| entry.step == step).map(|entry| entry.what.as_str())
    }
}

/// Whether nodes are taken over from, and the number of the newest incident.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failover {
    /// An operator wants no takeovers.
    pub disarmed: Option<Disarmed>,
    /// Incidents that there have been.
    pub incidents: u64,
    /// What holds every takeover back, as last judged.
    pub held: String,
}

/// An operator wants no takeovers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disarmed {
    /// Why.
    pub reason: String,
    /// Since when.
    pub since: Timestamp,
}

impl Record for Incident {
    const KIND: &'static str = "incident";
    fn key(&self) -> String {
        self.id.to_string()
    }
}

impl Record for Failover {
    const KIND: &'static str = "failover";
    fn key(&self) -> String {
        "failover".to_owned()
    }
}
