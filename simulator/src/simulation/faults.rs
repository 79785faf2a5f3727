//! What happens to machines, the network and the share, and what operators ask for: for scenarios and schedules.

use anyhow::Result;
use lodge_center::auth::Caller;

use super::{AGENT, Event, Simulation};
use crate::clock::timestamp;
use crate::host::open;

impl Simulation {
    /// It has no power any more.
    pub(crate) fn power_off(&mut self, node: usize, how: &str) {
        if !self.nodes[node].is_on {
            return;
        }
        let machine = &mut self.nodes[node];
        (machine.is_on, machine.is_paused, machine.agent, machine.going) = (false, false, None, None);
        self.record.say(self.now, &self.nodes[node].name, how);
        self.hear_of(node);
        self.tell_of_copies(node);
    }

    /// It is switched on.
    pub(crate) fn power_on(&mut self, node: usize) {
        self.queue.plan(self.now + 1, Event::Boot { node });
    }

    /// It stands still, or goes on.
    pub(crate) fn pause(&mut self, node: usize, is_paused: bool) {
        if !self.nodes[node].is_on || self.nodes[node].is_paused == is_paused {
            return;
        }
        self.nodes[node].is_paused = is_paused;
        self.record.say(self.now, &self.nodes[node].name, if is_paused { "stands still" } else { "goes on" });
        self.hear_of(node);
        if !is_paused {
            self.plan_look(node, self.now + 1);
        }
    }

    /// It reaches the center and the share, or not.
    pub(crate) fn connect(&mut self, node: usize, center: bool, share: bool) {
        let machine = &mut self.nodes[node];
        let words = |is: bool| if is { "is connected to" } else { "is cut off from" };
        if machine.reaches_center != center {
            machine.reaches_center = center;
            self.record.say(self.now, &machine.name, &format!("{} the center", words(center)));
        }
        if machine.reaches_share != share {
            machine.reaches_share = share;
            self.record.say(self.now, &machine.name, &format!("{} the share", words(share)));
        }
        self.hear_of(node);
    }

    /// Its agent is killed; init starts another one.
    pub(crate) fn kill_agent(&mut self, node: usize) {
        let machine = &mut self.nodes[node];
        if !machine.is_on || machine.agent.take().is_none() {
            return;
        }
        let boot = machine.host.client.boot;
        self.record.say(self.now, &self.nodes[node].name, "its agent is killed");
        self.queue.plan(self.now + AGENT, Event::Agent { node, boot });
    }

    /// The share answers nobody, or all again.
    pub(crate) fn freeze_share(&mut self, is_frozen: bool) {
        self.record.say(self.now, "world", if is_frozen { "the share is frozen" } else { "the share goes on" });
        open(&self.share).is_frozen = is_frozen;
    }

    /// Its server starts anew.
    pub(crate) fn restart_share(&mut self) {
        self.record.say(self.now, "world", "the share's server is restarted");
        open(&self.share).restart();
    }

    /// An operator asks for something; a refusal is part of the log.
    pub(crate) fn operator<T>(
        &mut self,
        what: &str,
        work: impl Fn(
            &lodge_center::store::Tx,
            &lodge_center::flow::World,
            &Caller,
            jiff::Timestamp,
        ) -> Result<T, lodge_center::fault::Fault>,
    ) -> bool {
        self.record.say(self.now, "operator", what);
        if !self.center.is_up {
            self.record.say(self.now, "operator", "the center does not answer");
            return false;
        }
        let at = timestamp(self.now);
        let done = self.center.transact(|tx, world| work(tx, world, &Caller::Operator, at).map(drop));
        if let Err(why) = &done {
            self.record.say(self.now, "operator", &format!("refused: {why}"));
        }
        self.follow_center();
        done.is_ok()
    }
}
