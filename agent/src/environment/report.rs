//! What the heartbeats say of environments and tasks, and which news do not wait for the next ordinary beat.

use std::net::IpAddr;

use lodge_model::environment::order::{Report, State, TaskOutcome, TaskReport};
use lodge_model::ids::{Digest, EnvironmentId};

/// Everything there is to say.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reports {
    /// Environments.
    pub environments: Vec<Report>,
    /// Tasks.
    pub tasks: Vec<TaskReport>,
    /// Templates that were to be fetched beforehand and are here.
    pub warm: Vec<Digest>,
    /// Those that run, for this node's own system bus.
    pub running: Vec<Running>,
    /// Somebody looks after environments.
    pub is_kept: bool,
    /// The node goes down, and nothing of any environment is left on it.
    pub all_gone: bool,
}

/// One that runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Running {
    /// Which.
    pub id: EnvironmentId,
    /// Its name.
    pub name: String,
    /// Its init.
    pub init: i32,
    /// Seconds since 1970 of its start.
    pub since: i64,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
}

impl Reports {
    /// Whether something is said that the center should hear at once: not for another usage or percent, nor for one that is on its way up as
    /// it should be. Each would be work for both sides, just when one starts.
    pub fn is_news(&self, told: &Reports) -> bool {
        self.without_progress() != told.without_progress()
    }

    /// Nothing of any environment keeps the node from going down.
    pub fn may_go_down(&self) -> bool {
        !self.is_kept || self.all_gone
    }

    fn without_progress(&self) -> Reports {
        let is_on_its_way = |report: &&Report| matches!(report.state, State::Preparing { .. }) && report.problem.is_empty();
        let environment = |report: &Report| Report { usage: None, probe: None, ..report.clone() };
        let task = |report: &TaskReport| match report.outcome {
            TaskOutcome::Running { .. } => TaskReport { id: report.id, outcome: TaskOutcome::Running { percent: 0 } },
            _ => report.clone(),
        };
        Reports {
            environments: self.environments.iter().filter(|report| !is_on_its_way(report)).map(environment).collect(),
            tasks: self.tasks.iter().map(task).collect(),
            warm: self.warm.clone(),
            running: self.running.clone(),
            is_kept: self.is_kept,
            all_gone: self.all_gone,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lodge_model::environment::order::Usage;
    use lodge_model::ids::TaskId;
    use uuid::Uuid;

    #[test]
    fn progress_can_wait_and_states_cannot() {
        let report = |state, memory| Report {
            usage: Some(Usage { memory, ..Usage::default() }),
            ..Report::new(EnvironmentId(Uuid::from_u128(1)), 1, state)
        };
        let task = |outcome| TaskReport { id: TaskId(Uuid::from_u128(2)), outcome };
        let reports = |state, memory, outcome| Reports {
            environments: vec![report(state, memory)],
            tasks: vec![task(outcome)],
            warm: Vec::new(),
            running: Vec::new(),
            is_kept: true,
            all_gone: false,
        };
        let fetching = |percent| State::Preparing { step: format!("fetch-template {percent}%") };
        let running = |percent| TaskOutcome::Running { percent };
        let told = reports(fetching(3), 5, running(1));
        assert!(!reports(fetching(70), 6, running(99)).is_news(&told));
        assert!(!reports(State::Preparing { step: "mount".into() }, 5, running(1)).is_news(&told));
        assert!(!Reports { environments: Vec::new(), ..told.clone() }.is_news(&told));
        assert!(reports(State::Running { since: 7 }, 5, running(1)).is_news(&told));
        assert!(told.is_news(&reports(State::Running { since: 7 }, 5, running(1))));
        assert!(reports(State::Failed, 5, running(1)).is_news(&told));
        assert!(reports(fetching(3), 5, TaskOutcome::Done { bytes: 0, template: None }).is_news(&told));
        assert!(Reports::default().is_news(&told));
    }
}
