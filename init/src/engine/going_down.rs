//! The shutdown, carried out phase by phase. Whatever may hang is done by a child process with a time limit: PID 1 itself never
//! waits for a disk or a server here.

use std::{
    collections::VecDeque,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Result;
use lodge_model::{
    initproto::{Cause, Down, Line},
    paths, timing,
};
use lodge_sys::{
    mount::{self, MountPoint},
    power,
    process::{self, Ended},
    signal::Signal,
};

use super::Engine;
use crate::{
    log,
    services::STOP_TIMEOUT,
    shutdown::{Phase, Shutdown},
    supervisor::Event,
    watchdog,
};

/// Between SIGTERM and SIGKILL for what no service owns, and again for the kernel to end the killed.
const KILL_PATIENCE: Duration = Duration::from_secs(3);
/// For one local file system to write back what it holds.
const UNMOUNT_PATIENCE: Duration = Duration::from_secs(45);
/// For everything else to be written back: a detached share whose server is dead would hold it up for ever.
const SYNC_PATIENCE: Duration = Duration::from_secs(10);
/// The same three once the share is known to hang: what hangs with it does not come back, and the machine is to go down all the same.
const HUNG_PATIENCE: Duration = Duration::from_secs(2);

/// A shutdown under way.
#[derive(Debug)]
pub struct GoingDown {
    shutdown: Shutdown,
    entered: bool,
    may_proceed: bool,
    killed: bool,
    /// The share's server does not answer: a service that uses it could not be ended, or the unmount did not end.
    share_hangs: bool,
    until: Duration,
    targets: VecDeque<PathBuf>,
    /// A child at work and what it unmounts; `None` for a sync.
    child: Option<(i32, Option<PathBuf>)>,
}

impl GoingDown {
    /// The subscribers have nothing more to do.
    pub fn proceed(&mut self) {
        log::notice("shutdown: told to proceed");
        self.may_proceed = true;
    }

    /// The subscribers need so long from now on.
    pub fn hold(&mut self, seconds: u32) {
        self.shutdown.hold(log::uptime(), seconds);
        let left = self.shutdown.seconds_left(log::uptime());
        log::notice(&format!("shutdown: asked to wait for {seconds} s; waiting for {} s at most", left));
    }

    /// When time alone changes something.
    pub fn next(&self) -> Option<Duration> {
        match self.shutdown.phases.front() {
            Some(Phase::Announce) => Some(self.shutdown.announced_until),
            Some(Phase::Stop(_)) | None => None,
            Some(_) => Some(self.until),
        }
    }

    /// What a subscriber is told, while there is still something to wait for.
    pub fn announcement(&self) -> Option<Line> {
        let Shutdown { down, cause, .. } = self.shutdown;
        let deadline = self.shutdown.seconds_left(log::uptime());
        (self.shutdown.phases.front() == Some(&Phase::Announce)).then_some(Line::Shutdown { down, cause, deadline })
    }

    /// A process ended; whether it was a child of this.
    pub fn ended(&mut self, ended: Ended) -> bool {
        match &self.child {
            Some((pid, target)) if *pid == ended.pid => {
                if ended.status != 0
                    && let Some(target) = target
                {
                    let why = ended
                        .code()
                        .map_or_else(|| ended.describe(), |errno| std::io::Error::from_raw_os_error(errno).to_string());
                    detach(target, &why);
                }
                self.child = None;
                true
            }
            _ => false,
        }
    }

    fn enter(&mut self, now: Duration, patience: Duration) {
        self.entered = true;
        self.until = now + patience;
    }

    fn leave(&mut self) {
        self.shutdown.phases.pop_front();
        self.entered = false;
        self.killed = false;
        self.targets.clear();
        self.child = None;
    }

    /// What is given to something that hangs when the share does.
    fn patience(&self, usual: Duration) -> Duration {
        if self.share_hangs { usual.min(HUNG_PATIENCE) } else { usual }
    }

    /// The disk of this machine has its time whatever the share does.
    fn patience_of(&self, target: &Path) -> Duration {
        match target {
            target if target.starts_with(paths::SHARE) => self.patience(timing::SHARE_UNMOUNT),
            target if target == Path::new(paths::AGENT_NAMESPACE) => self.patience(UNMOUNT_PATIENCE),
            _ => UNMOUNT_PATIENCE,
        }
    }

    /// Unmount one after the other; true when none is left.
    fn unmount_next(&mut self, now: Duration) -> bool {
        if let Some((_, target)) = &self.child {
            if now < self.until {
                return false;
            }
            if let Some(target) = target {
                abandon(target, self.patience_of(target));
                self.share_hangs |= target.starts_with(paths::SHARE);
            }
            self.child = None;
        }
        while let Some(target) = self.targets.pop_front() {
            match mount::start_unmount(&target) {
                Ok(pid) => {
                    self.until = now + self.patience_of(&target);
                    self.child = Some((pid.as_raw(), Some(target)));
                    return false;
                }
                Err(error) => detach(&target, &format!("{error:#}")),
            }
        }
        true
    }
}

impl Engine {
    /// Somebody wants the machine to go down. While it does, a second request can only make it harder.
    pub(super) fn shut_down(&mut self, down: Down, cause: Cause) {
        let now = log::uptime();
        match &mut self.going_down {
            None => {
                log::notice(&format!("shutdown: {down}, by {}", cause_for_people(cause)));
                let shutdown = Shutdown::begin(now, down, cause, &self.services);
                let begun = GoingDown {
                    shutdown,
                    entered: false,
                    may_proceed: false,
                    killed: false,
                    share_hangs: false,
                    until: now,
                    targets: VecDeque::new(),
                    child: None,
                };
                self.going_down = Some(begun);
            }
            Some(going_down) => {
                if going_down.shutdown.press(now, down, cause) {
                    log::notice(&format!("shutdown: now {}, by {}", going_down.shutdown.down, cause_for_people(cause)));
                    // The subscribers hear of the new deadline.
                    if going_down.shutdown.phases.front() == Some(&Phase::Announce) {
                        going_down.entered = false;
                    }
                } else {
                    log::notice(&format!("shutdown: already under way ({})", going_down.shutdown.down));
                }
            }
        }
    }

    /// Carry out as many phases as are possible now.
    pub(super) fn go_down_further(&mut self) -> Result<()> {
        while let Some(phase) = self.going_down.as_ref().and_then(|going_down| going_down.shutdown.phases.front().copied()) {
            if !self.phase_is_over(phase)? {
                return Ok(());
            }
            if let Some(going_down) = &mut self.going_down {
                going_down.leave();
            }
        }
        Ok(())
    }

    /// Enter or continue a phase; whether it is over. The only place where phases do something.
    fn phase_is_over(&mut self, phase: Phase) -> Result<bool> {
        let now = log::uptime();
        let Some(going_down) = &mut self.going_down else { return Ok(true) };
        let is_new = !going_down.entered;
        Ok(match phase {
            Phase::Announce => {
                let has_subscribers = self.server.as_ref().is_some_and(super::Server::has_subscribers);
                if is_new && has_subscribers {
                    going_down.entered = true;
                    log::notice(&format!(
                        "shutdown: telling the agent, waiting {} s at most",
                        going_down.shutdown.seconds_left(now)
                    ));
                    if let (Some(server), Some(line)) = (&mut self.server, going_down.announcement()) {
                        server.publish(&line, &self.poller);
                    }
                }
                let is_late = now >= going_down.shutdown.announced_until;
                if is_late {
                    log::warning("shutdown: nobody said proceed in time, going on");
                }
                let is_over = !has_subscribers || going_down.may_proceed || is_late;
                if is_over {
                    self.restart_at = None;
                    self.feed(Event::Freeze);
                }
                is_over
            }
            Phase::Stop(unit) => {
                let uses_share = self.services.get(unit).is_some_and(|service| service.uses_share);
                if is_new {
                    going_down.enter(now, STOP_TIMEOUT);
                    let name = self.services.get(unit).map(|service| service.name).unwrap_or_default();
                    if self.supervisor.has_work_to_stop(unit) {
                        log::notice(&format!("shutdown: stopping {name}"));
                    }
                    self.feed(Event::Stop(unit));
                }
                let is_over = self.supervisor.is_stopped(unit);
                if let Some(going_down) = &mut self.going_down
                    && uses_share
                    && now > going_down.until
                {
                    going_down.share_hangs = true;
                }
                is_over
            }
            Phase::UnmountShare => {
                if is_new {
                    going_down.enter(now, Duration::ZERO);
                    going_down.targets = targets(|mount| mount.target.starts_with(paths::SHARE));
                    if !going_down.targets.is_empty() {
                        log::notice("shutdown: unmounting the share");
                    }
                }
                going_down.unmount_next(now)
            }
            Phase::KillAll => {
                let patience = going_down.patience(KILL_PATIENCE);
                if is_new {
                    going_down.enter(now, patience);
                    if process::has_children() {
                        log::notice("shutdown: ending all processes");
                        signal_all(Signal::SIGTERM);
                    }
                }
                if now >= going_down.until && !going_down.killed {
                    going_down.enter(now, patience);
                    going_down.killed = true;
                    signal_all(Signal::SIGKILL);
                }
                let is_late = going_down.killed && now >= going_down.until;
                if is_late {
                    log::warning("shutdown: some processes hang in the kernel, leaving them");
                }
                is_late || !process::has_children()
            }
            Phase::Unmount => {
                if is_new {
                    self.children.close_logs();
                    going_down.enter(now, Duration::ZERO);
                    going_down.targets = targets(is_worth_unmounting);
                    if !going_down.targets.is_empty() {
                        log::notice("shutdown: unmounting the state");
                    }
                }
                going_down.unmount_next(now)
            }
            Phase::Sync => {
                if is_new {
                    let patience = going_down.patience(SYNC_PATIENCE);
                    going_down.enter(now, patience);
                    going_down.child = mount::start_sync().ok().map(|pid| (pid.as_raw(), None));
                }
                let is_late = now >= going_down.until;
                if is_late {
                    log::error("shutdown: not everything could be written back, going on");
                }
                is_late || going_down.child.is_none()
            }
            Phase::Down => {
                let down = going_down.shutdown.down;
                log::notice(&format!("shutdown: {}", last_words(down)));
                if down != Down::Reboot {
                    watchdog::disarm();
                }
                match power::go_down(down)? {}
            }
        })
    }
}

fn signal_all(signal: Signal) {
    if let Err(error) = process::kill_all(signal) {
        log::warning(&format!("{error:#}"));
    }
}

/// Mounts to take away, those on top of others first.
fn targets(wanted: impl Fn(&MountPoint) -> bool) -> VecDeque<PathBuf> {
    let mounts = mount::mounts().inspect_err(|error| log::error(&format!("{error:#}"))).unwrap_or_default();
    mounts.into_iter().filter(wanted).map(|mount| mount.target).rev().collect()
}

/// What keeps data anywhere but in memory; a namespace (`nsfs`) does by what is mounted in it, which goes with it. The root stays: it
/// is read-only and PID 1 runs from it.
fn is_worth_unmounting(mount: &MountPoint) -> bool {
    let is_kept = mount.source.starts_with("/dev/") || matches!(mount.fstype.as_str(), "nfs" | "nfs4" | "ceph" | "nsfs");
    is_kept && mount.target != Path::new("/")
}

fn detach(target: &Path, why: &str) {
    log::warning(&format!("shutdown: unmounting {}: {why}; detaching it", target.display()));
    said(mount::detach(target));
}

/// Its server does not answer: whoever waits for it goes on with an error.
fn abandon(target: &Path, limit: Duration) {
    let seconds = limit.as_secs();
    log::error(&format!(
        "shutdown: unmounting {}: not done within {seconds} s; what was not written is lost",
        target.display()
    ));
    said(mount::abandon(target));
}

fn said(done: Result<()>) {
    if let Err(error) = done {
        log::error(&format!("shutdown: {error:#}"));
    }
}

fn cause_for_people(cause: Cause) -> &'static str {
    match cause {
        Cause::Button => "the power button",
        Cause::CtrlAltDel => "Ctrl-Alt-Del",
        Cause::Power => "the power supply (SIGPWR)",
        Cause::Request => "request",
    }
}

fn last_words(down: Down) -> &'static str {
    match down {
        Down::Poweroff => "switching the machine off",
        Down::Reboot => "restarting the machine",
        Down::Halt => "the machine is halted; it can be switched off",
    }
}

#[cfg(test)]
mod tests;
