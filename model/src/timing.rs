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
