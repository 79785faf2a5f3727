//! What a node is: its roles, the file that says so on its state partition, and what the initrd hands to the running system.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::answer::{NetworkAnswer, SiteAnswer};
use crate::ids::{Fingerprint, MachineId, NodeId};
use crate::layout::Slot;

/// What a node does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Runs environments.
    Worker,
    /// Exports the embedded shared file system.
    Share,
    /// Runs the control center.
    Center,
}

impl std::fmt::Display for Role {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Role::Worker => "worker",
            Role::Share => "share",
            Role::Center => "center",
        })
    }
}

/// `node.json`: written once by the installer (temp, fsync, rename), completed by the agent at its first registration on a
/// center machine, read by init (roles, name) and the agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeFile {
    /// The machine.
    pub machine: MachineId,
    /// The node; absent on a center machine before its first registration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<NodeId>,
    /// Host name.
    pub name: String,
    /// Roles.
    pub roles: Vec<Role>,
    /// The center; absent on a center machine before its first registration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub center: Option<CenterRef>,
    /// Fixed uplink; DHCP where it is absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<NetworkAnswer>,
    /// First settings of the center on this machine, if it has that role.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub site: Option<SiteAnswer>,
    /// Serial number of the disk it was installed on.
    pub disk_serial: String,
}

/// A center that is already trusted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CenterRef {
    /// `https://ADDRESS:PORT`.
    pub url: String,
    /// Fingerprint of its CA certificate.
    pub ca: Fingerprint,
}

/// `boot.json`: what the initrd knows and the running system cannot find out again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BootFile {
    /// Version of the base OS.
    pub version: String,
    /// The slot whose root is mounted.
    pub slot: Slot,
    /// Kernel name of the disk it is on.
    pub disk: String,
    /// Seconds since the kernel started: start of init, root mounted.
    pub init_at: f64,
    /// Seconds since the kernel started when the root was switched.
    pub switch_root_at: f64,
}

/// Whether a text can be a node's name: a DNS label of at most 63 characters, in lower case.
pub fn check_name(name: &str) -> Result<(), String> {
    let good = (1..=63).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
        && !name.starts_with('-')
        && !name.ends_with('-');
    if good { Ok(()) } else { Err(format!("{name:?} is not a name: use a-z, 0-9 and inner hyphens, at most 63 characters")) }
}
