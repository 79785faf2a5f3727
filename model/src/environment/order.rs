//! What the center assigns to a node, and what the node says of it. An assignment is the whole truth about one environment on one node:
//! what is not assigned (any more) is not there.

mod task;

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::spec::Restart;
use crate::ids::{BootId, Digest, EnvironmentId};
use crate::live::Probe;
pub use task::*;

/// Ids of one environment, on the node: `id_base..id_base + IDS`.
pub const IDS: u32 = 65_536;

/// One environment, assigned to one node. Travels in `Orders`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Assignment {
    /// The environment.
    pub id: EnvironmentId,
    /// Its name and host name.
    pub name: String,
    /// Grows by one each time the right to run it is given to anybody.
    pub epoch: u64,
    /// The boot of the node this order is for; another boot must not start it.
    pub boot: BootId,
    /// What is to be.
    pub want: Want,
    /// What it is made from.
    pub template: TemplateRef,
    /// Bytes of its disk.
    pub disk: u64,
    /// Bytes of memory.
    pub memory: u64,
    /// Thousandths of a processor.
    pub cpu_millis: u32,
    /// Greatest number of tasks.
    pub tasks_max: u32,
    /// First id on the node; a multiple of `IDS`, unique in the cluster.
    pub id_base: u32,
    /// Hardware address, as `02:…`.
    pub mac: String,
    /// Its addresses.
    pub addresses: Vec<Address>,
    /// Name servers.
    #[schema(value_type = Vec<String>)]
    pub dns: Vec<IpAddr>,
    /// Lines for root's `authorized_keys`.
    pub ssh_keys: Vec<String>,
    /// What happens when its init ends.
    pub restart: Restart,
    /// Grows when an operator asks for a restart (`lodge env restart`): the agent stops and starts it once for each step.
    pub restarts_asked: u64,
    /// Its processes go on from the checkpoint that was made of this epoch, the one before; where that cannot be done, they are started.
    #[serde(default)]
    pub resume: Option<u64>,
    /// Another root that it is shown besides its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub beside: Option<Beside>,
}

impl Assignment {
    /// Every template that a node needs for it.
    pub fn templates(&self) -> impl Iterator<Item = &TemplateRef> {
        std::iter::once(&self.template).chain(self.beside.as_ref().map(Beside::template))
    }
}

/// A root that an environment is shown besides its own. It is what it was when it was a root itself: a template, and above it what was
/// written since, which lies on the environment's disk. It can be written to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, tag = "beside")]
pub enum Beside {
    /// It is repaired: what its disk holds is at `REPAIR`, and its own root, as clean as its template, is kept in memory.
    Repair {
        /// The template below what is repaired.
        template: TemplateRef,
    },
    /// It was reinstalled: what its disk held before is at `OLD`.
    Old {
        /// The template below what was there before.
        template: TemplateRef,
        /// Number of the reinstallation, from 1.
        generation: u32,
    },
}

/// Where a repair environment finds what it repairs.
pub const REPAIR: &str = "/repair";
/// Where a reinstalled environment finds what was there before.
pub const OLD: &str = "/old";

impl Beside {
    /// What is below.
    pub fn template(&self) -> &TemplateRef {
        match self {
            Self::Repair { template } | Self::Old { template, .. } => template,
        }
    }

    /// Where the environment finds it.
    pub fn place(&self) -> &'static str {
        match self {
            Self::Repair { .. } => REPAIR,
            Self::Old { .. } => OLD,
        }
    }
}

/// What is to be of an environment on its node. Within one epoch it only goes down this list: an environment that is to run again after
/// a stop gets another epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Want {
    /// It runs.
    Running,
    /// Its processes are kept in a checkpoint on the share and everything of it on the node is let go of (`State::Released`, with
    /// `Report::suspended`). One whose processes cannot be kept is shut down as for `Stopped`.
    Suspended,
    /// It has been shut down by its own init; everything of it on the node is let go of (`State::Released`).
    Stopped,
    /// Ended at once, and let go of.
    Killed,
    /// Ended, and its directory on the share is removed (`State::Destroyed`).
    Destroyed,
}

/// An address of an environment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Address {
    /// The address.
    #[schema(value_type = String)]
    pub ip: IpAddr,
    /// Length of its network's prefix.
    pub prefix: u8,
    /// Default gateway of that network.
    #[schema(value_type = Option<String>)]
    pub gateway: Option<IpAddr>,
}

