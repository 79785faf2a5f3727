//! What must never be, looked at after every event, and what must be where a run comes to rest: the invariants of the design.
//!
//! | invariant | where |
//! |---|---|
//! | 1: started only by an order to this boot, with the lock and the owner record | `Share::may_start`, at every start |
//! | 2: the next epoch is given only when the one before has ended | `check_rights`, after every plan |
//! | 3: an intent to fence is carried out, whoever died meanwhile | `unsettled`: none is left |
//! | 4: who was shut out is let in with another boot only | `Simulation::carry_out_bans` |
//! | 5: no order older than the newest is followed | `Agent::take` |
//! | 6: nothing ends because the center is away | `tests/schedules.rs` |
//! | never two copies, no write after a later epoch's | `check`, `Share::write` |

use std::collections::BTreeMap;

use lodge_center::environments::drain::{Certified, Drain};
use lodge_center::environments::records::{Environment, Goal, Move};
use lodge_center::records::Node;
use lodge_model::drain::DrainState;
use lodge_model::environment::view::Phase;
use lodge_model::ids::{EnvironmentId, NodeId};

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

    /// Whoever has the right to run an environment now, nobody holds it by an older one, unless he is shut out.
    pub(crate) fn check_rights(&mut self) {
        let mut held: BTreeMap<EnvironmentId, (&str, u64)> = BTreeMap::new();
        for node in self.nodes.iter().filter(|node| node.is_on && !self.is_fenced(node)) {
            for (id, epoch) in node.host.held() {
                let oldest = held.entry(id).or_insert((&node.name, epoch));
                *oldest = if epoch < oldest.1 { (&node.name, epoch) } else { *oldest };
            }
        }
        if held.is_empty() {
            return;
        }
        let environments = self.center.all::<Environment>();
        let given = environments.iter().filter(|environment| environment.place.is_some());
        let mut wrong = given.filter_map(|environment| {
            let (node, epoch) = held.get(&environment.id).filter(|(_, epoch)| *epoch < environment.epoch)?;
            Some(format!(
                "{} is given with epoch {} while {node} holds epoch {epoch}",
                environment.spec.name, environment.epoch
            ))
        });
        if let Some(text) = wrong.next() {
            self.broken.get_or_insert(text);
        }
    }

    fn is_fenced(&self, node: &crate::machine::Node) -> bool {
        open(&self.share).banned.get(&node.id) == Some(&node.host.client.boot)
    }

    /// Whether everything is as it was asked for; else what is not.
    pub(crate) fn unsettled(&self) -> Option<String> {
        if let Some(node) = self.center.all::<Node>().into_iter().find(|node| node.ban.is_some() && self.is_up(node.id)) {
            return Some(format!("{} is up, and is shut out still", node.name));
        }
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

    /// Everything that runs: which environment, where, with which epoch.
    pub(crate) fn running(&self) -> Vec<(EnvironmentId, &str, u64)> {
        let on = self.nodes.iter().filter(|node| node.is_on);
        on.flat_map(|node| node.host.running().into_iter().map(|(id, epoch)| (id, node.name.as_str(), epoch))).collect()
    }

    /// The nodes that run an environment.
    pub(crate) fn copies(&self, id: EnvironmentId) -> Vec<&str> {
        let runs = |node: &&crate::machine::Node| node.is_on && node.host.running().iter().any(|(running, _)| *running == id);
        self.nodes.iter().filter(runs).map(|node| node.name.as_str()).collect()
    }

    /// Whether every drain has come as far as it can: all that has begun to move has arrived, and who is empty is certified; else which
    /// has not.
    pub(crate) fn undrained(&self) -> Option<String> {
        let environments = self.center.all::<Environment>();
        let moves = |environment: &&Environment| {
            let is_somewhere = |moving: &Move| environment.place.is_some() || moving.to.is_some();
            environment.moving.as_ref().is_some_and(|moving| moving.begun.is_some() && is_somewhere(moving))
        };
        if let Some(environment) = environments.iter().find(moves) {
            return Some(format!("{} is moving", environment.spec.name));
        }
        let certified = self.center.all::<Certified>();
        self.center.all::<Drain>().into_iter().find_map(|drain| {
            let certificate =
                certified.iter().map(|certified| &certified.view.certificate).find(|one| one.id == drain.question);
            let node = self.nodes.iter().find(|node| node.id == drain.node)?;
            let is_at_rest = match drain.state {
                // It starts anew, and that is its end.
                DrainState::Drained if drain.goes_down || drain.then.is_some() => false,
                DrainState::Drained => certificate.is_some_and(|one| one.counts.are_zero()) && node.host.held().is_empty(),
                DrainState::Draining => !drain.waits.is_empty() && drain.deadline.is_none(),
                DrainState::Certifying => !node.is_on,
                DrainState::Planned => false,
            };
            (!is_at_rest).then(|| format!("the drain of {} is {:?}: {}", drain.name, drain.state, drain.waits))
        })
    }

    fn is_up(&self, id: NodeId) -> bool {
        self.nodes.iter().any(|node| node.id == id && node.is_on)
    }
}
