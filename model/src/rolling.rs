//! The reboot of a whole cluster: every worker in turn is drained, restarted and waited for, before the next one is touched.
//!
//! | path below `/api/v1` | who | what |
//! |---|---|---|
//! | `POST /cluster/reboot` | operator | begin (`RebootOrder`); with `dry_run` only the plan is answered (`RebootView`) |
//! | `GET /cluster/reboot` | operator | how it stands; `?wait=true&after=<version>` is answered when it has changed |
//! | `POST /cluster/reboot/continue` | operator | go on after it has stopped |
//! | `DELETE /cluster/reboot` | operator | restart no further node |

use std::ops::RangeInclusive;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::drain::DrainItem;

/// Least and greatest number of nodes at a time.
pub const AT_ONCE: RangeInclusive<u32> = 1..=64;
/// Shortest and longest time that a node may take to come back, in seconds.
pub const PATIENCE: RangeInclusive<u32> = 30..=7200;
/// What a node may take to come back where nothing is said: servers test their memory for minutes.
pub const DEFAULT_PATIENCE: u32 = 900;

/// Body of `POST /cluster/reboot`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RebootOrder {
    /// Nodes at a time.
    pub at_once: u32,
    /// Seconds after which what could not be moved off a node is stopped cleanly; as the settings say where it is left out.
    pub deadline: Option<u32>,
    /// Seconds from when a node went down until it must be ready again.
    pub patience: u32,
    /// Why, for people.
    pub reason: String,
    /// Answer with the plan and change nothing.
    pub dry_run: bool,
}

impl Default for RebootOrder {
    fn default() -> Self {
        Self { at_once: 1, deadline: None, patience: DEFAULT_PATIENCE, reason: String::new(), dry_run: false }
    }
}

/// How the reboot of a cluster stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum RebootState {
    /// A plan; nothing has been changed.
    Planned,
    /// It goes on.
    Running,
    /// A node has not come back: no further one is touched until an operator says so.
    Stopped,
    /// Every node has been restarted, or was left out.
    Done,
    /// An operator has ended it.
    Cancelled,
}

/// How one node of it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum TurnState {
    /// Its turn is to come.
    Waits,
    /// Its environments leave.
    Draining,
    /// It goes down and comes back.
    Restarting,
    /// It is ready again.
    Done,
    /// It has not come back, or was never ready.
    Failed,
    /// It is not restarted; the reason says why.
    LeftOut,
}

/// One node of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TurnView {
    /// Name of the node.
    pub node: String,
    /// How it stands.
    pub state: TurnState,
    /// How far it is, or what is the matter, for people.
    pub reason: String,
    /// In a plan: what leaves it, and where to.
    pub items: Vec<DrainItem>,
}

/// `GET /cluster/reboot`, and the answer to ordering one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RebootView {
    /// How it stands.
    pub state: RebootState,
    /// When it was ordered.
    pub ordered: Timestamp,
    /// Nodes at a time.
    pub at_once: u32,
    /// Why, for people.
    pub reason: String,
    /// The nodes, in their order.
    pub turns: Vec<TurnView>,
    /// Why it does not go on, for people; empty when it does.
    pub waits: String,
    /// Environments that have been moved by it, or would be.
    pub moved: u32,
    /// Moves of the environment that was moved most.
    pub most_moves: u32,
    /// Another one with every change.
    pub version: u64,
}
