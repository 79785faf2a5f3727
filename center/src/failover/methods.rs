//! How it is made sure that a banned boot writes no more: the ways, in the order in which they are tried, and how each stands. Pure: facts
//! and the time in, what is to be done out; `drive.rs` does it.
//!
//! | file | way |
//! |---|---|
//! | `methods/share.rs` | the share node refuses it, and reads back that nothing of it is left; ordered with the ban itself |
//! | `methods/bmc.rs` | its BMC switches the machine off, and says that it is off; where the share node cannot, and to make sure |
//! | `methods/lease.rs` | its lease and its watchdog end it; where the others cannot, and only where that was asked for |
//! | `methods/operator.rs` | an operator says that the machine is off |

mod bmc;
pub mod lease;
mod operator;
mod share;

use jiff::Timestamp;
use lodge_model::incident::Method;
use lodge_model::timing::Timing;

use super::plan::ShareFacts;
use super::records::Ban;

/// One way of making sure that a boot of a node writes no more.
pub trait Fence: Sync {
    /// Which one it is.
    fn method(&self) -> Method;
    /// How it stands with a ban.
    fn stand(&self, case: &Case) -> Stand;
}

/// All of them, in the order in which they are tried.
const WAYS: [&dyn Fence; 4] = [&share::Share, &bmc::BmcOff, &lease::Lease, &operator::Operator];

/// A ban and what there is to see that it is in force.
pub struct Case<'a> {
    /// The time.
    pub now: Timestamp,
    /// How long what is waited for.
    pub timing: Timing,
    /// Name of the node.
    pub name: &'a str,
    /// The ban.
    pub ban: &'a Ban,
    /// An operator has said that this boot has ended.
    pub confirmed_off: bool,
    /// The node went down in order, and could not let go of everything.
    pub is_gone: bool,
    /// The node that serves the share.
    pub share: Option<&'a ShareFacts>,
    /// What its BMC is to do with it; nothing where the center knows of none.
    pub bmc: Option<BmcRule>,
    /// What is known of its lease and its watchdog.
    pub lease: lease::Facts,
}

/// What the BMC of a node is to do with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BmcRule {
    /// What was switched off stays off.
    pub stays_off: bool,
}

/// How a way stands with a ban.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stand {
    /// It is of no use here, and why.
    Impossible(String),
    /// It is under way, or its time has not come; what is waited for.
    Waits(String),
    /// The center has something to do for it now.
    Act(Act),
    /// It has been proven, and nothing is left to be done.
    Done,
}

/// What the center does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Act {
    /// Have the BMC switch the machine off; why, for people.
    SwitchOff(String),
    /// Have the BMC switch it on again.
    SwitchOn,
    /// Take the boot for ended, by this proof.
    Believe(String),
}

/// What is to be done about a ban.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Next {
    /// What the center does now, and by which way.
    pub acts: Vec<(Method, Act)>,
    /// What is waited for, for people, and what helps if it does not come.
    pub waits: String,
}

/// Say what is to be done next.
pub fn next(case: &Case) -> Next {
    let (mut acts, mut waits) = (Vec::new(), Vec::new());
    for way in WAYS {
        match way.stand(case) {
            Stand::Impossible(_) | Stand::Done => {}
            Stand::Waits(what) => waits.push(what),
            Stand::Act(act) => acts.push((way.method(), act)),
        }
    }
    Next { acts, waits: waits.join("; ") }
}

/// Whether the share node is not going to confirm it soon: it has said so, it is not heard, or it takes too long.
fn share_fails(case: &Case) -> Option<String> {
    use super::records::Word;
    let late = case.ban.since.checked_add(signed(case.timing.suspect)).unwrap_or(case.now);
    match (case.share, &case.ban.share) {
        (_, Word::Confirmed) => None,
        (Some(share), Word::Failed(why)) => Some(format!("{} cannot cut it off ({why})", share.name)),
        (Some(share), _) if case.now.duration_since(share.heard) > signed(case.timing.suspect) => {
            Some(format!("{}, which serves the share, is silent", share.name))
        }
        (Some(share), Word::None) if case.now >= late => Some(format!("{} takes too long", share.name)),
        (Some(_), Word::None) => None,
        (None, _) => Some("no node serves the share".to_owned()),
    }
}

fn signed(duration: std::time::Duration) -> jiff::SignedDuration {
    jiff::SignedDuration::try_from(duration).unwrap_or(jiff::SignedDuration::MAX)
}

#[cfg(test)]
mod tests;
