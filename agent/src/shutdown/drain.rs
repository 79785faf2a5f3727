//! The first part of every shutdown: the node tells the center that it leaves, whatever the cause, and goes on when its certificate has
//! been issued or the time for it is over. What is left then is stopped here, as without a center.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result};
use lodge_client::Center;
use lodge_model::drain::{self, DEADLINES, Leaving, LeavingReply, Power};
use lodge_model::ids::TaskId;
use lodge_model::initproto::{Cause, Down, Request};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use crate::backoff::Backoff;
use crate::init;
use crate::moments::since_boot;
use crate::session::boot_id;

/// Pauses between tries to reach the center, which cannot say when it is back.
const RETRY_MAX: Duration = Duration::from_secs(2);
/// What the center is late with at its own deadline.
const GRACE: Duration = Duration::from_secs(3);
/// What init waits longer than the center's word goes.
const MARGIN: u32 = 10;

/// A node that leaves.
pub struct LeavingNode {
    /// init's socket.
    pub init: PathBuf,
    /// The center, once the node has one.
    pub center: watch::Receiver<Option<Center>>,
    /// The certificate that has been issued last.
    pub issued: watch::Receiver<Option<TaskId>>,
}

impl LeavingNode {
    /// Be drained: until the certificate is issued, or the center's time is over, or, while there is no center, for `alone`. When the
    /// machine must be down, as time since the kernel started: `end`, or what the center's settings say.
    pub async fn drain(&self, down: Down, cause: Cause, end: Duration, alone: Duration) -> Duration {
        if self.center.borrow().is_none() {
            return end;
        }
        let began = since_boot();
        let Ok((center, reply)) = timeout(alone, self.tell(down, cause)).await else {
            tracing::warn!("the center does not answer: what runs here is stopped here");
            return end;
        };
        let end = self.hold(began, &reply, end).await;
        tracing::info!("told {} that this node leaves; it has {} s to move what runs here", center.url(), reply.seconds);
        let mut issued = self.issued.clone();
        let limit = Duration::from_secs(reply.seconds.into()) + GRACE;
        match timeout(limit, issued.wait_for(|issued| *issued == Some(reply.id))).await {
            Ok(Ok(_)) => {}
            Ok(Err(_)) => tracing::warn!("nobody counts what is left on this node any more"),
            Err(_) => tracing::warn!("the time to move is over; what is left is stopped here"),
        }
        end
    }

    /// Wait for the certificate of the stops that were made here; not for long.
    pub async fn certified(&self, limit: Duration) {
        let before = *self.issued.borrow();
        let mut issued = self.issued.clone();
        if before.is_none() {
            let _ = timeout(limit, issued.wait_for(Option::is_some)).await;
        }
    }

    /// Until the center has taken it in.
    async fn tell(&self, down: Down, cause: Cause) -> (Center, LeavingReply) {
        let mut backoff = Backoff::up_to(RETRY_MAX);
        let mut complaint = String::new();
        loop {
            match self.tell_once(down, cause).await {
                Ok(told) => return told,
                Err(error) => {
                    let text = format!("telling the center that this node leaves: {error:#}");
                    if text != complaint {
                        tracing::warn!("{text}; trying again");
                        complaint = text;
                    }
                    sleep(backoff.pause()).await;
                }
            }
        }
    }

    async fn tell_once(&self, down: Down, cause: Cause) -> Result<(Center, LeavingReply)> {
        let center = self.center.borrow().clone().context("this node has no center yet")?;
        let leaving = Leaving { boot: boot_id()?, cause: cause_of(cause), power: power_of(down), seconds: *DEADLINES.end() };
        let reply = center.leaving(&leaving).await?;
        Ok((center, reply))
    }

    /// The center's settings may give more or less time than init does by itself.
    async fn hold(&self, began: Duration, reply: &LeavingReply, end: Duration) -> Duration {
        let wanted = began + Duration::from_secs(reply.total.into());
        if wanted <= end {
            return wanted;
        }
        match init::request(&self.init, &Request::Hold(reply.total.saturating_add(MARGIN))).await {
            Ok(()) => wanted,
            Err(error) => {
                tracing::warn!("{error:#}");
                end
            }
        }
    }
}

/// In the center's words.
pub fn cause_of(cause: Cause) -> drain::Cause {
    match cause {
        Cause::Button | Cause::CtrlAltDel => drain::Cause::Button,
        Cause::Power => drain::Cause::Ups,
        Cause::Request => drain::Cause::Request,
    }
}

/// In the center's words.
pub fn power_of(down: Down) -> Power {
    match down {
        Down::Poweroff | Down::Halt => Power::Poweroff,
        Down::Reboot => Power::Reboot,
    }
}

#[cfg(test)]
mod tests;
