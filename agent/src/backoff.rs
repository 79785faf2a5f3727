//! Pauses between tries to reach a peer that cannot say when it is back.

use std::time::Duration;

const FIRST: Duration = Duration::from_millis(250);

/// A pause that doubles with each failure up to a longest one, and starts anew after a success.
#[derive(Debug)]
pub struct Backoff {
    next: Duration,
    longest: Duration,
}

impl Backoff {
    /// Never longer than this.
    pub fn up_to(longest: Duration) -> Self {
        Self { next: FIRST.min(longest), longest }
    }

    /// It went well.
    pub fn reset(&mut self) {
        self.next = FIRST.min(self.longest);
    }

    /// How long to wait now.
    pub fn pause(&mut self) -> Duration {
        let pause = self.next;
        self.next = (pause * 2).min(self.longest);
        pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_the_limit_and_start_anew() {
        let mut backoff = Backoff::up_to(Duration::from_secs(2));
        let pauses: Vec<u128> = (0..6).map(|_| backoff.pause().as_millis()).collect();
        assert_eq!(pauses, [250, 500, 1000, 2000, 2000, 2000]);
        backoff.reset();
        assert_eq!(backoff.pause().as_millis(), 250);
    }
}
