//! How environments end. init is the reaper of every environment's init, and tells the wait status; `poweroff` inside shows as SIGINT,
//! `reboot` as SIGHUP (reboot(2), in a PID namespace).

use std::collections::VecDeque;
use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Result;
use lodge_model::initproto::Line;
use nix::sys::signal::Signal;
use nix::sys::wait::WaitStatus;
use nix::unistd::Pid;
use tokio::sync::mpsc;

use crate::backoff::Backoff;
use crate::init::Events;

/// init tells a new subscriber its last 256 exits; of what comes after that, this many are remembered.
const REMEMBERED: usize = 1024;

/// The exits that init has told, newest last.
#[derive(Debug, Default)]
pub struct Exits {
    told: VecDeque<(i32, i32)>,
}

impl Exits {
    /// Remember one.
    pub fn tell(&mut self, pid: i32, status: i32) {
        self.forget(pid);
        if self.told.len() == REMEMBERED {
            self.told.pop_front();
        }
        self.told.push_back((pid, status));
    }

    /// The wait status of a process that has ended.
    pub fn status(&self, pid: i32) -> Option<i32> {
        self.told.iter().rev().find(|(told, _)| *told == pid).map(|(_, status)| *status)
    }

    /// A process of this number runs (again): what was told of it is of an older one.
    pub fn forget(&mut self, pid: i32) {
        self.told.retain(|(told, _)| *told != pid);
    }
}

/// Take in what init tells, for as long as the agent lives; its socket may be away for a while. Each process that has ended is passed on.
pub async fn follow(init: PathBuf, exits: Arc<Mutex<Exits>>, ended: mpsc::UnboundedSender<i32>) -> Result<Infallible> {
    let mut backoff = Backoff::up_to(Duration::from_secs(2));
    loop {
        let told = async {
            let mut events = Events::subscribe(&init).await?;
            loop {
                if let Line::Exit { pid, status } = events.next().await? {
                    exits.lock().unwrap_or_else(PoisonError::into_inner).tell(pid, status);
                    ended.send(pid)?;
                }
                backoff.reset();
            }
        };
        let told: Result<Infallible> = told.await;
        let Err(error) = told;
        tracing::debug!("not told of exits: {error:#}; trying again");
        tokio::time::sleep(backoff.pause()).await;
    }
}

/// What the end of an environment's init means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// `poweroff` or `halt` inside.
    Poweroff,
    /// `reboot` inside.
    Reboot,
    /// Anything else, in words.
    Failure(String),
}

impl End {
    /// From the raw wait status, where it is known, and the processes that were killed for lack of memory.
    pub fn of(status: Option<i32>, oom_kills: u64) -> Self {
        let Some(status) = status else {
            return End::Failure("ended; nobody saw how".into());
        };
        match WaitStatus::from_raw(Pid::from_raw(1), status) {
            Ok(WaitStatus::Signaled(_, Signal::SIGINT, _)) => End::Poweroff,
            Ok(WaitStatus::Signaled(_, Signal::SIGHUP, _)) => End::Reboot,
            Ok(WaitStatus::Signaled(_, Signal::SIGKILL, _)) if oom_kills > 0 => End::Failure("killed: out of memory".into()),
            Ok(WaitStatus::Signaled(_, signal, _)) => End::Failure(format!("its init was killed by {signal}")),
            Ok(WaitStatus::Exited(_, code)) => End::Failure(format!("its init exited with status {code}")),
            _ => End::Failure(format!("its init ended with wait status {status}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_status_is_told_in_words() {
        assert_eq!(End::of(Some(2), 0), End::Poweroff);
        assert_eq!(End::of(Some(1), 3), End::Reboot);
        assert_eq!(End::of(Some(9), 1), End::Failure("killed: out of memory".into()));
        assert_eq!(End::of(Some(9), 0), End::Failure("its init was killed by SIGKILL".into()));
        assert_eq!(End::of(Some(127 << 8), 0), End::Failure("its init exited with status 127".into()));
        assert!(matches!(End::of(Some(50), 0), End::Failure(text) if text.contains("50")), "a real-time signal");
        assert!(matches!(End::of(None, 0), End::Failure(text) if text.contains("nobody saw")));
    }

    #[test]
    fn the_newest_exit_of_a_number_counts_and_the_book_stays_small() {
        let mut exits = Exits::default();
        exits.tell(7, 9);
        exits.tell(7, 2);
        assert_eq!(exits.status(7), Some(2));
        exits.forget(7);
        assert_eq!(exits.status(7), None);
        for pid in 0..5000 {
            exits.tell(pid, 0);
        }
        assert_eq!((exits.told.len(), exits.status(4999), exits.status(1)), (REMEMBERED, Some(0), None));
    }
}
