//! What an operator sees and orders of machines, nodes and the cluster.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{MachineEvent, Phase, ShareHealth};
use crate::facts::Facts;
use crate::ids::{BootId, Fingerprint, MachineId, NodeId, TicketId};
use crate::layout::Slot;
use crate::node::Role;

/// Where a machine or node stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum NodeState {
    /// A machine that asked and waits for approval or for a mended fault.
    Waiting,
    /// Has a ticket that is being used.
    Installing,
    /// Installed; its first registration is awaited.
    Installed,
    /// Registered, but not everything is in order yet.
    Registered,
    /// Registered, share in order.
    Ready,
    /// Was there, says nothing now.
    Silent,
    /// Went down in order.
    Off,
}

/// One line of `GET /nodes` (machines that wait are in it too), and the head of `GET /nodes/{name}`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct NodeView {
    /// Host name; the machine id where it has none yet.
    pub name: String,
    /// The node, once it has been admitted.
    pub node: Option<NodeId>,
    /// The machine.
    pub machine: MachineId,
    /// Where it stands.
    pub state: NodeState,
    /// What it waits for or why it is not ready, for people; empty when all is well.
    pub reason: String,
    /// Roles.
    pub roles: Vec<Role>,
    /// Address.
    pub address: Option<String>,
    /// Version of the base OS.
    pub version: Option<String>,
    /// Current step of an installation and its percent.
    pub step: Option<(String, u8)>,
    /// Last sign of life.
    pub seen: Option<Timestamp>,
    /// That it takes no new environments, and why, for people; empty when it does.
    #[serde(default)]
    pub drain: String,
}

/// `GET /nodes/{name}`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct NodeDetail {
    /// The line of the list.
    #[serde(flatten)]
    pub node: NodeView,
    /// Hardware, as last reported.
    pub facts: Option<Facts>,
    /// This boot.
    pub boot: Option<BootId>,
    /// Kernel release.
    pub kernel: Option<String>,
    /// Slot that runs.
    pub slot: Option<Slot>,
    /// Serial number of the disk it was installed on.
    pub disk_serial: Option<String>,
    /// The share as the node sees it.
    pub share: ShareHealth,
    /// Times of every step of the last installation.
    pub install: Vec<StepTime>,
    /// Times of the last boot.
    pub phases: Vec<Phase>,
    /// Labels that environments can ask for.
    #[serde(default)]
    pub labels: std::collections::BTreeMap<String, String>,
}

/// How long a step took.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct StepTime {
    /// Step name.
    pub step: String,
    /// When it was done.
    pub at: Timestamp,
    /// Seconds it took.
    pub seconds: f64,
}

/// One entry of the event log, `GET /events?node=&after=&wait=`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct EventView {
    /// Grows by one with each event; `after` takes it.
    pub id: i64,
    /// When the center took it in.
    pub at: Timestamp,
    /// The machine, if it is about one.
    pub machine: Option<MachineId>,
    /// Name of the node, if it has one.
    pub node: Option<String>,
    /// What happened: an installer's event, or a kind and a text.
    pub kind: String,
    /// For people.
    pub text: String,
    /// The installer's event itself, where it is one.
    pub detail: Option<MachineEvent>,
}

/// Body of `POST /machines/{machine}/approve` and `POST /nodes/{name}/reinstall`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct InstallOrder {
    /// Serial number of the disk; by the site's rule where it is left out.
    pub disk: Option<String>,
    /// The disk may be overwritten (a reinstall always may overwrite its own).
    pub wipe: bool,
    /// Host name, for a new node.
    pub name: Option<String>,
}

/// One line of `GET /tickets`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TicketView {
    /// The ticket.
    pub id: TicketId,
    /// The machine it is for.
    pub machine: MachineId,
    /// Name of the node.
    pub node: String,
    /// Serial number of the disk.
    pub disk_serial: String,
    /// Whether it may overwrite.
    pub wipe: bool,
    /// `open`, `used`, `done`, `expired` or `withdrawn`.
    pub state: String,
    /// When it was made.
    pub created: Timestamp,
    /// When it becomes void.
    pub expires: Timestamp,
}

/// Answer to `POST /tokens`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TokenView {
    /// The token itself; shown once.
    pub token: String,
    /// When it becomes void.
    pub expires: Timestamp,
    /// The `lodge.…` words for a kernel command line, an SMBIOS string or a DHCP option.
    pub words: String,
}

/// Answer to `GET /cluster`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ClusterView {
    /// Version of the center.
    pub version: String,
    /// Its time.
    pub now: Timestamp,
    /// Its CA's fingerprint.
    pub ca: Fingerprint,
    /// Version of the bundle it gives to nodes, if it has one.
    pub bundle: Option<String>,
    /// Registered nodes.
    pub nodes: u32,
    /// Ready nodes.
    pub ready: u32,
}

/// `join.json`, by which a center lets the agent of its own machine in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LocalJoin {
    /// `https://127.0.0.1:PORT`, for enrolling.
    pub url: String,
    /// Fingerprint of the CA.
    pub ca: Fingerprint,
    /// Join token, good for this machine only.
    pub token: String,
}
