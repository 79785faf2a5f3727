//! The decision about one environment: from what is ordered and what is found, to the next step and the report. Pure; time is an argument.
//!
//! It never plans further than one step: after it everything is looked at again, but for what certainly follows from the step
//! (`Found::after`). So it does not matter where the agent was killed, and the way up and the way down are each a list in which the first
//! thing that is not as it should be is mended.
//!
//! Taking down comes before setting up: what is left of an older epoch, of another template or of a start that was cut short goes first.

mod end;
mod live;
#[cfg(test)]
mod tests;

use std::time::Duration;

use lodge_model::environment::order::{Assignment, Report, State, TemplateMeta, Want};
use lodge_model::ids::BootId;

use super::host::{Action, Container, Disk, Found, Limits, Mounts};
use super::notes::{Attempt, Notes, Stop};

/// A step that failed is tried again after this long, doubling up to `STEP_RETRY_MAX`.
pub const RETRY: Duration = Duration::from_secs(1);
/// Longest pause before an environment that ended, or a step that was refused, is tried again.
pub const RETRY_MAX: Duration = Duration::from_secs(60);
/// Longest pause before a step that failed is: what it waits for, such as a lock or an address that an older copy still has, may be free
/// at any moment, and nobody tells.
pub const STEP_RETRY_MAX: Duration = Duration::from_secs(8);
/// How long the wait status of an init that has ended is awaited: init's socket may be behind the kernel.
pub const STATUS_PATIENCE: Duration = Duration::from_secs(2);
/// An init that has just been started does not listen yet: the signal to stop is given again after this long.
pub const TELL_AGAIN: Duration = Duration::from_secs(10);
/// An environment that ran longer than this had started well.
pub const STARTED_WELL: Duration = Duration::from_secs(60);

/// What was written to a new disk is in memory, and read from there, until its environment has run this long: then it has booted.
pub const CACHED: Duration = Duration::from_secs(5);

/// Everything the decision is made from.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// What the center wants; `None`: it is not (any more) of this node.
    pub order: Option<&'a Assignment>,
    /// This boot.
    pub boot: BootId,
    /// Time since the kernel started.
    pub now: Duration,
    /// The node goes down: nothing of it may be left then.
    pub leaving: Option<Duration>,
    /// What is found of it.
    pub found: &'a Found,
    /// What is noted of it.
    pub notes: &'a Notes,
    /// How the init of the notes ended, where that has been told.
    pub status: Option<i32>,
    /// What this run of the agent remembers.
    pub memory: &'a Memory,
}

/// What may be forgotten without harm: then a step is done once more.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Memory {
    /// The step that failed last and has not gone well since.
    pub failure: Option<Failure>,
    /// The container that was connected: its init.
    pub attached: Option<i32>,
    /// The epoch whose directory on the share was removed.
    pub destroyed: Option<u64>,
}

/// A step that failed.
#[derive(Clone, Debug, PartialEq)]
pub struct Failure {
    /// `Action::step`.
    pub step: &'static str,
    /// For people.
    pub text: String,
    /// When.
    pub at: Duration,
    /// How often in a row.
    pub count: u32,
    /// Only other orders than these help.
    pub refused: Option<Option<Assignment>>,
}

/// The decision.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// To be noted before the step.
    pub notes: Notes,
    /// The step.
    pub action: Option<Action>,
    /// For the center, without usage; `None` where there is nothing to say.
    pub report: Option<Report>,
    /// Look again then, if nothing happens before.
    pub look_again: Option<Duration>,
    /// Nothing is left to be done: a failure of before is over.
    pub settled: bool,
}

/// Where it goes.
enum Goal<'a> {
    /// It is to run.
    Up(&'a Assignment),
    /// Nothing of it is to be left.
    Down(How),
    /// Nothing is done, for this reason.
    Refuse(String),
}

/// How its init is ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum How {
    /// Its processes are kept in a checkpoint; where that cannot be, gently.
    Kept,
    /// It is told to, and has its time.
    Gently,
    /// At once.
    Now,
}

/// What is done next on the way.
enum Next {
    Do(Action),
    Wait(Duration),
    Nothing,
}

