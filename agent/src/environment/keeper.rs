//! All environments of this node: one worker each, woken by orders, ends of inits and the node's own going down.
//!
//! It starts with the assignments that were ordered last in this boot, so that a restart of the agent while the center is away goes on
//! with what was asked for. Before the first orders of a boot it does nothing.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use anyhow::{Context as _, Result};
use lodge_model::api::Orders;
use lodge_model::environment::order::{Assignment, Report, State, Task, TemplateRef};
use lodge_model::ids::{Digest, EnvironmentId};
use tokio::sync::mpsc as tokio_mpsc;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};

use super::report::{Reports, Running};
use super::tasks::{self, Import, Tasks};
use super::warm;
use super::worker::{Event, Message, Surroundings, Worker};
use crate::durable;

/// The assignments of the newest orders of this boot.
pub const ASSIGNMENTS: &str = "/run/lodge/assignments.json";

const STACK: usize = 512 << 10;
/// What is on this node and nobody has spoken of is looked for this often: it was there before this agent, or an accident left it.
const ROUND: Duration = Duration::from_secs(30);

/// What wakes the keeper, besides its workers.
pub struct Wakers {
    /// The center's orders.
    pub orders: watch::Receiver<Option<Orders>>,
    /// When the node goes down, the time by which nothing may be left.
    pub leaving: watch::Receiver<Option<Duration>>,
    /// Every time that the share comes into order.
    pub share: watch::Receiver<bool>,
    /// Processes that have ended, after `Exits` knows of them.
    pub exits: tokio_mpsc::UnboundedReceiver<i32>,
    /// What the workers say.
    pub events: tokio_mpsc::UnboundedReceiver<Event>,
}

/// All environments of this node.
pub struct Keeper {
    around: Surroundings,
    assignments: PathBuf,
    hands: BTreeMap<EnvironmentId, Hand>,
    is_assigned: bool,
    tasks: Tasks,
    crew: Crew,
    wanted: BTreeMap<Digest, bool>,
    leaving: Option<Duration>,
}

/// Who does the work: threads, or a simulator.
pub struct Crew {
    /// Lets a worker work on what comes through its inbox, until that is closed.
    pub employ: Box<dyn FnMut(EnvironmentId, Worker, mpsc::Receiver<Message>) -> Result<()> + Send + Sync>,
    /// Whoever makes and removes templates on the share.
    pub templates: mpsc::Sender<Task>,
    /// Whoever fetches templates beforehand.
    pub warm: mpsc::Sender<TemplateRef>,
}

impl Crew {
    /// A thread each.
    pub fn threads(around: &Surroundings, import: Import) -> Result<Self> {
        let employ = |id: EnvironmentId, worker: Worker, messages: mpsc::Receiver<Message>| {
            let name: String = format!("env-{id}").chars().take(15).collect();
            let thread = std::thread::Builder::new().name(name).stack_size(STACK);
            let started = thread.spawn(move || worker.run(&messages));
            started.map(drop).with_context(|| format!("starting a thread for environment {id}"))
        };
        let templates = tasks::start_templates(around.clone(), import)?;
        Ok(Self { employ: Box::new(employ), templates, warm: warm::start(around.clone())? })
    }
}

/// A worker, seen from here.
struct Hand {
    inbox: mpsc::Sender<Message>,
    sent: u64,
    heard: u64,
    order: Option<Assignment>,
    report: Option<Report>,
    init: Option<i32>,
    is_gone: bool,
}

impl Keeper {
    /// Nothing is done yet. Outcomes of tasks and assignments are kept below these paths, which must be empty after a boot.
    pub fn new(around: Surroundings, crew: Crew, kept: &Kept) -> Self {
        Self {
            around,
            assignments: kept.assignments.clone(),
            hands: BTreeMap::new(),
            is_assigned: false,
            tasks: Tasks::read(&kept.tasks),
            crew,
            wanted: BTreeMap::new(),
            leaving: None,
        }
    }

