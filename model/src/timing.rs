//! Every period and limit that two programs must agree on, in one place.

use std::time::Duration;

/// The agent's heartbeat period while all is well; the center holds a heartbeat's answer this long when it has no news.
pub const HEARTBEAT: Duration = Duration::from_secs(2);
/// Longest pause of the agent between two tries to reach the center.
pub const RETRY_MAX: Duration = Duration::from_secs(4);
/// A node silent for longer than this is shown as silent.
pub const SILENT_AFTER: Duration = Duration::from_secs(12);
/// NFSv4 lease and grace of the embedded share.
pub const SHARE_LEASE: Duration = Duration::from_secs(12);
/// How long the center holds a long poll open (decisions, events).
pub const LONG_POLL: Duration = Duration::from_secs(25);
/// How long a join token is good for.
pub const JOIN_TOKEN_TTL: Duration = Duration::from_secs(3600);
/// How long a ticket is good for.
pub const TICKET_TTL: Duration = Duration::from_secs(3600);
/// How long an agent may hold a shutdown back for delay inhibitors (logind's InhibitDelayMaxSec default).
pub const INHIBIT_DELAY_MAX: Duration = Duration::from_secs(5);
/// How long a service has between SIGTERM and SIGKILL.
pub const STOP_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the share may take to unmount before it is detached.
pub const SHARE_UNMOUNT: Duration = Duration::from_secs(10);
/// How often a node writes its heartbeat file on the share, and asks after a silent neighbour.
pub const MARK: Duration = Duration::from_secs(2);
/// How much later than it should a machine is restarted whose agent hangs when its lease is over.
pub const LEASE_SLACK: Duration = Duration::from_secs(5);
/// Least and greatest patience that can be set.
pub const PATIENCE: std::ops::RangeInclusive<u32> = 1..=20;

/// How long silence is taken for what, counted from the last sign of life. The setting `patience` makes all of it longer by one factor,
/// so that the order stays:
///
/// ```text
/// isolate   the node has not written its heartbeat file: it takes the links of its environments down
/// suspect   the center hears nothing, or the share node sees an old file: from here on the node may be fenced
/// give_up   the node reaches neither share nor center: it ends its environments
/// lease     where nodes hold themselves to a lease: the latest moment at which PID 1 restarts a machine that could not do that
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// A node that has not written its heartbeat file for this long takes the links of its environments down.
    pub isolate: Duration,
    /// A node whose heartbeats or heartbeat file are older than this is suspected.
    pub suspect: Duration,
    /// How long a suspicion waits for the share node's word of the file.
    pub corroborate: Duration,
    /// A node that has reached neither share nor center for this long ends its environments. Longer than the lease.
    pub give_up: Duration,
    /// So long after the last renewal of its lease a node that holds itself to one has ended its environments, or PID 1 has restarted the
    /// machine (`guard`). Longer than `give_up` by what a look, a word to init and its rounding take.
    pub lease: Duration,
    /// How long an agent's word for what runs on its node goes; after that init restarts the machine. Longer than init's longest pause before
    /// it starts a dead agent again.
    pub vouch: Duration,
    /// How long a center that has just started listens before it takes anything over.
    pub listen: Duration,
}

impl Timing {
    /// With this patience; 1 is the native speed of a machine.
    pub fn new(patience: u32) -> Self {
        let factor = patience.clamp(*PATIENCE.start(), *PATIENCE.end());
        let seconds = |native| Duration::from_secs(native) * factor;
        Self {
            isolate: seconds(5),
            suspect: seconds(6),
            corroborate: seconds(2),
            give_up: SHARE_LEASE * factor + seconds(3),
            lease: SHARE_LEASE * factor + seconds(3) + LEASE_SLACK,
            vouch: Duration::from_secs(30) + seconds(10),
            listen: seconds(15),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_off_the_network_before_anybody_may_take_over_from_it() {
        for patience in [0, 1, 4, 20, u32::MAX] {
            let Timing { isolate, suspect, give_up, listen, .. } = Timing::new(patience);
            assert!(MARK * 2 < isolate && isolate < suspect && suspect < give_up, "{patience}");
            assert!(SHARE_LEASE < give_up && give_up <= listen, "{patience}");
        }
    }

    #[test]
    fn silence_leaves_time_to_start_elsewhere_within_15_seconds() {
        let timing = Timing::new(1);
        assert!(timing.suspect + timing.corroborate + MARK <= Duration::from_secs(10));
    }
}
