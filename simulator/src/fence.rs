//! Fencing, as `agent/src/fence` and `agent/src/lifeline` have it: the share node shuts out who is banned and says so, and tells how old
//! everybody's heartbeat file is; a node asks after its neighbours; a node that is fenced, or reaches neither share nor center for too
//! long, starts anew.

use std::collections::BTreeMap;

use lodge_model::fence::{FenceOrders, FenceOutcome, Fenced, MarkAge, PeerWord, Signs};
use lodge_model::ids::{BootId, NodeId};
use lodge_model::reach::{Reach, Reached};
use lodge_model::timing::{MARK, Timing};

use crate::Simulation;
use crate::clock::{length, timestamp};
use crate::host::open;
use crate::machine::Node;

/// The share node.
pub const SHARE: usize = 0;

impl Simulation {
    fn fence_orders(&self, node: usize) -> Option<&FenceOrders> {
        Some(&self.nodes[node].agent.as_ref()?.orders.as_ref()?.fence)
    }

    /// What a node says of others.
    pub(crate) fn signs(&self, node: usize) -> Signs {
        let Some(orders) = self.fence_orders(node) else { return Signs::default() };
        let answers = |peer: NodeId| self.nodes.iter().any(|node| node.id == peer && node.is_alive() && node.reaches_center);
        let peers = orders.ask_about.iter().map(|peer| PeerWord { node: peer.node, answers: answers(peer.node) }).collect();
        if node != SHARE {
            return Signs { peers, ..Signs::default() };
        }
        let share = open(&self.share);
        let confirmed = |proof: &str| FenceOutcome::Confirmed { at: timestamp(self.now).as_second(), proof: proof.to_owned() };
        let is_done = |node: &NodeId, boot: &BootId| share.banned.get(node) == Some(boot);
        let fenced = orders.banned.iter().filter(|ban| is_done(&ban.node, &ban.boot));
        let fenced = fenced.map(|ban| Fenced { id: ban.id, outcome: confirmed("its client is gone") }).collect();
        let marks = share.marks.iter();
        let marks = marks.map(|(node, (boot, at))| MarkAge { node: *node, boot: *boot, age_ms: self.now - at }).collect();
        Signs { fenced, marks, peers, guard: None }
    }

    /// Which environments that have moved a node reaches. One that does not answer is looked for again with the next heartbeat.
    pub(crate) fn reached(&self, node: usize) -> Vec<Reached> {
        let Some(orders) = self.nodes[node].agent.as_ref().and_then(|agent| agent.orders.as_ref()) else { return Vec::new() };
        let runs = |reach: &&Reach| {
            let here =
                |node: &Node| node.is_alive() && node.reaches_center && node.host.running().contains(&(reach.id, reach.epoch));
            self.nodes.iter().any(here)
        };
        let answer = |reach: &Reach| Reached { id: reach.id, epoch: reach.epoch, ms: 1, problem: String::new() };
        orders.reach.iter().filter(runs).map(answer).collect()
    }

    /// The share node brings about what its orders say: who is banned is shut out, whoever is not is let in.
    pub(crate) fn carry_out_bans(&mut self) {
        let Some(orders) = self.fence_orders(SHARE) else { return };
        let wanted: BTreeMap<NodeId, BootId> = orders.banned.iter().map(|ban| (ban.node, ban.boot)).collect();
        let mut share = open(&self.share);
        if share.is_frozen || share.banned == wanted {
            return;
        }
        let mut told = Vec::new();
        for node in &self.nodes {
            let now = self.now;
            // As `agent/src/fence/plan.rs`: a boot that has been replaced is not cut off any more.
            let living = share.marks.get(&node.id).filter(|(_, at)| now < at + 2 * length(MARK)).map(|(boot, _)| *boot);
            match (share.banned.get(&node.id).copied(), wanted.get(&node.id).copied()) {
                (None, Some(boot)) if living.is_some_and(|living| living != boot) => {}
                (is, Some(boot)) if is != Some(boot) => {
                    share.ban(node.id, boot);
                    told.push((node.name.clone(), "is shut out of the share"));
                }
                (Some(boot), None) => {
                    share.banned.remove(&node.id);
                    if node.is_on && node.host.client.boot == boot {
                        share.wrong.get_or_insert(format!("{} is let in again with the boot that was shut out", node.name));
                    }
                    told.push((node.name.clone(), "is let in to the share again"));
                }
                _ => {}
            }
        }
        drop(share);
        if told.is_empty() {
            return;
        }
        for (name, what) in told {
            self.record.say(self.now, &name, what);
        }
        if let Some(agent) = self.nodes[SHARE].agent.as_mut() {
            agent.talk.hurry(self.now);
        }
    }

    /// The node writes its heartbeat file if it can. Whether it must end what it runs and start anew, and why (`agent/src/lifeline/stand.rs`).
    pub(crate) fn lifeline(&mut self, node: usize) -> Option<&'static str> {
        let now = self.now;
        let fenced = self.fence_orders(node).and_then(|orders| orders.fenced);
        let patience = self.fence_orders(node).map_or(1, |orders| orders.patience);
        let machine = &mut self.nodes[node];
        let client = machine.host.client;
        let mut share = open(&self.share);
        if share.answers(client) {
            share.marks.insert(machine.id, (client.boot, now));
            machine.marked = now;
        }
        drop(share);
        if node == SHARE {
            return None;
        }
        let give_up = length(Timing::new(patience).give_up);
        if fenced == Some(client.boot) {
            return Some("learns that it is fenced, and starts anew");
        }
        let is_lost = now >= machine.marked + give_up && now >= machine.heard + give_up;
        let is_alone = !machine.reaches_center && !machine.reaches_share;
        let runs = !machine.host.running().is_empty();
        (is_lost && is_alone && runs).then_some("reaches nobody, and starts anew")
    }
}
