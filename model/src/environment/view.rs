//! What operators and users see of environments, templates, address pools and users, and what they send besides `Spec` and `Change`.
//!
//! | path below `/api/v1` | what |
//! |---|---|
//! | `GET,POST /environments`; `GET,PATCH,DELETE /environments/{name}` | list, create (`Spec`), show, change (`Change`), destroy |
//! | `POST /environments/{name}/{start,stop,restart,kill}` | `stop` lets its init shut down, `kill` does not ask |
//! | `GET,POST /environments/{name}/snapshots`, `DELETE …/{snapshot}`, `POST …/{snapshot}/rollback` | snapshots (`SnapshotOrder`) |
//! | `POST /environments/{name}/fsck` | check the disk of one that is stopped (`CheckOrder`) |
//! | `POST /environments/{name}/reinstall` | a new system, with the old files at `/old` (`ReinstallOrder`) |
//! | `POST /environments/{name}/repair`, `POST /environments/{name}/repair/finish` | open its files to a clean system, and give them back (`RepairOrder`, `RepairEnd`) |
//! | `POST /environments/{name}/clone` | a new environment with a copy of the disk (`CloneOrder`) |
//! | `GET /environments/{name}/exec?command=…&command=…&tty=`, `GET …/console` | WebSocket (`session`) |
//! | `GET /environments/{name}/logs` | what was printed on its console, the newest part, text |
//! | `GET /templates`, `GET,DELETE /templates/{name}`, `PUT /templates/{name}` | list, show, remove, import: the body is a root tarball (tar, gzip or zstd) or an OCI image archive, streamed |
//! | `GET,POST /pools`, `DELETE /pools/{name}` | address pools (`Pool`) |
//! | `GET,POST /users`, `GET,PATCH,DELETE /users/{name}`, `POST /users/{name}/tokens` | users and quotas |
//! | `PATCH /nodes/{name}/labels` | labels of a node |
//! | `POST /nodes/{name}/confirm-off` | an operator's word that a machine is off |
//!
//! Every call that changes something and takes time answers at once; `GET` with `?wait=true&after=<version>` is answered when the view has
//! another version, at latest after `timing::LONG_POLL`.

use std::collections::BTreeMap;
use std::net::IpAddr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::order::{Address, DiskCheck, TaskOutcome, TemplateMeta, Usage};
use super::spec::Spec;
use crate::drain::MoveView;
use crate::ids::{Digest, EnvironmentId};

/// Where an environment stands, in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// It is to run, and no node can take it now; `reason` says why.
    Waiting,
    /// A node prepares it.
    Starting,
    /// Runs.
    Running,
    /// Shuts down.
    Stopping,
    /// Is not to run, and does not.
    Stopped,
    /// Ended by itself.
    Ended,
    /// Its node tries and fails; `reason` says why.
    Failed,
    /// Its node is silent: nobody knows.
    Unknown,
    /// Is being removed.
    Destroying,
}

impl Phase {
    /// The same word as in JSON.
    pub fn word(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Stopping => "stopping",
            Self::Stopped => "stopped",
            Self::Ended => "ended",
            Self::Failed => "failed",
            Self::Unknown => "unknown",
            Self::Destroying => "destroying",
        }
    }
}

/// `GET /environments` and `GET /environments/{name}`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct EnvironmentView {
    /// Which.
    pub id: EnvironmentId,
    /// What was asked for; the template by name.
    pub spec: Spec,
    /// Whose it is; absent for an operator's.
    pub owner: Option<String>,
    /// Where it stands.
    pub phase: Phase,
    /// What it waits for or why it is not as wanted, for people; empty when all is well.
    pub reason: String,
    /// The node it is on.
    pub node: Option<String>,
    /// Its epoch.
    pub epoch: u64,
    /// Its addresses.
    pub addresses: Vec<Address>,
    /// Its hardware address.
    pub mac: String,
    /// What it uses.
    pub usage: Option<Usage>,
    /// How it ended last, for people.
    pub last_exit: String,
    /// When it was created.
    pub created: Timestamp,
    /// When it was started, while it runs.
    pub started: Option<Timestamp>,
    /// The tasks about it that are not done, in words, with their state.
    pub tasks: Vec<TaskView>,
    /// It is under repair: node, state, addresses and usage are those of its repair environment as soon as that is `open`.
    #[serde(default)]
    pub repair: Option<RepairView>,
    /// It was reinstalled, and what was there before is at `/old`.
    #[serde(default)]
    pub old: Option<OldView>,
    /// What the last check of its disk has found.
    #[serde(default)]
    pub disk_check: Option<DiskCheckView>,
    /// The move that is going on.
    #[serde(default)]
    pub moving: Option<MoveView>,
    /// Its last moves, the newest last.
    #[serde(default)]
    pub moves: Vec<MoveView>,
    /// How it would move now, and why: where nothing else is said of the move, and the other node does not speak against it.
    #[serde(default)]
    pub way: Option<WayView>,
    /// Grows with every change of this view but its usage.
    pub version: u64,
}

/// A repair.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RepairView {
    /// Host name of the repair environment.
    pub name: String,
    /// The template that its clean system is made from.
    pub template: String,
    /// The snapshot that was taken before; `--rollback` goes back to it.
    pub snapshot: Option<String>,
    /// When it was asked for.
    pub since: Timestamp,
    /// The repair environment has the disk; before that, the broken one is stopped and its disk kept.
    pub open: bool,
    /// It is being ended.
    pub ends: bool,
    /// What was mended of the file system before it was opened, as e2fsck tells it; empty where it was in order.
    pub mended: String,
}