/// Decide.
pub fn plan(facts: &Facts) -> Plan {
    let mut notes = facts.notes.clone();
    if let Some(order) = facts.order.filter(|order| is_news(facts.found, &notes, order)) {
        notes = Notes::new(order);
    }
    live::take_in(facts, &mut notes);
    let waits_for_status = end::take_in(facts, &mut notes);
    let goal = goal(facts, &mut notes);
    let next = match (waits_for_status, &goal) {
        (Some(until), _) => Next::Wait(until),
        (None, Goal::Up(order)) => up(facts, order, &notes),
        (None, Goal::Down(how)) => down(facts, *how, &notes),
        (None, Goal::Refuse(_)) => Next::Nothing,
    };
    let next = match next {
        Next::Do(action) => held_back(facts, &action).map_or(Next::Do(action), Next::Wait),
        other => other,
    };
    let report = report(facts, &notes, &goal, &next);
    let settled = matches!(next, Next::Nothing);
    let (action, look_again) = match next {
        Next::Do(action) => {
            note(facts, &mut notes, &action);
            (Some(action), None)
        }
        Next::Wait(until) => (None, Some(until)),
        Next::Nothing => (None, None),
    };
    Plan { notes, action, report, look_again, settled }
}

/// An order of another epoch, and nothing is held with the old one any more: the old notes are about something else.
fn is_news(found: &Found, notes: &Notes, order: &Assignment) -> bool {
    order.epoch > notes.epoch && found.held.as_ref().is_none_or(|held| held.epoch == order.epoch)
}

fn goal<'a>(facts: &Facts<'a>, notes: &mut Notes) -> Goal<'a> {
    let found = facts.found;
    let Some(order) = facts.order else { return Goal::Down(How::Gently) };
    let how = match order.want {
        Want::Running | Want::Stopped => How::Gently,
        Want::Suspended if facts.leaving.is_none() && live::is_about(facts, order) => How::Kept,
        Want::Suspended => How::Gently,
        Want::Killed | Want::Destroyed => How::Now,
    };
    if facts.leaving.is_some() {
        return Goal::Down(how);
    }
    let held = found.held.as_ref();
    if let Some(held) = held.filter(|held| held.epoch > order.epoch) {
        return Goal::Refuse(format!("the order is of epoch {}, this node has it with epoch {}", order.epoch, held.epoch));
    }
    if held.is_some_and(|held| held.epoch < order.epoch) {
        return Goal::Down(how);
    }
    if order.boot != facts.boot {
        let why = || {
            Goal::Refuse(format!(
                "the order is for boot {} of this node, which is over; this is boot {}",
                order.boot, facts.boot
            ))
        };
        return if found.left.is_empty() { why() } else { Goal::Down(how) };
    }
    if order.want != Want::Running {
        (notes.ended, notes.failures, notes.not_before) = (false, 0, None);
        return Goal::Down(how);
    }
    let is_restart_asked = order.restarts_asked > notes.started_for;
    notes.ended &= !is_restart_asked;
    let runs = matches!(found.container, Container::Running { .. });
    if notes.ended || (runs && (is_restart_asked || notes.stop.is_some())) {
        return Goal::Down(how);
    }
    notes.clean &= !found.left.is_empty();
    let is_other = |held: &Assignment| {
        (&held.template.digest, held.id_base, &held.beside) != (&order.template.digest, order.id_base, &order.beside)
    };
    if !runs && (notes.clean || held.is_some_and(is_other)) {
        return Goal::Down(how);
    }
    Goal::Up(order)
}

