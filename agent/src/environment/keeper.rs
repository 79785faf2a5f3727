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

use super::report::{Reports, Running};
use super::tasks::{self, Import, Tasks};
use super::warm;
use super::worker::{Event, Message, Surroundings, Worker};
use crate::durable;

/// The assignments of the newest orders of this boot.
pub const ASSIGNMENTS: &str = "/run/lodge/assignments.json";

const STACK: usize = 512 << 10;

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
    tasks: Tasks,
    templates: mpsc::Sender<Task>,
    warm: mpsc::Sender<TemplateRef>,
    wanted: BTreeMap<Digest, bool>,
    leaving: Option<Duration>,
    reports: watch::Sender<Reports>,
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
    pub fn new(around: Surroundings, import: Import, kept: &Kept, reports: watch::Sender<Reports>) -> Result<Self> {
        let templates = tasks::start_templates(around.clone(), import)?;
        let warm = warm::start(around.clone())?;
        Ok(Self {
            around,
            assignments: kept.assignments.clone(),
            hands: BTreeMap::new(),
            tasks: Tasks::read(&kept.tasks),
            templates,
            warm,
            wanted: BTreeMap::new(),
            leaving: None,
            reports,
        })
    }

    /// Keep them for as long as the agent lives.
    pub async fn run(mut self, mut wakers: Wakers) -> Result<()> {
        self.reports.send_modify(|reports| reports.is_kept = true);
        if let Some(assignments) = read(&self.assignments) {
            self.assigned(assignments).await?;
        }
        loop {
            tokio::select! {
                // Words of workers first: an end is told only to the worker that is known to have that init.
                biased;
                Some(event) = wakers.events.recv() => self.heard(event)?,
                Some(pid) = wakers.exits.recv() => self.wake(pid),
                changed = wakers.leaving.changed() => {
                    changed.context("waiting for the node to go down")?;
                    let leaving = *wakers.leaving.borrow_and_update();
                    self.leave(leaving).await?;
                }
                changed = wakers.share.changed() => {
                    changed.context("waiting for the share")?;
                    if *wakers.share.borrow_and_update() {
                        self.hands.values_mut().for_each(|hand| hand.send(Message::ShareBack));
                    }
                }
                changed = wakers.orders.changed() => {
                    changed.context("waiting for orders")?;
                    let orders = wakers.orders.borrow_and_update().clone();
                    self.ordered(orders).await?;
                }
            }
            self.publish();
        }
    }

    async fn ordered(&mut self, orders: Option<Orders>) -> Result<()> {
        let Some(orders) = orders else { return Ok(()) };
        self.assigned(orders.environments).await?;
        self.wanted.retain(|digest, _| orders.warm.iter().any(|template| template.digest == *digest));
        for template in orders.warm {
            if self.wanted.contains_key(&template.digest) {
                continue;
            }
            self.wanted.insert(template.digest.clone(), false);
            self.warm.send(template).map_err(|_| anyhow::anyhow!("the thread that fetches templates has ended"))?;
        }
        for task in self.tasks.ordered(&orders.tasks) {
            tracing::info!("task {}: {:?}", task.id, task.what);
            match tasks::environment(&task.what) {
                Some(id) => self.hand(id)?.send(Message::Task(Box::new(task))),
                None => self.templates.send(task).map_err(|_| anyhow::anyhow!("the thread of the templates has ended"))?,
            }
        }
        Ok(())
    }

    /// What is assigned, and what else is found here or noted.
    async fn assigned(&mut self, assignments: Vec<Assignment>) -> Result<()> {
        let text = serde_json::to_vec(&assignments).context("encoding the assignments")?;
        durable::write(&self.assignments, &text, 0o600)?;
        let mut ids = self.found().await?;
        ids.extend(self.around.book.list());
        ids.extend(self.hands.keys());
        ids.extend(assignments.iter().map(|assignment| assignment.id));
        for id in ids {
            let order = assignments.iter().find(|assignment| assignment.id == id).cloned();
            self.hand(id)?.order(order);
        }
        Ok(())
    }

    /// What is found on the node. A look that fails is repeated when the next orders come.
    async fn found(&self) -> Result<BTreeSet<EnvironmentId>> {
        let host = Arc::clone(&self.around.host);
        let found = tokio::task::spawn_blocking(move || host.list()).await.context("waiting for a thread")?;
        Ok(found.unwrap_or_else(|error| {
            tracing::warn!("looking for environments on this node: {error:#}");
            BTreeSet::new()
        }))
    }

    /// Everything is taken down by then, also what is found and not known.
    async fn leave(&mut self, leaving: Option<Duration>) -> Result<()> {
        let Some(by) = leaving else { return Ok(()) };
        self.leaving = Some(by);
        for id in self.found().await? {
            self.hand(id)?;
        }
        for hand in self.hands.values_mut() {
            hand.send(Message::Leave(by));
        }
        Ok(())
    }

    /// The worker of an environment; it is made where there is none.
    fn hand(&mut self, id: EnvironmentId) -> Result<&mut Hand> {
        if !self.hands.contains_key(&id) {
            let (inbox, messages) = mpsc::channel();
            let worker = Worker::new(id, self.around.clone());
            let name: String = format!("env-{id}").chars().take(15).collect();
            let thread = std::thread::Builder::new().name(name).stack_size(STACK);
            thread.spawn(move || worker.run(&messages)).with_context(|| format!("starting a thread for environment {id}"))?;
            let mut hand = Hand { inbox, sent: 0, heard: 0, order: None, report: None, init: None, is_gone: false };
            if let Some(by) = self.leaving {
                hand.send(Message::Leave(by));
            }
            self.hands.insert(id, hand);
        }
        self.hands.get_mut(&id).with_context(|| format!("finding the worker of environment {id}"))
    }

    fn wake(&mut self, pid: i32) {
        for hand in self.hands.values_mut().filter(|hand| hand.init == Some(pid)) {
            hand.send(Message::Wake);
        }
    }

    fn heard(&mut self, event: Event) -> Result<()> {
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

    fn publish(&self) {
        let all_gone = self.leaving.is_some() && self.hands.values().all(|hand| hand.is_gone && hand.heard == hand.sent);
        let reports = Reports {
            environments: self.hands.values().filter_map(|hand| hand.report.clone()).collect(),
            tasks: self.tasks.reports(),
            warm: self.wanted.iter().filter(|(_, is_here)| **is_here).map(|(digest, _)| digest.clone()).collect(),
            running: self.hands.iter().filter_map(|(id, hand)| hand.running(*id)).collect(),
            is_kept: true,
            all_gone,
        };
        self.reports.send_if_modified(|last| std::mem::replace(last, reports.clone()) != reports);
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
