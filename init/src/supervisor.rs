//! What becomes of the services: a state machine without I/O or clock. Events and the time go in, actions come out; the engine carries
//! them out and reports back as further events.

use std::time::Duration;

use lodge_model::initproto::{Down, EXIT_POWEROFF, EXIT_REBOOT};
use lodge_sys::{kmsg::Level, process::Ended};

use crate::services::{PATIENCE, Ready, STOP_TIMEOUT, Service};

mod entry;
#[cfg(test)]
mod tests;

/// A service's place in the supervisor.
pub type Unit = usize;

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// Nothing but time.
    Tick,
    /// A start or a stop command was carried out: this is its process.
    Spawned(Unit, i32),
    /// It could not be.
    NotSpawned(Unit),
    /// A process ended that may be a service's.
    Exited(Ended),
    /// The path of `Ready::PathExists` is there.
    Ready(Unit),
    /// Somebody wants it restarted.
    Restart(Unit),
    /// Stop it for good.
    Stop(Unit),
    /// The machine goes down: start nothing any more.
    Freeze,
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Start the service's program.
    Start(Unit),
    /// Start the service's stop command.
    RunStop(Unit),
    /// SIGTERM to its process, which is never 0.
    Terminate(Unit, i32),
    /// SIGKILL to everything in its cgroup.
    KillGroup(Unit),
    /// The installer wants the machine to go down.
    GoDown(Down),
    /// Tell.
    Say(Level, String),
}

/// A restart is delayed by this at first, twice as long each time.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// And never longer than this.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// A service that ran this long starts again with the first pause: it works, and what ended it was not its start. One that always dies
/// then costs a start in ten seconds, which a machine can bear.
const STEADY: Duration = Duration::from_secs(10);
/// How long a process may survive SIGKILL (it hangs in the kernel) before it is left alone.
const KILL_TIMEOUT: Duration = Duration::from_secs(5);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// For what it starts after.
    Waiting {
        since: Duration,
    },
    /// Process 0 until the engine has reported it.
    Starting {
        pid: i32,
        since: Duration,
    },
    Running {
        pid: i32,
        since: Duration,
    },
    Done,
    /// Ended; starts again then.
    Failed {
        until: Duration,
    },
    Stopping {
        pid: i32,
        kill_at: Duration,
        again: bool,
    },
    Killed {
        pid: i32,
        give_up_at: Duration,
        again: bool,
    },
    Stopped,
}

#[derive(Debug)]
struct Entry {
    service: &'static Service,
    state: State,
    starts: u32,
    failures: u32,
}

/// All services of this machine.
#[derive(Debug)]
pub struct Supervisor {
    entries: Vec<Entry>,
    frozen: bool,
}

/// A service as `init status` shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// Name.
    pub name: &'static str,
    /// One of `initproto::Line::Service`'s words.
    pub state: &'static str,
    /// Process, 0 when there is none.
    pub pid: i32,
    /// Starts after the first one.
    pub restarts: u32,
}

impl Supervisor {
    /// All of them waiting.
    pub fn new(services: &[&'static Service], now: Duration) -> Self {
        let entry =
            |service: &&'static Service| Entry { service, state: State::Waiting { since: now }, starts: 0, failures: 0 };
        Self { entries: services.iter().map(entry).collect(), frozen: false }
    }

    /// Take an event in; what is to be done now.
    pub fn handle(&mut self, now: Duration, event: Event) -> Vec<Action> {
        let mut actions = Vec::new();
        match event {
            Event::Tick => {}
            Event::Spawned(unit, pid) => self.spawned(unit, pid),
            Event::NotSpawned(unit) => self.not_spawned(now, unit, &mut actions),
            Event::Exited(ended) => self.exited(now, ended, &mut actions),
            Event::Ready(unit) => self.ready(unit, &mut actions),
            Event::Restart(unit) => self.restart(now, unit, &mut actions),
            Event::Stop(unit) => self.stop(now, unit, &mut actions),
            Event::Freeze => self.freeze(),
        }
        for unit in 0..self.entries.len() {
            self.advance(now, unit, &mut actions);
        }
        actions
    }

    /// When time alone changes something.
    pub fn next(&self) -> Option<Duration> {
        let next = |entry: &Entry| match entry.state {
            State::Waiting { since } => Some(since + PATIENCE),
            State::Failed { until } => Some(until),
            State::Stopping { kill_at, .. } => Some(kill_at),
            State::Killed { give_up_at, .. } => Some(give_up_at),
            State::Starting { .. } | State::Running { .. } | State::Done | State::Stopped => None,
        };
        self.entries.iter().filter_map(next).min()
    }

    /// The service of that name.
    pub fn find(&self, name: &str) -> Option<Unit> {
        self.entries.iter().position(|entry| entry.service.name == name)
    }

    /// The service of that process.
    pub fn owner(&self, pid: i32) -> Option<Unit> {
        self.entries.iter().position(|entry| pid != 0 && entry.pid() == pid)
    }

    /// What the table says of a unit.
    pub fn service(&self, unit: Unit) -> Option<&'static Service> {
        self.entries.get(unit).map(|entry| entry.service)
    }

