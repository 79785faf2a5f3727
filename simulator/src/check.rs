//! What must never be, looked at after every event, and what must be where a run comes to rest.

use std::collections::BTreeMap;

use lodge_center::environments::records::{Environment, Goal};
use lodge_model::environment::view::Phase;
use lodge_model::ids::EnvironmentId;

use crate::Simulation;
use crate::host::open;

impl Simulation {
    /// No environment runs twice; no epoch writes after a later one; a node is certified only when nothing is left on it.
    pub(crate) fn check(&mut self) {
        let mut runs: BTreeMap<EnvironmentId, (&str, u64)> = BTreeMap::new();
        for node in self.nodes.iter().filter(|node| node.is_on && !self.is_fenced(node)) {
            for (id, epoch) in node.host.running() {
                if let Some((other, before)) = runs.insert(id, (&node.name, epoch)) {
                    let text = format!("{id} runs twice: on {other} (epoch {before}) and on {} (epoch {epoch})", node.name);
                    self.broken.get_or_insert(text);
                    return;
                }
            }
        }
        if let Some(text) = open(&self.share).wrong.take() {
            self.broken.get_or_insert(text);
        }
    }

    fn is_fenced(&self, node: &crate::machine::Node) -> bool {
        open(&self.share).banned.get(&node.id) == Some(&node.host.client.boot)
    }

    /// Whether everything is as it was asked for; else what is not.
    pub(crate) fn unsettled(&self) -> Option<String> {
        let environments = self.center.all::<Environment>();
        environments.iter().find_map(|environment| {
            let name = &environment.spec.name;
            let copies = self.copies(environment.id);
            let is_as_asked = match environment.goal {
                Goal::Running => copies.len() == 1 && environment.phase == Phase::Running,
                Goal::Stopped | Goal::Killed | Goal::Ended => copies.is_empty() && environment.place.is_none(),
                Goal::Destroyed => false,
            };
            let at = environment.place.as_ref().map_or("nowhere", |place| &place.name);
            (!is_as_asked).then(|| {
                format!(
                    "{name} is to be {:?} and is {} ({}), placed {at} with epoch {}; it runs on {copies:?}",
                    environment.goal,
                    environment.phase.word(),
                    environment.reason,
                    environment.epoch
                )
            })
        })
    }

    /// The nodes that run an environment.
    pub(crate) fn copies(&self, id: EnvironmentId) -> Vec<&str> {
        let runs = |node: &&crate::machine::Node| node.is_on && node.host.running().iter().any(|(running, _)| *running == id);
        self.nodes.iter().filter(runs).map(|node| node.name.as_str()).collect()
    }
}
