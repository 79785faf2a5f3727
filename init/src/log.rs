//! Where PID 1 speaks: the kernel's log, which is on every console and in `dmesg`. Before /dev is there, standard error.

use std::{cell::OnceCell, time::Duration};

use lodge_sys::kmsg::Kmsg;
pub use lodge_sys::kmsg::Level;
use nix::time::{ClockId, clock_gettime};

thread_local! {
    static KMSG: OnceCell<Kmsg> = const { OnceCell::new() };
}

/// A line everybody should see.
pub fn notice(text: &str) {
    log("init", Level::Notice, text);
}

/// A line that is kept.
pub fn info(text: &str) {
    log("init", Level::Info, text);
}

/// Something is not as it should be.
pub fn warning(text: &str) {
    log("init", Level::Warning, text);
}

/// Something failed.
pub fn error(text: &str) {
    log("init", Level::Error, text);
}

/// A line in somebody's name.
pub fn log(name: &str, level: Level, text: &str) {
    KMSG.with(|kmsg| {
        if kmsg.get().is_none()
            && let Ok(opened) = Kmsg::open("init")
        {
            // It was empty a line ago and there is one thread.
            let _ = kmsg.set(opened);
        }
        match kmsg.get() {
            Some(kmsg) => kmsg.log_as(name, level, text),
            None => eprintln!("{name}: {text}"),
        }
    });
}

/// Time since the kernel started; the clock of everything here.
pub fn uptime() -> Duration {
    // CLOCK_BOOTTIME always exists; a zero time would only make a wait longer.
    clock_gettime(ClockId::CLOCK_BOOTTIME).map(Duration::from).unwrap_or_default()
}
