//! What the center keeps of environments, tasks and address pools. Plain values; the flows change them.

use std::net::IpAddr;

use jiff::Timestamp;
use lodge_model::drain::MoveView;
use lodge_model::environment::order::{Address, Report, TaskKind, TaskOutcome, TemplateRef, Want};
use lodge_model::environment::spec::Spec;
use lodge_model::environment::view::{DiskCheckView, Phase, Pool, TaskView};
use lodge_model::ids::{BootId, EnvironmentId, NodeId, TaskId};
use lodge_model::live::MoveBy;
use serde::{Deserialize, Serialize};

use super::drain::way::Way;
use super::reach::Check;
use super::repair::reinstall::System;
use super::repair::{Old, Repair};
use crate::store::Record;

/// An environment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Environment {
    /// Who it is.
    pub id: EnvironmentId,
    /// What was asked for.
    pub spec: Spec,
    /// The template it was made from, as it was then.
    pub template: TemplateRef,
    /// The user whose it is; nobody's in particular where it is absent.
    pub owner: Option<String>,
    /// When it was created.
    pub created: Timestamp,
    /// Number of its range of ids; see `addresses::id_base`.
    pub id_range: u32,
    /// Hardware address.
    pub mac: String,
    /// Its addresses.
    pub addresses: Vec<Address>,
    /// Name servers.
    pub dns: Vec<IpAddr>,
    /// What is to become of it.
    pub goal: Goal,
    /// Where its disk comes from.
    pub disk: Disk,
    /// Grows by one each time the right to run it is given to anybody; 0 while nobody ever had it.
    pub epoch: u64,
    /// Who has the right to run it.
    pub place: Option<Place>,
    /// The node that had it last.
    pub last: Option<NodeId>,
    /// The node that let go of it without having been told to.
    pub given_back: Option<GivenBack>,
    /// What its node said last, in this epoch, without the usage.
    pub report: Option<Report>,
    /// How it ended last, for people.
    pub last_exit: String,
    /// How often an operator has asked for a restart.
    pub restarts_asked: u64,
    /// Snapshots of its disk.
    pub snapshots: Vec<Snapshot>,
    /// Tasks about it that failed since the last one was ordered.
    pub failed: Vec<TaskView>,
    /// Where it stands, as people are told.
    pub phase: Phase,
    /// Why, as people are told.
    pub reason: String,
    /// Why no node has been found for it; empty where it needs none.
    pub waits: String,
    /// The move that is going on.
    #[serde(default)]
    pub moving: Option<Move>,
    /// Its last moves, the newest last; at most `MOVES_KEPT`.
    #[serde(default)]
    pub moves: Vec<MoveView>,
    /// It has moved, and is to be reached.
    #[serde(default)]
    pub check: Option<Check>,
    /// It was reinstalled.
    #[serde(default)]
    pub old: Option<Old>,
    /// How often it was reinstalled, ever.
    #[serde(default)]
    pub reinstalls: u32,
    /// What the last check of its disk has found.
    #[serde(default)]
    pub disk_check: Option<DiskCheckView>,
    /// It is repaired.
    #[serde(default)]
    pub repair: Option<Repair>,
    /// What became of moves before does not say anything of the next one: it was changed, or started anew.
    #[serde(default)]
    pub counts_from: Option<Timestamp>,
    /// Number of its last change, among all changes of environments.
    pub version: u64,
}

/// As many moves of an environment are remembered.
pub const MOVES_KEPT: usize = 20;

/// An environment leaves its node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Move {
    /// The node that it leaves.
    pub from: NodeId,
    /// Its name.
    pub from_name: String,
    /// The epoch that it leaves.
    pub epoch: u64,
    /// The node whose memory is reserved for it, and its name.
    pub to: Option<(NodeId, String)>,
    /// Somebody asked for this very move, and for this node if for any; otherwise its node is drained.
    pub asked: Option<Asked>,
    /// When a node was first looked for.
    pub planned: Timestamp,
    /// When it was ordered to stop. From then on there is no way back: it leaves this epoch.
    pub begun: Option<Timestamp>,
    /// When its node had let go of it.
    pub released: Option<Timestamp>,
    /// Why no node takes it, for people; empty where one does.
    pub waits: String,
    /// How it is to move, as it was said of this very move.
    #[serde(default)]
    pub by: MoveBy,
    /// How it moves; until it has begun it may change.
    #[serde(default)]
    pub way: Way,
    /// It has begun to move with its processes.
    #[serde(default)]
    pub live: Option<Live>,
}

