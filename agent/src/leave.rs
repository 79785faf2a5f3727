//! What a node does at the end of its drain, as its orders say: it counts what is left of environments, signs the count with its own key,
//! and goes down when that is wanted. A certificate that is not issued is tried again: the center cannot know when the count changes.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use lodge_client::{Center, KeyPem, sign_certificate};
use lodge_model::api::Orders;
use lodge_model::drain::{Certificate, Counts, Leave, Power};
use lodge_model::ids::{BootId, NodeId, TaskId};
use lodge_model::initproto::{Down, Request};
use tokio::sync::watch;

use crate::backoff::Backoff;
use crate::init;

const RETRY_MAX: Duration = Duration::from_secs(4);

/// Counts what is left. Blocking.
pub type Count = Arc<dyn Fn() -> Result<Counts> + Send + Sync>;

/// What the end of a drain needs to know of the node.
pub struct Leaver {
    /// The node.
    pub node: NodeId,
    /// This boot.
    pub boot: BootId,
    /// Its key.
    pub key: KeyPem,
    /// The center.
    pub center: Center,
    /// init's socket.
    pub init: PathBuf,
    /// Counts.
    pub count: Count,
    /// Its orders.
    pub orders: watch::Receiver<Option<Orders>>,
    /// The certificate that has been issued last.
    pub issued: watch::Sender<Option<TaskId>>,
}

impl Leaver {
    /// Follow the orders for as long as the agent lives.
    pub async fn run(mut self) -> Result<()> {
        let mut done: Option<Leave> = None;
        let mut backoff = Backoff::up_to(RETRY_MAX);
        let mut complaint = String::new();
        loop {
            let leave = self.orders.borrow_and_update().as_ref().and_then(|orders| orders.leave.clone());
            let leave = leave.filter(|leave| self.is_for_this_boot(leave) && done.as_ref() != Some(leave));
            let Some(leave) = leave else {
                self.orders.changed().await.context("waiting for orders")?;
                continue;
            };
            match self.carry_out(&leave).await {
                Ok(()) => {
                    backoff.reset();
                    complaint.clear();
                    done = Some(leave);
                }
                Err(error) => {
                    let text = format!("{error:#}");
                    if text != complaint {
                        tracing::warn!("{text}; trying again");
                        complaint = text;
                    }
                    tokio::select! {
                        () = tokio::time::sleep(backoff.pause()) => {}
                        changed = self.orders.changed() => changed.context("waiting for orders")?,
                    }
                }
            }
        }
    }

    fn is_for_this_boot(&self, leave: &Leave) -> bool {
        let (Leave::Certify { boot, .. } | Leave::GoDown { boot, .. }) = leave;
        *boot == self.boot
    }

    async fn carry_out(&self, leave: &Leave) -> Result<()> {
        match leave {
            Leave::Certify { id, .. } => self.certify(*id).await.context("certifying that nothing is left on this node"),
            Leave::GoDown { power, .. } => {
                tracing::info!("the center has this node go down: {power:?}");
                init::request(&self.init, &Request::Shutdown(down(*power))).await
            }
        }
    }

    async fn certify(&self, id: TaskId) -> Result<()> {
        let count = Arc::clone(&self.count);
        let counts = tokio::task::spawn_blocking(move || count()).await.context("waiting for a thread")??;
        let certificate = Certificate { id, node: self.node, boot: self.boot, at: unix_time(), counts };
        let reply = self.center.certify(&sign_certificate(&certificate, &self.key)?).await?;
        anyhow::ensure!(reply.issued, "{}", reply.why);
        tracing::info!("this node has been drained; its certificate is issued");
        self.issued.send_replace(Some(id));
        Ok(())
    }
}

/// Seconds since 1970, by this node's clock.
pub fn unix_time() -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_secs()).unwrap_or(i64::MAX)
}

fn down(power: Power) -> Down {
    match power {
        Power::Poweroff => Down::Poweroff,
        Power::Reboot => Down::Reboot,
    }
}
