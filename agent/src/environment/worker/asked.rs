//! What is asked again and again of an environment that runs, and not the moment it is started: its boot is not disturbed, and says nothing
//! of what comes after it.

use std::time::Duration;

/// It has run for this long before anything is asked.
pub const FIRST_AFTER: Duration = Duration::from_secs(5);

/// An answer, and when the next one is due.
pub struct Asked<T> {
    /// Time since the kernel started.
    pub next: Duration,
    answer: Option<T>,
}

/// The answer there is now. Whoever asks is given the last one; of one that does not run nothing is known.
pub fn again<T: Clone>(
    asked: &mut Option<Asked<T>>,
    runs: bool,
    now: Duration,
    every: Duration,
    ask: impl FnOnce(Option<T>) -> Option<T>,
) -> Option<T> {
    if !runs {
        *asked = None;
        return None;
    }
    let asked = asked.get_or_insert(Asked { next: now + FIRST_AFTER, answer: None });
    if now >= asked.next {
        asked.next = now + every;
        asked.answer = ask(asked.answer.take());
    }
    asked.answer.clone()
}
