//! Going down in order: init announces it, whatever the cause; the agent holds it back for who asked for that, has the node drained by
//! the center, stops what is left, says good-bye, and lets init proceed. init waits no longer than the cause's deadline, so nothing here can keep a machine up for ever.

pub mod drain;

use std::convert::Infallible;
use std::future::pending;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, bail};
use lodge_client::Center;
use lodge_model::initproto::{Cause, Down, Line, Request};
use lodge_model::timing;
use tokio::sync::watch;
use tokio::time::timeout;

use crate::backoff::Backoff;
use crate::environment::report::Reports;
use crate::farewell::Farewell;
use crate::init::{self, Events};
use crate::login1::inhibitors::{Book, Operation};
use crate::login1::locks::Locks;
use crate::moments::since_boot;
use drain::{LeavingNode, cause_of, power_of};

/// What the agent needs for its own last words, within the deadline.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// What environments are given to shut down at least, where there is so much time.
const STOP_TIME: Duration = Duration::from_secs(60);
/// What it takes to take down an environment that was killed.
const TAKE_DOWN: Duration = Duration::from_secs(5);
/// What the last report takes on its way to the center.
const LAST_REPORT: Duration = Duration::from_secs(4);
/// What it takes to leave the last word on the share.
const FAREWELL: Duration = Duration::from_secs(3);
/// The center is waited for so long when nothing runs here.
const NOTHING_TO_MOVE: Duration = Duration::from_secs(5);
const RETRY_MAX: Duration = Duration::from_secs(2);

/// Waits for init's word.
pub struct Shutdown {
    /// init's socket.
    pub init: PathBuf,
    /// Who holds a shutdown back.
    pub locks: Arc<Locks>,
    /// Set when the node is going down.
    pub going_down: watch::Sender<bool>,
    /// Set then as well: the time since the kernel started by which no environment may be left.
    pub leaving: watch::Sender<Option<Duration>>,
    /// What has become of the environments.
    pub environments: watch::Receiver<Reports>,
    /// What of that the center has taken in.
    pub told: watch::Receiver<Reports>,
    /// Set when the environments are gone or the time is over: nothing more is said to the center.
    pub silent: watch::Sender<bool>,
    /// The center, once the node has one.
    pub center: watch::Receiver<Option<Center>>,
    /// Who says the last word, once the node has an identity.
    pub farewell: watch::Receiver<Option<Arc<Farewell>>>,
    /// The drain, which comes first.
    pub leaving_node: LeavingNode,
}

impl Shutdown {
    /// Follow init for as long as the agent lives; its socket may be away for a while.
    pub async fn run(self) {
        let mut backoff = Backoff::up_to(RETRY_MAX);
        let mut last = String::new();
        loop {
            let Err(error) = self.follow(&mut backoff).await;
            let text = format!("{error:#}");
            if text != last {
                tracing::warn!("not following init: {text}; trying again");
                last = text;
            }
            tokio::time::sleep(backoff.pause()).await;
        }
    }

    async fn follow(&self, backoff: &mut Backoff) -> Result<Infallible> {
        let mut events = Events::subscribe(&self.init).await?;
        let mut going: Pin<Box<dyn Future<Output = ()> + Send + '_>> = Box::pin(pending());
        loop {
            let line = tokio::select! {
                line = events.next() => line?,
                () = &mut going => {
                    going = Box::pin(pending());
                    continue;
                }
            };
            backoff.reset();
            match line {
                // A second announcement is the first one with another deadline: what was waited for is waited for anew.
                Line::Shutdown { down, cause, deadline } => {
                    going = Box::pin(self.go_down(down, cause, Duration::from_secs(deadline.into())));
                }
                Line::Error(why) => bail!("init refuses: {why}"),
                Line::Ok | Line::Service { .. } | Line::Exit { .. } => {}
            }
        }
    }

    async fn go_down(&self, down: Down, cause: Cause, deadline: Duration) {
        tracing::info!("going down: {down} by {cause}");
        let end = since_boot() + deadline;
        let reserve = timing::INHIBIT_DELAY_MAX + self.reserve(deadline) + LAST_WORDS;
        let limit = deadline.saturating_sub(reserve);
        let drain = self.leaving_node.drain(down, cause, end, self.alone(limit));
        let ((), end) = tokio::join!(self.wait_for_blocks(cause, limit), drain);
        self.going_down.send_if_modified(|is_going_down| !std::mem::replace(is_going_down, true));
        tokio::join!(self.wait_for_delays(), self.wait_for_environments(end.saturating_sub(LAST_WORDS)));
        self.leave_word(down, cause, end).await;
        self.wait_until_told(end).await;
        self.silent.send_replace(true);
        self.say_goodbye(down, cause).await;
        if let Err(error) = init::request(&self.init, &Request::Proceed).await {
            tracing::warn!("{error:#}; init goes on by itself at its deadline");
        }
    }

