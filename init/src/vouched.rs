//! The agent's word for what runs on this node. Once it has been given it has to be renewed: a machine whose agent hangs, or finds that
//! its environments have been given to somebody else, does not go on with them. It is restarted. No I/O, no clock.

use std::time::Duration;

use lodge_model::initproto::Vouch;

/// The word, as far as it goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Vouched {
    /// The machine is restarted then.
    until: Option<Duration>,
}

impl Vouched {
    /// Take a word.
    pub fn take(&mut self, now: Duration, word: Vouch) {
        self.until = match word {
            Vouch::For(seconds) => Some(now + Duration::from_secs(seconds.into())),
            Vouch::NothingRuns => None,
            Vouch::Refused => Some(now),
        };
    }

    /// When time alone ends it.
    pub fn next(&self) -> Option<Duration> {
        self.until
    }

    /// Nobody vouches for what runs here any more.
    pub fn is_over(&self, now: Duration) -> bool {
        self.until.is_some_and(|until| now >= until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_holds_for_its_time_and_a_node_that_runs_nothing_needs_none() {
        let at = Duration::from_secs;
        let mut vouched = Vouched::default();
        assert!(!vouched.is_over(at(100_000)) && vouched.next().is_none());
        vouched.take(at(10), Vouch::For(40));
        assert!(!vouched.is_over(at(49)) && vouched.is_over(at(50)));
        vouched.take(at(45), Vouch::For(40));
        assert_eq!((vouched.is_over(at(50)), vouched.next()), (false, Some(at(85))));
        vouched.take(at(60), Vouch::NothingRuns);
        assert!(!vouched.is_over(at(100_000)));
        vouched.take(at(70), Vouch::Refused);
        assert!(vouched.is_over(at(70)));
    }
}
