//! What ends a node's environments when nobody reaches it: its lease and its watchdog. The node attests them, the center computes how long it
//! would have to wait, and where no other fence is to be had it may take that wait for a proof.
//!
//! ```text
//! last renewal ── lease ──► PID 1 has restarted the machine, or hangs ── watchdog ──► the hardware has reset it ── MARGIN ──► elsewhere
//! ```
//!
//! A lease is renewed by a write to the node's heartbeat file that went through, and by a heartbeat that the center answered, each counted
//! from its beginning; so neither is later than what center and share node know of it. init holds the machine to it: see `initproto::Vouch`.
//!
//! `GET /fencing` (`FencingView`) shows by which ways each worker could be fenced now.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::timing::Timing;

/// For clocks that do not run alike, and for what a reset takes to stop the last transfer.
pub const MARGIN: Duration = Duration::from_secs(10);

/// What a node attests, in its heartbeats.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Guard {
    /// The lease that it holds itself to, in milliseconds: so long after the last renewal everything that runs on it has ended, or PID 1 has
    /// restarted the machine, or hangs. Absent where it holds itself to none.
    pub lease_ms: Option<u64>,
    /// Its armed watchdog.
    pub watchdog: Option<Watchdog>,
    /// It is a virtual machine: its time, and its watchdog's, can be made to stand still from outside.
    pub is_virtual: bool,
}

/// An armed watchdog.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Watchdog {
    /// What its driver calls itself.
    pub identity: String,
    /// Seconds from the last feeding to the reset.
    pub timeout: u32,
    /// It is a device, and no timer of the very kernel that it watches.
    pub is_hardware: bool,
}

impl Guard {
    /// How long after the last renewal nothing of it writes any more, whatever happens to it; or why nobody can say that.
    pub fn bound(&self) -> Result<Duration, String> {
        let lease = self.lease_ms.ok_or("it does not hold itself to a lease yet")?;
        Ok(Duration::from_millis(lease) + self.reset()? + MARGIN)
    }

    /// The same with a patience that it is to be told of: whichever lease is longer counts.
    pub fn bound_with(&self, timing: &Timing) -> Result<Duration, String> {
        let attested = Duration::from_millis(self.lease_ms.unwrap_or(0));
        Ok(attested.max(timing.lease) + self.reset()? + MARGIN)
    }

    /// How long a machine that hangs may go on.
    fn reset(&self) -> Result<Duration, String> {
        let watchdog = self.watchdog.as_ref().ok_or("it has no armed watchdog")?;
        if !watchdog.is_hardware {
            return Err(format!("its watchdog ({}) is no device: it hangs with the kernel", watchdog.identity));
        }
        if self.is_virtual {
            return Err("it is a virtual machine: it can be stopped, its watchdog with it, and go on later".to_owned());
        }
        Ok(Duration::from_secs(watchdog.timeout.into()))
    }
}

/// Whether to wait so long is enough, or why not. This is the inequality: lease + watchdog + margin < wait.
pub fn is_enough(wait: Duration, bound: Duration) -> Result<(), String> {
    match bound < wait {
        true => Ok(()),
        false => Err(format!(
            "it may go on for {} s (lease, watchdog and a margin of {} s), which has to be less than the {} s that are waited",
            bound.as_secs_f64().ceil(),
            MARGIN.as_secs(),
            wait.as_secs()
        )),
    }
}

/// `GET /fencing`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FencingView {
    /// The node that serves the share, and cuts others from it.
    pub share: Option<String>,
    /// Seconds after which lease and watchdog are taken for a proof, where there is no other; 0 where they never are.
    pub lease_wait: u32,
    /// Every worker.
    pub nodes: Vec<NodeFencing>,
}

/// By which ways a node could be fenced now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NodeFencing {
    /// Its name.
    pub node: String,
    /// Why the share node could not cut it off; empty where it could.
    pub share: String,
    /// Address of its BMC.
    pub bmc: Option<String>,
    /// What it attests.
    pub guard: Option<Guard>,
    /// Seconds after its last renewal after which nothing of it writes any more, where that can be said.
    pub bound: Option<u32>,
    /// Why lease and watchdog are no proof; empty where they are.
    pub lease: String,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn guard(lease: Option<u64>, timeout: u32) -> Guard {
        let watchdog = Watchdog { identity: "iTCO_wdt".into(), timeout, is_hardware: true };
        Guard { lease_ms: lease.map(|lease| lease * 1000), watchdog: Some(watchdog), is_virtual: false }
    }

    #[test]
    fn the_inequality() {
        let bound = guard(Some(20), 60).bound().unwrap();
        assert_eq!(bound, Duration::from_secs(90));
        assert_eq!(is_enough(Duration::from_secs(91), bound), Ok(()));
        let why = is_enough(bound, bound).unwrap_err();
        assert!(why.contains("90 s") && why.contains("margin of 10 s"), "{why}");
    }

    #[test]
    fn what_nobody_vouches_for_is_no_bound() {
        assert!(guard(None, 60).bound().unwrap_err().contains("lease"));
        assert!(Guard { watchdog: None, ..guard(Some(20), 0) }.bound().unwrap_err().contains("no armed watchdog"));
        let soft = Watchdog { identity: "Software Watchdog".into(), timeout: 60, is_hardware: false };
        assert!(Guard { watchdog: Some(soft), ..guard(Some(20), 0) }.bound().unwrap_err().contains("Software Watchdog"));
        assert!(Guard { is_virtual: true, ..guard(Some(20), 60) }.bound().unwrap_err().contains("virtual"));
    }

    proptest! {
        #[test]
        fn a_longer_patience_never_makes_a_bound_shorter(lease in proptest::option::of(0..600u64), timeout in 0..600u32, patience in 1..20u32) {
            let guard = guard(lease, timeout);
            let [less, more] = [patience, patience + 1].map(|patience| guard.bound_with(&Timing::new(patience)).unwrap());
            prop_assert!(less <= more);
            prop_assert!(guard.bound().is_err() || guard.bound().unwrap() <= more);
            prop_assert!(more > Timing::new(patience + 1).give_up + MARGIN);
        }
    }
}