    /// A block inhibitor holds it until it is released or the time is over.
    async fn wait_for_blocks(&self, cause: Cause, limit: Duration) {
        let operations = operations(cause);
        let holders = |book: &Book| book.blocking(operations).map(ToString::to_string).collect::<Vec<_>>();
        let held_by = self.locks.look(holders);
        if held_by.is_empty() {
            return;
        }
        tracing::warn!("held for up to {} s by {}", limit.as_secs(), held_by.join(" and by "));
        let hold = Request::Hold(u32::try_from(limit.as_secs()).unwrap_or(u32::MAX));
        if let Err(error) = init::request(&self.init, &hold).await {
            tracing::warn!("{error:#}");
        }
        match timeout(limit, self.locks.until(|book| holders(book).is_empty())).await {
            Ok(()) => tracing::info!("no longer held"),
            Err(_) => {
                tracing::warn!("the time is over; going down although held by {}", self.locks.look(holders).join(" and by "))
            }
        }
    }

    /// A delay inhibitor has logind's five seconds.
    async fn wait_for_delays(&self) {
        let delays = |book: &Book| book.delaying(&[Operation::Shutdown]).map(ToString::to_string).collect::<Vec<_>>();
        if timeout(timing::INHIBIT_DELAY_MAX, self.locks.until(|book| delays(book).is_empty())).await.is_err() {
            tracing::warn!("not waiting any longer for {}", self.locks.look(delays).join(" and "));
        }
    }

    /// What is kept for the environments, whoever holds the shutdown back.
    fn reserve(&self, deadline: Duration) -> Duration {
        let has_none = self.environments.borrow().environments.is_empty();
        if has_none { Duration::ZERO } else { STOP_TIME.min(deadline / 2) }
    }

    /// How long the center is waited for while it does not answer: not for long where there is nothing to move.
    fn alone(&self, limit: Duration) -> Duration {
        let has_none = self.environments.borrow().environments.is_empty();
        if has_none { limit.min(NOTHING_TO_MOVE) } else { limit }
    }

    /// The center hears that they are gone before it hears that the node is: then they may start elsewhere at once.
    async fn wait_until_told(&self, end: Duration) {
        if self.center.borrow().is_none() {
            return;
        }
        let limit = LAST_REPORT.min(end.saturating_sub(since_boot()));
        let mut told = self.told.clone();
        let is_told = |told: &Reports| !self.environments.borrow().is_news(told);
        let both = async {
            let _ = told.wait_for(is_told).await;
            self.leaving_node.certified(limit).await;
        };
        if timeout(limit, both).await.is_err() {
            tracing::warn!("the center has not taken in that nothing is left here within {} s", limit.as_secs());
        }
    }

    /// Every environment shuts down, as it does at any stop; what has not is killed in time for the rest.
    async fn wait_for_environments(&self, end: Duration) {
        self.leaving.send_replace(Some(end.saturating_sub(TAKE_DOWN)));
        let mut environments = self.environments.clone();
        let limit = end.saturating_sub(since_boot());
        match timeout(limit, environments.wait_for(Reports::may_go_down)).await {
            Ok(Ok(_)) => tracing::info!("no environment is left on this node"),
            Ok(Err(_)) => tracing::warn!("nobody looks after the environments any more"),
            Err(_) => {
                let left =
                    self.environments.borrow().environments.iter().map(|report| report.id.to_string()).collect::<Vec<_>>();
                tracing::warn!("the time is over; these environments are left: {}", left.join(", "));
            }
        }
    }

    /// On the share, whether the center hears it now or not: it may go away at this very moment.
    async fn leave_word(&self, down: Down, cause: Cause, end: Duration) {
        let Some(farewell) = self.farewell.borrow().clone() else { return };
        let limit = FAREWELL.min(end.saturating_sub(since_boot()));
        match timeout(limit, farewell.say(cause_of(cause), power_of(down))).await {
            Ok(Ok(())) => tracing::info!("left word on the share that nothing of this boot is left"),
            Ok(Err(error)) => tracing::warn!("no last word on the share: {error:#}"),
            Err(_) => tracing::warn!("no last word on the share: it does not answer within {} s", limit.as_secs()),
        }
    }

    async fn say_goodbye(&self, down: Down, cause: Cause) {
        let Some(center) = self.center.borrow().clone() else { return };
        match timeout(LAST_WORDS, center.going_down(&format!("{down} by {cause}"))).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!("telling the center: {error}"),
            Err(_) => tracing::warn!("telling the center: no answer within {} s", LAST_WORDS.as_secs()),
        }
    }
}

/// What a block inhibitor must hold to hold this back.
fn operations(cause: Cause) -> &'static [Operation] {
    match cause {
        Cause::Button => &[Operation::Shutdown, Operation::HandlePowerKey],
        Cause::CtrlAltDel => &[Operation::Shutdown, Operation::HandleRebootKey],
        // The power is going: nothing but the deadline counts for a UPS either, but a lock may use what time there is.
        Cause::Power | Cause::Request => &[Operation::Shutdown],
    }
}
