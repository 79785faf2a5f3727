//! Everything together: one queue of events, one clock, and what each event does.

use std::sync::{Arc, Mutex};

use anyhow::{Context as _, Result};
use lodge_center::auth::Caller;
use lodge_center::environments::pools;
use lodge_center::environments::records::Environment;
use lodge_center::flow::refresh_all;
use lodge_center::records::{Machine as MachineRecord, NameClaim, Node as NodeRecord};
use lodge_center::templates::{State as TemplateState, Template};
use lodge_model::environment::order::{TemplateMeta, TemplateRef};
use lodge_model::environment::view::Pool;
use lodge_model::ids::{BootId, Digest, EnvironmentId};
use lodge_model::layout::{GIB, MIB};
use lodge_model::node::Role;

use crate::center::{Center, Reply, Request};
use crate::clock::{Millis, Queue, timestamp};
use crate::fence::SHARE;
use crate::host::open;
use crate::leave::{Next, signer};
use crate::machine::Node;
use crate::network::Weather;
use crate::record::Record;
use crate::share::{Client, Share};

/// Something broke, and when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    /// What.
    pub what: String,
    /// Everything that happened.
    pub log: String,
}

/// A cluster.
pub struct Simulation {
    /// The time.
    pub now: Millis,
    pub(crate) random: fastrand::Rng,
    pub(crate) weather: Weather,
    pub(crate) center: Center,
    pub(crate) nodes: Vec<Node>,
    pub(crate) share: Arc<Mutex<Share>>,
    pub(crate) record: Record,
    pub(crate) broken: Option<String>,
    queue: Queue<Event>,
    center_at: Millis,
    exchanges: u64,
    boots: u128,
    runs: Vec<(EnvironmentId, usize, u64)>,
    _dir: tempfile::TempDir,
}

/// What happens.
enum Event {
    /// A request reaches the center.
    Ask { node: usize, boot: BootId, exchange: u64, request: Request },
    /// An answer reaches a node.
    Answer { node: usize, boot: BootId, run: u64, exchange: u64, reply: Reply },
    /// A node looks at everything.
    Look { node: usize, boot: BootId },
    /// The second is over: environments write, the share is proved, what goes down goes on.
    Second { node: usize, boot: BootId },
    /// The agent is started by init.
    Agent { node: usize, boot: BootId },
    /// The machine is switched on, or starts again.
    Boot { node: usize },
    /// The center looks at what is due.
    Center,
}

/// A machine takes so long from power to agent.
const BOOT: Millis = 8000;
/// init starts an agent that has ended after so long.
const AGENT: Millis = 1000;

impl Simulation {
    /// A center with the share, and workers of so many bytes of memory; all of them on.
    pub fn new(seed: u64, workers: &[u64], is_recorded: bool) -> Result<Self> {
        let signer = signer()?;
        let dir = match std::path::Path::new("/dev/shm") {
            memory if memory.is_dir() => tempfile::tempdir_in(memory),
            _ => tempfile::tempdir(),
        };
        let dir = dir.context("making a directory for the nodes' files")?;
        let share: Arc<Mutex<Share>> = Arc::default();
        let at =
            |number: usize, name: &str, roles: Vec<Role>, memory| Node::new(number, name, roles, memory, &share, dir.path());
        let mut nodes = vec![at(0, "center1", vec![Role::Center, Role::Share], 4 * GIB)];
        nodes.extend(
            workers
                .iter()
                .enumerate()
                .map(|(number, memory)| at(number + 1, &format!("n{}", number + 1), vec![Role::Worker], *memory)),
        );
        let mut simulation = Self {
            now: 0,
            random: fastrand::Rng::with_seed(seed),
            weather: Weather::GOOD,
            center: Center::new(signer.ca.path(), signer.der.clone())?,
            nodes,
            share,
            record: Record::new(is_recorded),
            broken: None,
            queue: Queue::new(),
            center_at: Millis::MAX,
            exchanges: 0,
            boots: 0x9000,
            runs: Vec::new(),
            _dir: dir,
        };
        simulation.admit()?;
        for node in 0..simulation.nodes.len() {
            simulation.boot(node)?;
        }
        simulation.plan_center(1);
        Ok(simulation)
    }

    /// What an operator has done before: nodes are admitted, there is a template and a pool of addresses.
    fn admit(&mut self) -> Result<()> {
        let nodes: Vec<_> =
            self.nodes.iter().map(|node| (node.id, node.machine, node.name.clone(), node.roles.clone())).collect();
        let done = self.center.transact(|tx, _| {
            let at = timestamp(0);
            for (id, machine, name, roles) in &nodes {
                let node = NodeRecord {
                    certificate: Some("00".to_owned()),
                    ..NodeRecord::new(*id, *machine, name, roles.clone(), at)
                };
                tx.put(&NameClaim { name: name.clone(), node: *id })?;
                tx.put(&machine_record(*machine, *id))?;
                tx.put(&node)?;
            }
            refresh_all(tx, at)?;
            let meta = TemplateMeta { stop_seconds: 20, ..TemplateMeta::default() };
            let image = TemplateRef { digest: Digest::from_digest([7; 32]), size: 64 * MIB, meta };
            tx.put(&Template { name: "tiny".to_owned(), created: at, state: TemplateState::Ready { image }, version: 1 })?;
            pools::add(tx, &pool(), at).map(drop)
        });
        done.map_err(anyhow::Error::msg)
    }

