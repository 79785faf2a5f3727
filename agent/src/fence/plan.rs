//! From who is banned and what is in force, to the next step. Pure. It never plans further than one step: everything is looked at again
//! after it, so that it does not matter where an agent was killed, and what somebody undid is done again.
//!
//! The order, and what each step is for:
//! 1. `Keep`: what is going to be done is on the disk first.
//! 2. `Drop`: nothing new of the node comes in, on established connections either.
//! 3. `Unexport`: its file handles mean nothing any more, now and after a restart of the machine.
//! 4. `Expire`: its opens and locks go, and no request of it is in flight any more when that returns. Alone it would be a barrier and no
//!    ban: the client registers again at once, opens anew, and writes on.
//!
//! A node that is let in again has its drop lifted first and is forgotten last, so that rules are there only for what is kept. Its export
//! is the center's other order.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

use lodge_model::fence::{Ban, FenceOutcome, Fenced};
use lodge_model::ids::{BootId, NodeId};

use crate::exports::Export;

/// What is in force on this machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// What is kept on the disk.
    pub kept: Vec<Ban>,
    /// Addresses that the kernel drops.
    pub dropped: BTreeSet<IpAddr>,
    /// Who may mount.
    pub exports: BTreeSet<Export>,
    /// Who has.
    pub clients: Vec<Client>,
    /// The boots whose heartbeat files have just changed.
    pub living: BTreeMap<NodeId, BootId>,
}

/// A client of the NFS server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Client {
    /// Its number.
    pub number: u64,
    /// Its address; `None` where the kernel's word is not understood.
    pub address: Option<IpAddr>,
}

/// What is done next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Write these bans down.
    Keep(Vec<Ban>),
    /// Drop what comes from these addresses, and no others.
    Drop(BTreeSet<IpAddr>),
    /// Take these exports away.
    Unexport(Vec<Export>),
    /// Expire these clients.
    Expire(Vec<u64>),
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |words: Vec<String>| if words.is_empty() { "nobody".to_owned() } else { words.join(", ") };
        match self {
            Step::Keep(bans) => write!(f, "writing down {} bans", bans.len()),
            Step::Drop(addresses) => write!(f, "dropping {}", list(addresses.iter().map(IpAddr::to_string).collect())),
            Step::Unexport(exports) => {
                write!(f, "exporting no more to {}", list(exports.iter().map(|export| export.client.clone()).collect()))
            }
            Step::Expire(clients) => write!(f, "expiring client {}", list(clients.iter().map(u64::to_string).collect())),
        }
    }
}

/// Whether a ban comes too late: its boot has been replaced by one that writes to the share, which a cut would hit in its place. It is not
/// begun then; the center lifts it as soon as the new boot registers.
pub fn is_late(facts: &Facts, ban: &Ban) -> bool {
    !facts.kept.contains(ban) && facts.living.get(&ban.node).is_some_and(|boot| *boot != ban.boot)
}

/// The next step; `None` when all is as ordered.
pub fn next(facts: &Facts, banned: &[Ban]) -> Option<Step> {
    let missing = banned.iter().filter(|ban| !facts.kept.contains(ban));
    let known: Vec<Ban> = facts.kept.iter().chain(missing).cloned().collect();
    if known != facts.kept {
        return Some(Step::Keep(known));
    }
    let addresses = addresses(banned);
    if facts.dropped != addresses {
        return Some(Step::Drop(addresses));
    }
    let exports: Vec<Export> = facts.exports.iter().filter(|export| lets_in(export, &addresses)).cloned().collect();
    if !exports.is_empty() {
        return Some(Step::Unexport(exports));
    }
    let is_theirs = |client: &&Client| client.address.is_some_and(|address| addresses.contains(&address));
    let clients: Vec<u64> = facts.clients.iter().filter(is_theirs).map(|client| client.number).collect();
    if !clients.is_empty() {
        return Some(Step::Expire(clients));
    }
    (facts.kept.len() > banned.len()).then(|| Step::Keep(banned.to_vec()))
}

/// Every address of these bans.
pub fn addresses(banned: &[Ban]) -> BTreeSet<IpAddr> {
    banned.iter().flat_map(|ban| ban.addresses.iter().copied()).collect()
}

/// How each ban stands, for the center: in force, or kept from it by `failure`, or (nothing said) on its way. `at` is when one was first
/// seen in force.
pub fn outcomes(facts: &Facts, banned: &[Ban], failure: Option<&str>, at: impl Fn(&Ban) -> i64) -> Vec<Fenced> {
    let outcome = |ban: &Ban| match (proof(facts, ban), failure) {
        (Some(proof), _) => Some(FenceOutcome::Confirmed { at: at(ban), proof }),
        (None, Some(error)) => Some(FenceOutcome::Failed { error: error.to_owned() }),
        (None, None) => None,
    };
    banned.iter().filter_map(|ban| Some(Fenced { id: ban.id, outcome: outcome(ban)? })).collect()
}

/// How a ban that comes too late stands.
pub fn late(ban: &Ban) -> Fenced {
    let error =
        format!("boot {} has been replaced by one that writes to the share; it is waited for until that registers", ban.boot);
    Fenced { id: ban.id, outcome: FenceOutcome::Failed { error } }
}

/// What was read back, if that proves that the ban is in force. A ban of no address never is.
fn proof(facts: &Facts, ban: &Ban) -> Option<String> {
    let addresses = addresses(std::slice::from_ref(ban));
    let is_cut = facts.kept.contains(ban)
        && !addresses.is_empty()
        && addresses.is_subset(&facts.dropped)
        && !facts.exports.iter().any(|export| lets_in(export, &addresses))
        // One that cannot be told may be its, and is somebody else's more likely: it is waited for, not expired.
        && !facts.clients.iter().any(|client| client.address.is_none_or(|address| addresses.contains(&address)));
    let names = addresses.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(", ");
    is_cut.then(|| format!("{names}: dropped at port 2049, not exported to, no client of the NFS server"))
}

/// Whether one of the addresses may mount by it. What is not an address may mean any.
fn lets_in(export: &Export, addresses: &BTreeSet<IpAddr>) -> bool {
    !addresses.is_empty() && export.client.parse().map_or(true, |address| addresses.contains(&address))
}

#[cfg(test)]
pub mod tests;
