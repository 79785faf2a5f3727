//! A node as its agent finds it: every step has the effect that `Host` promises, on this machine and on the share they all have.
//!
//! A step that needs a share that does not answer hangs: it fails here, and the simulation lets its worker go on only when the share
//! answers again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::anyhow;
use lodge_agent::environment::host::{Action, Container, Disk, Found, Host, Limits, Mounts, Progress, StepError, TaskDone};
use lodge_model::drain::Counts;
use lodge_model::environment::order::{Assignment, TaskKind, TemplateRef, Usage};
use lodge_model::environment::share::{Owner, may_hold};
use lodge_model::farewell::SignedWord;
use lodge_model::ids::{Digest, EnvironmentId, NodeId};
use lodge_model::live::Probe;

use crate::clock::Millis;
use crate::share::{Client, Share, Written};

/// Wait status of an init that was told to shut down: it called poweroff, which shows as SIGINT.
const POWERED_OFF: i32 = 2;
/// Wait status of one that was killed.
const KILLED: i32 = 9;
/// Wait status of one whose disk failed: it exited with 1.
const FAILED: i32 = 1 << 8;

/// What a boot of a machine has.
#[derive(Default)]
pub struct Kernel {
    /// Environments.
    pub here: BTreeMap<EnvironmentId, Found>,
    /// Templates in the cache.
    pub templates: BTreeSet<Digest>,
    /// Ends of inits of this boot.
    pub exits: Vec<(i32, i32)>,
    /// Inits do not listen to signals.
    pub is_deaf: bool,
    /// What the last step was, and whether it hangs.
    pub last: Option<(&'static str, bool)>,
    /// The time.
    pub now: Millis,
    pids: i32,
}

/// One boot of one machine.
pub struct Machine {
    /// Who it is for the share.
    pub client: Client,
    kernel: Mutex<Kernel>,
    share: Arc<Mutex<Share>>,
}

/// Nobody panics with it in hand, and if somebody did it would still be whole.
pub fn open<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Machine {
    /// It has just started; templates are kept on its disk.
    pub fn new(client: Client, share: Arc<Mutex<Share>>, templates: BTreeSet<Digest>) -> Self {
        Self { client, kernel: Mutex::new(Kernel { templates, ..Kernel::default() }), share }
    }

    /// Look at it, or change it.
    pub fn kernel(&self) -> MutexGuard<'_, Kernel> {
        open(&self.kernel)
    }

    /// Environments that run, and their epochs.
    pub fn running(&self) -> Vec<(EnvironmentId, u64)> {
        let kernel = self.kernel();
        let runs = |found: &Found| matches!(found.container, Container::Running { .. });
        let held = kernel.here.iter().filter(|(_, found)| runs(found));
        held.filter_map(|(id, found)| Some((*id, found.held.as_ref()?.epoch))).collect()
    }

    /// Environments that it holds, and their epochs.
    pub fn held(&self) -> Vec<(EnvironmentId, u64)> {
        self.kernel().here.iter().filter_map(|(id, found)| Some((*id, found.held.as_ref()?.epoch))).collect()
    }

    /// Every environment that runs writes a line. One whose disk fails ends.
    pub fn write(&self) {
        for (id, epoch) in self.running() {
            let written = open(&self.share).write(id, self.client, epoch);
            if written == Written::Failed {
                self.kernel().end(id, FAILED);
            }
        }
    }

    /// Everything that runs is ended.
    pub fn kill_all(&self) {
        for (id, _) in self.running() {
            self.kernel().end(id, KILLED);
        }
    }

    /// An init ends by itself.
    pub fn end(&self, id: EnvironmentId, status: i32) {
        self.kernel().end(id, status);
    }

    /// Whether the share answers it.
    pub fn answers(&self) -> bool {
        open(&self.share).answers(self.client)
    }

    /// Its last word, on the share.
    pub fn leave_word(&self, word: SignedWord) {
        open(&self.share).words.insert(self.client.node, word);
    }

    /// The last words of these nodes, as far as they are there and the share answers.
    pub fn words(&self, absent: &[NodeId]) -> Vec<SignedWord> {
        let share = open(&self.share);
        let words = absent.iter().filter_map(|node| share.words.get(node).cloned());
        if share.answers(self.client) { words.collect() } else { Vec::new() }
    }

