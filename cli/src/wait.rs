//! `--wait`: what is waited for, and whether it has come. `look` decides from one view; `until` asks the center for the next one.
//!
//! The center holds each question until something has changed. While it cannot be reached the question is asked again after a pause:
//! what was ordered goes on without us.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use jiff::Timestamp;
use lodge_client::{Center, Error};
use lodge_model::environment::order::TaskOutcome;
use lodge_model::environment::view::{EnvironmentView, Phase};

use crate::out::Progress;
use crate::view;

/// Pause before a center that cannot be reached is asked again; it has no way to call us.
const RETRY: Duration = Duration::from_secs(2);

/// What is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Goal {
    /// It runs, with all its addresses.
    Running,
    /// It runs, and was started after the time it was started at before.
    RunningAfter(Option<Timestamp>),
    /// It does not run.
    Stopped,
    /// It runs after another move than the one that ended then.
    Moved(Option<Timestamp>),
    /// There is no such environment any more.
    Gone,
    /// None of its tasks is going on.
    Idle,
    /// Its repair environment runs.
    Repair,
    /// It runs in a greater epoch than this.
    Anew(u64),
    /// It is not under repair any more, and runs.
    Repaired,
}

/// How it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It has come; in words.
    Reached(String),
    /// Not yet; in words.
    NotYet(String),
    /// It will not come; why.
    Never(String),
}

/// Whether the goal is reached. `None` is an environment that does not exist (any more).
pub fn look(name: &str, goal: Goal, view: Option<&EnvironmentView>) -> Standing {
    let Some(view) = view else {
        return match goal {
            Goal::Gone => Standing::Reached(format!("{name} is gone")),
            _ => Standing::Never(format!("{name} does not exist any more")),
        };
    };
    let reached = match goal {
        Goal::Running => view.phase == Phase::Running,
        Goal::RunningAfter(before) => view.phase == Phase::Running && view.started.is_some() && view.started != before,
        Goal::Moved(before) => {
            let last = view.moves.last().filter(|last| last.at != before);
            return match last {
                Some(last) => Standing::Reached(format!("{name} has {}", view::moved(last))),
                None if view.phase == Phase::Destroying => Standing::Never(format!("{name} is being removed")),
                None if view.moving.is_none() => {
                    Standing::Never(format!("it does not move any more; {}", view::environment_line(view)))
                }
                None => Standing::NotYet(view::environment_line(view)),
            };
        }
        Goal::Stopped => matches!(view.phase, Phase::Stopped | Phase::Ended),
        Goal::Gone => false,
        Goal::Idle => return idle(name, view),
        Goal::Repair => view.phase == Phase::Running && view.repair.as_ref().is_some_and(|repair| repair.open && !repair.ends),
        Goal::Anew(epoch) => view.phase == Phase::Running && view.epoch > epoch,
        Goal::Repaired => view.phase == Phase::Running && view.repair.is_none(),
    };
    match (reached, goal, view.phase) {
        (true, ..) => Standing::Reached(view::environment_line(view)),
        (false, Goal::Repair, _) if view.repair.is_none() => {
            Standing::Never(format!("{name} is not repaired: {}", view::environment_line(view)))
        }
        (false, Goal::Repaired, Phase::Stopped) => {
            Standing::Never(format!("the repair of {name} does not end: {}", view::environment_line(view)))
        }
        (false, Goal::Running | Goal::RunningAfter(_) | Goal::Anew(_) | Goal::Repair | Goal::Repaired, Phase::Ended) => {
            Standing::Never(view::environment_line(view))
        }
        (false, goal, Phase::Destroying) if goal != Goal::Gone => Standing::Never(format!("{name} is being removed")),
        (false, ..) => Standing::NotYet(view::environment_line(view)),
    }
}

fn idle(name: &str, view: &EnvironmentView) -> Standing {
    let failed = view.tasks.iter().find_map(|task| match &task.outcome {
        TaskOutcome::Failed { error } => Some(format!("{name}: {}: {error}", task.what)),
        _ => None,
    });
    let going_on = view.tasks.iter().find_map(|task| match task.outcome {
        TaskOutcome::Running { percent } => Some(format!("{name}: {} {percent} %", task.what)),
        _ => None,
    });
    match (going_on, failed) {
        (Some(line), _) => Standing::NotYet(line),
        (None, Some(line)) => Standing::Never(line),
        (None, None) => Standing::Reached(view::environment_line(view)),
    }
}

