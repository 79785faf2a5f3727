//! Time, and what is to happen when.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use jiff::Timestamp;

/// Milliseconds since the beginning of a run.
pub type Millis = u64;

/// The beginning, in seconds since 1970: the first of January 2026.
const BEGINNING: i64 = 1_767_225_600;

/// A moment as the center writes it.
pub fn timestamp(at: Millis) -> Timestamp {
    let millis = BEGINNING.saturating_mul(1000).saturating_add_unsigned(at);
    Timestamp::from_millisecond(millis).unwrap_or_default()
}

/// A moment of the center's, here.
pub fn millis(at: Timestamp) -> Millis {
    u64::try_from(at.as_millisecond() - BEGINNING * 1000).unwrap_or(0)
}

/// How long it takes, here.
pub fn length(duration: Duration) -> Millis {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// What is to happen, in order; what was planned first comes first where the time is the same.
pub struct Queue<T> {
    heap: BinaryHeap<Reverse<Entry<T>>>,
    planned: u64,
}

struct Entry<T> {
    at: Millis,
    number: u64,
    what: T,
}

impl<T> Queue<T> {
    /// Nothing is to happen.
    pub fn new() -> Self {
        Self { heap: BinaryHeap::new(), planned: 0 }
    }

    /// Plan something.
    pub fn plan(&mut self, at: Millis, what: T) {
        self.planned += 1;
        self.heap.push(Reverse(Entry { at, number: self.planned, what }));
    }

    /// When the next thing happens.
    pub fn next_at(&self) -> Option<Millis> {
        self.heap.peek().map(|Reverse(entry)| entry.at)
    }

    /// The next thing, and when.
    pub fn pop(&mut self) -> Option<(Millis, T)> {
        self.heap.pop().map(|Reverse(entry)| (entry.at, entry.what))
    }
}

impl<T> PartialEq for Entry<T> {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.number) == (other.at, other.number)
    }
}

impl<T> Eq for Entry<T> {}

impl<T> PartialOrd for Entry<T> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> Ord for Entry<T> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}
