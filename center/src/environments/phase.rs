//! Where an environment stands, in one word and one sentence: computed from its record and from whether its node is heard. Pure.

use lodge_model::environment::order::{State, Want};
use lodge_model::environment::view::Phase;

use super::records::{Disk, Environment, Goal, Place};
use super::repair;

/// Its phase, and what it waits for or why it is not as wanted; an empty reason when all is well. `silent` says why nobody knows how
/// its node is, and is empty where the node is heard.
pub fn of(environment: &Environment, silent: &str) -> (Phase, String) {
    match &environment.place {
        None => unplaced(environment),
        Some(place) if !silent.is_empty() => {
            let next = "; its environments start elsewhere once that machine is certainly off";
            let known = format!("{}: {silent}{next}: lodge node confirm-off {}", place.name, place.name);
            let phase = if environment.goal == Goal::Destroyed { Phase::Destroying } else { Phase::Unknown };
            (phase, known)
        }
        Some(place) => placed(environment, place),
    }
}

fn unplaced(environment: &Environment) -> (Phase, String) {
    match (environment.goal, &environment.disk) {
        (Goal::Destroyed, _) => (Phase::Destroying, environment.waits.clone()),
        (_, Disk::Lost(why)) => (Phase::Failed, format!("its disk could not be copied: {why}; destroy it and clone again")),
        (Goal::Running, _) => (Phase::Waiting, environment.waits.clone()),
        (Goal::Stopped | Goal::Killed, _) => (Phase::Stopped, String::new()),
        (Goal::Ended, _) => (Phase::Ended, environment.last_exit.clone()),
    }
}

fn placed(environment: &Environment, place: &Place) -> (Phase, String) {
    let problem = environment.report.as_ref().map(|report| report.problem.clone()).unwrap_or_default();
    let state = environment.report.as_ref().map(|report| &report.state);
    match (place.want, state) {
        (Want::Destroyed, _) => (Phase::Destroying, problem),
        (Want::Suspended | Want::Stopped | Want::Killed, Some(State::Failed)) => (Phase::Failed, problem),
        (Want::Suspended | Want::Stopped | Want::Killed, _) if environment.goal == Goal::Running => {
            let to = environment.moving.as_ref().and_then(|moving| moving.to.as_ref());
            let next = to.map(|(_, to)| format!("it moves to {to}"));
            let next = next.or_else(|| repair::next(environment).map(str::to_owned));
            let next = next.unwrap_or_else(|| "it is started again as soon as it has shut down".to_owned());
            (Phase::Stopping, or(problem, &next))
        }
        (Want::Stopped | Want::Killed, Some(State::Ended)) if environment.goal == Goal::Ended => {
            (Phase::Ended, or(problem, &environment.last_exit))
        }
        (Want::Suspended | Want::Stopped | Want::Killed, _) => (Phase::Stopping, problem),
        (Want::Running, None) => (Phase::Starting, String::new()),
        (Want::Running, Some(State::Preparing { step })) => (Phase::Starting, or(problem, step)),
        (Want::Running, Some(State::Running { .. })) => (Phase::Running, problem),
        (Want::Running, Some(State::Stopping)) => (Phase::Stopping, problem),
        (Want::Running, Some(State::Ended)) => (Phase::Ended, or(problem, &environment.last_exit)),
        (Want::Running, Some(State::Released | State::Destroyed)) => (Phase::Starting, problem),
        (Want::Running, Some(State::Failed)) => (Phase::Failed, problem),
    }
}

fn or(problem: String, otherwise: &str) -> String {
    if problem.is_empty() { otherwise.to_owned() } else { problem }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::environments::testing;
    use lodge_model::environment::order::Report;

    fn told(environment: &Environment) -> (Phase, String) {
        of(environment, "")
    }

    #[test]
    fn a_life_from_waiting_to_destroyed() {
        let mut web = testing::environment("web1", 1);
        web.waits = "there is no worker".into();
        assert_eq!(told(&web), (Phase::Waiting, "there is no worker".into()));
        web.place = Some(testing::place(1, Want::Running));
        assert_eq!(told(&web).0, Phase::Starting);
        web.report = Some(testing::report(&web, State::Preparing { step: "mount".into() }));
        assert_eq!(told(&web), (Phase::Starting, "mount".into()));
        web.report = Some(testing::report(&web, State::Running { since: 1 }));
        assert_eq!(told(&web), (Phase::Running, String::new()));
        web.report = Some(Report { problem: "no route to the share".into(), ..testing::report(&web, State::Failed) });
        assert_eq!(told(&web), (Phase::Failed, "no route to the share".into()));
        web.place = Some(testing::place(1, Want::Stopped));
        web.report = None;
        assert!(told(&web).1.contains("started again"));
        web.goal = Goal::Stopped;
        assert_eq!(told(&web).0, Phase::Stopping);
        web.place = None;
        assert_eq!(told(&web), (Phase::Stopped, String::new()));
        web.goal = Goal::Destroyed;
        assert_eq!(told(&web).0, Phase::Destroying);
    }

    #[test]
    fn a_silent_node_is_told_with_the_next_step() {
        let mut web = testing::environment("web1", 1);
        web.place = Some(testing::place(1, Want::Running));
        web.report = Some(testing::report(&web, State::Running { since: 1 }));
        let (phase, reason) = of(&web, "no word from it since noon");
        assert!(phase == Phase::Unknown && reason.contains("lodge node confirm-off node1"), "{reason}");
    }

    #[test]
    fn what_ended_by_itself_says_how() {
        let mut web = testing::environment("web1", 1);
        web.goal = Goal::Ended;
        web.last_exit = "powered off by itself".into();
        assert_eq!(told(&web), (Phase::Ended, "powered off by itself".into()));
    }
}
