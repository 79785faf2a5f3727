//! What reaches the center, what it answers, and what it does by itself.

use anyhow::Result;
use lodge_model::ids::BootId;

use super::{Event, Simulation};
use crate::center::{Reply, Request};
use crate::clock::Millis;
use crate::signer::signer;

impl Simulation {
    pub(super) fn asked(&mut self, node: usize, boot: BootId, exchange: u64, request: &Request) -> Result<()> {
        if !self.nodes[node].reaches_center {
            return Ok(());
        }
        if !self.center.is_up {
            self.reply(node, boot, exchange, &Reply::Cut);
            return Ok(());
        }
        let (id, now) = (self.nodes[node].id, self.now);
        if let Some(reply) = self.center.take(id, exchange, request, now) {
            self.reply(node, boot, exchange, &reply);
        }
        self.follow_center();
        Ok(())
    }

    /// To the boot that asked; to the agent that is there when it arrives, which knows what it has asked.
    pub(super) fn reply(&mut self, node: usize, boot: BootId, exchange: u64, reply: &Reply) {
        let run = self.nodes[node].agent.as_ref().map_or(0, |agent| agent.run);
        for arrival in self.weather.arrivals(&mut self.random) {
            self.queue.plan(self.now + arrival, Event::Answer { node, boot, run, exchange, reply: reply.clone() });
        }
    }

    /// What the center does by itself, now.
    pub(super) fn attend(&mut self) {
        if !self.center.is_up {
            return;
        }
        if self.center.plan_at <= self.now {
            self.center.plan(self.now);
            self.check_rights();
        }
        if self.center.look_at <= self.now {
            self.center.look(self.now);
        }
        if self.center.guard_at <= self.now {
            self.center.guard(self.now);
        }
        self.follow_center();
    }

    /// Tell who waits, read the log, come back when something is due.
    pub(crate) fn follow_center(&mut self) {
        for (poll, orders) in self.center.follow(self.now) {
            if let Some(node) = self.nodes.iter().position(|node| node.id == poll.node) {
                self.reply(node, poll.boot, poll.exchange, &Reply::Orders(Box::new(orders)));
            }
        }
        if self.record.is_on() {
            for (at, text) in self.center.news() {
                self.record.say(at, "center", &text);
            }
        }
        if self.center.is_up {
            let polls = self.center.polls.iter().map(|poll| poll.until).min();
            let next = polls
                .into_iter()
                .chain([self.center.plan_at, self.center.look_at, self.center.guard_at])
                .min()
                .unwrap_or(self.now + 1000);
            self.plan_center(next.max(self.now + 1));
        }
    }

    pub(super) fn plan_center(&mut self, at: Millis) {
        if at < self.center_at {
            self.center_at = at;
            self.queue.plan(at, Event::Center);
        }
    }

    pub(super) fn plan_look(&mut self, node: usize, at: Millis) {
        if at < self.nodes[node].look_at {
            self.nodes[node].look_at = at;
            let boot = self.nodes[node].host.client.boot;
            self.queue.plan(at, Event::Look { node, boot });
        }
    }

    /// Its process is killed.
    pub(crate) fn kill_center(&mut self) {
        self.record.say(self.now, "world", "the center is killed");
        for poll in self.center.kill() {
            if let Some(node) = self.nodes.iter().position(|node| node.id == poll.node) {
                self.reply(node, poll.boot, poll.exchange, &Reply::Cut);
            }
        }
    }

    /// It is started again.
    pub(crate) fn start_center(&mut self) -> Result<()> {
        if !self.center.is_up {
            self.record.say(self.now, "world", "the center is started");
            self.center.start(self.now, signer()?.ca.path())?;
            self.plan_center(self.now + 1);
        }
        Ok(())
    }
}
