//! Live moves: what has become of a checkpoint that was tried. Each is tried once: what goes wrong is a stop, or a start, as ever.

use lodge_model::environment::order::{Assignment, Checkpoint, Want};

use super::Facts;
use crate::environment::host::Container;
use crate::environment::notes::{Attempt, Notes};

/// Take in how a try has ended. While it is on its way nobody looks: it is a step like every other.
pub fn take_in(facts: &Facts, notes: &mut Notes) {
    let runs = matches!(facts.found.container, Container::Running { .. });
    let failed = |step: &str| facts.memory.failure.as_ref().filter(|failure| failure.step == step);
    let outcome = |step: &str, went_well: bool| match failed(step) {
        Some(failure) => Attempt::Failed(failure.text.clone()),
        None if went_well => Attempt::Done,
        None => Attempt::Failed(format!("{step}: it was cut short")),
    };
    if notes.suspended == Some(Attempt::Tried) {
        let is_kept = facts.found.kept.is_some() && facts.found.kept == facts.found.held.as_ref().map(|held| held.epoch);
        notes.suspended = Some(outcome("checkpoint", is_kept && !runs));
    }
    if notes.resumed == Some(Attempt::Tried) {
        notes.resumed = Some(outcome("restore", runs));
    }
}

/// Whether the order is about what runs here.
pub fn is_about(facts: &Facts, order: &Assignment) -> bool {
    order.boot == facts.boot && facts.found.held.as_ref().is_some_and(|held| held.epoch == order.epoch)
}

/// Whether it is to go on from a checkpoint.
pub fn resumes(order: &Assignment, notes: &Notes) -> bool {
    order.resume.is_some() && notes.resumed.is_none()
}

/// What the center is told of it.
pub fn said(facts: &Facts, notes: &Notes) -> Option<Checkpoint> {
    let (attempt, done) = match facts.order?.want {
        Want::Running => (&notes.resumed, Checkpoint::Resumed),
        _ => (&notes.suspended, Checkpoint::Kept),
    };
    match attempt.as_ref()? {
        Attempt::Tried => None,
        Attempt::Done => Some(done),
        Attempt::Failed(why) => Some(Checkpoint::Failed { why: why.clone() }),
    }
}

#[cfg(test)]
mod tests;
