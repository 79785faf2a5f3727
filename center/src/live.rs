//! What is only true of this process: when a node was last heard, and which orders it has been told. Losing it costs one early
//! answer a node, so it is not stored.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use lodge_model::ids::{BootId, NodeId};

/// A sign of life that is newer than the stored one by this much is stored, too.
pub const WRITE_AFTER: Duration = Duration::from_secs(10);

/// The living nodes.
#[derive(Default)]
pub struct Live {
    nodes: Mutex<HashMap<NodeId, Seen>>,
}

#[derive(Clone, Copy)]
struct Seen {
    at: Timestamp,
    told: Option<(BootId, u64)>,
}

impl Live {
    /// A node said something.
    pub fn saw(&self, node: NodeId, at: Timestamp) {
        let mut nodes = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        nodes.entry(node).and_modify(|seen| seen.at = at).or_insert(Seen { at, told: None });
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