/// How far the move of an environment with its processes is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Live {
    /// It is to be tried.
    Asked,
    /// Its node has let go of it and kept its processes on the share: they go on in the next epoch, or never.
    Kept,
    /// It moves by a stop and a start after all, for this reason.
    Failed(String),
}

/// Somebody asked for a move.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asked {
    /// To this node only.
    pub to: Option<NodeId>,
}

/// What is to become of an environment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Goal {
    /// It runs.
    Running,
    /// It does not run: it was told to shut down.
    Stopped,
    /// It does not run: it was ended without being asked.
    Killed,
    /// It does not run: it has ended by itself.
    Ended,
    /// It is removed.
    Destroyed,
}

/// Where the disk of an environment comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Disk {
    /// The node that starts it first makes it; it is there already where there was an epoch.
    Own,
    /// It is being copied from another environment's by this task.
    Copying(TaskId),
    /// It has been copied: it is there though nobody has run it yet.
    Copied,
    /// It could not be copied, for this reason; nothing is there.
    Lost(String),
}

/// The right to run an environment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// The node.
    pub node: NodeId,
    /// Its name.
    pub name: String,
    /// The boot of it that this was said to.
    pub boot: BootId,
    /// What it has been told. Within one epoch it only ever goes from running over stopped and killed to destroyed, so that an
    /// acknowledgement cannot be overtaken by its opposite.
    pub want: Want,
    /// It was given only to be removed: it has never run in this epoch and takes no memory.
    pub to_remove: bool,
}

/// A node let go of an environment that it was to run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GivenBack {
    /// The node.
    pub node: NodeId,
    /// When.
    pub at: Timestamp,
}

/// A snapshot of an environment's disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// Its name.
    pub name: String,
    /// When it was ordered.
    pub created: Timestamp,
    /// How it stands.
    pub outcome: TaskOutcome,
    /// What the environment was then. Absent in what older versions have kept.
    #[serde(default)]
    pub system: Option<System>,
}

/// Something that some node is to do once. Deleted as soon as its outcome has been taken over into what it is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Task {
    /// Names it.
    pub id: TaskId,
    /// What to do.
    pub what: TaskKind,
    /// The node that was told, and its boot.
    pub node: Option<(NodeId, BootId)>,
    /// How it stands.
    pub outcome: TaskOutcome,
    /// When it was ordered.
    pub created: Timestamp,
}

impl Task {
    /// The environments that it is about.
    pub fn about(&self) -> Vec<EnvironmentId> {
        match &self.what {
            TaskKind::Snapshot { environment, .. }
            | TaskKind::Rollback { environment, .. }
            | TaskKind::RemoveSnapshot { environment, .. }
            | TaskKind::CheckDisk { environment, .. } => vec![*environment],
            TaskKind::Clone { from, to } => vec![*from, *to],
            TaskKind::ImportTemplate { .. } | TaskKind::RemoveTemplate { .. } => Vec::new(),
        }
    }

    /// Whether it has still to be done.
    pub fn is_open(&self) -> bool {
        matches!(self.outcome, TaskOutcome::Running { .. })
    }
}

/// A pool of addresses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolRecord {
    /// As it was given.
    pub pool: Pool,
    /// Where the search for a free address goes on, so that one that was just given back rests.
    pub next: IpAddr,
    /// When it was added: the first pools are served first.
    pub created: Timestamp,
}

/// Something unique is taken by an environment: its own record, so that two cannot take it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// `name/web1`, `address/10.0.0.7`, `mac/02:…`, `ids/17`.
    pub what: String,
    /// Whose it is.
    pub environment: EnvironmentId,
}

/// Numbers that only grow.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// Changes of environments.
    pub version: u64,
    /// Ranges of ids that have been given out.
    pub id_ranges: u64,
}

impl Record for Environment {
    const KIND: &'static str = "environment";
    fn key(&self) -> String {
        self.id.to_string()
    }
}

impl Record for Task {
    const KIND: &'static str = "task";
    fn key(&self) -> String {
        self.id.to_string()
    }
}

impl Record for PoolRecord {
    const KIND: &'static str = "pool";
    fn key(&self) -> String {
        self.pool.name.clone()
    }
}

impl Record for Claim {
    const KIND: &'static str = "claim";
    fn key(&self) -> String {
        self.what.clone()
    }
}

impl Record for Counters {
    const KIND: &'static str = "counters";
    fn key(&self) -> String {
        "counters".to_owned()
    }
}
