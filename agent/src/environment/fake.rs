//! A node in memory: every step has the effect that `Host` promises, and insists on the order of the steps. It can be made to cut a step
//! short, before, within or after its effect, as the end of the agent does.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard};

use anyhow::anyhow;
use lodge_model::drain::Counts;
use lodge_model::environment::order::{TaskKind, TemplateRef, Usage};
use lodge_model::ids::{Digest, EnvironmentId};
use lodge_model::live::Probe;

use super::host::{Action, Container, Disk, Found, Host, Limits, Mounts, Progress, StepError, TaskDone};

/// Where a step is cut short.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// Nothing was done.
    Before,
    /// Half of it was done.
    Within,
    /// It was done, and nobody heard of it.
    After,
}

/// What a signal to stop does to an init.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Manners {
    /// It shuts down.
    #[default]
    Polite,
    /// Nothing.
    Deaf,
}

/// A disk on the share.
#[derive(Clone, Debug, Default)]
pub struct Share {
    /// Greatest epoch in an owner record.
    pub epoch: u64,
    /// A file system is on it.
    pub is_made: bool,
    /// Bytes.
    pub size: u64,
    /// The epoch that a checkpoint is of.
    pub checkpoint: Option<u64>,
}

/// The node and the share.
#[derive(Default)]
pub struct Inner {
    /// What is on the node.
    pub here: BTreeMap<EnvironmentId, Found>,
    /// What is on the share.
    pub share: BTreeMap<EnvironmentId, Share>,
    /// Templates in the cache.
    pub templates: BTreeSet<Digest>,
    /// How inits behave.
    pub manners: Manners,
    /// Ends that init has not told yet.
    pub exits: Vec<(i32, i32)>,
    /// Cut the step after this many short.
    pub cut: Option<(u32, Cut)>,
    /// A step was cut short: the agent has ended.
    pub is_cut: bool,
    /// Steps that fail, with what they say.
    pub failing: BTreeMap<&'static str, String>,
    /// Steps that go well and have no effect.
    pub idling: BTreeSet<&'static str>,
    /// Every step that was tried.
    pub steps: Vec<&'static str>,
    /// Processes that went on from a checkpoint.
    pub resumed: u32,
    last_pid: i32,
}

/// A node in memory.
#[derive(Default)]
pub struct Fake {
    inner: Mutex<Inner>,
}

impl Fake {
    /// Look at it, or change it.
    pub fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap()
    }

    /// Its init ends with this wait status.
    pub fn end(&self, id: EnvironmentId, status: i32) {
        self.inner().end(id, status);
    }
}

impl Inner {
    fn end(&mut self, id: EnvironmentId, status: i32) {
        let Some(found) = self.here.get_mut(&id) else { return };
        if let Container::Running { pid, .. } | Container::Created { pid } = found.container {
            found.container = Container::Ended { pid };
            found.processes = 0;
            self.exits.push((pid, status));
        }
    }

