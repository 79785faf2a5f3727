//! What some node does once: it is ordered, gets a home (`settle`), is told of by that node, and what came of it is taken over into
//! what it is about.

use jiff::Timestamp;
use lodge_model::environment::order::{TaskKind, TaskOutcome};
use lodge_model::environment::view::{DiskCheckView, TaskView};
use lodge_model::ids::{EnvironmentId, TaskId};

use super::records::{Disk, Environment, Snapshot, Task};
use super::repair::reinstall::{self, System};
use super::{reconcile, repair};
use crate::fault::Fault;
use crate::store::Tx;
use crate::templates;

/// Have something done once by whichever node can.
pub fn order(tx: &Tx, what: TaskKind, now: Timestamp) -> Result<TaskId, Fault> {
    let id = TaskId(uuid::Uuid::new_v4());
    let task = Task { id, what, node: None, outcome: TaskOutcome::Running { percent: 0 }, created: now };
    tx.put(&task)?;
    for about in task.about() {
        change(tx, about, now, |environment| environment.failed.clear())?;
    }
    tx.replan();
    tx.show();
    Ok(id)
}

/// A task goes on: whoever looks at what it is about sees how far it is.
pub fn progress(tx: &Tx, task: &Task, now: Timestamp) -> Result<(), Fault> {
    if let TaskKind::Snapshot { environment, snapshot } = &task.what {
        set_snapshot(tx, *environment, snapshot, &task.outcome, now)?;
    } else {
        for about in task.about() {
            change(tx, about, now, |_| {})?;
        }
    }
    Ok(())
}

/// A task has ended: take over what came of it, and forget it.
pub fn conclude(tx: &Tx, task: &Task, now: Timestamp) -> Result<(), Fault> {
    tx.delete::<Task>(&task.id)?;
    tx.replan();
    match &task.what {
        TaskKind::ImportTemplate { .. } | TaskKind::RemoveTemplate { .. } => {
            return templates::told(tx, task.id, &task.outcome, now);
        }
        TaskKind::Snapshot { environment, snapshot } => set_snapshot(tx, *environment, snapshot, &task.outcome, now)?,
        TaskKind::RemoveSnapshot { environment, snapshot } if matches!(task.outcome, TaskOutcome::Done { .. }) => {
            change(tx, *environment, now, |environment| environment.snapshots.retain(|kept| kept.name != *snapshot))?;
        }
        TaskKind::CheckDisk { environment, .. } => {
            if let TaskOutcome::Checked(found) = &task.outcome {
                let checked = DiskCheckView { at: now, found: found.clone() };
                change(tx, *environment, now, |environment| environment.disk_check = Some(checked))?;
            }
        }
        TaskKind::Clone { to, .. } => {
            let disk = match &task.outcome {
                TaskOutcome::Failed { error } => Disk::Lost(error.clone()),
                _ => Disk::Copied,
            };
            change(tx, *to, now, |environment| environment.disk = disk.clone())?;
        }
        TaskKind::Rollback { environment, snapshot } if matches!(task.outcome, TaskOutcome::Done { .. }) => {
            change(tx, *environment, now, |environment| reinstall::is_back(environment, snapshot))?;
        }
        TaskKind::RemoveSnapshot { .. } | TaskKind::Rollback { .. } => {}
    }
    for about in task.about() {
        tell(tx, about, task, now)?;
    }
    Ok(())
}

/// Log how a task ended; a failure is shown until the next task is ordered.
fn tell(tx: &Tx, about: EnvironmentId, task: &Task, now: Timestamp) -> Result<(), Fault> {
    let Some(environment) = tx.get::<Environment>(&about)? else { return Ok(()) };
    let (name, what) = (&environment.spec.name, words(&task.what, about));
    if let TaskOutcome::Failed { error } = &task.outcome {
        reconcile::log(tx, &environment, &format!("{name}: {what} has failed: {error}"), now)?;
        let failed = TaskView { what, outcome: task.outcome.clone() };
        return change(tx, about, now, |environment| {
            repair::has_failed(environment, &task.what);
            environment.failed = vec![failed];
        });
    }
    reconcile::log(tx, &environment, &format!("{name}: {what} is done"), now)
}

/// A task in words, as it is told of one of the environments that it is about.
pub fn words(what: &TaskKind, about: EnvironmentId) -> String {
    match what {
        TaskKind::Snapshot { snapshot, .. } => format!("snapshot {snapshot}"),
        TaskKind::Rollback { snapshot, .. } => format!("rollback to snapshot {snapshot}"),
        TaskKind::RemoveSnapshot { snapshot, .. } => format!("removal of snapshot {snapshot}"),
        TaskKind::CheckDisk { mend: false, .. } => "check of its disk".to_owned(),
        TaskKind::CheckDisk { mend: true, .. } => "mending of its disk".to_owned(),
        TaskKind::Clone { from, .. } if *from == about => "copy of its disk for a clone".to_owned(),
        TaskKind::Clone { .. } => "copy of the disk that it is made from".to_owned(),
        TaskKind::ImportTemplate { .. } => "import of a template".to_owned(),
        TaskKind::RemoveTemplate { .. } => "removal of a template".to_owned(),
    }
}

/// The tasks about an environment that are not done.
pub fn about(tx: &Tx, id: EnvironmentId) -> Result<Vec<Task>, Fault> {
    let mut tasks: Vec<Task> = tx.list::<Task>()?.into_iter().filter(|task| task.about().contains(&id)).collect();
    tasks.sort_by_key(|task| (task.created, task.id));
    Ok(tasks)
}

fn set_snapshot(tx: &Tx, id: EnvironmentId, name: &str, outcome: &TaskOutcome, now: Timestamp) -> Result<(), Fault> {
    change(tx, id, now, |environment| match environment.snapshots.iter_mut().find(|snapshot| snapshot.name == name) {
        Some(snapshot) => snapshot.outcome = outcome.clone(),
        None => {
            let system = Some(System::of(environment));
            environment.snapshots.push(Snapshot { name: name.to_owned(), created: now, outcome: outcome.clone(), system });
        }
    })
}

/// Change an environment that is still there; its view is another one then.
fn change(tx: &Tx, id: EnvironmentId, now: Timestamp, change: impl FnOnce(&mut Environment)) -> Result<(), Fault> {
    let Some(before) = tx.get::<Environment>(&id)? else { return Ok(()) };
    let mut environment = before.clone();
    change(&mut environment);
    reconcile::save(tx, &mut environment, Some(&before), now)
}
