//! What a played agent says and does.

use super::*;

impl Agent {
    /// What the share knows it by.
    pub(super) fn name(&self) -> (NodeId, BootId) {
        (node_id(self.number), self.boot)
    }

    pub(super) fn heartbeat(&self) -> Heartbeat {
        let orders = self.orders.iter().flat_map(|orders| &orders.environments);
        let reports = orders.map(|order| {
            let state = match self.held.get(&order.id) {
                Some(held) if held.epoch != order.epoch => State::Stopping,
                Some(held) if held.runs => State::Running { since: 1 },
                Some(held) if held.ended && order.want == Want::Running && !self.leaving => State::Ended,
                Some(_) => State::Stopping,
                None if order.boot != self.boot => State::Failed,
                None if order.want == Want::Destroyed && !self.leaving => State::Destroyed,
                None if order.want != Want::Running || self.leaving => State::Released,
                None => State::Preparing { step: "mount".into() },
            };
            let restarts_done = self.held.get(&order.id).map_or(0, |held| held.started_for);
            Report { restarts_done, ..says(order, state) }
        });
        let tasks = self.orders.iter().flat_map(|orders| &orders.tasks);
        let done = || TaskOutcome::Done { bytes: 0, template: None };
        let tasks = tasks.map(|task| TaskReport { id: task.id, outcome: done() });
        Heartbeat {
            boot: self.boot,
            share: ShareHealth::Mounted { probe_ms: 1 },
            generation: self.orders.as_ref().map_or(0, |orders| orders.generation),
            problem: None,
            phases: vec![],
            environments: reports.collect(),
            tasks: tasks.collect(),
            warm: self.orders.iter().flat_map(|orders| &orders.warm).map(|template| template.digest.clone()).collect(),
            last_words: vec![],
            reached: vec![],
            signs: Default::default(),
            criu: None,
        }
    }

    /// One step about one environment: what is not wanted goes, what is wanted comes.
    pub(super) fn act(&mut self, which: usize) {
        let Some(orders) = self.orders.as_ref().filter(|_| self.is_on) else { return };
        let assigned = |id: &EnvironmentId| orders.environments.iter().find(|order| order.id == *id);
        let leaving = self.leaving;
        self.held.retain(|id, held| {
            assigned(id).is_some_and(|order| order.epoch == held.epoch && order.want == Want::Running && !leaving)
        });
        if let Some(order) = orders.environments.get(which)
            && order.want == Want::Running
            && order.boot == self.boot
            && !leaving
        {
            let start = Held { epoch: order.epoch, runs: true, ended: false, started_for: order.restarts_asked };
            let held = self.held.entry(order.id).or_insert(start);
            if order.restarts_asked > held.started_for {
                *held = start;
            }
        }
    }
}