fn up(facts: &Facts, order: &Assignment, notes: &Notes) -> Next {
    let found = facts.found;
    let lacks = order.templates().find(|template| !found.templates.contains(&template.digest));
    let lacks = lacks.filter(|_| found.mounts != Mounts::Whole);
    let order = || Box::new(order.clone());
    Next::Do(match (found.container, lacks, found.disk) {
        _ if found.frozen => Action::Thaw,
        _ if found.kept.is_some() => Action::Forget,
        (Container::Running { .. }, ..) => return adjust(facts, &order(), notes),
        (Container::Created { pid }, ..) if facts.memory.attached == Some(pid) => Action::Start,
        (Container::Created { .. }, ..) => Action::Attach(order()),
        _ if found.processes > 0 => Action::Kill,
        (Container::Ended { .. }, ..) => Action::Delete,
        _ if found.link => Action::Detach,
        (_, Some(template), _) => Action::FetchTemplate(template.clone()),
        (.., Disk::No) => Action::Hold(order()),
        _ if found.held.as_ref() != Some(&*order()) => Action::Hold(order()),
        (.., Disk::Unchecked) => Action::CheckDisk,
        (.., Disk::Ready { size }) if pages(size) < pages(order().disk) => Action::GrowDisk(order().disk),
        _ if found.mounts != Mounts::Whole => Action::Mount(order()),
        _ if live::resumes(&order(), notes) => Action::Restore(order()),
        _ => match notes.not_before.filter(|time| *time > facts.now) {
            Some(time) => return Next::Wait(time),
            None => Action::Create(order()),
        },
    })
}

/// What can be changed while it runs.
fn adjust(facts: &Facts, order: &Assignment, notes: &Notes) -> Next {
    let found = facts.found;
    let (is, asked) = (found.limits, Limits::from(order));
    let differs = |is: Limits| Limits { memory: pages(is.memory), ..is } != Limits { memory: pages(asked.memory), ..asked };
    match found.disk {
        Disk::Ready { size } if pages(size) < pages(order.disk) => Next::Do(Action::GrowDisk(order.disk)),
        _ if is.is_some_and(differs) => Next::Do(Action::SetLimits(asked)),
        _ if found.cached && facts.now >= notes.started_at + CACHED => Next::Do(Action::PassCache),
        _ => Next::Nothing,
    }
}

fn down(facts: &Facts, how: How, notes: &Notes) -> Next {
    let found = facts.found;
    let epoch = epoch(facts, notes);
    Next::Do(match found.container {
        _ if found.frozen => Action::Thaw,
        Container::Running { .. } if found.kept.is_some() => Action::Forget,
        Container::Running { .. } if how == How::Kept && notes.suspended.is_none() && notes.stop.is_none() => {
            match facts.order {
                Some(order) => Action::Checkpoint(Box::new(order.clone())),
                None => return stop(facts, notes),
            }
        }
        Container::Running { .. } if how != How::Now => return stop(facts, notes),
        Container::Running { .. } | Container::Created { .. } => Action::Kill,
        _ if found.processes > 0 => Action::Kill,
        Container::Ended { .. } => Action::Delete,
        _ if found.link => Action::Detach,
        _ if found.mounts != Mounts::No => Action::Unmount,
        _ if found.held.is_some() || found.disk != Disk::No || !found.left.is_empty() => Action::Release { epoch },
        _ => match facts.order {
            Some(order) if is_to_be_destroyed(facts, order) => Action::Destroy { epoch },
            _ => return Next::Nothing,
        },
    })
}

fn is_to_be_destroyed(facts: &Facts, order: &Assignment) -> bool {
    order.want == Want::Destroyed && facts.leaving.is_none() && facts.memory.destroyed != Some(order.epoch)
}

/// Its init is told, has its time, and is killed then.
fn stop(facts: &Facts, notes: &Notes) -> Next {
    let meta = template_meta(facts);
    let Some(stop) = notes.stop else { return Next::Do(Action::Signal(meta.stop_signal)) };
    let end = stop.at + Duration::from_secs(meta.stop_seconds.into());
    let end = facts.leaving.map_or(end, |leaving| end.min(leaving));
    let again = stop.told_at + TELL_AGAIN;
    match facts.now {
        now if now >= end => Next::Do(Action::Kill),
        now if now >= again => Next::Do(Action::Signal(meta.stop_signal)),
        _ => Next::Wait(end.min(again)),
    }
}

fn template_meta(facts: &Facts) -> TemplateMeta {
    facts.found.held.as_ref().or(facts.order).map(|order| order.template.meta.clone()).unwrap_or_default()
}

