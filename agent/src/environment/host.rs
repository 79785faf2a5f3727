//! The seam between deciding and doing. `Host` says what is found of an environment on this node, and does one step; `plan` decides which
//! one. Every call blocks and is made on a thread of the environment's own.
//!
//! | going up | step | found afterwards |
//! |---|---|---|
//! | 1 | `FetchTemplate` | `template` |
//! | 2 | `Hold`: lock on the disk, owner record, loop device; a new disk is made | `held`, `disk` |
//! | 3 | `CheckDisk`, `GrowDisk` | `disk: Ready` of the ordered size |
//! | 4 | `Mount` | `mounts: Whole` |
//! | 5 | `Create` | `container: Created` |
//! |   | or `Restore`, which is 5, 6 and 7 at once | `container: Running`, `link` |
//! | 6 | `Attach` | `link` |
//! | 7 | `Start` | `container: Running` |
//!
//! | going down | step | found afterwards |
//! |---|---|---|
//! | 1 | `Checkpoint`, or `Signal`, later `Kill` | `container: Ended`, `processes: 0`; `kept` |
//! | 2 | `Delete` | `container: No` |
//! | 3 | `Detach` | no `link` |
//! | 4 | `Unmount` | `mounts: No` |
//! | 5 | `Release` | nothing: `left` is empty |
//! | 6 | `Destroy` | its directory on the share is gone |
//!
//! Every step may be done again, also after it was cut short by the end of the agent: it finds out what is done already and does the rest.

pub mod real;

use std::collections::BTreeSet;

use lodge_model::drain::Counts;
use lodge_model::environment::order::{Assignment, DiskCheck, TaskKind, TemplateRef, Usage};
use lodge_model::ids::{Digest, EnvironmentId};
use lodge_model::live::Probe;

/// A node that environments run on. The implementation knows the node's id and boot id, and remembers nothing of environments.
pub trait Host: Send + Sync + 'static {
    /// Every environment of which anything is on this node: a directory below `/run/lodge/environments`, a control group, a mount, a loop
    /// device on its disk, a link, a container. Asks only the node's own kernel and `/run`, never the share: it must not hang.
    fn list(&self) -> anyhow::Result<BTreeSet<EnvironmentId>>;

    /// What is found of one; as `list`, it must not hang. `templates` are those that it is ordered to have.
    fn look(&self, id: EnvironmentId, templates: &[&TemplateRef]) -> anyhow::Result<Found>;

    /// Do one step. May take as long as the share takes.
    fn perform(&self, id: EnvironmentId, action: &Action, progress: &dyn Progress) -> Result<(), StepError>;

    /// What a running one uses. Must not hang.
    fn usage(&self, id: EnvironmentId) -> anyhow::Result<Usage>;

    /// Whether the processes of one could be kept in a checkpoint; `None` where it does not run. Stops nothing. Must not hang.
    fn probe(&self, id: EnvironmentId) -> anyhow::Result<Option<Probe>>;

    /// What is left of environments on this node, by the kernel's tables, whoever it belongs to. Must not hang.
    fn count(&self) -> anyhow::Result<Counts>;

    /// Do what is done once; all kinds but `ImportTemplate`. A task that was done already, or was cut short, may be done again. An
    /// environment that runs is frozen for as short as possible and thawed whatever happens.
    fn task(&self, task: &TaskKind, progress: &dyn Progress) -> Result<TaskDone, StepError>;
}

/// How far a step is.
pub trait Progress: Send + Sync {
    /// 0 to 100.
    fn percent(&self, percent: u8);
}

/// What a task has made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TaskDone {
    /// Bytes of a snapshot on the share.
    pub bytes: u64,
    /// What a check of a disk has found.
    pub check: Option<DiskCheck>,
}

