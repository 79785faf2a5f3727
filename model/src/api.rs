//! What travels between the center and everybody else. JSON over HTTPS, all paths below `/api/v1`.
//!
//! | who | proves itself by | paths |
//! |---|---|---|
//! | installer | `Authorization: Bearer <join token>` | `/machines/{machine}/…` |
//! | agent | its client certificate (subject CN = node id) | `/node/…` |
//! | operator | `Authorization: Bearer <operator token>` | everything else; environments: `environment::view` |
//! | user | `Authorization: Bearer <user token>` | her own environments, and templates to read |

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::answer::CenterAnswer;
use crate::drain::Leave;
use crate::environment::order;
use crate::environment::session::Session;
use crate::facts::Facts;
use crate::ids::{BootId, Digest, MachineId, NodeId, TicketId};
use crate::layout::Slot;
use crate::node::Role;
use crate::ticket::SignedTicket;

/// Every error answer of the API.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ErrorBody {
    /// One sentence for people: the thing, the cause, the next step.
    pub error: String,
}

// ---- installer -------------------------------------------------------------------------------------------------------------

/// Body of `POST /machines/{machine}/facts`: the first thing an installer says, and again when its facts change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Hello {
    /// The machine as it is now.
    pub facts: Facts,
    /// The host name its answer asks for.
    pub name: Option<String>,
    /// Version of the installer.
    pub version: String,
}

/// Answer to `Hello` and `GET /machines/{machine}/decision` (long poll).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case", tag = "decision")]
pub enum Decision {
    /// Nothing may be done yet; ask again.
    Wait {
        /// What is waited for, for people.
        reason: String,
    },
    /// Install.
    Install {
        /// The permission.
        ticket: SignedTicket,
    },
    /// This machine is installed and nothing is to be done: start its disk.
    BootDisk,
}

/// Body of `POST /machines/{machine}/enrol`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct EnrolRequest {
    /// The ticket that is being carried out; absent when the center's own machine enrols with its local token.
    pub ticket: Option<TicketId>,
    /// Name and roles, where there is no ticket.
    pub name: Option<String>,
    /// Roles, where there is no ticket.
    #[serde(default)]
    pub roles: Vec<Role>,
    /// Certificate signing request, PEM. The subject is ignored: the center sets it.
    pub csr: String,
    /// Address of the machine as the share's server will see it, without prefix length.
    pub address: String,
}

/// Answer to `EnrolRequest`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct EnrolReply {
    /// The node.
    pub node: NodeId,
    /// Its certificate, PEM.
    pub certificate: String,
    /// The CA certificate, PEM.
    pub ca: String,
    /// The share to mount; absent while no share node is registered.
    pub share: Option<ShareMount>,
}

/// How to mount the share.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case", tag = "driver")]
pub enum ShareMount {
    /// NFSv4.2: `server:/` with the exports' pseudo root as its root.
    Nfs {
        /// IP address of the server.
        server: String,
    },
}

/// Body of `POST /machines/{machine}/events`: a list of these. The center adds the time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case", tag = "event")]
pub enum MachineEvent {
    /// A step goes on.
    Step {
        /// Step name, as `write-root`.
        step: String,
        /// 0 to 100.
        percent: u8,
        /// Bytes done.
        done: u64,
        /// Bytes in all, 0 where the step has none.
        total: u64,
        /// Seconds left, where it can be told.
        left: Option<u32>,
    },
    /// A step is done.
    StepDone {
        /// Step name.
        step: String,
        /// Seconds it took.
        seconds: f64,
    },
    /// Something is waited for.
    Waiting {
        /// What, for people.
        reason: String,
    },
    /// The installation failed and will be tried again.
    Failed {
        /// Step name.
        step: String,
        /// The error chain, for people.
        error: String,
    },
    /// The installation is complete; the machine restarts.
    Installed {
        /// Version of the base OS.
        version: String,
        /// Slot that was written.
        slot: Slot,
        /// Serial number of the disk.
        disk_serial: String,
    },
    /// Anything else worth a line.
    Note {
        /// For people.
        text: String,
    },
}

// ---- agent -----------------------------------------------------------------------------------------------------------------

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
        }
    }
}

// ---- operator --------------------------------------------------------------------------------------------------------------

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
    pub ca: crate::ids::Fingerprint,
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
    pub ca: crate::ids::Fingerprint,
    /// Join token, good for this machine only.
    pub token: String,
}