/// A template, as a node needs it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TemplateRef {
    /// Digest of the erofs image: its name on the share and on the node.
    pub digest: Digest,
    /// Bytes of the image.
    pub size: u64,
    /// How its init is told to shut down.
    pub meta: TemplateMeta,
}

/// What must be known of a template besides its files. In a root tarball this is `/lodge-template.toml`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct TemplateMeta {
    /// Program and arguments of its init.
    pub init: Vec<String>,
    /// Number of the signal that makes its init shut the environment down: 37 (SIGRTMIN+3) for systemd, 30 (SIGPWR) for sysvinit.
    pub stop_signal: i32,
    /// Seconds it is given for that.
    pub stop_seconds: u32,
    /// Whether it may be moved live.
    pub movable: bool,
    /// More environment variables of its init, `NAME=value`.
    pub environment: Vec<String>,
    /// One line about it.
    pub description: String,
}

impl Default for TemplateMeta {
    fn default() -> Self {
        Self {
            init: vec!["/sbin/init".to_owned()],
            stop_signal: 37,
            stop_seconds: 60,
            movable: false,
            environment: Vec::new(),
            description: String::new(),
        }
    }
}

/// What a node says of one environment. Travels in `Heartbeat`, one for each assignment, and for each environment found that is not
/// assigned.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Report {
    /// The environment.
    pub id: EnvironmentId,
    /// The epoch it is held with here; of the assignment, where nothing is held yet.
    pub epoch: u64,
    /// Where it stands.
    pub state: State,
    /// What keeps it from being as it is wanted, for people; empty when nothing does.
    #[serde(default)]
    pub problem: String,
    /// What it uses, while it runs.
    #[serde(default)]
    pub usage: Option<Usage>,
    /// Times it has been started in this assignment by the node itself (reboot inside, restart policy).
    #[serde(default)]
    pub starts: u32,
    /// How it ended last, for people: `powered off by itself`, `killed: out of memory`…
    #[serde(default)]
    pub last_exit: String,
    /// `restarts_asked` that has been carried out.
    #[serde(default)]
    pub restarts_done: u64,
    /// What has become of a checkpoint, made or gone on from.
    #[serde(default)]
    pub checkpoint: Option<Checkpoint>,
    /// What was mended of the file system that it repairs, as e2fsck tells it; empty where nothing was, and where nothing is repaired.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub mended: String,
    /// Whether its processes could be kept in one, while it runs; absent where nobody looks.
    #[serde(default)]
    pub probe: Option<Probe>,
}

impl Report {
    /// Nothing is known of it but where it stands.
    pub fn new(id: EnvironmentId, epoch: u64, state: State) -> Self {
        Self {
            id,
            epoch,
            state,
            problem: String::new(),
            usage: None,
            starts: 0,
            last_exit: String::new(),
            restarts_done: 0,
            checkpoint: None,
            mended: String::new(),
            probe: None,
        }
    }
}

/// What has become of a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case", tag = "checkpoint")]
pub enum Checkpoint {
    /// It is on the share, whole.
    Kept,
    /// Its processes have gone on from it, and it is removed.
    Resumed,
    /// There is none: it was shut down, or started, as ever.
    Failed {
        /// Why, for people.
        why: String,
    },
}

/// Where an environment stands on a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case", tag = "state")]
pub enum State {
    /// On the way up: template, disk, network.
    Preparing {
        /// `fetch-template`, `take-disk`, `check-disk`, `mount`, `network`, `start`.
        step: String,
    },
    /// Its init runs.
    Running {
        /// Seconds since 1970 of its start.
        since: i64,
    },
    /// On the way down.
    Stopping,
    /// Its init has ended and it is not to be started again (`poweroff` inside, or policy); the disk is let go of.
    Ended,
    /// Nothing of it is left on this node: no process, mount, loop device, link, lock. The clean-stop acknowledgement. It ends the epoch:
    /// the node must not start the environment in it again, whatever it was told to; said of one that is to run (`Want::Running`), it
    /// gives the environment back, which is started elsewhere.
    Released,
    /// Its directory on the share is removed, and nothing is left on this node.
    Destroyed,
    /// A step failed; it is tried again.
    Failed,
}

/// What an environment uses.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Usage {
    /// Bytes of memory.
    pub memory: u64,
    /// Microseconds of processor time since its start.
    pub cpu_usec: u64,
    /// Tasks.
    pub tasks: u32,
    /// Bytes of its disk in use.
    pub disk: u64,
    /// Bytes received since its start.
    pub rx: u64,
    /// Bytes sent since its start.
    pub tx: u64,
}
