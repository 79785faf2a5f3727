//! When environments are looked at as a whole: with the change that asks for it, in the same transaction, and by the clock for what only
//! time changes.
//!
//! In the same transaction, because what follows from a change is what somebody waits for: one way to the disk less, and whoever waits for
//! orders looks once. A plan that fails takes nothing of the change with it: the change is made alone, and planned again.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use lodge_model::timing::SILENT_AFTER;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use crate::center::Center;
use crate::environments::reconcile;
use crate::fault::Fault;
use crate::store::Tx;

/// At least this often: pauses run out, and nobody says so.
const PERIOD: Duration = Duration::from_secs(10);

/// When it was begun, and what is known of the next time.
pub struct Planning {
    began: Instant,
    next: watch::Sender<Option<Timestamp>>,
}

impl Default for Planning {
    fn default() -> Self {
        Self { began: Instant::now(), next: watch::channel(None).0 }
    }
}

impl Planning {
    /// Whether the nodes have had the time to say something: before that, silence means nothing.
    fn listens(&self) -> bool {
        self.began.elapsed() >= SILENT_AFTER
    }
}

impl Center {
    /// One transaction, with the plan if it asks for one.
    pub async fn transact_and_plan<T: Send + 'static>(
        &self,
        work: impl Fn(&Tx) -> Result<T, Fault> + Send + Sync + 'static,
    ) -> Result<T, Fault> {
        let (work, world) = (Arc::new(work), Arc::clone(&self.world));
        let (now, listens, both) = (self.now(), self.planning.listens(), Arc::clone(&work));
        let planned = move |tx: &Tx| {
            let done = both(tx)?;
            let next = if tx.takes_plan() { Some(reconcile::run(tx, &world, listens, now)?) } else { None };
            Ok((done, next))
        };
        match self.store.transact(planned).await {
            Ok((done, next)) => {
                if let Some(next) = next {
                    self.planning.next.send_replace(next);
                }
                Ok(done)
            }
            Err(Fault::Internal(_)) => self.store.transact(move |tx| work(tx)).await,
            Err(refused) => Err(refused),
        }
    }

    /// Keep environments as they are wanted, for as long as the center runs.
    pub async fn plan(self: Arc<Self>) {
        let (mut plans, mut next) = (self.store.plans(), self.planning.next.subscribe());
        loop {
            plans.mark_unchanged();
            let (world, now, listens) = (Arc::clone(&self.world), self.now(), self.planning.listens());
            match self.store.transact(move |tx| reconcile::run(tx, &world, listens, now)).await {
                Ok(known) => drop(self.planning.next.send_replace(known)),
                Err(Fault::Internal(error)) => {
                    tracing::error!("planning environments: {error:#}");
                    self.planning.next.send_replace(None);
                }
                Err(Fault::Refused(..)) => {}
            }
            loop {
                let known = *next.borrow_and_update();
                tokio::select! {
                    _ = plans.changed() => break,
                    // It was planned with a change.
                    _ = next.changed() => {}
                    () = sleep(self.pause(known)) => break,
                }
            }
        }
    }

    fn pause(&self, next: Option<Timestamp>) -> Duration {
        let until = next.map(|next| next.duration_since(self.now()));
        until.map_or(PERIOD, |until| Duration::try_from(until).unwrap_or(Duration::ZERO).min(PERIOD))
    }
}
