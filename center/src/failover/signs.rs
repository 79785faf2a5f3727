//! Signs of life other than heartbeats, as they were heard last. In memory: a center that starts anew listens anew.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use lodge_model::fence::{MarkAge, PeerWord};
use lodge_model::ids::NodeId;

/// What was heard lately.
#[derive(Default)]
pub struct Signs {
    heard: Mutex<Heard>,
}

#[derive(Default)]
struct Heard {
    marks: HashMap<NodeId, (MarkAge, Timestamp)>,
    /// Who was asked after, by whom, whether it answered, and when that was said.
    words: HashMap<(NodeId, NodeId), (bool, Timestamp)>,
    last_wide: Option<Timestamp>,
    /// Of nodes that are fenced: the last heartbeat, and how long the center had been up when that was first seen to be the last.
    unheard: HashMap<NodeId, (Option<Timestamp>, Duration)>,
}

impl Signs {
    fn heard(&self) -> std::sync::MutexGuard<'_, Heard> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The share node's word of all heartbeat files.
    pub fn marks(&self, marks: &[MarkAge], now: Timestamp) {
        self.heard().marks = marks.iter().map(|mark| (mark.node, (mark.clone(), now))).collect();
    }

    /// The share node's last word of a node's heartbeat file.
    pub fn mark(&self, node: NodeId) -> Option<(MarkAge, Timestamp)> {
        self.heard().marks.get(&node).cloned()
    }

    /// A node's word of its neighbours.
    pub fn words(&self, asked: NodeId, words: &[PeerWord], now: Timestamp) {
        let mut heard = self.heard();
        heard.words.retain(|(_, by), _| *by != asked);
        heard.words.extend(words.iter().map(|word| ((word.node, asked), (word.answers, now))));
    }

    /// How many neighbours say that a node answers them, and how many that it does not, since a time.
    pub fn word(&self, about: NodeId, since: Timestamp) -> (usize, usize) {
        let heard = self.heard();
        let said = heard.words.iter().filter(|((node, _), (_, at))| *node == about && *at >= since);
        let (yes, no): (Vec<_>, Vec<_>) = said.partition(|(_, (answers, _))| *answers);
        (yes.len(), no.len())
    }

    /// How long a node has sent no heartbeat since this one, by how long the center is up: a clock that nobody sets. Counted from when it is
    /// first asked.
    pub fn unheard(&self, node: NodeId, last: Option<Timestamp>, up_for: Duration) -> Duration {
        let mut heard = self.heard();
        let known = heard.unheard.entry(node).or_insert((last, up_for));
        if known.0 != last {
            *known = (last, up_for);
        }
        up_for.saturating_sub(known.1)
    }

    /// Takeovers are held back for more than one node's sake.
    pub fn was_wide(&self, now: Timestamp) {
        self.heard().last_wide = Some(now);
    }

    /// When they last were.
    pub fn last_wide(&self) -> Option<Timestamp> {
        self.heard().last_wide
    }
}