    /// Units whose path is still to appear.
    pub fn awaiting_path(&self) -> Vec<(Unit, &'static str)> {
        let path = |(unit, entry): (Unit, &Entry)| match (entry.state, entry.service.ready) {
            (State::Starting { .. }, Ready::PathExists(path)) => Some((unit, path)),
            _ => None,
        };
        self.entries.iter().enumerate().filter_map(path).collect()
    }

    /// Whether nothing of it runs and nothing will.
    pub fn is_stopped(&self, unit: Unit) -> bool {
        self.entries.get(unit).is_none_or(|entry| entry.state == State::Stopped)
    }

    /// Whether stopping it is worth a line: it runs, or what it did has to be undone.
    pub fn has_work_to_stop(&self, unit: Unit) -> bool {
        self.entries
            .get(unit)
            .is_some_and(|entry| entry.pid() != 0 || entry.state == State::Done && entry.service.stop.is_some())
    }

    /// All of them, for people.
    pub fn status(&self) -> Vec<Status> {
        self.entries.iter().map(Entry::status).collect()
    }

    fn spawned(&mut self, unit: Unit, child: i32) {
        let Some(entry) = self.entries.get_mut(unit) else { return };
        match &mut entry.state {
            State::Starting { pid, since } => match entry.service.ready {
                Ready::Started => entry.state = State::Running { pid: child, since: *since },
                Ready::Decides => entry.state = State::Running { pid: child, since: *since },
                Ready::PathExists(_) | Ready::Exit(_) => *pid = child,
            },
            State::Stopping { pid, .. } => *pid = child,
            _ => {}
        }
    }

    fn not_spawned(&mut self, now: Duration, unit: Unit, actions: &mut Vec<Action>) {
        let Some(entry) = self.entries.get_mut(unit) else { return };
        match entry.state {
            State::Stopping { again: true, .. } => entry.state = State::Waiting { since: now },
            State::Stopping { .. } => entry.state = State::Stopped,
            _ => entry.fail(now, Duration::ZERO, "it cannot be started", actions),
        }
        if self.frozen {
            self.freeze();
        }
    }

    fn exited(&mut self, now: Duration, ended: Ended, actions: &mut Vec<Action>) {
        let Some(unit) = self.owner(ended.pid) else { return };
        let Some(entry) = self.entries.get_mut(unit) else { return };
        // Whatever it left behind goes with it.
        actions.push(Action::KillGroup(unit));
        let since = match entry.state {
            State::Stopping { again, .. } | State::Killed { again, .. } => {
                entry.state = if again { State::Waiting { since: now } } else { State::Stopped };
                return;
            }
            State::Starting { since, .. } | State::Running { since, .. } => since,
            _ => return,
        };
        let ran = now.saturating_sub(since);
        match (entry.service.ready, ended.code()) {
            (Ready::Exit(good), Some(code)) if good.contains(&code) => {
                entry.state = State::Done;
                entry.failures = 0;
            }
            (Ready::Decides, Some(EXIT_REBOOT)) => {
                entry.state = State::Done;
                actions.push(Action::GoDown(Down::Reboot));
            }
            (Ready::Decides, Some(EXIT_POWEROFF)) => {
                entry.state = State::Done;
                actions.push(Action::GoDown(Down::Poweroff));
            }
            _ => entry.fail(now, ran, &format!("it ended ({})", ended.describe()), actions),
        }
        if self.frozen {
            self.freeze();
        }
    }

    fn ready(&mut self, unit: Unit, actions: &mut Vec<Action>) {
        let Some(entry) = self.entries.get_mut(unit) else { return };
        if let State::Starting { pid, since } = entry.state
            && pid != 0
        {
            entry.state = State::Running { pid, since };
            actions.push(Action::Say(Level::Info, format!("{} is ready", entry.service.name)));
        }
    }

    fn freeze(&mut self) {
        self.frozen = true;
        for entry in &mut self.entries {
            match &mut entry.state {
                State::Waiting { .. } | State::Failed { .. } => entry.state = State::Stopped,
                State::Stopping { again, .. } | State::Killed { again, .. } => *again = false,
                State::Starting { .. } | State::Running { .. } | State::Done | State::Stopped => {}
            }
        }
    }