/// Wait for it, at most `timeout` seconds; the words of how it stands then.
pub async fn until(center: &Center, name: &str, goal: Goal, timeout: u64) -> Result<String> {
    let mut progress = Progress::spinner();
    let end = Instant::now() + Duration::from_secs(timeout);
    let mut version = None;
    let mut last = String::new();
    loop {
        let asked = async {
            match version {
                Some(version) => center.environment_after(name, version).await,
                None => center.environment(name).await,
            }
        };
        let Ok(answer) = tokio::time::timeout(end.saturating_duration_since(Instant::now()), asked).await else {
            bail!("{timeout} s have passed, and it goes on: {last}; `lodge env show {name}` shows more");
        };
        let view = match answer {
            Ok(view) => Some(view),
            Err(Error::Refused { status: 404, .. }) if version.is_some() || goal == Goal::Gone => None,
            Err(Error::Unreachable { why, .. }) if version.is_some() => {
                progress.say(&format!("the center cannot be reached: {why}; trying again"));
                tokio::time::sleep(RETRY).await;
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        version = view.as_ref().map(|view| view.version);
        match look(name, goal, view.as_ref()) {
            Standing::Reached(line) => return Ok(line),
            Standing::Never(why) => bail!("{why}"),
            Standing::NotYet(line) => {
                progress.say(&line);
                last = line;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::samples;
    use lodge_model::drain::MoveView;
    use lodge_model::environment::view::{RepairView, TaskView};

    fn in_phase(phase: Phase) -> EnvironmentView {
        EnvironmentView { phase, ..samples::environment("web1") }
    }

    fn reached(goal: Goal, view: &EnvironmentView) -> bool {
        matches!(look("web1", goal, Some(view)), Standing::Reached(_))
    }

    #[test]
    fn each_goal_is_reached_in_its_phase_and_in_no_other() {
        use Phase::{Destroying, Ended, Failed, Running, Starting, Stopped, Stopping, Unknown, Waiting};
        for phase in [Waiting, Starting, Running, Stopping, Stopped, Ended, Failed, Unknown, Destroying] {
            let view = in_phase(phase);
            assert_eq!(reached(Goal::Running, &view), phase == Running, "{phase:?}");
            assert_eq!(reached(Goal::Stopped, &view), matches!(phase, Stopped | Ended), "{phase:?}");
            assert!(!reached(Goal::Gone, &view));
        }
        assert_eq!(look("web1", Goal::Gone, None), Standing::Reached("web1 is gone".into()));
        assert!(matches!(look("web1", Goal::Gone, Some(&in_phase(Destroying))), Standing::NotYet(_)));
    }

    #[test]
    fn what_cannot_come_any_more_is_not_waited_for() {
        let never = |goal, view: Option<&EnvironmentView>| matches!(look("web1", goal, view), Standing::Never(_));
        assert!(never(Goal::Running, None) && never(Goal::Stopped, Some(&in_phase(Phase::Destroying))));
        assert!(never(Goal::Running, Some(&in_phase(Phase::Ended))));
    }

    #[test]
    fn a_repair_is_there_when_it_is_open_and_over_when_it_is_gone() {
        let repair = |open, ends| RepairView {
            name: "web1-repair".into(),
            template: "tiny".into(),
            snapshot: None,
            since: "2026-11-22T10:00:00Z".parse().unwrap(),
            open,
            ends,
            mended: String::new(),
        };
        let with = |phase, repair| EnvironmentView { repair, ..in_phase(phase) };
        let running = |open, ends| with(Phase::Running, Some(repair(open, ends)));
        assert!(reached(Goal::Repair, &running(true, false)) && !reached(Goal::Repair, &running(false, false)));
        assert!(!reached(Goal::Repair, &running(true, true)) && !reached(Goal::Repaired, &running(true, true)));
        assert!(reached(Goal::Repaired, &in_phase(Phase::Running)));
        let never = |goal, view: &EnvironmentView| matches!(look("web1", goal, Some(view)), Standing::Never(_));
        assert!(never(Goal::Repair, &in_phase(Phase::Running)), "its snapshot could not be taken");
        assert!(never(Goal::Repaired, &with(Phase::Stopped, Some(repair(true, false)))), "it could not be rolled back");
        assert!(!never(Goal::Repaired, &with(Phase::Waiting, Some(repair(true, true)))));
    }

    #[test]
    fn a_restart_is_over_with_another_start() {
        let view = in_phase(Phase::Running);
        assert!(!reached(Goal::RunningAfter(view.started), &view));
        let later = EnvironmentView { started: Some("2026-11-22T10:00:00Z".parse().unwrap()), ..view.clone() };
        assert!(reached(Goal::RunningAfter(view.started), &later) && reached(Goal::RunningAfter(None), &later));
    }

    #[test]
    fn a_move_is_over_with_its_own_gap_and_not_with_that_of_the_last_one() {
        let done = |at: &str| MoveView {
            from: "node1".into(),
            to: Some("node2".into()),
            way: "restart".into(),
            because: String::new(),
            not_live: None,
            at: Some(at.parse().unwrap()),
            stop_ms: Some(900),
            gap_ms: Some(2500),
            note: String::new(),
            reach: None,
        };
        let last = done("2026-11-22T09:00:00Z");
        let goes_on = MoveView { at: None, gap_ms: None, ..last.clone() };
        let goal = Goal::Moved(last.at);
        let view = EnvironmentView { moves: vec![last.clone()], moving: Some(goes_on), ..in_phase(Phase::Running) };
        assert!(matches!(look("web1", goal, Some(&view)), Standing::NotYet(_)));
        let dropped = EnvironmentView { moving: None, ..view.clone() };
        assert!(matches!(look("web1", goal, Some(&dropped)), Standing::Never(_)));
        let over = EnvironmentView { moves: vec![last, done("2026-11-22T10:00:00Z")], moving: None, ..view };
        let words = "web1 has moved from node1 to node2 by restart, away for 2.5 s (stop 0.9 s)";
        assert_eq!(look("web1", goal, Some(&over)), Standing::Reached(words.into()));
    }

    #[test]
    fn tasks_are_waited_for_and_their_failure_is_told() {
        let with = |outcome| EnvironmentView {
            tasks: vec![TaskView { what: "snapshot s1".into(), outcome }],
            ..in_phase(Phase::Running)
        };
        let running = look("web1", Goal::Idle, Some(&with(TaskOutcome::Running { percent: 40 })));
        assert_eq!(running, Standing::NotYet("web1: snapshot s1 40 %".into()));
        let failed = look("web1", Goal::Idle, Some(&with(TaskOutcome::Failed { error: "no room".into() })));
        assert_eq!(failed, Standing::Never("web1: snapshot s1: no room".into()));
        assert!(reached(Goal::Idle, &in_phase(Phase::Running)));
    }
}