/// What must be known after the step, even if the agent is killed during it.
fn note(facts: &Facts, notes: &mut Notes, action: &Action) {
    let now = facts.now;
    match (action, facts.found.container) {
        (Action::Start, Container::Created { pid }) => {
            let started_for = facts.order.map_or(notes.started_for, |order| order.restarts_asked);
            *notes = Notes { init: Some(pid), started_at: now, started_for, stop: None, not_before: None, ..notes.clone() };
        }
        (Action::Signal(_), _) => {
            let stop = notes.stop.unwrap_or(Stop { at: now, told_at: now, killed: false });
            notes.stop = Some(Stop { told_at: now, ..stop });
        }
        (Action::Kill, _) => notes.stop = notes.stop.map(|stop| Stop { killed: true, ..stop }),
        (Action::Checkpoint(_), _) => notes.suspended = Some(Attempt::Tried),
        (Action::Restore(_), _) => (notes.resumed, notes.started_at) = (Some(Attempt::Tried), now),
        _ => {}
    }
}

/// Until when the step is not tried again.
fn held_back(facts: &Facts, action: &Action) -> Option<Duration> {
    let failure = facts.memory.failure.as_ref().filter(|failure| failure.step == action.step())?;
    if failure.refused.as_ref().is_some_and(|refused| refused.as_ref() == facts.order) {
        return Some(facts.now + RETRY_MAX);
    }
    Some(failure.at + pause(failure.count).min(STEP_RETRY_MAX)).filter(|time| *time > facts.now)
}

/// After the first failure, the second…
fn pause(count: u32) -> Duration {
    (RETRY * 2_u32.saturating_pow(count.clamp(1, 16) - 1)).min(RETRY_MAX)
}

/// Block sizes round; this is below what anybody asks for.
fn pages(bytes: u64) -> u64 {
    bytes / 4096
}

fn epoch(facts: &Facts, notes: &Notes) -> u64 {
    facts.found.held.as_ref().or(facts.order).map_or(notes.epoch, |order| order.epoch)
}

fn report(facts: &Facts, notes: &Notes, goal: &Goal, next: &Next) -> Option<Report> {
    let found = facts.found;
    let is_gone = found.left.is_empty() && found.held.is_none();
    let id = facts.order.or(found.held.as_ref()).map(|order| order.id)?;
    if facts.order.is_none() && is_gone {
        return None;
    }
    let failure = facts.memory.failure.as_ref().filter(|_| !matches!(next, Next::Nothing));
    let problem = match (goal, failure, next) {
        (Goal::Refuse(why), ..) => why.clone(),
        (_, Some(failure), _) => failure.text.clone(),
        (Goal::Up(_), None, Next::Wait(_)) => format!("{}; it is started again after a pause", notes.last_exit),
        _ => String::new(),
    };
    let state = match (goal, found.container, next) {
        (Goal::Up(_) | Goal::Refuse(_), Container::Running { since, .. }, _) => State::Running { since },
        (Goal::Refuse(_), ..) => State::Failed,
        (Goal::Up(_), ..) if !problem.is_empty() => State::Failed,
        (Goal::Up(_), _, Next::Do(action)) => State::Preparing { step: action.step().to_owned() },
        (Goal::Up(_), ..) => State::Preparing { step: "start".into() },
        (Goal::Down(_), _, Next::Nothing) => gone(facts, notes),
        (Goal::Down(_), ..) => State::Stopping,
    };
    Some(Report {
        id,
        epoch: epoch(facts, notes),
        state,
        problem,
        usage: None,
        starts: notes.starts,
        last_exit: notes.last_exit.clone(),
        restarts_done: notes.started_for,
        checkpoint: live::said(facts, notes),
        mended: found.mended.clone(),
        probe: None,
    })
}

/// Nothing is left of it on this node.
fn gone(facts: &Facts, notes: &Notes) -> State {
    match facts.order.map(|order| order.want) {
        Some(Want::Destroyed) if facts.leaving.is_none() => State::Destroyed,
        Some(Want::Running) if notes.ended => State::Ended,
        _ => State::Released,
    }
}