    fn restart(&mut self, now: Duration, unit: Unit, actions: &mut Vec<Action>) {
        let Some(entry) = self.entries.get_mut(unit).filter(|_| !self.frozen) else { return };
        entry.failures = 0;
        match &mut entry.state {
            State::Starting { pid, .. } | State::Running { pid, .. } => {
                let pid = *pid;
                if pid != 0 {
                    actions.push(Action::Terminate(unit, pid));
                }
                entry.state = State::Stopping { pid, kill_at: now + STOP_TIMEOUT, again: true };
            }
            State::Stopping { again, .. } | State::Killed { again, .. } => *again = true,
            // What it did is undone first, or the second start would only meet it.
            State::Done if entry.service.stop.is_some() => {
                actions.push(Action::RunStop(unit));
                entry.state = State::Stopping { pid: 0, kill_at: now + STOP_TIMEOUT, again: true };
            }
            state => *state = State::Waiting { since: now },
        }
    }

    fn stop(&mut self, now: Duration, unit: Unit, actions: &mut Vec<Action>) {
        let Some(entry) = self.entries.get_mut(unit) else { return };
        match &mut entry.state {
            State::Waiting { .. } | State::Failed { .. } => entry.state = State::Stopped,
            State::Starting { pid, .. } | State::Running { pid, .. } => {
                let pid = *pid;
                if pid != 0 {
                    actions.push(Action::Terminate(unit, pid));
                }
                entry.state = State::Stopping { pid, kill_at: now + STOP_TIMEOUT, again: false };
            }
            State::Done if entry.service.stop.is_some() => {
                actions.push(Action::RunStop(unit));
                entry.state = State::Stopping { pid: 0, kill_at: now + STOP_TIMEOUT, again: false };
            }
            State::Stopping { again, .. } | State::Killed { again, .. } => *again = false,
            State::Done | State::Stopped => {
                actions.push(Action::KillGroup(unit));
                entry.state = State::Stopped;
            }
        }
    }

    fn advance(&mut self, now: Duration, unit: Unit, actions: &mut Vec<Action>) {
        let Some(state) = self.entries.get(unit).map(|entry| entry.state) else { return };
        match state {
            State::Waiting { since } => self.start_if_possible(now, unit, since, actions),
            State::Failed { until } if now >= until => self.start(now, unit, actions),
            State::Stopping { pid, kill_at, again } if now >= kill_at => {
                let name = self.name(unit);
                let seconds = STOP_TIMEOUT.as_secs();
                actions.push(Action::Say(Level::Warning, format!("{name} did not stop within {seconds} s, killing it")));
                actions.push(Action::KillGroup(unit));
                self.set(unit, State::Killed { pid, give_up_at: now + KILL_TIMEOUT, again });
            }
            State::Killed { pid, give_up_at, again } if now >= give_up_at => {
                let name = self.name(unit);
                actions.push(Action::Say(Level::Error, format!("{name} (process {pid}) hangs in the kernel, leaving it")));
                self.set(unit, if again { State::Waiting { since: now } } else { State::Stopped });
            }
            _ => {}
        }
    }

    fn start_if_possible(&mut self, now: Duration, unit: Unit, since: Duration, actions: &mut Vec<Action>) {
        let after = self.service(unit).map(|service| service.after).unwrap_or_default();
        let missing = |name: &&str| {
            let entry = self.entries.iter().find(|entry| entry.service.name == *name);
            entry.is_some_and(|entry| !matches!(entry.state, State::Running { .. } | State::Done))
        };
        let missing: Vec<&str> = after.iter().copied().filter(|name| missing(name)).collect();
        if missing.is_empty() {
            self.start(now, unit, actions);
        } else if now >= since + PATIENCE {
            let text = format!(
                "{} is not ready after {} s, starting {} anyway",
                missing.join(", "),
                PATIENCE.as_secs(),
                self.name(unit)
            );
            actions.push(Action::Say(Level::Warning, text));
            self.start(now, unit, actions);
        }
    }

    fn start(&mut self, now: Duration, unit: Unit, actions: &mut Vec<Action>) {
        actions.push(Action::Start(unit));
        if let Some(entry) = self.entries.get_mut(unit) {
            entry.starts += 1;
            entry.state = State::Starting { pid: 0, since: now };
        }
    }

    fn set(&mut self, unit: Unit, state: State) {
        if let Some(entry) = self.entries.get_mut(unit) {
            entry.state = state;
        }
    }

    fn name(&self, unit: Unit) -> &'static str {
        self.service(unit).map(|service| service.name).unwrap_or_default()
    }
}