    /// The effect of a step; half of it where it was cut short.
    fn act(&mut self, id: EnvironmentId, action: &Action, is_half: bool) -> Result<(), StepError> {
        let found = self.here.entry(id).or_default();
        let share = self.share.entry(id).or_default();
        let is_running = matches!(found.container, Container::Running { .. });
        match action {
            Action::FetchTemplate(template) if !is_half => drop(self.templates.insert(template.digest.clone())),
            Action::FetchTemplate(_) => {}
            Action::Hold(order) => {
                if share.epoch > order.epoch {
                    return Err(StepError::Refused(format!("epoch {} is over", order.epoch)));
                }
                share.epoch = order.epoch;
                share.size = share.size.max(order.disk);
                if found.disk == Disk::No {
                    let is_old = share.is_made || is_half;
                    found.disk = if is_old { Disk::Unchecked } else { Disk::Ready { size: share.size } };
                    found.cached = !is_old;
                    share.is_made = true;
                }
                if order.resume.is_none() {
                    share.checkpoint = None;
                }
                found.held = (!is_half).then(|| (**order).clone());
            }
            Action::CheckDisk => {
                assert_eq!((found.disk, found.mounts), (Disk::Unchecked, Mounts::No), "a mounted disk is not checked");
                if !is_half {
                    found.disk = Disk::Ready { size: share.size };
                }
            }
            Action::GrowDisk(size) => {
                assert!(matches!(found.disk, Disk::Ready { .. }) && *size > share.size, "a disk only grows");
                share.size = *size;
                if !is_half {
                    found.disk = Disk::Ready { size: *size };
                }
            }
            Action::Mount(order) => {
                assert!(matches!(found.disk, Disk::Ready { .. }), "an unchecked disk is not mounted");
                let mut needed = order.templates();
                assert!(needed.all(|template| self.templates.contains(&template.digest)), "templates are fetched first");
                assert_eq!(found.held.as_ref().map(|held| held.epoch), Some(order.epoch), "held before it is mounted");
                found.mounts = if is_half { Mounts::Partly } else { Mounts::Whole };
            }
            Action::Create(order) => {
                assert_eq!(found.mounts, Mounts::Whole, "the root is there before the container");
                assert_eq!(found.container, Container::No, "there is one container");
                if order.resume.is_some() {
                    share.checkpoint = None;
                }
                self.last_pid += 1;
                let pid = self.last_pid;
                found.container = if is_half { Container::Ended { pid: 0 } } else { Container::Created { pid } };
                found.processes = u32::from(!is_half);
                found.limits = Some(Limits::from(&**order));
            }
            // It may have ended since it was looked at.
            Action::Attach(_) | Action::Start if matches!(found.container, Container::Ended { .. }) => {
                return Err(anyhow!("its init has ended").into());
            }
            Action::Attach(_) => {
                assert!(matches!(found.container, Container::Created { .. }), "a link needs a namespace");
                found.link = true;
            }
            Action::Start => {
                let Container::Created { pid } = found.container else { panic!("started {:?}", found.container) };
                assert!(found.link, "connected before it is started");
                assert_eq!(share.checkpoint, None, "a checkpoint never meets a disk that was written since");
                if !is_half {
                    found.container = Container::Running { pid, since: 1 };
                }
            }
            Action::Checkpoint(order) => {
                assert!(is_running && found.held.as_ref().map(|held| held.epoch) == Some(order.epoch), "what runs here");
                if !is_half {
                    (share.checkpoint, found.kept) = (Some(order.epoch), Some(order.epoch));
                    self.end(id, 9);
                }
            }
            Action::Forget => (share.checkpoint, found.kept) = (None, None),
            Action::Restore(order) => {
                assert_eq!(
                    (found.mounts, found.container),
                    (Mounts::Whole, Container::No),
                    "the root is there, and nothing else"
                );
                if share.checkpoint.take().is_none_or(|made| made + 1 != order.epoch) {
                    return Err(StepError::Refused("there is no such checkpoint".into()));
                }
                self.last_pid += 1;
                let pid = self.last_pid;
                found.container = if is_half { Container::Ended { pid: 0 } } else { Container::Running { pid, since: 1 } };
                (found.processes, found.link) = (1, true);
                found.limits = Some(Limits::from(&**order));
                self.resumed += u32::from(!is_half);
            }
            Action::SetLimits(limits) => found.limits = Some(*limits),
            Action::Thaw => found.frozen = false,
            Action::PassCache => found.cached = false,
            Action::Signal(_) => {
                if is_running && !is_half && self.manners == Manners::Polite {
                    self.end(id, 2);
                }
            }
            Action::Kill => {
                found.processes = 0;
                self.end(id, 9);
            }
            Action::Delete => {
                assert_eq!(found.processes, 0, "its processes have ended before it is deleted");
                if !is_half {
                    (found.container, found.limits) = (Container::No, None);
                }
            }
            Action::Detach => found.link &= is_half,
            Action::Unmount => {
                assert_eq!((found.container, found.processes), (Container::No, 0), "nothing uses it when it is unmounted");
                found.mounts = if is_half { Mounts::Partly } else { Mounts::No };
                if !is_half && matches!(found.disk, Disk::Ready { .. }) {
                    found.disk = Disk::Unchecked;
                }
            }
            Action::Release { .. } => {
                assert_eq!((found.mounts, found.link), (Mounts::No, false), "the lock is let go of last");
                (found.disk, found.cached) = (Disk::No, false);
                if !is_half {
                    (found.held, found.kept) = (None, None);
                }
            }
            Action::Destroy { epoch } => {
                assert!(found.held.is_none() && found.disk == Disk::No, "it is let go of before it is destroyed");
                if share.epoch > *epoch {
                    return Err(StepError::Refused(format!("epoch {epoch} is over")));
                }
                if !is_half {
                    self.share.remove(&id);
                }
            }
        }
        Ok(())
    }
}

