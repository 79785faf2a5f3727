//! What is only true of this process: when a node was last heard, which orders it has been told, what its environments use. Losing it
//! costs one early answer a node, so it is not stored.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use lodge_model::environment::order::Usage;
use lodge_model::ids::{BootId, Digest, EnvironmentId, NodeId};
use lodge_model::live::Probe;

use crate::failover::signs::Signs;

/// A sign of life that is newer than the stored one by this much is stored, too.
pub const WRITE_AFTER: Duration = Duration::from_secs(10);

/// The living nodes.
#[derive(Default)]
pub struct Live {
    nodes: Mutex<HashMap<NodeId, Seen>>,
    usages: Mutex<HashMap<EnvironmentId, Usage>>,
    warm: Mutex<HashMap<NodeId, BTreeSet<Digest>>>,
    probes: Mutex<HashMap<NodeId, BTreeMap<EnvironmentId, Probe>>>,
    /// Signs of life other than heartbeats.
    pub signs: Signs,
}

#[derive(Clone, Copy)]
struct Seen {
    at: Timestamp,
    told: Option<(BootId, u64)>,
}

impl Live {
    /// A node said something. Says whether it is the first time that this process hears it.
    pub fn saw(&self, node: NodeId, at: Timestamp) -> bool {
        let mut nodes = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        match nodes.entry(node) {
            Entry::Occupied(mut known) => {
                known.get_mut().at = at;
                false
            }
            Entry::Vacant(unknown) => {
                unknown.insert(Seen { at, told: None });
                true
            }
        }
    }

    /// What an environment uses now; nothing, when it does not run.
    pub fn uses(&self, environment: EnvironmentId, usage: Option<Usage>) {
        let mut usages = self.usages.lock().unwrap_or_else(PoisonError::into_inner);
        match usage {
            Some(usage) => usages.insert(environment, usage),
            None => usages.remove(&environment),
        };
    }

    /// What an environment was last said to use.
    pub fn usage(&self, environment: EnvironmentId) -> Option<Usage> {
        self.usages.lock().unwrap_or_else(PoisonError::into_inner).get(&environment).cloned()
    }

    /// The templates that a node has fetched beforehand. Says whether that is news.
    pub fn has_warm(&self, node: NodeId, digests: &[Digest]) -> bool {
        let digests: BTreeSet<Digest> = digests.iter().cloned().collect();
        let mut warm = self.warm.lock().unwrap_or_else(PoisonError::into_inner);
        warm.insert(node, digests.clone()).unwrap_or_default() != digests
    }

    /// What a node has seen of the processes of an environment; nothing, when it does not run there.
    pub fn has_seen(&self, node: NodeId, environment: EnvironmentId, probe: Option<Probe>) {
        let mut probes = self.probes.lock().unwrap_or_else(PoisonError::into_inner);
        let probes = probes.entry(node).or_default();
        match probe {
            Some(probe) => probes.insert(environment, probe),
            None => probes.remove(&environment),
        };
    }

    /// A node has started anew.
    pub fn has_seen_nothing(&self, node: NodeId) {
        self.probes.lock().unwrap_or_else(PoisonError::into_inner).remove(&node);
    }

    /// What a node has last seen of the processes of its environments.
    pub fn probes(&self, node: NodeId) -> BTreeMap<EnvironmentId, Probe> {
        self.probes.lock().unwrap_or_else(PoisonError::into_inner).get(&node).cloned().unwrap_or_default()
    }

    /// The templates that a node was last said to have fetched beforehand.
    pub fn warm(&self, node: NodeId) -> BTreeSet<Digest> {
        self.warm.lock().unwrap_or_else(PoisonError::into_inner).get(&node).cloned().unwrap_or_default()
    }

    /// When a node was last heard: here, or as stored.
    pub fn last(&self, node: NodeId, stored: Option<Timestamp>) -> Option<Timestamp> {
        let nodes = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        nodes.get(&node).map(|seen| seen.at).or(stored)
    }

    /// Whether this boot of a node has not been told these orders yet; from now on it has.
    pub fn is_news(&self, node: NodeId, boot: BootId, generation: u64) -> bool {
        let mut nodes = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        let told = Some((boot, generation));
        match nodes.get_mut(&node) {
            Some(seen) if seen.told == told => false,
            Some(seen) => {
                seen.told = told;
                true
            }
            None => true,
        }
    }

    /// A node is gone for good.
    pub fn forget(&self, node: NodeId) {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner).remove(&node);
    }
}
