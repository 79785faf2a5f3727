//! A node's turns: what reaches its agent, what that does and says, and the start and the end of a boot.

use std::sync::Arc;

use anyhow::Result;
use lodge_center::environments::records::Environment;
use lodge_model::ids::{BootId, EnvironmentId};
use lodge_model::node::Role;

use super::{BOOT, Event, Simulation};
use crate::center::Reply;
use crate::fence::SHARE;
use crate::host::open;
use crate::leave::Next;
use crate::share::Client;

impl Simulation {
    pub(super) fn is_there(&self, node: usize, boot: BootId) -> bool {
        let node = &self.nodes[node];
        node.is_on && node.host.client.boot == boot
    }

    pub(super) fn answered(&mut self, node: usize, boot: BootId, run: u64, exchange: u64, reply: Reply) -> Result<()> {
        if !self.is_there(node, boot) || !self.nodes[node].reaches_center {
            return Ok(());
        }
        if self.nodes[node].is_paused {
            self.queue.plan(self.now + 100, Event::Answer { node, boot, run, exchange, reply });
            return Ok(());
        }
        if self.nodes[node].agent.as_ref().is_none_or(|agent| agent.run != run) {
            return Ok(());
        }
        let (now, machine) = (self.now, &mut self.nodes[node]);
        machine.told_of_leaving(exchange, &reply, now);
        if let Some(counts) = machine.told_of_certificate(exchange, &reply, now)?
            && !counts.are_zero()
        {
            self.broken.get_or_insert(format!("{} was certified with {}", machine.name, counts.words()));
        }
        machine.hear(exchange, reply, now)?;
        self.look(node, boot)
    }

    /// The agent's whole turn: workers, reports, talk.
    pub(super) fn look(&mut self, node: usize, boot: BootId) -> Result<()> {
        if !self.is_there(node, boot) || self.nodes[node].is_paused {
            return Ok(());
        }
        let now = self.now;
        let answers = open(&self.share).answers(self.nodes[node].host.client);
        let machine = &mut self.nodes[node];
        let (host, since) = (machine.host.clone(), machine.since);
        if let Some(agent) = machine.agent.as_mut() {
            agent.settle(&host, now)?;
            let steps = agent.work(&host, answers, now, since, &mut self.random);
            agent.fetch();
            agent.settle(&host, now)?;
            if !steps.is_empty() {
                self.tell_of_copies(node);
                self.check();
            }
        }
        self.say(node)?;
        let machine = &self.nodes[node];
        if let Some(agent) = &machine.agent {
            let next = [agent.next_turn(), agent.talk.next()].into_iter().flatten().min();
            if let Some(next) = next {
                self.plan_look(node, next.max(now + 1));
            }
        }
        Ok(())
    }

    /// Whatever is to be said to the center.
    pub(super) fn say(&mut self, node: usize) -> Result<()> {
        let now = self.now;
        self.exchanges += 3;
        let exchange = self.exchanges;
        let (signs, reached) = (self.signs(node), self.reached(node));
        let machine = &mut self.nodes[node];
        let mut said = Vec::new();
        said.extend(machine.speak(now, exchange, signs, reached).map(|request| (exchange, request)));
        said.extend(machine.follow_leave(now, exchange + 1)?.map(|request| (exchange + 1, request)));
        let mut is_off = false;
        match machine.go_on(now, exchange + 2)? {
            Next::Wait => {}
            Next::Say(request) => said.push((exchange + 2, request)),
            Next::Off => is_off = true,
        }
        let boot = machine.host.client.boot;
        let reaches = machine.reaches_center;
        for (exchange, request) in said {
            for arrival in self.weather.arrivals(&mut self.random) {
                if reaches {
                    self.queue.plan(now + arrival, Event::Ask { node, boot, exchange, request: request.clone() });
                }
            }
        }
        if is_off { self.goes_off(node) } else { Ok(()) }
    }

