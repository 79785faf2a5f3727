//! What this node attests of its lease and its watchdog (`lodge_model::guard`): what it really does, never what it was asked for.

use std::sync::LazyLock;
use std::time::Duration;

use lodge_model::guard::{Guard, Watchdog};
use lodge_sys::{facts::cpu, watchdog};

/// What cannot be read is taken for the worse.
static IS_VIRTUAL: LazyLock<bool> = LazyLock::new(|| cpu::is_virtual().unwrap_or(true));

/// With the lease that the lifeline holds this node to.
pub fn guard(lease: Option<Duration>) -> Guard {
    let status = watchdog::status().unwrap_or_else(|error| {
        tracing::warn!("looking at the watchdog: {error:#}; nothing is attested of it");
        None
    });
    Guard {
        lease_ms: lease.map(|lease| u64::try_from(lease.as_millis()).unwrap_or(u64::MAX)),
        watchdog: status.filter(|status| status.is_armed).map(|status| Watchdog {
            identity: status.identity,
            timeout: u32::try_from(status.timeout.as_secs()).unwrap_or(u32::MAX),
            is_hardware: !status.is_soft,
        }),
        is_virtual: *IS_VIRTUAL,
    }
}