    fn may_start(&self, order: &Assignment) {
        let mut share = open(&self.share);
        share.may_start(order.id, self.client, order.epoch);
        if order.boot != self.client.boot {
            share.wrong.get_or_insert(format!("{} is started by an order that was given to another boot", order.name));
        }
    }

    fn owner(&self, order: &Assignment) -> Owner {
        let Client { node, boot } = self.client;
        Owner { environment: order.id, epoch: order.epoch, node, boot, released: false }
    }

    fn hold(&self, found: &mut Found, order: &Assignment, now: Millis) -> Result<(), StepError> {
        let mut share = open(&self.share);
        let mine = self.owner(order);
        let before = share.disks.get(&order.id).and_then(|disk| disk.owner.clone());
        may_hold(before.as_ref(), &mine).map_err(StepError::Refused)?;
        share.lock(order.id, self.client, now).map_err(|why| anyhow!(why))?;
        let disk = share.disks.entry(order.id).or_default();
        disk.owner = Some(mine);
        disk.size = disk.size.max(order.disk);
        if found.disk == Disk::No {
            found.disk = if disk.is_made { Disk::Unchecked } else { Disk::Ready { size: disk.size } };
            disk.is_made = true;
        }
        found.held = Some(order.clone());
        Ok(())
    }

    fn let_go(&self, found: &mut Found, id: EnvironmentId, epoch: u64) {
        let mut share = open(&self.share);
        let client = self.client;
        if let Some(owner) = share.disks.get_mut(&id).and_then(|disk| disk.owner.as_mut())
            && (owner.epoch, owner.node, owner.boot) == (epoch, client.node, client.boot)
        {
            owner.released = true;
        }
        share.unlock(id, client);
        (found.disk, found.held) = (Disk::No, None);
    }

    fn destroy(&self, id: EnvironmentId, epoch: u64, now: Millis) -> Result<(), StepError> {
        let mut share = open(&self.share);
        if share.disks.get(&id).and_then(|disk| disk.owner.as_ref()).is_some_and(|owner| owner.epoch > epoch) {
            return Err(StepError::Refused(format!("epoch {epoch} is over")));
        }
        if share.disks.contains_key(&id) {
            share.lock(id, self.client, now).map_err(|why| anyhow!(why))?;
            share.disks.remove(&id);
        }
        Ok(())
    }

    fn size(&self, id: EnvironmentId) -> u64 {
        open(&self.share).disks.get(&id).map_or(0, |disk| disk.size)
    }

    fn act(&self, id: EnvironmentId, action: &Action) -> Result<(), StepError> {
        let mut kernel = self.kernel();
        let now = kernel.now;
        let mut found = kernel.here.remove(&id).unwrap_or_default();
        let mut status = None;
        let done = match action {
            Action::FetchTemplate(template) => {
                kernel.templates.insert(template.digest.clone());
                Ok(())
            }
            Action::Hold(order) => self.hold(&mut found, order, now),
            Action::CheckDisk => {
                let mut share = open(&self.share);
                let disk = share.disks.entry(id).or_default();
                found.disk = Disk::Ready { size: disk.size };
                Ok(())
            }
            Action::GrowDisk(size) => {
                open(&self.share).disks.entry(id).or_default().size = *size;
                found.disk = Disk::Ready { size: self.size(id) };
                Ok(())
            }
            Action::Mount(_) => {
                found.mounts = Mounts::Whole;
                Ok(())
            }
            Action::Create(order) => {
                kernel.pids += 1;
                (found.container, found.processes) = (Container::Created { pid: kernel.pids }, 1);
                found.limits = Some(Limits::from(&**order));
                Ok(())
            }
            Action::Attach(_) => {
                found.link = true;
                Ok(())
            }
            Action::Start => {
                if let Some(order) = &found.held {
                    self.may_start(order);
                }
                if let Container::Created { pid } = found.container {
                    found.container = Container::Running { pid, since: i64::try_from(now / 1000).unwrap_or(0) };
                }
                Ok(())
            }
            Action::SetLimits(limits) => {
                found.limits = Some(*limits);
                Ok(())
            }
            Action::Thaw => {
                found.frozen = false;
                Ok(())
            }
            Action::PassCache => {
                found.cached = false;
                Ok(())
            }
            Action::Signal(_) => {
                status = (!kernel.is_deaf).then_some(POWERED_OFF);
                Ok(())
            }
            Action::Kill => {
                status = Some(KILLED);
                found.processes = 0;
                Ok(())
            }
            Action::Delete => {
                (found.container, found.limits) = (Container::No, None);
                Ok(())
            }
            Action::Detach => {
                found.link = false;
                Ok(())
            }
            Action::Unmount => {
                found.mounts = Mounts::No;
                // It is checked before every mount.
                if matches!(found.disk, Disk::Ready { .. }) {
                    found.disk = Disk::Unchecked;
                }
                Ok(())
            }
            Action::Checkpoint(_) | Action::Restore(_) => Err(StepError::Refused("no template here is movable".to_owned())),
            Action::Forget => Ok(()),
            Action::Release { epoch } => {
                self.let_go(&mut found, id, *epoch);
                Ok(())
            }
            Action::Destroy { epoch } => self.destroy(id, *epoch, now),
        };
        kernel.here.insert(id, found);
        if let Some(status) = status {
            kernel.end(id, status);
        }
        done
    }
}