/// What an environment was before it was reinstalled.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OldView {
    /// The template that it was made from.
    pub template: String,
    /// When it was reinstalled.
    pub since: Timestamp,
    /// The snapshot that was taken before; going back to it brings the old system back.
    pub snapshot: Option<String>,
}

/// Body of `POST /environments/{name}/reinstall`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ReinstallOrder {
    /// What the new system is made from; the template of the same name as now where it is left out.
    pub template: Option<String>,
    /// Keep the disk as a snapshot first.
    pub snapshot: bool,
}

impl Default for ReinstallOrder {
    fn default() -> Self {
        Self { template: None, snapshot: true }
    }
}

/// The last check of a disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DiskCheckView {
    /// When it ended.
    pub at: Timestamp,
    /// What it has found.
    #[serde(flatten)]
    pub found: DiskCheck,
}

/// Body of `POST /environments/{name}/fsck`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CheckOrder {
    /// Mend what is wrong; nothing is written otherwise.
    pub mend: bool,
}

/// Body of `POST /environments/{name}/repair`. What is left out is as the environment has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct RepairOrder {
    /// What the clean system is made from; the environment's own template where it is left out.
    pub template: Option<String>,
    /// The only node for it; any one where it is left out, whatever the environment itself is bound to.
    pub node: Option<String>,
    /// Addresses of its own: these, or where the list is empty the next free ones. The environment's where it is left out.
    #[schema(value_type = Option<Vec<String>>)]
    pub addresses: Option<Vec<IpAddr>>,
    /// Who else may log in as root.
    pub ssh_keys: Vec<String>,
    /// Keep the disk as a snapshot first.
    pub snapshot: bool,
}

impl Default for RepairOrder {
    fn default() -> Self {
        Self { template: None, node: None, addresses: None, ssh_keys: Vec::new(), snapshot: true }
    }
}

/// Body of `POST /environments/{name}/repair/finish`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RepairEnd {
    /// Put the disk back to the snapshot that was taken before.
    pub rollback: bool,
}

/// How an environment moves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct WayView {
    /// `live`, or `restart`.
    pub way: String,
    /// Why, for people.
    pub because: String,
}

/// A task, for people.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct TaskView {
    /// `snapshot before-upgrade`…
    pub what: String,
    /// How it stands.
    pub outcome: TaskOutcome,
}

/// One snapshot.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SnapshotView {
    /// Name.
    pub name: String,
    /// When it was ordered.
    pub created: Timestamp,
    /// How it stands.
    pub outcome: TaskOutcome,
}

/// Body of `POST /environments/{name}/snapshots`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SnapshotOrder {
    /// Name; the time where it is left out.
    pub name: Option<String>,
}

/// Body of `POST /environments/{name}/clone`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CloneOrder {
    /// Name of the new environment; the rest is as of the old one, with new addresses.
    pub name: String,
}

/// One template.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct TemplateView {
    /// Name.
    pub name: String,
    /// Digest of the image; absent while it is being imported.
    pub digest: Option<Digest>,
    /// Bytes of the image.
    pub size: u64,
    /// What is known of it.
    pub meta: TemplateMeta,
    /// When it was imported.
    pub created: Timestamp,
    /// How its import stands.
    pub outcome: TaskOutcome,
    /// Environments made from it.
    pub environments: u32,
    /// What its import waits for, for people; empty when it waits for nothing.
    #[serde(default)]
    pub reason: String,
    /// Another one after every change of this view but that of `environments`.
    #[serde(default)]
    pub version: u64,
}

/// Addresses that may be given to environments.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Pool {
    /// Name.
    pub name: String,
    /// First address.
    #[schema(value_type = String)]
    pub first: IpAddr,
    /// Last address.
    #[schema(value_type = String)]
    pub last: IpAddr,
    /// Length of the network's prefix.
    pub prefix: u8,
    /// Default gateway.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    pub gateway: Option<IpAddr>,
    /// Name servers.
    #[serde(default)]
    #[schema(value_type = Vec<String>)]
    pub dns: Vec<IpAddr>,
}

/// A pool and how full it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PoolView {
    /// The pool.
    #[serde(flatten)]
    pub pool: Pool,
    /// Addresses in use.
    pub used: u64,
    /// Addresses in all; at most `u64::MAX`.
    pub size: u64,
}

/// What a user may have in all. Absent: no limit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Quota {
    /// Environments.
    pub environments: Option<u32>,
    /// Bytes of memory.
    pub memory: Option<u64>,
    /// Bytes of disk.
    pub disk: Option<u64>,
    /// Thousandths of a processor.
    pub cpu_millis: Option<u32>,
}

/// Body of `POST /users`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct UserOrder {
    /// Name.
    pub name: String,
    /// What she may have.
    #[serde(default)]
    pub quota: Quota,
}

/// A user.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct UserView {
    /// Name.
    pub name: String,
    /// What she may have.
    pub quota: Quota,
    /// What she has.
    pub used: Quota,
}

/// Answer to `POST /users` and `POST /users/{name}/tokens`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct UserToken {
    /// The user.
    pub user: UserView,
    /// Her token; shown once.
    pub token: String,
}

/// Body of `PATCH /nodes/{name}/labels`: an empty value removes a label.
pub type Labels = BTreeMap<String, String>;
