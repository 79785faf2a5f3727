//! What nodes say of environments and tasks. Stored, not acted on: `settle` does that, woken where it matters.

use jiff::Timestamp;
use lodge_model::api::Heartbeat;
use lodge_model::environment::order::{Report, State, TaskOutcome, TaskReport};
use lodge_model::ids::NodeId;

use super::drain::farewell;
use super::records::{Environment, Task};
use super::{phase, reach, reconcile, tasks};
use crate::fault::Fault;
use crate::flow::World;
use crate::store::Tx;

/// Take in what a heartbeat says of them.
pub fn take_in(tx: &Tx, world: &World, node: NodeId, said: &Heartbeat, now: Timestamp) -> Result<(), Fault> {
    for report in &said.environments {
        environment(tx, world, node, said, report, now)?;
    }
    for report in &said.tasks {
        task(tx, node, said, report, now)?;
    }
    for reached in &said.reached {
        reach::take_in(tx, node, reached, now)?;
    }
    for word in &said.last_words {
        farewell::take_in(tx, word, now)?;
    }
    Ok(())
}

/// A report counts if it is of the node, the boot and the epoch that have the right to run the environment; others are of leftovers,
/// which the node clears away because they are not in its orders.
fn environment(tx: &Tx, world: &World, node: NodeId, said: &Heartbeat, report: &Report, now: Timestamp) -> Result<(), Fault> {
    let Some(before) = tx.get::<Environment>(&report.id)? else { return Ok(()) };
    let is_holder = before.place.as_ref().is_some_and(|place| place.node == node && place.boot == said.boot);
    if !is_holder || report.epoch != before.epoch {
        return Ok(());
    }
    world.live.uses(report.id, report.usage.clone());
    world.live.has_seen(node, report.id, report.probe.clone());
    let told = Report { usage: None, probe: None, ..report.clone() };
    if before.report.as_ref() == Some(&told) {
        return Ok(());
    }
    let mut environment = before.clone();
    if !told.last_exit.is_empty() {
        environment.last_exit.clone_from(&told.last_exit);
    }
    let ran = before.report.as_ref().is_some_and(|last| matches!(last.state, State::Running { .. }));
    match told.state {
        // What waits for it: the end of a move, the next one within the budget, a certificate, an incident.
        State::Running { .. } if !ran => tx.replan(),
        State::Ended | State::Released | State::Destroyed => tx.replan(),
        _ => {}
    }
    if let Some(repair) = environment.repair.as_mut().filter(|_| !told.mended.is_empty()) {
        repair.mended.clone_from(&told.mended);
    }
    environment.report = Some(told);
    (environment.phase, environment.reason) = phase::of(&environment, "");
    reconcile::save(tx, &mut environment, Some(&before), now)
}

fn task(tx: &Tx, node: NodeId, said: &Heartbeat, report: &TaskReport, now: Timestamp) -> Result<(), Fault> {
    let Some(mut task) = tx.get::<Task>(&report.id)? else { return Ok(()) };
    if task.node != Some((node, said.boot)) || task.outcome == report.outcome {
        return Ok(());
    }
    task.outcome = report.outcome.clone();
    tx.show();
    match task.outcome {
        TaskOutcome::Running { .. } => {
            tx.put(&task)?;
            tasks::progress(tx, &task, now)
        }
        TaskOutcome::Done { .. } | TaskOutcome::Checked(_) | TaskOutcome::Failed { .. } => tasks::conclude(tx, &task, now),
    }
}