    /// Keep them for as long as the agent lives.
    pub async fn run(mut self, mut wakers: Wakers, reports: watch::Sender<Reports>) -> Result<()> {
        reports.send_modify(|reports| reports.is_kept = true);
        let found = self.found().await?;
        // Before the first assignment: a boot that has said its last word starts nothing.
        let leaving = *wakers.leaving.borrow_and_update();
        leaving.map_or(Ok(()), |by| self.leave(by, found.clone()))?;
        self.begin(found)?;
        // The first is at once, when it is known what is assigned.
        let mut round = interval(ROUND);
        round.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                // Words of workers first: an end is told only to the worker that is known to have that init.
                biased;
                Some(event) = wakers.events.recv() => self.heard(event)?,
                Some(pid) = wakers.exits.recv() => self.wake(pid),
                changed = wakers.leaving.changed() => {
                    changed.context("waiting for the node to go down")?;
                    let leaving = *wakers.leaving.borrow_and_update();
                    if let Some(by) = leaving {
                        let found = self.found().await?;
                        self.leave(by, found)?;
                    }
                }
                changed = wakers.share.changed() => {
                    changed.context("waiting for the share")?;
                    if *wakers.share.borrow_and_update() {
                        self.share_is_back();
                    }
                }
                changed = wakers.orders.changed() => {
                    changed.context("waiting for orders")?;
                    let orders = wakers.orders.borrow_and_update().clone();
                    if let Some(orders) = orders {
                        self.ordered(orders)?;
                    }
                }
                _ = round.tick(), if self.is_assigned => {
                    let found = self.found().await?;
                    self.noticed(found)?;
                }
            }
            let now = self.reports();
            reports.send_if_modified(|last| std::mem::replace(last, now.clone()) != now);
        }
    }

    /// What is found on the node. A look that fails is repeated in the next round.
    async fn found(&self) -> Result<BTreeSet<EnvironmentId>> {
        let host = Arc::clone(&self.around.host);
        let found = tokio::task::spawn_blocking(move || host.list()).await.context("waiting for a thread")?;
        Ok(found.unwrap_or_else(|error| {
            tracing::warn!("looking for environments on this node: {error:#}");
            BTreeSet::new()
        }))
    }

    /// Go on with what was assigned last in this boot, if anything was.
    pub fn begin(&mut self, found: BTreeSet<EnvironmentId>) -> Result<()> {
        match read(&self.assignments) {
            Some(assignments) => self.assigned(assignments).and_then(|()| self.noticed(found)),
            None => Ok(()),
        }
    }

    /// Take orders in.
    pub fn ordered(&mut self, orders: Orders) -> Result<()> {
        self.assigned(orders.environments)?;
        self.wanted.retain(|digest, _| orders.warm.iter().any(|template| template.digest == *digest));
        for template in orders.warm {
            if self.wanted.contains_key(&template.digest) {
                continue;
            }
            self.wanted.insert(template.digest.clone(), false);
            self.crew.warm.send(template).map_err(|_| anyhow::anyhow!("the thread that fetches templates has ended"))?;
        }
        for task in self.tasks.ordered(&orders.tasks) {
            tracing::info!("task {}: {:?}", task.id, task.what);
            match tasks::environment(&task.what) {
                Some(id) => self.hand(id)?.send(Message::Task(Box::new(task))),
                None => {
                    let sent = self.crew.templates.send(task);
                    sent.map_err(|_| anyhow::anyhow!("the thread of the templates has ended"))?;
                }
            }
        }
        Ok(())
    }

    /// What is assigned; what else is known here or noted is not.
    fn assigned(&mut self, assignments: Vec<Assignment>) -> Result<()> {
        let text = serde_json::to_vec(&assignments).context("encoding the assignments")?;
        durable::write(&self.assignments, &text, 0o600)?;
        self.is_assigned = true;
        let mut ids = self.around.book.list();
        ids.extend(self.hands.keys());
        ids.extend(assignments.iter().map(|assignment| assignment.id));
        for id in ids {
            let order = assignments.iter().find(|assignment| assignment.id == id).cloned();
            self.hand(id)?.order(order);
        }
        Ok(())
    }

    /// What is found here, and not known, is not assigned. Only once it is known what is.
    pub fn noticed(&mut self, found: BTreeSet<EnvironmentId>) -> Result<()> {
        for id in found {
            if !self.hands.contains_key(&id) {
                self.hand(id)?.order(None);
            }
        }
        Ok(())
    }

    /// Everything is taken down by then, also what is found and not known.
    pub fn leave(&mut self, by: Duration, found: BTreeSet<EnvironmentId>) -> Result<()> {
        self.leaving = Some(by);
        for id in found {
            self.hand(id)?;
        }
        for hand in self.hands.values_mut() {
            hand.send(Message::Leave(by));
        }
        Ok(())
    }

    /// What failed is tried at once.
    pub fn share_is_back(&mut self) {
        self.hands.values_mut().for_each(|hand| hand.send(Message::ShareBack));
    }

    /// The worker of an environment; it is made where there is none.
    fn hand(&mut self, id: EnvironmentId) -> Result<&mut Hand> {
        if !self.hands.contains_key(&id) {
            let (inbox, messages) = mpsc::channel();
            (self.crew.employ)(id, Worker::new(id, self.around.clone()), messages)?;
            let mut hand = Hand { inbox, sent: 0, heard: 0, order: None, report: None, init: None, is_gone: false };
            if let Some(by) = self.leaving {
                hand.send(Message::Leave(by));
            }
            self.hands.insert(id, hand);
        }
        self.hands.get_mut(&id).with_context(|| format!("finding the worker of environment {id}"))
    }

    /// A process has ended.
    pub fn wake(&mut self, pid: i32) {
        for hand in self.hands.values_mut().filter(|hand| hand.init == Some(pid)) {
            hand.send(Message::Wake);
        }
    }

    /// A worker has said something.
    pub fn heard(&mut self, event: Event) -> Result<()> {
        match event {
            // One that was not fetched is tried again with the next orders.
            Event::Warm { digest, is_here: false } => drop(self.wanted.remove(&digest)),
            Event::Warm { digest, is_here: true } => {
                if let Some(is_here) = self.wanted.get_mut(&digest) {
                    *is_here = true;
                }
            }
            Event::Task { id, outcome } => self.tasks.took(id, outcome)?,
            Event::Step { id, step } => {
                if let Some(report) = self.hands.get_mut(&id).and_then(|hand| hand.report.as_mut()) {
                    report.state = State::Preparing { step };
                }
            }
            Event::Seen { id, report, init, is_gone, heard } => {
                let Some(hand) = self.hands.get_mut(&id) else { return Ok(()) };
                (hand.report, hand.init, hand.is_gone, hand.heard) = (report, init, is_gone, heard);
                // Not while a message is on its way, or a second worker would be started beside this one.
                if hand.is_gone && hand.order.is_none() && hand.heard == hand.sent {
                    self.hands.remove(&id);
                }
            }
        }
        Ok(())
    }

    /// Everything there is to say.
    pub fn reports(&self) -> Reports {
        Reports {
            environments: self.hands.values().filter_map(|hand| hand.report.clone()).collect(),
            tasks: self.tasks.reports(),
            warm: self.wanted.iter().filter(|(_, is_here)| **is_here).map(|(digest, _)| digest.clone()).collect(),
            running: self.hands.iter().filter_map(|(id, hand)| hand.running(*id)).collect(),
            is_kept: true,
            all_gone: self.leaving.is_some() && self.hands.values().all(|hand| hand.is_gone && hand.heard == hand.sent),
        }
    }
}

