//! The end of an environment's init: seen on the node, explained by its wait status, and what follows from it.

use std::time::Duration;

use lodge_model::environment::order::Want;
use lodge_model::environment::spec::Restart;

use super::{Facts, STARTED_WELL, STATUS_PATIENCE, pause};
use crate::environment::exits::End;
use crate::environment::host::Container;
use crate::environment::notes::{Attempt, Notes};

/// Take the end of its init in, if it has ended. The time until which its wait status is still awaited, if it is.
pub fn take_in(facts: &Facts, notes: &mut Notes) -> Option<Duration> {
    match (facts.found.container, notes.init) {
        (Container::Running { pid, .. }, _) => {
            (notes.init, notes.gone_at) = (Some(pid), None);
            None
        }
        (Container::Created { .. }, _) | (_, None) => None,
        (Container::No | Container::Ended { .. }, Some(_)) => {
            let patience = *notes.gone_at.get_or_insert(facts.now) + STATUS_PATIENCE;
            if facts.status.is_none() && facts.now < patience {
                return Some(patience);
            }
            (notes.init, notes.gone_at) = (None, None);
            ended(facts, notes, End::of(facts.status, facts.found.oom_kills));
            None
        }
    }
}

fn ended(facts: &Facts, notes: &mut Notes, end: End) {
    let want = facts.order.map(|order| order.want);
    if want == Some(Want::Suspended) && notes.suspended == Some(Attempt::Done) {
        notes.last_exit.clear();
        return;
    }
    if let Some(stop) = notes.stop.take() {
        notes.clean |= stop.killed;
        notes.last_exit = match end {
            _ if stop.killed => format!("killed: it did not shut down within {} s", (facts.now - stop.at).as_secs()),
            End::Poweroff | End::Reboot => "shut down as asked".into(),
            End::Failure(text) => format!("{text} while it was shut down"),
        };
        return;
    }
    if matches!(want, Some(Want::Killed | Want::Destroyed)) {
        notes.last_exit = "killed as asked".into();
        return;
    }
    let is_early = facts.now < notes.started_at + STARTED_WELL;
    notes.failures = if is_early { notes.failures + 1 } else { 1 };
    let is_never = facts.order.is_some_and(|order| order.restart == Restart::Never);
    match end {
        End::Poweroff => {
            notes.last_exit = "powered off by itself".into();
            (notes.ended, notes.failures) = (true, 0);
        }
        End::Reboot => {
            notes.last_exit = "rebooted by itself".into();
            notes.starts += 1;
            notes.not_before = (notes.failures > 1).then(|| facts.now + pause(notes.failures - 1));
        }
        End::Failure(text) => {
            notes.last_exit = text;
            notes.clean = true;
            if is_never {
                (notes.ended, notes.failures) = (true, 0);
            } else {
                notes.starts += 1;
                notes.not_before = Some(facts.now + pause(notes.failures));
            }
        }
    }
}