    pub(super) fn second(&mut self, node: usize, boot: BootId) -> Result<()> {
        if !self.is_there(node, boot) {
            return Ok(());
        }
        let now = self.now;
        self.queue.plan(now + 1000, Event::Second { node, boot });
        if self.nodes[node].is_paused {
            return Ok(());
        }
        let machine = &mut self.nodes[node];
        machine.host.write();
        let client = machine.host.client;
        let serves = machine.roles.contains(&Role::Share);
        if let Some(agent) = machine.agent.as_mut()
            && agent.orders.as_ref().is_some_and(|orders| serves || orders.share.is_some())
        {
            let mut share = open(&self.share);
            let answers = share.answers(client);
            if answers {
                share.forget_former(client);
            }
            drop(share);
            agent.find_share(answers, serves, now);
        }
        self.tell_of_copies(node);
        self.check();
        if node == SHARE {
            self.carry_out_bans();
        }
        if let Some(why) = self.lifeline(node) {
            // A machine that goes down already is not started anew by init.
            if self.nodes[node].going.is_some() {
                self.nodes[node].host.kill_all();
                return self.look(node, boot);
            }
            self.power_off(node, why);
            self.queue.plan(now + 2000, Event::Boot { node });
            return Ok(());
        }
        self.look(node, boot)
    }

    /// The log says what starts and what ends.
    pub(super) fn tell_of_copies(&mut self, node: usize) {
        if !self.record.is_on() {
            return;
        }
        let machine = &self.nodes[node];
        let running = if machine.is_on { machine.host.running() } else { Vec::new() };
        let before: Vec<_> = self.runs.iter().filter(|(_, at, _)| *at == node).copied().collect();
        for (id, at, epoch) in before {
            if !running.contains(&(id, epoch)) {
                self.runs.retain(|run| *run != (id, at, epoch));
                let line = format!("{} (epoch {epoch}) ends", self.name_of(id));
                self.record.say(self.now, &self.nodes[node].name, &line);
            }
        }
        for (id, epoch) in running {
            if !self.runs.contains(&(id, node, epoch)) {
                self.runs.push((id, node, epoch));
                let line = format!("{} (epoch {epoch}) starts", self.name_of(id));
                self.record.say(self.now, &self.nodes[node].name, &line);
            }
        }
    }

    /// An environment's name, for people.
    pub(crate) fn name_of(&self, id: EnvironmentId) -> String {
        let all = self.center.all::<Environment>();
        all.into_iter().find(|known| known.id == id).map_or_else(|| id.to_string(), |known| known.spec.name)
    }

    pub(super) fn start_agent(&mut self, node: usize, boot: BootId) -> Result<()> {
        if !self.is_there(node, boot) || self.nodes[node].agent.is_some() {
            return Ok(());
        }
        let now = self.now;
        let machine = &mut self.nodes[node];
        machine.start_agent(now)?;
        if let (Some(going), Some(agent)) = (&mut machine.going, &mut machine.agent) {
            going.begin_again(agent, now, machine.since)?;
        }
        self.look(node, boot)
    }

    /// The machine starts.
    pub(super) fn boot(&mut self, node: usize) -> Result<()> {
        if self.nodes[node].is_on {
            return Ok(());
        }
        self.boots += 1;
        let boot = BootId(uuid::Uuid::from_u128(self.boots));
        let (now, share) = (self.now, Arc::clone(&self.share));
        self.nodes[node].boot(boot, now, &share)?;
        if now > 0 {
            self.record.say(now, &self.nodes[node].name, "is on");
        }
        self.hear_of(node);
        let soon = if now == 0 { 1 } else { BOOT };
        self.queue.plan(now + soon, Event::Agent { node, boot });
        self.queue.plan(now + soon + 100 * u64::try_from(node)?, Event::Second { node, boot });
        Ok(())
    }

    /// It has gone down in order.
    pub(super) fn goes_off(&mut self, node: usize) -> Result<()> {
        let starts_again =
            self.nodes[node].going.as_ref().is_some_and(|going| going.power == lodge_model::drain::Power::Reboot);
        self.power_off(node, "is off, in order");
        if starts_again {
            self.queue.plan(self.now + 2000, Event::Boot { node });
        }
        Ok(())
    }

    /// Whether the share hears it.
    pub(super) fn hear_of(&mut self, node: usize) {
        let machine = &self.nodes[node];
        let client: Client = machine.host.client;
        let mut share = open(&self.share);
        if machine.is_alive() && machine.reaches_share {
            share.silent.remove(&client);
        } else {
            share.silent.entry(client).or_insert(self.now);
        }
    }
}
