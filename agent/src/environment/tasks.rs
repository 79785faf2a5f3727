//! What is done once: which tasks are known, how they stand, and the thread for those of templates. An outcome is kept in a small file
//! below `/run` as long as the task is in the orders: a restart of the agent does not do it again.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};

use anyhow::{Context as _, Result, anyhow};
use lodge_model::environment::order::{Task, TaskKind, TaskOutcome, TaskReport, TemplateRef};
use lodge_model::ids::{Digest, EnvironmentId, TaskId};

use super::host::{Progress, StepError};
use super::worker::{Event, Say, Surroundings};
use crate::durable;

/// Where the outcomes of this boot are.
pub const DIR: &str = "/run/lodge/tasks";

const STACK: usize = 512 << 10;

/// Makes a template on the share from an upload that the center holds. Blocking.
pub type Import = Arc<dyn Fn(&Digest, &dyn Progress) -> Result<TemplateRef, StepError> + Send + Sync>;

/// The tasks that are in the orders.
#[derive(Debug)]
pub struct Tasks {
    dir: PathBuf,
    outcomes: BTreeMap<TaskId, TaskOutcome>,
}

impl Tasks {
    /// Kept in this directory, which must be empty after a boot.
    pub fn read(dir: &Path) -> Self {
        let outcomes = fs::read_dir(dir).into_iter().flatten().flatten().filter_map(|entry| outcome(&entry.path())).collect();
        Self { dir: dir.to_owned(), outcomes }
    }

    /// The orders hold these; those that are to be begun now.
    pub fn ordered(&mut self, tasks: &[Task]) -> Vec<Task> {
        let is_over = |id: &TaskId, outcome: &TaskOutcome| {
            !matches!(outcome, TaskOutcome::Running { .. }) && tasks.iter().all(|task| task.id != *id)
        };
        let over: Vec<TaskId> = self.outcomes.iter().filter(|(id, outcome)| is_over(id, outcome)).map(|(id, _)| *id).collect();
        for id in over {
            self.outcomes.remove(&id);
            if let Err(error) = fs::remove_file(self.path(id)) {
                tracing::debug!("removing {}: {error}", self.path(id).display());
            }
        }
        let fresh: Vec<Task> = tasks.iter().filter(|task| !self.outcomes.contains_key(&task.id)).cloned().collect();
        self.outcomes.extend(fresh.iter().map(|task| (task.id, TaskOutcome::Running { percent: 0 })));
        fresh
    }

    /// One has come this far.
    pub fn took(&mut self, id: TaskId, outcome: TaskOutcome) -> Result<()> {
        if !matches!(outcome, TaskOutcome::Running { .. }) {
            if let TaskOutcome::Failed { error } = &outcome {
                tracing::warn!("task {id}: {error}");
            }
            let text = serde_json::to_vec(&outcome).context("encoding an outcome")?;
            durable::write(&self.path(id), &text, 0o600)?;
        }
        self.outcomes.insert(id, outcome);
        Ok(())
    }

    /// For the center.
    pub fn reports(&self) -> Vec<TaskReport> {
        self.outcomes.iter().map(|(id, outcome)| TaskReport { id: *id, outcome: outcome.clone() }).collect()
    }

    fn path(&self, id: TaskId) -> PathBuf {
        self.dir.join(format!("{id}.json"))
    }
}

fn outcome(path: &Path) -> Option<(TaskId, TaskOutcome)> {
    let id = path.file_stem()?.to_str()?.parse().ok()?;
    Some((id, serde_json::from_slice(&fs::read(path).ok()?).ok()?))
}

/// Whose thread does it; `None`: that of the templates.
pub fn environment(task: &TaskKind) -> Option<EnvironmentId> {
    match task {
        TaskKind::Snapshot { environment, .. }
        | TaskKind::Rollback { environment, .. }
        | TaskKind::RemoveSnapshot { environment, .. }
        | TaskKind::CheckDisk { environment, .. } => Some(*environment),
        TaskKind::Clone { from, .. } => Some(*from),
        TaskKind::ImportTemplate { .. } | TaskKind::RemoveTemplate { .. } => None,
    }
}

/// The thread that imports and removes templates, one after the other.
pub fn start_templates(around: Surroundings, import: Import) -> Result<mpsc::Sender<Task>> {
    let (sender, inbox) = mpsc::channel::<Task>();
    let work = move || {
        while let Ok(task) = inbox.recv() {
            let progress = Told { say: &around.say, id: task.id };
            progress.percent(0);
            let done = match &task.what {
                TaskKind::ImportTemplate { .. } if !(around.has_share)() => Err(anyhow!("the share is not mounted").into()),
                TaskKind::ImportTemplate { upload } => {
                    import(upload, &progress).map(|template| TaskOutcome::Done { bytes: 0, template: Some(template) })
                }
                _ => around.task(&task, &progress),
            };
            let outcome = done.unwrap_or_else(|error| TaskOutcome::Failed { error: error.to_string() });
            (around.say)(Event::Task { id: task.id, outcome });
        }
    };
    let thread = std::thread::Builder::new().name("templates".into()).stack_size(STACK);
    thread.spawn(work).context("starting the thread of the templates")?;
    Ok(sender)
}

/// Tells the center how far a task is.
pub struct Told<'a> {
    /// Where to.
    pub say: &'a Say,
    /// Which task.
    pub id: TaskId,
}

impl Progress for Told<'_> {
    fn percent(&self, percent: u8) {
        (self.say)(Event::Task { id: self.id, outcome: TaskOutcome::Running { percent } });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    #[test]
    fn a_task_is_begun_once_and_its_outcome_kept_until_it_is_not_ordered_any_more() {
        let dir = tempfile::tempdir().unwrap();
        let task = |id| Task {
            id: TaskId(Uuid::from_u128(id)),
            what: TaskKind::RemoveTemplate { digest: Digest::from_digest([0; 32]) },
        };
        let mut tasks = Tasks::read(dir.path());
        assert_eq!(tasks.ordered(&[task(1), task(2)]).len(), 2);
        assert_eq!(tasks.ordered(&[task(1), task(2)]).len(), 0);
        let done = TaskOutcome::Done { bytes: 1, template: None };
        tasks.took(task(1).id, done.clone()).unwrap();
        let mut tasks = Tasks::read(dir.path());
        assert_eq!(tasks.ordered(&[task(1), task(2)]), [task(2)], "the one that was cut short is done again");
        assert_eq!(tasks.reports()[0].outcome, done);
        assert_eq!(tasks.ordered(&[task(2)]), []);
        assert_eq!((tasks.reports().len(), fs::read_dir(dir.path()).unwrap().count()), (1, 0));
    }
}