impl Kernel {
    fn end(&mut self, id: EnvironmentId, status: i32) {
        let Some(found) = self.here.get_mut(&id) else { return };
        if let Container::Running { pid, .. } | Container::Created { pid } = found.container {
            (found.container, found.processes) = (Container::Ended { pid }, 0);
            self.exits.push((pid, status));
        }
    }
}

/// Whether a step waits for the share: by name below its mount point, or through the loop device.
fn uses_share(action: &Action) -> bool {
    action.needs_share() || matches!(action, Action::CheckDisk | Action::Mount(_) | Action::Unmount)
}

impl Host for Machine {
    fn list(&self) -> anyhow::Result<BTreeSet<EnvironmentId>> {
        let kernel = self.kernel();
        Ok(kernel.here.iter().filter(|(_, found)| !left(found).is_empty()).map(|(id, _)| *id).collect())
    }

    fn count(&self) -> anyhow::Result<Counts> {
        let kernel = self.kernel();
        let count = |is: fn(&Found) -> bool| u32::try_from(kernel.here.values().filter(|found| is(found)).count());
        Ok(Counts {
            processes: kernel.here.values().map(|found| found.processes).sum(),
            mounts: count(|found| found.mounts != Mounts::No)?,
            loop_devices: count(|found| found.disk != Disk::No)?,
            open_files: count(|found| found.held.is_some())?,
        })
    }

    fn look(&self, id: EnvironmentId, templates: &[&TemplateRef]) -> anyhow::Result<Found> {
        let kernel = self.kernel();
        let found = kernel.here.get(&id).cloned().unwrap_or_default();
        let ordered = templates.iter().map(|template| &template.digest);
        let here = ordered.filter(|digest| kernel.templates.contains(digest)).cloned().collect();
        Ok(Found { templates: here, left: left(&found), ..found })
    }

    fn perform(&self, id: EnvironmentId, action: &Action, _: &dyn Progress) -> Result<(), StepError> {
        let hangs = uses_share(action) && !self.answers();
        self.kernel().last = Some((action.step(), hangs));
        if hangs {
            return Err(anyhow!("the share does not answer").into());
        }
        self.act(id, action)
    }

    fn usage(&self, _: EnvironmentId) -> anyhow::Result<Usage> {
        Ok(Usage::default())
    }

    /// Checkpoints are not simulated.
    fn probe(&self, _: EnvironmentId) -> anyhow::Result<Option<Probe>> {
        Ok(None)
    }

    fn task(&self, task: &TaskKind, _: &dyn Progress) -> Result<TaskDone, StepError> {
        Err(StepError::Refused(format!("{task:?} is not simulated")))
    }
}

fn left(found: &Found) -> Vec<String> {
    let is = [
        (found.container != Container::No, "container"),
        (found.processes > 0, "processes"),
        (found.link, "link"),
        (found.mounts != Mounts::No, "mounts"),
        (found.disk != Disk::No, "loop device"),
        (found.held.is_some(), "record"),
    ];
    is.iter().filter(|(is, _)| *is).map(|(_, what)| (*what).to_owned()).collect()
}
