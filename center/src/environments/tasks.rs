//! What some node does once: it is ordered, gets a home (`settle`), is told of by that node, and what came of it is taken over into
//! what it is about.

use jiff::Timestamp;
use lodge_model::environment::order::{TaskKind, TaskOutcome};
use lodge_model::ids::TaskId;

use super::records::Task;
use crate::fault::Fault;
use crate::store::Tx;

/// Have something done once by whichever node can.
pub fn order(tx: &Tx, what: TaskKind, now: Timestamp) -> Result<TaskId, Fault> {
    let id = TaskId(uuid::Uuid::new_v4());
    tx.put(&Task { id, what, node: None, outcome: TaskOutcome::Running { percent: 0 }, created: now })?;
    tx.replan();
    tx.show();
    Ok(id)
}
