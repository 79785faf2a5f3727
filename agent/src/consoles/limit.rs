//! How fast a console is read. An environment that floods its console is held back at its own terminal, not at the node's disk.

use std::time::{Duration, Instant};

/// Bytes a second in the long run.
const RATE: i64 = 256 << 10;
/// Bytes that may come at once.
const BURST: i64 = 2 << 20;

/// What may still be read: a byte a token. Less than nothing is what has been read too early.
#[derive(Debug)]
pub struct Limit {
    tokens: i64,
    at: Instant,
}

impl Limit {
    /// Nothing has been read.
    pub fn new(now: Instant) -> Self {
        Self { tokens: BURST, at: now }
    }

    /// So many bytes have been read; how long to wait before the next.
    pub fn took(&mut self, bytes: usize, now: Instant) -> Duration {
        let passed = now.saturating_duration_since(self.at);
        let come = i64::try_from(passed.as_millis()).unwrap_or(i64::MAX).saturating_mul(RATE) / 1000;
        // What is less than a token stays with the clock.
        if come > 0 {
            self.at = now;
        }
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        self.tokens = self.tokens.saturating_add(come).min(BURST).saturating_sub(bytes);
        let missing = u64::try_from(self.tokens.saturating_neg()).unwrap_or(0);
        Duration::from_millis(missing.saturating_mul(1000) / RATE.unsigned_abs())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_and_a_flood_is_slowed_to_the_rate() {
        let start = Instant::now();
        let mut limit = Limit::new(start);
        assert_eq!(limit.took(usize::try_from(BURST).unwrap(), start), Duration::ZERO);
        let mut now = start;
        for _ in 0..100 {
            now += limit.took(64 << 10, now);
        }
        let expected = Duration::from_secs(100 * (64 << 10) / RATE.unsigned_abs());
        let took = now - start;
        assert!(took >= expected - Duration::from_millis(500) && took <= expected + Duration::from_millis(500), "{took:?}");
        assert_eq!(limit.took(1000, now + Duration::from_secs(60)), Duration::ZERO);
    }
}