impl Hand {
    fn running(&self, id: EnvironmentId) -> Option<Running> {
        let State::Running { since } = self.report.as_ref()?.state else { return None };
        let order = self.order.as_ref()?;
        let addresses = order.addresses.iter().map(|address| address.ip).collect();
        Some(Running { id, name: order.name.clone(), init: self.init?, since, addresses })
    }

    fn order(&mut self, order: Option<Assignment>) {
        if self.sent == 0 || self.order != order {
            self.order.clone_from(&order);
            self.send(Message::Order(order.map(Box::new)));
        }
    }

    fn send(&mut self, message: Message) {
        self.sent += 1;
        // A worker ends when this end is dropped, never before.
        if self.inbox.send(message).is_err() {
            tracing::error!("a worker has ended");
        }
    }
}

/// Where the keeper keeps what must survive it.
#[derive(Clone, Debug)]
pub struct Kept {
    /// Directory of the tasks' outcomes.
    pub tasks: PathBuf,
    /// File of the assignments.
    pub assignments: PathBuf,
}

impl Default for Kept {
    fn default() -> Self {
        Self { tasks: tasks::DIR.into(), assignments: ASSIGNMENTS.into() }
    }
}

fn read(path: &Path) -> Option<Vec<Assignment>> {
    let text = std::fs::read(path).ok()?;
    match serde_json::from_slice(&text) {
        Ok(assignments) => Some(assignments),
        Err(error) => {
            tracing::warn!("reading {}: {error}; waiting for the center", path.display());
            None
        }
    }
}
