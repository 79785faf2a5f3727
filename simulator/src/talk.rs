//! An agent's talk with the center, as `agent/src/session.rs` has it: register, then one heartbeat after the other; news do not wait for
//! the answer to old ones; what fails is tried again after a pause.

use lodge_agent::environment::report::Reports;
use lodge_model::api::{Heartbeat, Register, ShareHealth};
use lodge_model::facts::{Facts, Firmware};
use lodge_model::fence::Signs;
use lodge_model::layout::Slot;
use lodge_model::reach::Reached;
use lodge_model::timing::{HEARTBEAT, RETRY_MAX};

use crate::center::{Reply, Request};
use crate::clock::{Millis, length};
use crate::machine::Node;

/// As `session.rs` has it.
const BEAT_MIN: Millis = 500;
/// What the client gives a call, besides the time that it is held.
const MARGIN: Millis = 3000;

/// Where the talk stands.
pub struct Talk {
    /// The center has taken this boot in.
    is_registered: bool,
    /// The request that is not answered, and when it is given up.
    pub waits: Option<(u64, Millis)>,
    /// When the next one is made; nothing else makes one before while it rests.
    next: Millis,
    rests: bool,
    pause: Millis,
    began: Millis,
    sent: Option<(Reports, std::mem::Discriminant<ShareHealth>)>,
    /// What of it the center has taken in.
    pub told: Option<Reports>,
    /// Nothing more is said.
    pub is_silent: bool,
}

impl Talk {
    /// Nothing has been said.
    pub fn new(now: Millis) -> Self {
        Self {
            is_registered: false,
            waits: None,
            next: now,
            rests: false,
            pause: 250,
            began: now,
            sent: None,
            told: None,
            is_silent: false,
        }
    }

    /// When it goes on if nothing happens.
    pub fn next(&self) -> Option<Millis> {
        (!self.is_silent).then(|| self.waits.map_or(self.next, |(_, until)| until))
    }

    /// There is something that does not wait for the next heartbeat.
    pub fn hurry(&mut self, now: Millis) {
        if self.is_registered && !self.rests {
            (self.waits, self.next) = (None, now);
        }
    }

    fn rest(&mut self, now: Millis) {
        (self.waits, self.rests) = (None, true);
        self.next = now + self.pause;
        self.pause = (self.pause * 2).min(length(RETRY_MAX) / 2);
    }

    fn goes_on(&mut self, at: Millis) {
        (self.waits, self.rests, self.next, self.pause) = (None, false, at, 250);
    }
}

impl Node {
    /// What is said now, if anything.
    pub fn speak(&mut self, now: Millis, exchange: u64, signs: Signs, reached: Vec<Reached>) -> Option<Request> {
        let agent = self.agent.as_mut()?;
        let talk = &mut agent.talk;
        if talk.is_silent {
            return None;
        }
        if talk.waits.is_some_and(|(_, until)| until <= now) {
            talk.rest(now);
        }
        let health = std::mem::discriminant(&agent.health);
        let is_news = talk.sent.as_ref().is_none_or(|(sent, was)| agent.reports.is_news(sent) || *was != health);
        let is_due = talk.waits.is_none() && talk.next <= now;
        let tells = is_news && talk.is_registered && !talk.rests;
        if !is_due && !tells {
            return None;
        }
        if !talk.is_registered {
            talk.waits = Some((exchange, now + 10_000));
            return Some(Request::Register(Box::new(self.register())));
        }
        talk.waits = Some((exchange, now + length(HEARTBEAT) + MARGIN));
        (talk.began, talk.rests) = (now, false);
        talk.sent = Some((agent.reports.clone(), health));
        let Reports { environments, tasks, warm, .. } = agent.reports.clone();
        let absent = agent.orders.as_ref().map(|orders| orders.absent.as_slice()).unwrap_or_default();
        let last_words = self.host.words(absent);
        Some(Request::Heartbeat(Box::new(Heartbeat {
            boot: self.host.client.boot,
            share: agent.health.clone(),
            generation: agent.orders.as_ref().map_or(0, |orders| orders.generation),
            problem: None,
            phases: Vec::new(),
            environments,
            tasks,
            warm,
            last_words,
            reached,
            signs,
            criu: None,
        })))
    }

    /// An answer has come. Orders that come late are looked at as well: the agent refuses those that are old.
    pub fn hear(&mut self, exchange: u64, reply: Reply, now: Millis) -> anyhow::Result<()> {
        let Some(agent) = self.agent.as_mut() else { return Ok(()) };
        if !matches!(reply, Reply::Cut) {
            self.heard = now;
        }
        let is_awaited = agent.talk.waits.is_some_and(|(awaited, _)| awaited == exchange);
        match reply {
            Reply::Orders(orders) if orders.register_again && is_awaited => {
                agent.talk.is_registered = false;
                agent.talk.goes_on(now);
            }
            Reply::Orders(orders) if orders.register_again => {}
            Reply::Orders(orders) => {
                let is_newer = agent.take(*orders)?;
                if is_awaited {
                    let was_registered = std::mem::replace(&mut agent.talk.is_registered, true);
                    if was_registered {
                        agent.talk.told = agent.talk.sent.as_ref().map(|(sent, _)| sent.clone());
                    }
                    let soon = if was_registered && !is_newer { agent.talk.began + BEAT_MIN } else { now };
                    agent.talk.goes_on(soon.max(now));
                }
            }
            Reply::Cut if is_awaited => agent.talk.rest(now),
            Reply::Refused if is_awaited => {
                agent.talk.is_registered = false;
                agent.talk.rest(now);
            }
            _ => {}
        }
        Ok(())
    }

    fn register(&self) -> Register {
        let number = self.id.0.as_u128() - 0x1000;
        Register {
            boot: self.host.client.boot,
            facts: Facts {
                machine: self.machine,
                firmware: Firmware::Uefi,
                product: "simulated".to_owned(),
                cpus: 4,
                cpu_model: "simulated".to_owned(),
                memory: self.memory,
                disks: Vec::new(),
                nics: Vec::new(),
            },
            roles: self.roles.clone(),
            version: "0.1.0".to_owned(),
            kernel: "6.12".to_owned(),
            slot: Slot::A,
            disk_serial: format!("S{number}"),
            address: format!("10.0.0.{}", number + 1),
            phases: Vec::new(),
        }
    }
}
