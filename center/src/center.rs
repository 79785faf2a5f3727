//! The center as a whole: what every handler shares.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Context;
use jiff::Timestamp;
use lodge_model::api::{Decision, Heartbeat, Orders};
use lodge_model::environment::order::TaskOutcome;
use lodge_model::ids::{MachineId, NodeId};
use lodge_model::timing::{HEARTBEAT, LONG_POLL, SILENT_AFTER};
use tokio::time::{Instant, MissedTickBehavior, timeout_at};

use crate::boot::bundle::{Bundle, Bundles};
use crate::console::Consoles;
use crate::failover::drive::Errand;
use crate::failover::look::{begin, look};
use crate::fault::Fault;
use crate::flow::machine::{self, BundleUrl};
use crate::flow::{World, node};
use crate::planning::Planning;
use crate::records::Node;
use crate::sessions::Sessions;
use crate::store::{Store, Tx};
use crate::templates;
use crate::uploads::Uploads;

/// How long an enrolment waits for the share to let the new address in before it answers anyway. Less than the 10 s that
/// the client gives a call.
const SHARE_WAIT: Duration = Duration::from_secs(8);

/// Silent nodes are looked for this often.
const GUARD_PERIOD: Duration = Duration::from_secs(1);

/// What every handler shares.
pub struct Center {
    /// The records.
    pub store: Store,
    /// What the flows need besides.
    pub world: Arc<World>,
    /// Console logs.
    pub consoles: Consoles,
    /// Bundles.
    pub bundles: Arc<Bundles>,
    /// Templates on their way to the share.
    pub uploads: Uploads,
    /// Clients that wait for an agent.
    pub sessions: Arc<Sessions>,
    /// `http://ADDRESS:PORT/boot/`, where boot files and bundles are served; absent where they are not.
    pub boot_url: Option<String>,
    /// When environments are to be looked at as a whole next.
    pub planning: Planning,
    /// Nodes that an errand is about.
    errands: Mutex<BTreeSet<NodeId>>,
}

/// What lies in the data directory besides the database.
pub struct Files {
    /// Console logs.
    pub consoles: Consoles,
    /// Bundles.
    pub bundles: Bundles,
    /// Templates on their way to the share.
    pub uploads: Uploads,
}

impl Center {
    /// Put together.
    pub fn new(store: Store, world: World, files: Files, boot_url: Option<String>) -> Self {
        let Files { consoles, bundles, uploads } = files;
        let (world, bundles, sessions) = (Arc::new(world), Arc::new(bundles), Arc::new(Sessions::new()));
        let (planning, errands) = (Planning::default(), Mutex::default());
        Self { store, world, consoles, bundles, uploads, sessions, boot_url, planning, errands }
    }

    /// The time, as the host has it now: the flows take it as an argument and bear a clock that is set.
    pub fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    /// The newest bundle, or why there is none.
    pub async fn bundle(&self) -> Result<Result<Arc<Bundle>, String>, Fault> {
        let bundles = Arc::clone(&self.bundles);
        Ok(tokio::task::spawn_blocking(move || bundles.newest()).await.context("joining a bundle task")?)
    }

    /// Where a ticket says that the bundle is.
    pub async fn bundle_url(&self) -> Result<BundleUrl, Fault> {
        let Some(base) = &self.boot_url else {
            return Ok(Err("this center serves no bundles: start it with --boot-listen or --netboot".to_owned()));
        };
        Ok(self.bundle().await?.map(|_| format!("{base}{}", lodge_model::paths::BUNDLE_NAME)))
    }

    /// What is decided about a machine: at once, or when what it waits for changes, or when a long poll's time is up.
    pub async fn decision(&self, id: MachineId) -> Result<Decision, Fault> {
        let deadline = Instant::now() + LONG_POLL;
        let mut changes = self.store.changes();
        let mut first = None;
        loop {
            changes.mark_unchanged();
            let (world, bundle, now) = (Arc::clone(&self.world), self.bundle_url().await?, self.now());
            let ask = move |tx: &Tx| machine::decision(tx, &world, &bundle, id, now);
            let decision = self.store.transact(ask).await?;
            let is_same = *first.get_or_insert_with(|| decision.clone()) == decision;
            let goes_on = is_same && matches!(decision, Decision::Wait { .. });
            if !goes_on || timeout_at(deadline, changes.changed()).await.is_err() {
                return Ok(decision);
            }
        }
    }

