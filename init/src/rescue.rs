//! When PID 1 cannot go on: say on every console what failed, why and what to do, and offer a shell there.
//!
//! A machine without anybody at its console restarts after a while: a fault that has gone away (a late disk) heals, and a base OS
//! that does not come up uses up its boot tries, so that the loader falls back to the other slot. Pressing Enter for a shell ends
//! the wait. A panic replaces PID 1 by itself in this mode; a second one restarts the machine.

use std::{convert::Infallible, env, panic, process::Command, time::Duration};

use lodge_model::initproto::Down;
use lodge_sys::{power, process};

use crate::{
    STAGE, STAGE_RESCUE, console,
    engine::{Engine, Setup},
    log,
    step::Failure,
    tables, watchdog,
};

/// Nobody came to the console for this long: restart.
const RESTART_AFTER: Duration = Duration::from_secs(300);
/// How long the last words stay on the screen.
const LAST_WORDS: Duration = Duration::from_secs(30);
/// Environment variable with the reason for the rescue after a panic.
const REASON: &str = "LODGE_RESCUE_REASON";
/// Somebody asked for rescue: `lodge.mode=rescue`.
pub const ASKED_FOR: &str = "nothing";

/// Never returns: shells, then down.
pub fn run(failure: Failure) -> ! {
    // What came before may have failed at exactly this; every row that is there already is left as it is.
    let _ = tables::mount_kernel_file_systems();
    let restart_at = (failure.what != ASKED_FOR).then(|| log::uptime() + RESTART_AFTER);
    let text = text(&failure, restart_at.is_some());
    log::error(&format!("rescue: {} failed: {}", failure.what, failure.why));
    let ran = run_engine(text.clone(), restart_at);
    let Err(error) = ran;
    last_resort(&format!("{text}\nAnd rescue itself failed: {error:#}"))
}

fn run_engine(text: String, restart_at: Option<Duration>) -> anyhow::Result<Infallible> {
    Engine::new(Setup { rescue: Some(text), restart_at, ..Setup::default() })?.run()
}

/// A panic of PID 1 does not end it (the kernel would panic in turn) but starts it anew, in rescue.
pub fn catch_panics() {
    panic::set_hook(Box::new(|panic| {
        let why = panic.to_string().replace('\n', " ");
        log::log("init", log::Level::Alert, &format!("panic: {why}"));
        if env::var(STAGE).is_ok_and(|stage| stage == STAGE_RESCUE) {
            last_resort(&format!("init failed twice: {why}"));
        }
        let mut again = Command::new("/proc/self/exe");
        watchdog::hand_over(again.env(STAGE, STAGE_RESCUE).env(REASON, &why));
        let error = process::exec(&mut again);
        last_resort(&format!("init failed: {why}; starting it anew failed: {error:#}"))
    }));
}

/// What the panic that this program was started for said.
pub fn inherited() -> Failure {
    Failure {
        what: "init itself".into(),
        why: env::var(REASON).unwrap_or_else(|_| "it did not say".into()),
        advice: "this is a fault in Lodge: save what `dmesg` says, then `reboot`".into(),
    }
}

fn text(failure: &Failure, restarts: bool) -> String {
    let restarts = match restarts {
        true => format!("\nWithout a key the machine restarts in {} s.", RESTART_AFTER.as_secs()),
        false => String::new(),
    };
    let Failure { what, why, advice } = failure;
    format!(
        "\n======== Lodge: rescue ========\n\
         What failed: {what}\n\
         Why:         {why}\n\
         What to do:  {advice}\n\
         `dmesg` shows what happened before. Ctrl-Alt-Del or `reboot` restarts, `poweroff` switches off.{restarts}"
    )
}

/// Nothing works any more but the consoles and the reset.
fn last_resort(text: &str) -> ! {
    log::log("init", log::Level::Alert, text);
    console::print_everywhere(&format!("{text}\nThe machine restarts in {} s.", LAST_WORDS.as_secs()));
    std::thread::sleep(LAST_WORDS); // for people to read; nothing else is left to wait for
    let Err(error) = power::go_down(Down::Reboot);
    console::print_everywhere(&format!("{error:#}: switch the machine off and on"));
    loop {
        std::thread::park();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rescue_says_what_why_and_what_to_do() {
        let failure =
            Failure { what: "mounting the state".into(), why: "no such disk".into(), advice: "look at the cable".into() };
        let text = text(&failure, true);
        for part in ["mounting the state", "no such disk", "look at the cable", "restarts in 300 s"] {
            assert!(text.contains(part), "{text}");
        }
    }
}
