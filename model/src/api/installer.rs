//! What an installer says and is told.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::facts::Facts;
use crate::ids::{NodeId, TicketId};
use crate::layout::Slot;
use crate::node::Role;
use crate::ticket::SignedTicket;

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