/// Why a step was not done.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    /// It must not be done: the order is over (`share::may_hold`), or what is on the share forbids it. Only other orders help.
    #[error("{0}")]
    Refused(String),
    /// It went wrong, and may go well another time: the disk is locked elsewhere, an address is in use, the share does not answer.
    #[error("{0:#}")]
    Failed(#[from] anyhow::Error),
}

/// What is found of one environment on this node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// The order it was taken with (kept by `Hold` in `/run/lodge/environments/<id>`), as long as `Release` is not through.
    pub held: Option<Assignment>,
    /// Those of the ordered templates that are in this node's cache, whole and checked.
    pub templates: BTreeSet<Digest>,
    /// Its disk.
    pub disk: Disk,
    /// Its mounts.
    pub mounts: Mounts,
    /// Its container.
    pub container: Container,
    /// Processes in its control group and below.
    pub processes: u32,
    /// It is frozen: a snapshot was cut short.
    pub frozen: bool,
    /// Its disk was made a moment ago and is still read and written through this node's page cache.
    pub cached: bool,
    /// Anything of its link is there. A guard alone connects nothing, and is only told of in `left`.
    pub link: bool,
    /// The limits of its control group.
    pub limits: Option<Limits>,
    /// Processes that were killed for lack of memory since its start.
    pub oom_kills: u64,
    /// The epoch that a whole checkpoint has been made of on this node.
    pub kept: Option<u64>,
    /// What was mended of its file system before it was opened for repair, as e2fsck tells it.
    pub mended: String,
    /// Everything of it that is on this node, in words: `loop device /dev/loop3`… Empty: nothing is left.
    pub left: Vec<String>,
}

impl Found {
    /// What is found after a step that went well, where the step alone decides that; `None`: it has to be looked at. On the way up each look
    /// would cost as much as some of the steps.
    pub fn after(&self, action: &Action) -> Option<Self> {
        let found = self.clone();
        Some(match action {
            Action::Mount(_) => Self { mounts: Mounts::Whole, ..found },
            Action::Attach(_) => Self { link: true, ..found },
            _ => return None,
        })
    }
}

/// The disk of an environment, seen from this node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Disk {
    /// No loop device, no lock.
    #[default]
    No,
    /// Locked and attached; its file system has not been checked since.
    Unchecked,
    /// Locked, attached and checked.
    Ready {
        /// Bytes that it was last made or grown to, as asked for; rounding of block sizes is left out.
        size: u64,
    },
}

/// Template, disk and overlay.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mounts {
    /// None of them.
    #[default]
    No,
    /// Some.
    Partly,
    /// The root is complete.
    Whole,
}

/// Namespaces and init.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Container {
    /// None.
    #[default]
    No,
    /// Made, its init has not been started.
    Created {
        /// Process of its init.
        pid: i32,
    },
    /// Its init runs.
    Running {
        /// Process of its init.
        pid: i32,
        /// Seconds since 1970 of its start.
        since: i64,
    },
    /// Its init has ended; or a `Create` or `Delete` was cut short, and something of it is left, be it an empty control group.
    Ended {
        /// Process that its init was; 0 where that is not known.
        pid: i32,
    },
}

/// Limits that can be changed while it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of memory.
    pub memory: u64,
    /// Thousandths of a processor.
    pub cpu_millis: u32,
    /// Greatest number of tasks.
    pub tasks_max: u32,
}

impl From<&Assignment> for Limits {
    fn from(order: &Assignment) -> Self {
        Self { memory: order.memory, cpu_millis: order.cpu_millis, tasks_max: order.tasks_max }
    }
}

