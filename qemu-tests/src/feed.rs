//! A growing list that any number of threads can wait on: console lines, monitor events, exits.
//!
//! Nothing is ever taken out, so a reader that comes late misses nothing: it says from where on it wants to read.

use std::{
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// The list. Clones share it.
pub struct Feed<T> {
    shared: Arc<Shared<T>>,
}

struct Shared<T> {
    state: Mutex<State<T>>,
    changed: Condvar,
}

struct State<T> {
    items: Vec<T>,
    closed: bool,
}

/// How a wait ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Waited<R> {
    /// Found, with the position after the item.
    Found(R, usize),
    /// Not within the time.
    TimedOut,
    /// Not before the feed ended, and it never will.
    Closed,
}

impl<T> Clone for Feed<T> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<T> Default for Feed<T> {
    fn default() -> Self {
        let state = Mutex::new(State { items: Vec::new(), closed: false });
        Self { shared: Arc::new(Shared { state, changed: Condvar::new() }) }
    }
}

impl<T> Feed<T> {
    /// Add an item and wake everybody who waits.
    pub fn push(&self, item: T) {
        self.lock().items.push(item);
        self.shared.changed.notify_all();
    }

    /// No more items will come.
    pub fn close(&self) {
        self.lock().closed = true;
        self.shared.changed.notify_all();
    }

    /// The position after the newest item.
    pub fn end(&self) -> usize {
        self.lock().items.len()
    }

    /// Wait until `find` gives something for an item at or after `from`; items that are already there count.
    pub fn wait<R>(&self, from: usize, limit: Duration, mut find: impl FnMut(&T) -> Option<R>) -> Waited<R> {
        let deadline = Instant::now() + limit;
        let mut state = self.lock();
        let mut at = from;
        loop {
            while let Some(item) = state.items.get(at) {
                at += 1;
                if let Some(found) = find(item) {
                    return Waited::Found(found, at);
                }
            }
            if state.closed {
                return Waited::Closed;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Waited::TimedOut;
            }
            state = self.shared.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Look at the items from a position on, without waiting.
    pub fn read<R>(&self, from: usize, look: impl FnOnce(&[T]) -> R) -> R {
        let state = self.lock();
        look(state.items.get(from..).unwrap_or_default())
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_came_before_and_what_comes_later_are_both_found() {
        let feed = Feed::default();
        feed.push(1);
        let writer = feed.clone();
        let thread = std::thread::spawn(move || (2..=5).for_each(|item| writer.push(item)));
        let limit = Duration::from_secs(10);
        assert_eq!(feed.wait(0, limit, |item| (*item == 1).then_some(())), Waited::Found((), 1));
        assert_eq!(feed.wait(1, limit, |item| (*item == 5).then_some("five")), Waited::Found("five", 5));
        thread.join().unwrap();
    }

    #[test]
    fn a_closed_feed_ends_a_wait_and_a_limit_too() {
        let feed = Feed::<u8>::default();
        assert_eq!(feed.wait(0, Duration::from_millis(1), |_| Some(())), Waited::TimedOut);
        feed.close();
        assert_eq!(feed.wait(0, Duration::from_secs(60), |_| Some(())), Waited::Closed);
    }
}