    /// Go on until this time, or until something breaks.
    pub fn run_until(&mut self, end: Millis) -> Result<()> {
        while self.broken.is_none() && self.queue.next_at().is_some_and(|at| at <= end) {
            let Some((at, event)) = self.queue.pop() else { break };
            self.now = at;
            self.happens(event).with_context(|| format!("at {at} ms"))?;
            if self.broken.is_none() {
                self.broken = self.center.failure.take();
            }
        }
        self.now = self.now.max(end);
        Ok(())
    }

    /// What broke, if anything did.
    pub fn broken(&self) -> Option<Broken> {
        let what = self.broken.clone()?;
        Some(Broken { log: self.record.text() + &what + "\n", what })
    }

    fn happens(&mut self, event: Event) -> Result<()> {
        match event {
            Event::Ask { node, boot, exchange, request } => self.asked(node, boot, exchange, &request),
            Event::Answer { node, boot, run, exchange, reply } => self.answered(node, boot, run, exchange, reply),
            Event::Look { node, boot } if self.nodes[node].look_at == self.now => {
                self.nodes[node].look_at = Millis::MAX;
                self.look(node, boot)
            }
            Event::Look { .. } => Ok(()),
            Event::Second { node, boot } => self.second(node, boot),
            Event::Agent { node, boot } => self.start_agent(node, boot),
            Event::Boot { node } => self.boot(node),
            Event::Center => {
                if self.center_at == self.now {
                    self.center_at = Millis::MAX;
                    self.attend();
                }
                Ok(())
            }
        }
    }

    // ---- the center ----------------------------------------------------------------------------------------------------

    fn asked(&mut self, node: usize, boot: BootId, exchange: u64, request: &Request) -> Result<()> {
        if !self.center.is_up || !self.nodes[node].reaches_center {
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
    fn reply(&mut self, node: usize, boot: BootId, exchange: u64, reply: &Reply) {
        let run = self.nodes[node].agent.as_ref().map_or(0, |agent| agent.run);
        for arrival in self.weather.arrivals(&mut self.random) {
            self.queue.plan(self.now + arrival, Event::Answer { node, boot, run, exchange, reply: reply.clone() });
        }
    }

    /// What the center does by itself, now.
    fn attend(&mut self) {
        if !self.center.is_up {
            return;
        }
        if self.center.plan_at <= self.now {
            self.center.plan(self.now);
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

    fn plan_center(&mut self, at: Millis) {
        if at < self.center_at {
            self.center_at = at;
            self.queue.plan(at, Event::Center);
        }
    }

    fn plan_look(&mut self, node: usize, at: Millis) {
        if at < self.nodes[node].look_at {
            self.nodes[node].look_at = at;
            let boot = self.nodes[node].host.client.boot;
            self.queue.plan(at, Event::Look { node, boot });
        }
    }

    /// Its process is killed.
    pub(crate) fn kill_center(&mut self) {
        self.record.say(self.now, "world", "the center is killed");
        self.center.kill();
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

    // ---- nodes ---------------------------------------------------------------------------------------------------------

    fn is_there(&self, node: usize, boot: BootId) -> bool {
        let node = &self.nodes[node];
        node.is_on && node.host.client.boot == boot
    }

    fn answered(&mut self, node: usize, boot: BootId, run: u64, exchange: u64, reply: Reply) -> Result<()> {
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
    fn look(&mut self, node: usize, boot: BootId) -> Result<()> {
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
    fn say(&mut self, node: usize) -> Result<()> {
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

    fn second(&mut self, node: usize, boot: BootId) -> Result<()> {
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
            self.power_off(node, why);
            self.queue.plan(now + 2000, Event::Boot { node });
            return Ok(());
        }
        self.look(node, boot)
    }

    /// The log says what starts and what ends.
    fn tell_of_copies(&mut self, node: usize) {
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

    fn start_agent(&mut self, node: usize, boot: BootId) -> Result<()> {
        if !self.is_there(node, boot) || self.nodes[node].agent.is_some() {
            return Ok(());
        }
        let now = self.now;
        let machine = &mut self.nodes[node];
        machine.start_agent(now)?;
        if let Some(going) = &mut machine.going {
            going.begin_again(now);
        }
        self.look(node, boot)
    }

    /// The machine starts.
    fn boot(&mut self, node: usize) -> Result<()> {
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
    fn goes_off(&mut self, node: usize) -> Result<()> {
        let starts_again =
            self.nodes[node].going.as_ref().is_some_and(|going| going.power == lodge_model::drain::Power::Reboot);
        self.power_off(node, "is off, in order");
        if starts_again {
            self.queue.plan(self.now + 2000, Event::Boot { node });
        }
        Ok(())
    }

    /// Whether the share hears it.
    fn hear_of(&mut self, node: usize) {
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

// ---- what happens to machines, for scenarios and schedules -------------------------------------------------------------------

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

fn machine_record(id: lodge_model::ids::MachineId, node: lodge_model::ids::NodeId) -> MachineRecord {
    MachineRecord {
        id,
        facts: None,
        asked_name: None,
        order: None,
        node: Some(node),
        ticket: None,
        reason: String::new(),
        step: None,
        install: Vec::new(),
        seen: timestamp(0),
    }
}

fn pool() -> Pool {
    let ip = |last: u8| std::net::IpAddr::from([10, 0, 1, last]);
    Pool { name: "v4".to_owned(), first: ip(1), last: ip(250), prefix: 24, gateway: None, dns: Vec::new() }
}