/// One step for one environment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Copy the template from the share into the node's cache, with its digest checked.
    FetchTemplate(TemplateRef),
    /// Take the right to run it: directory and `disk.img` on the share (made where they are not, with a file system), the lock on the
    /// very open file that the loop device gets, `share::may_hold`, the owner record, the loop device; then the order is kept in `/run`.
    /// Before the first mount.
    Hold(Box<Assignment>),
    /// Check and repair its file system. It is not mounted.
    CheckDisk,
    /// Make disk and file system this many bytes; mounted or not.
    GrowDisk(u64),
    /// Template, disk, overlay: its root.
    Mount(Box<Assignment>),
    /// Control group with limits, console, namespaces: `crun create`. Guest files (host name, name servers, keys) are begun here.
    Create(Box<Assignment>),
    /// Where nothing of its link is there yet: ask the network whether somebody has its addresses already (`Failed` if so, naming the
    /// address and the answering MAC). Then its link with addresses and guard, whatever of it is there; it announces itself.
    Attach(Box<Assignment>),
    /// The guest files are there and seen to be on the disk, then its init goes on to what it is to run.
    Start,
    /// Change the limits of its control group.
    SetLimits(Limits),
    /// Let a frozen one go on.
    Thaw,
    /// From now on its disk is read and written past this node's page cache, which would hold everything twice.
    PassCache,
    /// Write all its processes down on the share, from where another node lets them go on, and end them. Where that cannot be done they
    /// run on as if nothing had been.
    Checkpoint(Box<Assignment>),
    /// Remove a checkpoint: its processes have run on since.
    Forget,
    /// Let its processes go on from the checkpoint of the epoch before, with their connections. The checkpoint is gone afterwards, however
    /// it ends: it is tried once.
    Restore(Box<Assignment>),
    /// A signal to its init.
    Signal(i32),
    /// SIGKILL to everything in its control group, and wait until it is empty.
    Kill,
    /// Remove container and control group; its processes have ended.
    Delete,
    /// Remove its link and guard.
    Detach,
    /// Flush and unmount everything of it.
    Unmount,
    /// Say in the owner record that it is let go of (only where the record is this node's with this epoch), detach the loop device (the
    /// lock goes with it), wait until it is gone, remove its directory in `/run`.
    Release {
        /// The epoch it is let go of.
        epoch: u64,
    },
    /// Remove its directory on the share; `Refused` where the owner record is of a greater epoch, `Failed` where the disk is locked.
    Destroy {
        /// The epoch of the order.
        epoch: u64,
    },
}

impl Action {
    /// Whether it reads or writes below the share's mount point by name: not before the share is mounted.
    pub fn needs_share(&self) -> bool {
        match self {
            Action::FetchTemplate(_)
            | Action::Hold(_)
            | Action::GrowDisk(_)
            | Action::Checkpoint(_)
            | Action::Forget
            | Action::Restore(_)
            | Action::Release { .. }
            | Action::Destroy { .. } => true,
            Action::CheckDisk
            | Action::Mount(_)
            | Action::Create(_)
            | Action::Attach(_)
            | Action::Start
            | Action::SetLimits(_)
            | Action::Thaw
            | Action::PassCache
            | Action::Signal(_)
            | Action::Kill
            | Action::Delete
            | Action::Detach
            | Action::Unmount => false,
        }
    }

    /// Its name in `State::Preparing`.
    pub fn step(&self) -> &'static str {
        match self {
            Action::FetchTemplate(_) => "fetch-template",
            Action::Hold(_) => "take-disk",
            Action::CheckDisk => "check-disk",
            Action::GrowDisk(_) => "grow-disk",
            Action::Mount(_) => "mount",
            Action::Create(_) => "create",
            Action::Attach(_) => "network",
            Action::Start => "start",
            Action::SetLimits(_) => "limits",
            Action::Thaw => "thaw",
            Action::PassCache => "pass-cache",
            Action::Checkpoint(_) => "checkpoint",
            Action::Forget => "forget",
            Action::Restore(_) => "restore",
            Action::Signal(_) => "stop",
            Action::Kill => "kill",
            Action::Delete => "delete",
            Action::Detach => "detach",
            Action::Unmount => "unmount",
            Action::Release { .. } => "release",
            Action::Destroy { .. } => "destroy",
        }
    }
}
