//! Power. A machine that its BMC reads back as off has nothing in memory any more that it could write. It is asked when the share node cannot
//! cut the machine off, and once the share node has: a hung machine would otherwise stay as it is, and its environments at their addresses.
//!
//! What was switched off here is switched on again (unless it `stays_off`), so that a fenced node comes back by itself. What was off already
//! or was to go down is left alone: somebody may have their hands in it.

use std::time::Duration;

use jiff::Timestamp;
use lodge_model::incident::Method;

use super::{Act, Case, Fence, Stand, share_fails, signed};
use crate::failover::records::{Failed, Word};

/// By its BMC.
pub struct BmcOff;

/// Pause after the first try that failed; it doubles.
const PAUSE_FIRST: Duration = Duration::from_secs(5);
/// Longest pause.
const PAUSE_LAST: Duration = Duration::from_secs(60);
/// So many tries of what only makes sure, or switches on again.
const TRIES: u32 = 5;

impl Fence for BmcOff {
    fn method(&self) -> Method {
        Method::Bmc
    }

    fn stand(&self, case: &Case) -> Stand {
        let (switching, name) = (&case.ban.bmc, case.name);
        let Some(rule) = case.bmc else {
            return Stand::Impossible(format!("the center knows of no BMC of {name}: lodge node bmc set {name}"));
        };
        if case.confirmed_off {
            return Stand::Impossible(format!("an operator has said that {name} is off: its BMC is left alone"));
        }
        if switching.off.is_some() {
            return match switching.on || switching.was_off || rule.stays_off || case.is_gone {
                true => Stand::Done,
                false => tries(case, Act::SwitchOn, "its BMC has to switch it on again", Some(TRIES)),
            };
        }
        let needs_no_proof = case.ban.confirmed.is_some();
        match (share_fails(case), &case.ban.share) {
            (Some(why), _) => {
                tries(case, Act::SwitchOff(why), "its BMC has to say that it is off", (needs_no_proof).then_some(TRIES))
            }
            (None, Word::Confirmed) if case.is_gone => Stand::Impossible(format!("{name} goes down by itself")),
            (None, Word::Confirmed) => {
                tries(case, Act::SwitchOff("to make sure".to_owned()), "its BMC has to say that it is off", Some(TRIES))
            }
            (None, _) => Stand::Waits("its BMC is asked if that takes too long".to_owned()),
        }
    }
}

/// Now, or after a pause where it has failed; where it only makes sure, not for ever.
fn tries(case: &Case, act: Act, what: &str, most: Option<u32>) -> Stand {
    match &case.ban.bmc.failed {
        Some(failed) if most.is_some_and(|most| failed.tries >= most) => {
            Stand::Impossible(format!("its BMC failed {} times: {}", failed.tries, failed.why))
        }
        Some(failed) if case.now < next_try(failed) => {
            Stand::Waits(format!("{what}, and is asked again: it failed {} times: {}", failed.tries, failed.why))
        }
        _ => Stand::Act(act),
    }
}

fn next_try(failed: &Failed) -> Timestamp {
    let pause = PAUSE_FIRST.saturating_mul(1 << failed.tries.saturating_sub(1).min(8)).min(PAUSE_LAST);
    failed.at.checked_add(signed(pause)).unwrap_or(failed.at)
}
