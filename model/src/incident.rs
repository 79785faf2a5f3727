//! Incidents: what operators are shown of nodes that fell silent, and what they say about it.
//!
//! | path below `/api/v1` | what |
//! |---|---|
//! | `GET /incidents` | all of them, the newest first (`IncidentView`) |
//! | `GET /incidents/{id}` | one; `?wait=true&after=<version>` is answered when it has changed |
//! | `GET /failover` | whether anything is taken over at present (`FailoverView`) |
//! | `POST /failover/{disarm,arm}` | no automatic takeover, and again (`ArmOrder`) |
//! | `GET /capacity` | whether any one node may die (`CapacityView`) |

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::ids::{BootId, NodeId};

/// What is wrong, as far as signs tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Case {
    /// Neither the center nor the share hears the node: it is dead, hangs, or its network is cut.
    NodeSilent,
    /// The node reaches the share and not the center: it works. Nothing is taken from it.
    CenterCut,
    /// The node reaches the center and, alone among the workers, not the share.
    ShareLost,
    /// The workers have lost the share together: it is the share. Nobody is fenced.
    ShareLostByAll,
    /// The share node says nothing of the node's heartbeat file: nobody can tell which.
    Unclear,
}

impl Case {
    /// For people.
    pub fn words(self) -> &'static str {
        match self {
            Self::NodeSilent => "neither center nor share hears it: dead, hung, or cut off",
            Self::CenterCut => "it reaches the share and not the center: it works on",
            Self::ShareLost => "it alone has lost the share",
            Self::ShareLostByAll => "the workers have lost the share together",
            Self::Unclear => "it is silent, and the share node says nothing of it",
        }
    }
}

/// How it is made sure that a boot of a node writes no more, in the order in which the ways are tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Method {
    /// The share node refuses its boot, and has read back that nothing of it is left.
    Share,
    /// Its BMC has switched its machine off, and says that it is off.
    Bmc,
    /// Its lease has run out, and its watchdog after that: it has ended what it ran, or was reset. Only where it was asked for.
    Lease,
    /// An operator has said that its machine is off.
    Operator,
}

impl Method {
    /// For people.
    pub fn words(self) -> &'static str {
        match self {
            Self::Share => "cut from the share",
            Self::Bmc => "switched off by its BMC",
            Self::Lease => "ended by its lease and watchdog",
            Self::Operator => "an operator's word",
        }
    }
}

/// What kind of thing happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Step {
    /// The last that was heard of it.
    LastSign,
    /// It was silent for too long.
    Suspect,
    /// Other signs were looked at.
    Corroborated,
    /// Nothing is taken over at present, and why.
    Held,
    /// The ban is stored, and ordered; a further way is tried.
    FenceOrdered,
    /// A way was tried and did not work yet.
    FenceFailed,
    /// Nothing of that boot can write any more: method and proof. Later ones make sure.
    Fenced,
    /// Its BMC has switched its machine on again.
    SwitchedOn,
    /// An environment was given to another node.
    Placed,
    /// It runs there.
    Started,
    /// Its addresses answer there.
    Reachable,
    /// They do not.
    Unreachable,
    /// The node was heard again, in the same boot.
    Returned,
    /// The node has started anew and is let in.
    LetIn,
    /// It is over.
    Closed,
}

impl Step {
    /// The same word as in JSON.
    pub fn word(self) -> &'static str {
        match self {
            Self::LastSign => "last-sign",
            Self::Suspect => "suspect",
            Self::Corroborated => "corroborated",
            Self::Held => "held",
            Self::FenceOrdered => "fence-ordered",
            Self::FenceFailed => "fence-failed",
            Self::Fenced => "fenced",
            Self::SwitchedOn => "switched-on",
            Self::Placed => "placed",
            Self::Started => "started",
            Self::Reachable => "reachable",
            Self::Unreachable => "unreachable",
            Self::Returned => "returned",
            Self::LetIn => "let-in",
            Self::Closed => "closed",
        }
    }
}

/// One line of a timeline.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// When, by the center's clock.
    pub at: Timestamp,
    /// What kind of thing.
    pub step: Step,
    /// For people.
    pub what: String,
}

/// `GET /incidents` and `GET /incidents/{id}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct IncidentView {
    /// Its number.
    pub id: u64,
    /// The node.
    pub node: NodeId,
    /// Its name.
    pub name: String,
    /// The boot that fell silent.
    pub boot: BootId,
    /// What is wrong, or was.
    pub case: Case,
    /// When it was opened.
    pub opened: Timestamp,
    /// When it was over.
    pub closed: Option<Timestamp>,
    /// How the node was fenced.
    pub method: Option<Method>,
    /// What is being waited for, and what would help, for people; empty when nothing is.
    pub waits: String,
    /// What happened, in order.
    pub timeline: Vec<Entry>,
    /// Grows with every change.
    pub version: u64,
}

/// `GET /failover`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FailoverView {
    /// Whether nodes are taken over from without being asked.
    pub armed: bool,
    /// Why not, where an operator has said so.
    pub reason: String,
    /// Since when.
    pub since: Option<Timestamp>,
    /// What holds takeovers back at this moment, for people; empty when nothing does.
    pub held: String,
}

/// Body of `POST /failover/disarm` and `POST /failover/arm`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ArmOrder {
    /// Why; needed to disarm.
    pub reason: String,
}

/// `GET /capacity`: what would become of every environment if one node died.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CapacityView {
    /// Any one worker may die, and everything that may run elsewhere runs elsewhere.
    pub holds: bool,
    /// Each worker that takes environments.
    pub nodes: Vec<NodeLoss>,
}

/// What the death of one node would mean.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NodeLoss {
    /// Its name.
    pub node: String,
    /// Environments that would be started elsewhere.
    pub fits: u32,
    /// Environments that would not.
    pub stranded: Vec<Stranded>,
}

/// An environment that no other node could take.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Stranded {
    /// Its name.
    pub environment: String,
    /// Why, for people.
    pub why: String,
    /// It was asked for in a way that no other node could ever satisfy: it does not count against the proof.
    pub bound: bool,
}
