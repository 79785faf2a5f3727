//! Lease and watchdog (`lodge_model::guard`): a node that reaches neither share nor center ends what it runs, PID 1 restarts it if it does not,
//! and its watchdog resets it if PID 1 does not. The weakest of the ways: it proves nothing of this very machine, it only waits for longer than
//! what the machine has attested. So it is tried last, only where it was asked for, and only while the share node is heard: else nobody
//! would know of a renewal.

use std::time::Duration;

use lodge_model::guard::{Guard, is_enough};
use lodge_model::incident::Method;

use super::{Act, Case, Fence, Stand, share_fails};
use crate::failover::records::Word;

/// By itself.
pub struct Lease;

/// What is known of a node's lease.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// How long it is waited for; nothing where it was not asked for.
    pub wait: Option<Duration>,
    /// What the node has attested last.
    pub guard: Option<Guard>,
    /// How long no sign of it has been heard, by a clock that nobody sets. Nothing where the share node is silent.
    pub quiet: Option<Duration>,
}

/// So many tries of a BMC that failed before a lease is looked at.
const BMC_TRIES: u32 = 3;

impl Fence for Lease {
    fn method(&self) -> Method {
        Method::Lease
    }

    fn stand(&self, case: &Case) -> Stand {
        let Facts { wait, guard, quiet } = &case.lease;
        if case.ban.confirmed.is_some() || case.confirmed_off {
            return Stand::Done;
        }
        let Some(wait) = wait else {
            return Stand::Impossible("it was not asked for: lodge cluster set --lease-wait".to_owned());
        };
        let tries = case.ban.bmc.failed.as_ref().map_or(0, |failed| failed.tries);
        if case.bmc.is_some() && tries < BMC_TRIES {
            return Stand::Impossible("its BMC is asked first".to_owned());
        }
        let has_failed = matches!(case.ban.share, Word::Failed(_)) && share_fails(case).is_some();
        let Some(quiet) = quiet.filter(|_| has_failed) else {
            return Stand::Impossible("the share node has not said that it cannot".to_owned());
        };
        let bound = guard.as_ref().ok_or_else(|| "it has attested nothing".to_owned()).and_then(Guard::bound);
        match bound.and_then(|bound| is_enough(*wait, bound).map(|()| bound)) {
            Err(why) => Stand::Impossible(why),
            Ok(bound) if quiet >= *wait => Stand::Act(Act::Believe(format!(
                "no sign of it for {} s; it has attested that nothing of it writes after {} s",
                quiet.as_secs(),
                bound.as_secs_f64().ceil()
            ))),
            Ok(_) => Stand::Waits(format!("its lease and its watchdog end it in {} s", (*wait - quiet).as_secs_f64().ceil())),
        }
    }
}
