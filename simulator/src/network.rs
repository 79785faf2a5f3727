//! What becomes of a message: it arrives at once, late, more than once, or never.

use crate::clock::Millis;

/// How bad the network is, in thousandths of all messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Weather {
    /// Never arrive.
    pub lost: u32,
    /// Arrive late, by up to `latest`.
    pub late: u32,
    /// Arrive a second time, up to `latest` later.
    pub repeated: u32,
    /// Milliseconds.
    pub latest: Millis,
}

impl Weather {
    /// Nothing is lost.
    pub const GOOD: Self = Self { lost: 0, late: 0, repeated: 0, latest: 0 };

    /// When the copies of a message arrive, from now on.
    pub fn arrivals(&self, random: &mut fastrand::Rng) -> Vec<Millis> {
        let usual = random.u64(1..4);
        let mut happens = |chance: u32| chance > 0 && random.u32(0..1000) < chance;
        let (is_lost, is_late, is_repeated) = (happens(self.lost), happens(self.late), happens(self.repeated));
        if is_lost {
            return Vec::new();
        }
        let mut arrivals = vec![if is_late { usual + random.u64(0..self.latest.max(1)) } else { usual }];
        if is_repeated {
            arrivals.push(usual + random.u64(0..self.latest.max(1)));
        }
        arrivals
    }
}
