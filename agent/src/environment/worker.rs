//! One environment's thread: look, decide, note, do one step, report; again until there is nothing to do, then wait to be woken.
//!
//! Everything of one environment is done by its one thread, tasks as well: no two steps of it ever run at once. A step that hangs with
//! the share hangs this thread alone.

mod asked;

use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use lodge_model::environment::order::{Assignment, Report, State, Task, TaskOutcome, Usage};
use lodge_model::ids::{BootId, Digest, EnvironmentId, TaskId};
use lodge_model::live::Probe;

use super::exits::Exits;
use super::host::{Action, Container, Found, Host, Progress, StepError, TaskDone};
use super::notes::{Book, Notes};
use super::plan::{self, Facts, Failure, Memory, plan};
use super::tasks::Told;
use asked::Asked;
#[cfg(test)]
pub use asked::FIRST_AFTER;

/// The usage of a running environment is asked for this often; it is also looked at again then, should an event have been lost.
pub const USAGE_EVERY: Duration = Duration::from_secs(10);
/// Its processes are looked at this often, to know beforehand whether they could be kept in a checkpoint.
pub const PROBE_EVERY: Duration = Duration::from_secs(30);

/// What a worker is told.
#[derive(Clone, Debug)]
pub enum Message {
    /// What the center wants of it.
    Order(Option<Box<Assignment>>),
    /// The node goes down: nothing of it may be left at this time since the kernel started.
    Leave(Duration),
    /// Its init has ended.
    Wake,
    /// The share is in order again: what failed is tried at once.
    ShareBack,
    /// Do something once.
    Task(Box<Task>),
}

/// What a worker says.
#[derive(Clone, Debug)]
pub enum Event {
    /// It was looked at.
    Seen {
        /// Which.
        id: EnvironmentId,
        /// For the center.
        report: Option<Report>,
        /// Its init, while its end is not taken in.
        init: Option<i32>,
        /// Nothing of it is left, and nothing is to be done.
        is_gone: bool,
        /// Messages that had been taken by then.
        heard: u64,
    },
    /// A step on the way up has come this far.
    Step {
        /// Which.
        id: EnvironmentId,
        /// Its name and its percent.
        step: String,
    },
    /// A template was to be fetched beforehand.
    Warm {
        /// Which.
        digest: Digest,
        /// It is on this node.
        is_here: bool,
    },
    /// A task has come this far.
    Task {
        /// Which.
        id: TaskId,
        /// How far.
        outcome: TaskOutcome,
    },
}

/// Where a worker's words go.
pub type Say = Arc<dyn Fn(Event) + Send + Sync>;

/// Time since the kernel started.
pub type Clock = Arc<dyn Fn() -> Duration + Send + Sync>;

/// What all workers share.
#[derive(Clone)]
pub struct Surroundings {
    /// The node.
    pub host: Arc<dyn Host>,
    /// This boot.
    pub boot: BootId,
    /// The notes.
    pub book: Book,
    /// What init has told.
    pub exits: Arc<Mutex<Exits>>,
    /// Where their words go.
    pub say: Say,
    /// The time.
    pub clock: Clock,
    /// Whether the share is mounted; where it is not, its directory is an empty one of the node.
    pub has_share: Arc<dyn Fn() -> bool + Send + Sync>,
    /// Many new environments need the same template: it is fetched once.
    pub fetching: Arc<Mutex<()>>,
}

impl Surroundings {
    /// Do a task that is the host's.
    pub fn task(&self, task: &Task, progress: &dyn Progress) -> Result<TaskOutcome, StepError> {
        if !(self.has_share)() {
            return Err(anyhow!("the share is not mounted").into());
        }
        let TaskDone { bytes, check } = self.host.task(&task.what, progress)?;
        Ok(check.map_or(TaskOutcome::Done { bytes, template: None }, TaskOutcome::Checked))
    }
}

/// One environment's worker.
pub struct Worker {
    id: EnvironmentId,
    around: Surroundings,
    order: Option<Assignment>,
    leaving: Option<Duration>,
    notes: Notes,
    memory: Memory,
    usage: Option<Asked<Usage>>,
    probe: Option<Asked<Probe>>,
    last_step: Option<(Action, Found)>,
    /// What follows from the last step, while nothing has been heard since.
    expected: Option<Found>,
    last_report: Option<Report>,
    heard: u64,
}

