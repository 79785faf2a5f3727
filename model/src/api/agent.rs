//! What a node's agent says and is told.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::ShareMount;
use crate::answer::CenterAnswer;
use crate::drain::Leave;
use crate::environment::order;
use crate::environment::session::Session;
use crate::facts::Facts;
use crate::farewell::SignedWord;
use crate::fence::{FenceOrders, Signs};
use crate::ids::{BootId, Digest, NodeId};
use crate::layout::Slot;
use crate::live::Capability;
use crate::node::Role;
use crate::reach::{Reach, Reached};

/// Body of `POST /node/register`: once per start of the agent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Register {
    /// This boot.
    pub boot: BootId,
    /// Hardware.
    pub facts: Facts,
    /// Roles that this node has been installed with.
    pub roles: Vec<Role>,
    /// Version of the base OS.
    pub version: String,
    /// Kernel release.
    pub kernel: String,
    /// Slot that runs.
    pub slot: Slot,
    /// Serial number of the disk the node was installed on.
    pub disk_serial: String,
    /// Address the node is reached at and the share sees, without prefix length.
    pub address: String,
    /// Times of this boot, in the order they happened.
    pub phases: Vec<Phase>,
}

/// A named moment of a boot.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Phase {
    /// `init`, `switch-root`, `agent`, `share`, `registered`…
    pub name: String,
    /// Seconds since the kernel started.
    pub at: f64,
}

/// Body of `POST /node/heartbeat`. The center answers at once when it has news, else after `timing::HEARTBEAT`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Heartbeat {
    /// This boot; another one than registered means: register again.
    pub boot: BootId,
    /// Health of the share as this node sees it.
    pub share: ShareHealth,
    /// Newest generation of orders that has been carried out.
    pub generation: u64,
    /// What kept an order from being carried out, for people.
    #[serde(default)]
    pub problem: Option<String>,
    /// Times of this boot so far, in the order they happened: `share` and `registered` come after the registration. Empty when the
    /// center has them already.
    #[serde(default)]
    pub phases: Vec<Phase>,
    /// Environments that are assigned to this node or found on it.
    #[serde(default)]
    pub environments: Vec<order::Report>,
    /// Tasks that are in the orders.
    #[serde(default)]
    pub tasks: Vec<order::TaskReport>,
    /// Templates of `Orders::warm` that are on this node.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warm: Vec<Digest>,
    /// Last words of the nodes in `Orders::absent`, where there are any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub last_words: Vec<SignedWord>,
    /// What came of `Orders::reach`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reached: Vec<Reached>,
    /// How bans stand, and signs of life of other nodes.
    #[serde(default)]
    pub signs: Signs,
    /// What it can do about processes of environments; told until the center knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub criu: Option<Capability>,
}

/// The share as a node sees it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case", tag = "state")]
pub enum ShareHealth {
    /// Not asked for yet.
    Unknown,
    /// This node serves it.
    Serving,
    /// Mounted, and a write, fsync, read and unlink went through.
    Mounted {
        /// Milliseconds the last probe took.
        probe_ms: u32,
    },
    /// Not usable.
    Failed {
        /// What exactly failed, for people.
        error: String,
    },
}

/// Answer to `Register` and `Heartbeat`: the node's whole slice of the desired state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Orders {
    /// Grows with every change. An agent refuses orders older than the newest it has seen.
    pub generation: u64,
    /// The node's name.
    pub name: String,
    /// The share to mount.
    pub share: Option<ShareMount>,
    /// For a share node: the addresses that may mount, nothing wider.
    pub exports: Vec<String>,
    /// Reinstall this node: leave this answer on the ESP (`paths::ESP_ANSWER`) and reboot.
    pub reinstall: Option<CenterAnswer>,
    /// The center has forgotten this boot: register again.
    pub register_again: bool,
    /// Environments of this node.
    #[serde(default)]
    pub environments: Vec<order::Assignment>,
    /// What is to be done once.
    #[serde(default)]
    pub tasks: Vec<order::Task>,
    /// Sessions to join.
    #[serde(default)]
    pub sessions: Vec<Session>,
    /// Templates of environments that are about to move here: fetched beforehand, so that nobody waits for them.
    #[serde(default)]
    pub warm: Vec<order::TemplateRef>,
    /// What is to be done once the node has been drained.
    #[serde(default)]
    pub leave: Option<Leave>,
    /// Nodes that are away: look on the share for their last words.
    #[serde(default)]
    pub absent: Vec<NodeId>,
    /// Environments that have moved: see whether they are reached from here.
    #[serde(default)]
    pub reach: Vec<Reach>,
    /// Who is fenced, who is to be asked after.
    #[serde(default)]
    pub fence: FenceOrders,
}

impl Orders {
    /// Nothing is ordered yet.
    pub fn none(name: &str) -> Self {
        Self {
            generation: 0,
            name: name.to_owned(),
            share: None,
            exports: Vec::new(),
            reinstall: None,
            register_again: false,
            environments: Vec::new(),
            tasks: Vec::new(),
            sessions: Vec::new(),
            warm: Vec::new(),
            leave: None,
            absent: Vec::new(),
            reach: Vec::new(),
            fence: FenceOrders::default(),
        }
    }
}