    /// Take in a heartbeat and hold its answer until there is something to tell, `timing::HEARTBEAT` at most.
    pub async fn heartbeat(&self, id: NodeId, said: Heartbeat) -> Result<Orders, Fault> {
        let deadline = Instant::now() + HEARTBEAT;
        let mut changes = self.store.changes();
        let mut calls = self.sessions.calls();
        changes.mark_unchanged();
        let (world, now, boot) = (Arc::clone(&self.world), self.now(), said.boot);
        let has_results = said.tasks.iter().any(|task| !matches!(task.outcome, TaskOutcome::Running { .. }));
        let mut orders = self.transact_and_plan(move |tx| node::beat(tx, &world, id, &said, now)).await?;
        if has_results && let Err(Fault::Internal(error)) = self.clean_uploads().await {
            tracing::error!("removing uploads that are not needed: {error:#}");
        }
        loop {
            calls.mark_unchanged();
            let (sessions, is_called) = self.sessions.tell(id);
            orders.sessions = sessions;
            if orders.register_again || self.world.live.is_news(id, boot, orders.generation) || is_called {
                return Ok(orders);
            }
            let news = async {
                tokio::select! { _ = changes.changed() => {}, _ = calls.changed() => {} }
            };
            if timeout_at(deadline, news).await.is_err() {
                return Ok(orders);
            }
            orders = self.store.transact(move |tx| node::orders(tx, id)).await?;
        }
    }

    /// Remove the uploads that nothing waits for any more.
    pub async fn clean_uploads(&self) -> Result<(), Fault> {
        let held = self.uploads.hold().await;
        let wanted = self.store.transact(templates::uploads).await?;
        Ok(self.uploads.keep_only(&wanted, &held)?)
    }

    /// Wait until a node has carried out a generation of its orders; not for long, and not for one that does not answer.
    pub async fn carried_out(&self, id: NodeId, generation: u64) -> Result<(), Fault> {
        let deadline = Instant::now() + SHARE_WAIT;
        let mut changes = self.store.changes();
        loop {
            changes.mark_unchanged();
            let node = self.store.transact(move |tx| tx.get::<Node>(&id)).await?;
            let Some(node) = node.filter(|node| node.carried_out < generation && self.is_alive(node)) else {
                return Ok(());
            };
            if timeout_at(deadline, changes.changed()).await.is_err() {
                tracing::warn!("{} has not carried out generation {generation} of its orders in time", node.name);
                return Ok(());
            }
        }
    }

    fn is_alive(&self, node: &Node) -> bool {
        let seen = self.world.live.last(node.id, node.seen);
        let limit = jiff::SignedDuration::try_from(SILENT_AFTER).unwrap_or(jiff::SignedDuration::ZERO);
        node.off.is_none() && seen.is_some_and(|seen| self.now().duration_since(seen) <= limit)
    }

    /// Look after the nodes that fall silent, for as long as the center runs. By the clock: silence sends no word.
    pub async fn guard(self: Arc<Self>) {
        let began = Instant::now();
        let now = self.now();
        if let Err(Fault::Internal(error)) = self.store.transact(move |tx| begin(tx, now)).await {
            tracing::error!("noting that the center was away: {error:#}");
        }
        let mut tick = tokio::time::interval(GUARD_PERIOD);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            let (world, now, up_for) = (Arc::clone(&self.world), self.now(), began.elapsed());
            match self.store.transact(move |tx| look(tx, &world, up_for, now)).await {
                Ok(errands) => errands.into_iter().for_each(|errand| self.run_errand(errand)),
                Err(Fault::Internal(error)) => tracing::error!("looking after silent nodes: {error:#}"),
                Err(Fault::Refused(..)) => {}
            }
        }
    }

    /// Begin with an errand, unless one about the same node is being run.
    fn run_errand(self: &Arc<Self>, errand: Errand) {
        if !self.errands().insert(errand.node) {
            return;
        }
        let center = Arc::clone(self);
        tokio::spawn(async move {
            let outcome = errand.run(&center.store).await.map_err(|error| format!("{error:#}"));
            let (world, now, done) = (Arc::clone(&center.world), center.now(), errand.clone());
            if let Err(Fault::Internal(error)) = center.store.transact(move |tx| done.ended(tx, &world, &outcome, now)).await {
                tracing::error!("noting what a BMC has done: {error:#}");
            }
            center.errands().remove(&errand.node);
        });
    }

    fn errands(&self) -> MutexGuard<'_, BTreeSet<NodeId>> {
        self.errands.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Log what time alone changes, for as long as the center runs. It begins late: after the center was away it is the center
    /// that has not listened, and the nodes get the time to say so.
    pub async fn watch(self: Arc<Self>) {
        tokio::time::sleep(SILENT_AFTER).await;
        let mut tick = tokio::time::interval(HEARTBEAT);
        loop {
            tick.tick().await;
            let (world, now) = (Arc::clone(&self.world), self.now());
            let look = move |tx: &Tx| {
                node::look_around(tx, &world, now)?;
                templates::look_around(tx, now)
            };
            if let Err(Fault::Internal(error)) = self.store.transact(look).await {
                tracing::error!("looking for silent nodes and for what is due: {error:#}");
            }
        }
    }
}
