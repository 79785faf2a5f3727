//! PID 1 of a Lodge machine, in the initrd and in the running system; called with another process id it is the command that asks
//! PID 1 for something (`poweroff`, `reboot`, `init status`).
//!
//! Why it exists: the initrd and the node need one program that decides the mode, finds the verified root, keeps the services up,
//! reaps everything, and takes the machine down in order, with or without anybody's help. It is synchronous and has one thread; what
//! takes long is done by child processes. It assumes the image's own layout (`tables`, `services`) and never changes a disk beyond
//! mounting it and letting e2fsck repair the state file system. Nothing that it meets ends in a kernel panic: see `rescue`.

mod client;
mod console;
mod engine;
mod initrd;
mod log;
mod rescue;
mod services;
mod shutdown;
mod step;
mod supervisor;
mod system;
mod tables;
mod vouched;
mod watchdog;

use std::{env, process::ExitCode};

/// Which stage PID 1 has been executed for, by PID 1 itself. Absent: the kernel executed it, in the initrd.
const STAGE: &str = "LODGE_STAGE";
const STAGE_SYSTEM: &str = "system";
const STAGE_RESCUE: &str = "rescue";

fn main() -> ExitCode {
    if std::process::id() != 1 {
        return client::main();
    }
    rescue::catch_panics();
    let stage = env::var(STAGE).unwrap_or_default();
    let ended = match stage.as_str() {
        STAGE_SYSTEM => system::run(),
        STAGE_RESCUE => Err(rescue::inherited()),
        _ => initrd::run(),
    };
    match ended {
        Ok(never) => match never {},
        Err(failure) => rescue::run(failure),
    }
}
