//! Going down as a value: the list of phases, who may change it while it runs, and how long it may wait. No I/O, no clock.

use std::{collections::VecDeque, time::Duration};

use lodge_model::initproto::{Cause, Down};

use crate::{services::Service, supervisor::Unit};

/// One phase. The engine carries each one out in one match.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Tell the subscribers and let them do what they must.
    Announce,
    /// Stop one service.
    Stop(Unit),
    /// Unmount the share; the network is still up.
    UnmountShare,
    /// End every process that is left.
    KillAll,
    /// Unmount the state and whatever else is mounted from a disk.
    Unmount,
    /// Write everything back that the kernel still holds.
    Sync,
    /// The end.
    Down,
}

/// A machine that goes down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shutdown {
    /// How.
    pub down: Down,
    /// Why.
    pub cause: Cause,
    /// What is still to be done, the current phase first.
    pub phases: VecDeque<Phase>,
    /// When the announcement is over at the latest.
    pub announced_until: Duration,
    /// Nobody can hold the announcement for longer.
    pub held_until: Duration,
}

/// The agent can have the machine wait for so long: the longest deadline of a cluster's settings, and a little.
const LONGEST: Duration = Duration::from_secs(*lodge_model::drain::DEADLINES.end() as u64 + 60);

/// The phases for these services, which are in the order of their start.
pub fn phases(services: &[&Service]) -> VecDeque<Phase> {
    let mut phases = VecDeque::from([Phase::Announce]);
    let order: Vec<Unit> = (0..services.len()).rev().collect();
    let last_user = order.iter().rposition(|unit| services.get(*unit).is_some_and(|service| service.uses_share));
    if last_user.is_none() {
        phases.push_back(Phase::UnmountShare);
    }
    for (at, unit) in order.iter().enumerate() {
        phases.push_back(Phase::Stop(*unit));
        if Some(at) == last_user {
            phases.push_back(Phase::UnmountShare);
        }
    }
    phases.extend([Phase::KillAll, Phase::Unmount, Phase::Sync, Phase::Down]);
    phases
}

impl Shutdown {
    /// Begin.
    pub fn begin(now: Duration, down: Down, cause: Cause, services: &[&Service]) -> Self {
        Self { down, cause, phases: phases(services), announced_until: now + patience(cause), held_until: now + LONGEST }
    }

    /// A second request while it runs can only make it harder: off instead of restart, and never later. Whether anything changed.
    pub fn press(&mut self, now: Duration, down: Down, cause: Cause) -> bool {
        let before = self.clone();
        if hardness(down) > hardness(self.down) {
            self.down = down;
        }
        if now + patience(cause) < self.announced_until {
            self.announced_until = now + patience(cause);
            self.cause = cause;
        }
        *self != before
    }

    /// The agent needs so long from now on, by the cluster's settings: it is waited for, never longer than `LONGEST` in all.
    pub fn hold(&mut self, now: Duration, seconds: u32) {
        let wanted = (now + Duration::from_secs(seconds.into())).min(self.held_until);
        self.announced_until = self.announced_until.max(wanted);
    }

    /// Seconds until it goes on by itself, rounded up.
    pub fn seconds_left(&self, now: Duration) -> u32 {
        let left = self.announced_until.saturating_sub(now) + Duration::from_millis(999);
        u32::try_from(left.as_secs()).unwrap_or(u32::MAX)
    }
}

/// How long the machine waits for its agent to move what runs here away. A UPS is the most pressing; an order of the center has been
/// planned.
const fn patience(cause: Cause) -> Duration {
    Duration::from_secs(match cause {
        Cause::Button | Cause::CtrlAltDel => 300,
        Cause::Power => 60,
        Cause::Request => 900,
    })
}

fn hardness(down: Down) -> u8 {
    match down {
        Down::Reboot => 0,
        Down::Halt => 1,
        Down::Poweroff => 2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::services::{for_install, for_roles};
    use lodge_model::node::Role;

    #[test]
    fn the_agent_can_hold_it_for_longer_but_not_for_ever_and_the_button_ends_that() {
        let at = Duration::from_secs;
        let mut shutdown = Shutdown::begin(at(100), Down::Poweroff, Cause::Power, &[]);
        shutdown.hold(at(110), 20);
        assert_eq!(shutdown.seconds_left(at(110)), 50, "what was announced stays");
        shutdown.hold(at(110), 180);
        assert_eq!(shutdown.seconds_left(at(110)), 180);
        shutdown.hold(at(110), u32::MAX);
        assert_eq!(shutdown.seconds_left(at(100)), 3660);
        assert!(shutdown.press(at(200), Down::Poweroff, Cause::Button));
        assert_eq!(shutdown.seconds_left(at(200)), 300);
    }

    fn names(services: &[&Service]) -> Vec<String> {
        let name = |phase: &Phase| match phase {
            Phase::Stop(unit) => services[*unit].name.to_owned(),
            other => format!("{other:?}"),
        };
        phases(services).iter().map(name).collect()
    }

    #[test]
    fn the_share_is_unmounted_after_its_users_and_before_network_and_server() {
        let expected = "Announce agent UnmountShare center exportd nfsd fence nfsdcld chronyd network dbus udev-settle udev-trigger udevd \
                        KillAll Unmount Sync Down";
        assert_eq!(names(&for_roles(&[Role::Center, Role::Share])).join(" "), expected);
        assert_eq!(names(&for_install()).join(" "), "Announce installer UnmountShare KillAll Unmount Sync Down");
        assert_eq!(names(&[]).join(" "), "Announce UnmountShare KillAll Unmount Sync Down");
    }

    #[test]
    fn a_second_request_only_makes_it_harder() {
        let now = Duration::from_secs(1000);
        let mut shutdown = Shutdown::begin(now, Down::Reboot, Cause::Request, &[]);
        assert!(shutdown.press(now, Down::Poweroff, Cause::Button));
        assert_eq!((shutdown.down, shutdown.cause, shutdown.seconds_left(now)), (Down::Poweroff, Cause::Button, 300));
        assert!(!shutdown.press(now, Down::Reboot, Cause::Request));
        assert_eq!((shutdown.down, shutdown.seconds_left(now)), (Down::Poweroff, 300));
        assert!(shutdown.press(now, Down::Poweroff, Cause::Power));
        assert_eq!(shutdown.seconds_left(now), 60);
        assert_eq!(shutdown.seconds_left(now + Duration::from_secs(90)), 0);
    }
}
