//! One service, and where it stands.

use super::*;

impl Entry {
    pub(super) fn pid(&self) -> i32 {
        match self.state {
            State::Starting { pid, .. }
            | State::Running { pid, .. }
            | State::Stopping { pid, .. }
            | State::Killed { pid, .. } => pid,
            State::Waiting { .. } | State::Done | State::Failed { .. } | State::Stopped => 0,
        }
    }

    pub(super) fn fail(&mut self, now: Duration, ran: Duration, why: &str, actions: &mut Vec<Action>) {
        if ran >= STEADY {
            self.failures = 0;
        }
        let pause = pause(self.failures);
        self.failures = self.failures.saturating_add(1);
        self.state = State::Failed { until: now + pause };
        let text = format!("{}: {why}; starting it again in {:.1} s", self.service.name, pause.as_secs_f64());
        actions.push(Action::Say(Level::Error, text));
    }

    pub(super) fn status(&self) -> Status {
        let state = match self.state {
            State::Waiting { .. } => "waiting",
            State::Starting { .. } => "starting",
            State::Running { .. } => "running",
            State::Done => "done",
            State::Failed { .. } => "failed",
            State::Stopping { .. } | State::Killed { .. } => "stopping",
            State::Stopped => "stopped",
        };
        Status { name: self.service.name, state, pid: self.pid(), restarts: self.starts.saturating_sub(1) }
    }
}

fn pause(failures: u32) -> Duration {
    FIRST_PAUSE.saturating_mul(1 << failures.min(16)).min(LONGEST_PAUSE)
}
