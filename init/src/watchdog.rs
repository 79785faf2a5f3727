//! The machine's watchdog in the hands of PID 1: armed once, fed wherever PID 1 gets on, and handed from stage to stage by number.
//! There is one machine and one PID 1, so this is the one place in it with a state of its own: it must survive any failure.

use std::{cell::RefCell, env, process::Command, time::Duration};

use anyhow::Result;
use lodge_sys::{
    process::{inherited, number, set_close_on_exec},
    watchdog::Watchdog,
};

use crate::log;

/// The hardware resets the machine after this long without a sign of life from PID 1.
const LIMIT: Duration = Duration::from_secs(60);
/// How often it is fed.
const FEED_EVERY: Duration = Duration::from_secs(10);
/// Environment variable with the number of the open device.
const FD: &str = "LODGE_WATCHDOG_FD";

#[derive(Debug)]
struct Armed {
    device: Watchdog,
    fed_at: Duration,
}

thread_local! {
    static ARMED: RefCell<Option<Armed>> = const { RefCell::new(None) };
}

/// Take over the one that the stage before this one has armed, if any.
pub fn inherit() {
    let fd = env::var(FD).ok().and_then(|text| text.parse().ok()).and_then(inherited);
    let Some(device) = fd.map(Watchdog::from_fd) else { return };
    if let Err(error) = set_close_on_exec(&device, true) {
        log::warning(&format!("keeping the watchdog from child processes: {error:#}"));
    }
    ARMED.set(Some(Armed { device, fed_at: Duration::ZERO }));
    pulse();
}

/// Arm it.
pub fn arm() -> Result<()> {
    let (device, limit) = Watchdog::arm(LIMIT)?;
    log::notice(&format!("watchdog armed: the machine is reset {} s after init's last sign of life", limit.as_secs()));
    ARMED.set(Some(Armed { device, fed_at: log::uptime() }));
    Ok(())
}

/// Feed it, if it is time.
pub fn pulse() {
    ARMED.with_borrow_mut(|armed| {
        let Some(armed) = armed else { return };
        let now = log::uptime();
        if now.saturating_sub(armed.fed_at) >= FEED_EVERY {
            armed.fed_at = now;
            if let Err(error) = armed.device.feed() {
                log::error(&format!("{error:#}"));
            }
        }
    });
}

/// When it wants to be fed next.
pub fn next() -> Option<Duration> {
    ARMED.with_borrow(|armed| armed.as_ref().map(|armed| armed.fed_at + FEED_EVERY))
}

/// Let the program that is executed next have it. A watchdog that cannot be handed over resets the machine: said, not hidden.
pub fn hand_over(command: &mut Command) {
    ARMED.with(|armed| {
        // A panic may have come from inside this module; then the machine is reset in the end, which is what a watchdog is for.
        let Ok(armed) = armed.try_borrow() else { return };
        let Some(Armed { device, .. }) = armed.as_ref() else { return };
        match device.feed().and_then(|()| set_close_on_exec(device, false)) {
            Ok(()) => drop(command.env(FD, number(device).to_string())),
            Err(error) => log::error(&format!("handing the watchdog over: {error:#}")),
        }
    });
}

/// Stop it: the machine is to stay down.
pub fn disarm() {
    if let Some(Armed { device, .. }) = ARMED.take()
        && let Err(error) = device.disarm()
    {
        log::warning(&format!("{error:#}"));
    }
}
