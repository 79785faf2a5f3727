//! The steps of `Host`, done by this machine's kernel.
//!
//! | file | what |
//! |---|---|
//! | `layout.rs` | where everything of an environment is |
//! | `look.rs` | what is found, from kernel tables and `/run` alone |
//! | `owner.rs` | the owner record on the share |
//! | `disk.rs` | the lock, the loop device, the disk's file system |
//! | `check.rs` | e2fsck, gentle and thorough |
//! | `superblock.rs` | what a disk claims to be, before anything acts on it |
//! | `template.rs` | the node's cache of templates and their mounts |
//! | `root.rs` | template, disk and overlay as an environment's root |
//! | `link.rs` | its link, and the question who has its addresses |
//! | `guest.rs` | files that are written into it |
//! | `ahead.rs` | work that is begun before it is needed |
//! | `bundle.rs`, `config.rs`, `seccomp.rs` | what the container engine is told |
//! | `container.rs` | making, starting and ending it, and its limits |
//! | `live.rs` | checkpoints, made and gone on from |
//! | `devices.rs` | the node's devices, for processes that go on here |
//! | `tasks.rs` | snapshots and copies |
//!
//! It remembers nothing but the node's name and boot: what must be known later is a small file in the environment's directory below `/run`,
//! which goes with everything else when it is let go of or when the node restarts.

mod ahead;
mod bundle;
mod check;
mod config;
mod container;
mod devices;
mod disk;
mod guest;
mod layout;
mod left;
mod link;
mod live;
mod look;
mod owner;
mod root;
mod seccomp;
mod superblock;
mod tasks;
mod template;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Result;
use lodge_model::drain::Counts;
use lodge_model::environment::order::{Assignment, TaskKind, TemplateRef, Usage};
use lodge_model::ids::{BootId, EnvironmentId, NodeId};
use lodge_model::live::Probe;
use lodge_sys::cgroup::{self, Cgroup};

use super::{Action, Container, Found, Host, Progress, StepError, TaskDone};
use ahead::Ahead;
pub use config::LXCFS;
pub use container::CRUN_ROOT;
use layout::Layout;

/// This machine.
#[derive(Debug)]
pub struct Real {
    layout: Layout,
    node: NodeId,
    boot: BootId,
    /// Held while a template's shared mount is made, used or taken away.
    templates: Mutex<()>,
    /// Held while a disk is copied, attached, mounted or let go of: tasks and steps come from different threads.
    disks: Mutex<BTreeMap<EnvironmentId, DiskLock>>,
    /// What was begun for their links; forgotten, it is done again.
    links: Mutex<BTreeMap<EnvironmentId, link::Begun>>,
    /// Files on their way into them; forgotten, they are written again.
    files: Ahead<()>,
    /// File systems of new disks on their way; forgotten, they are made again.
    forms: Ahead<bool>,
    /// Bundles on their way, each with the order that it is for, and its console; forgotten, they are made again.
    bundles: Ahead<(Assignment, PathBuf)>,
}

type DiskLock = Arc<Mutex<()>>;

/// The control group that those of all environments are below.
pub fn cgroup_of_all() -> Cgroup {
    Cgroup::at(Path::new(cgroup::ROOT).join(layout::CGROUPS))
}

impl Real {
    /// A node that has the share there (`paths::SHARE`, or `paths::SHARE_DATA` where it serves the share itself).
    pub fn new(share: impl Into<PathBuf>, node: NodeId, boot: BootId) -> Self {
        let layout = Layout::of_node(share.into());
        if let Err(error) = template::remove_leftovers(&layout.cache) {
            tracing::warn!("{error:#}");
        }
        Self::with(layout, node, boot)
    }

    fn with(layout: Layout, node: NodeId, boot: BootId) -> Self {
        let (templates, disks, links, files, forms, bundles) = Default::default();
        Self { layout, node, boot, templates, disks, links, files, forms, bundles }
    }

    /// Do something while no other thread does anything with this disk.
    fn with_disk<T>(&self, id: EnvironmentId, work: impl FnOnce() -> T) -> T {
        let lock = self.disk_lock(id);
        let _alone = lock.lock().unwrap_or_else(PoisonError::into_inner);
        work()
    }

    fn disk_lock(&self, id: EnvironmentId) -> DiskLock {
        self.disks.lock().unwrap_or_else(PoisonError::into_inner).entry(id).or_default().clone()
    }

    /// Whether a thread does something with this disk now.
    fn is_disk_busy(&self, id: EnvironmentId) -> bool {
        matches!(self.disk_lock(id).try_lock(), Err(std::sync::TryLockError::WouldBlock))
    }
}

impl Host for Real {
    fn list(&self) -> Result<BTreeSet<EnvironmentId>> {
        self.list_found()
    }

    fn look(&self, id: EnvironmentId, templates: &[&TemplateRef]) -> Result<Found> {
        self.look_at(id, templates)
    }

    fn perform(&self, id: EnvironmentId, action: &Action, progress: &dyn Progress) -> Result<(), StepError> {
        let disk = |work: &dyn Fn() -> Result<(), StepError>| self.with_disk(id, work);
        match action {
            Action::FetchTemplate(template) => self.fetch_template(template, progress)?,
            Action::Hold(order) => {
                self.begin_link(order);
                disk(&|| self.hold(order))?;
            }
            Action::CheckDisk => disk(&|| self.check_disk(id))?,
            Action::GrowDisk(size) => disk(&|| self.grow_disk(id, *size))?,
            Action::Mount(order) => {
                self.begin_bundle(order);
                disk(&|| Ok(self.mount_root(order)?))?;
            }
            Action::Create(order) => {
                self.begin_link(order);
                if order.resume.is_some() {
                    // It was to go on from a checkpoint, and starts anew: nobody may go on from before what it writes now.
                    self.forget_checkpoint(id)?;
                }
                self.create(order)?;
            }
            Action::Attach(order) => self.attach_link(order)?,
            Action::Start => self.start(id)?,
            Action::SetLimits(limits) => self.set_limits(id, *limits)?,
            Action::PassCache => disk(&|| Ok(self.pass_cache(id)?))?,
            Action::Thaw => disk(&|| Ok(self.thaw(id)?))?,
            Action::Checkpoint(order) => disk(&|| self.checkpoint(order))?,
            Action::Forget => self.forget_checkpoint(id)?,
            Action::Restore(order) => self.restore(order)?,
            Action::Signal(signal) => self.signal(id, *signal)?,
            Action::Kill => self.kill(id)?,
            Action::Delete => self.delete(id)?,
            Action::Detach => lodge_network::detach(id)?,
            Action::Unmount => disk(&|| Ok(self.unmount_root(id)?))?,
            Action::Release { epoch } => disk(&|| self.release(id, *epoch))?,
            Action::Destroy { epoch } => disk(&|| self.destroy(id, *epoch))?,
        }
        Ok(())
    }

    fn usage(&self, id: EnvironmentId) -> Result<Usage> {
        self.usage_of(id)
    }

    fn probe(&self, id: EnvironmentId) -> Result<Option<Probe>> {
        self.probe_of(id)
    }

    fn count(&self) -> Result<Counts> {
        self.count_left()
    }

    fn task(&self, task: &TaskKind, progress: &dyn Progress) -> Result<TaskDone, StepError> {
        self.do_task(task, progress)
    }
}