/// What a turn came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// A step was tried: look again.
    Acted,
    /// Nothing to do before this time, if no message comes.
    Wait(Option<Duration>),
}

impl Worker {
    /// It starts with what is noted.
    pub fn new(id: EnvironmentId, around: Surroundings) -> Self {
        let notes = around.book.read(id);
        Self {
            id,
            around,
            order: None,
            leaving: None,
            notes,
            memory: Memory::default(),
            usage: None,
            probe: None,
            last_step: None,
            expected: None,
            last_report: None,
            heard: 0,
        }
    }

    /// Work until nobody sends messages any more.
    pub fn run(mut self, inbox: &Receiver<Message>) {
        let Ok(first) = inbox.recv() else { return };
        self.take(first);
        loop {
            while let Ok(message) = inbox.try_recv() {
                self.take(message);
            }
            let message = match self.turn() {
                Turn::Acted => continue,
                Turn::Wait(None) => inbox.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Turn::Wait(Some(until)) => inbox.recv_timeout(until.saturating_sub((self.around.clock)())),
            };
            match message {
                Ok(message) => self.take(message),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    /// Take a message; a task is done now.
    pub fn take(&mut self, message: Message) {
        self.heard += 1;
        self.expected = None;
        match message {
            Message::Order(order) => {
                let order = order.map(|order| *order);
                if self.order != order {
                    self.memory.failure = None;
                }
                self.order = order;
            }
            Message::Leave(by) => self.leaving = Some(by),
            Message::Wake => {}
            Message::ShareBack => self.memory.failure = None,
            Message::Task(task) => self.do_task(&task),
        }
    }

    /// Look, decide, do one step at most.
    pub fn turn(&mut self) -> Turn {
        let now = (self.around.clock)();
        match self.try_turn(now) {
            Ok(turn) => turn,
            Err(error) => {
                let text = format!("{error:#}");
                let report = self.last_report.clone().map(|report| Report { problem: text.clone(), ..report });
                if report != self.last_report {
                    tracing::warn!("environment {}: {text}", self.id);
                }
                self.report(report, false);
                Turn::Wait(Some(now + plan::RETRY))
            }
        }
    }

    fn try_turn(&mut self, now: Duration) -> Result<Turn> {
        let templates: Vec<_> = self.order.iter().flat_map(Assignment::templates).collect();
        let found = match self.expected.take() {
            Some(found) => found,
            None => self.around.host.look(self.id, &templates).context("looking at what is on this node")?,
        };
        let status = self.status(&found);
        let plan = plan(&Facts {
            order: self.order.as_ref(),
            boot: self.around.boot,
            now,
            leaving: self.leaving,
            found: &found,
            notes: &self.notes,
            status,
            memory: &self.memory,
        });
        self.note(plan.notes)?;
        if plan.settled {
            self.memory.failure = None;
        }
        let usage = self.usage(&found, now);
        let probe = self.probe(&found, now);
        let report = plan.report.map(|report| Report { usage, probe, ..report });
        let is_gone = plan.settled && found.left.is_empty() && found.held.is_none();
        if is_gone && self.order.is_none() {
            self.around.book.forget(self.id)?;
            self.notes = Notes::default();
        }
        self.report(report, is_gone);
        match plan.action {
            Some(action) => {
                self.perform(action, found);
                Ok(Turn::Acted)
            }
            None => {
                let refresh = self.usage.as_ref().map(|asked| asked.next);
                Ok(Turn::Wait(plan.look_again.into_iter().chain(refresh).min()))
            }
        }
    }

    fn status(&self, found: &Found) -> Option<i32> {
        let mut exits = self.around.exits.lock().unwrap_or_else(PoisonError::into_inner);
        if let Container::Running { pid, .. } | Container::Created { pid } = found.container {
            exits.forget(pid);
        }
        self.notes.init.and_then(|pid| exits.status(pid))
    }

    fn note(&mut self, notes: Notes) -> Result<()> {
        if notes != self.notes {
            self.around.book.write(self.id, &notes)?;
            if notes.last_exit != self.notes.last_exit || notes.starts != self.notes.starts {
                tracing::info!("environment {}: {}", self.name(), notes.last_exit);
            }
            self.notes = notes;
        }
        Ok(())
    }

    fn usage(&mut self, found: &Found, now: Duration) -> Option<Usage> {
        let runs = matches!(found.container, Container::Running { .. });
        let (host, id) = (&self.around.host, self.id);
        asked::again(&mut self.usage, runs, now, USAGE_EVERY, |last| {
            let usage = host.usage(id).inspect_err(|error| tracing::debug!("usage of environment {id}: {error:#}"));
            usage.ok().or(last)
        })
    }

    /// Whether its processes could be kept; of a template that does not say so nobody asks.
    fn probe(&mut self, found: &Found, now: Duration) -> Option<Probe> {
        let is_movable = self.order.as_ref().is_some_and(|order| order.template.meta.movable);
        let runs = matches!(found.container, Container::Running { .. });
        let (host, id) = (&self.around.host, self.id);
        asked::again(&mut self.probe, is_movable && runs, now, PROBE_EVERY, |_| {
            let probe = host.probe(id).inspect_err(|error| tracing::debug!("processes of environment {id}: {error:#}"));
            probe.ok().flatten()
        })
    }

    fn perform(&mut self, action: Action, found: Found) {
        let is_again = self.last_step.as_ref().is_some_and(|(last, before)| *last == action && *before == found);
        let done = if is_again && !matches!(action, Action::Signal(_)) {
            let left = found.left.join(", ");
            Err(anyhow!("{} was done, and nothing has changed; here is: {left}", action.step()).into())
        } else if action.needs_share() && !(self.around.has_share)() {
            Err(anyhow!("the share is not mounted").into())
        } else {
            tracing::debug!("environment {}: {action:?}", self.name());
            let _one_at_a_time = match action {
                Action::FetchTemplate(_) => Some(self.around.fetching.lock().unwrap_or_else(PoisonError::into_inner)),
                _ => None,
            };
            let progress = StepProgress { say: &self.around.say, report: self.last_report.as_ref() };
            self.around.host.perform(self.id, &action, &progress)
        };
        self.last_step = None;
        match done {
            Ok(()) => {
                if self.memory.failure.as_ref().is_some_and(|failure| failure.step == action.step()) {
                    self.memory.failure = None;
                }
                match (&action, found.container) {
                    (Action::Attach(_), Container::Created { pid }) => self.memory.attached = Some(pid),
                    (Action::Destroy { epoch }, _) => self.memory.destroyed = Some(*epoch),
                    (Action::Hold(_), _) => self.memory.destroyed = None,
                    _ => {}
                }
                self.expected = found.after(&action);
                self.last_step = Some((action, found));
            }
            Err(error) => self.failed(&action, &error),
        }
    }

    fn failed(&mut self, action: &Action, error: &StepError) {
        let text = format!("{}: {error}", action.step());
        let last = self.memory.failure.take();
        if last.as_ref().is_none_or(|last| last.text != text) {
            tracing::warn!("environment {}: {text}", self.name());
        }
        self.memory.failure = Some(Failure {
            step: action.step(),
            text,
            // A step that took long to fail is not tried again at once.
            at: (self.around.clock)(),
            count: last.map_or(1, |last| last.count.saturating_add(1)),
            refused: matches!(error, StepError::Refused(_)).then(|| self.order.clone()),
        });
    }

    fn report(&mut self, report: Option<Report>, is_gone: bool) {
        self.last_report.clone_from(&report);
        let seen = Event::Seen { id: self.id, report, init: self.notes.init, is_gone, heard: self.heard };
        (self.around.say)(seen);
    }

    fn do_task(&self, task: &Task) {
        let progress = Told { say: &self.around.say, id: task.id };
        progress.percent(0);
        let outcome =
            self.around.task(task, &progress).unwrap_or_else(|error| TaskOutcome::Failed { error: error.to_string() });
        (self.around.say)(Event::Task { id: task.id, outcome });
    }

    fn name(&self) -> String {
        self.order.as_ref().map_or_else(|| self.id.to_string(), |order| order.name.clone())
    }
}

/// Tells the center how far a step on the way up is.
struct StepProgress<'a> {
    say: &'a Say,
    report: Option<&'a Report>,
}

impl Progress for StepProgress<'_> {
    fn percent(&self, percent: u8) {
        if let Some(Report { id, state: State::Preparing { step }, .. }) = self.report {
            (self.say)(Event::Step { id: *id, step: format!("{step} {percent}%") });
        }
    }
}