impl Host for Fake {
    fn list(&self) -> anyhow::Result<BTreeSet<EnvironmentId>> {
        let inner = self.inner();
        let is_here = |found: &Found| left(found) != Vec::<String>::new();
        Ok(inner.here.iter().filter(|(_, found)| is_here(found)).map(|(id, _)| *id).collect())
    }

    fn count(&self) -> anyhow::Result<Counts> {
        let inner = self.inner();
        let mounts = inner.here.values().filter(|found| found.mounts != Mounts::No).count();
        Ok(Counts { mounts: u32::try_from(mounts)?, ..Counts::default() })
    }

    fn look(&self, id: EnvironmentId, templates: &[&TemplateRef]) -> anyhow::Result<Found> {
        let inner = self.inner();
        let found = inner.here.get(&id).cloned().unwrap_or_default();
        let ordered = templates.iter().map(|template| &template.digest);
        let here = ordered.filter(|digest| inner.templates.contains(digest)).cloned().collect();
        Ok(Found { templates: here, left: left(&found), ..found })
    }

    fn perform(&self, id: EnvironmentId, action: &Action, _: &dyn Progress) -> Result<(), StepError> {
        let mut inner = self.inner();
        assert!(!inner.is_cut, "a dead agent does nothing");
        inner.steps.push(action.step());
        if let Some(text) = inner.failing.get(action.step()) {
            return Err(anyhow!("{text}").into());
        }
        if inner.idling.contains(action.step()) {
            return Ok(());
        }
        let cut = match inner.cut.take() {
            Some((0, cut)) => Some(cut),
            Some((steps, cut)) => {
                inner.cut = Some((steps - 1, cut));
                None
            }
            None => None,
        };
        let before = inner.here.get(&id).cloned().unwrap_or_default();
        if cut != Some(Cut::Before) {
            inner.act(id, action, cut == Some(Cut::Within))?;
        }
        if let (None, Some(expected)) = (cut, before.after(action)) {
            assert_eq!(inner.here.get(&id), Some(&expected), "what {} is said to do", action.step());
        }
        match cut {
            Some(_) => {
                inner.is_cut = true;
                Err(anyhow!("cut short").into())
            }
            None => Ok(()),
        }
    }

    fn usage(&self, _: EnvironmentId) -> anyhow::Result<Usage> {
        Ok(Usage { memory: 1 << 20, ..Usage::default() })
    }

    fn probe(&self, id: EnvironmentId) -> anyhow::Result<Option<Probe>> {
        let runs = self.inner().here.get(&id).is_some_and(|found| matches!(found.container, Container::Running { .. }));
        Ok(runs.then_some(Probe::Clear))
    }

    fn task(&self, task: &TaskKind, progress: &dyn Progress) -> Result<TaskDone, StepError> {
        progress.percent(50);
        match task {
            TaskKind::Rollback { .. } => Err(StepError::Refused("it runs".into())),
            _ => Ok(TaskDone { bytes: 7, check: None }),
        }
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
