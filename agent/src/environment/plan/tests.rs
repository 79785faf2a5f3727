use std::time::Duration;

use lodge_model::environment::order::{State, Task, TaskKind, TaskOutcome, Want};
use lodge_model::environment::spec::Restart;
use lodge_model::ids::{BootId, TaskId};
use proptest::prelude::*;
use uuid::Uuid;

use super::{CACHED, RETRY_MAX};
use crate::environment::fake::{Cut, Manners};
use crate::environment::host::Container;
use crate::environment::stage::{ID, Stage, order};
use crate::environment::worker::{FIRST_AFTER, Message};

const RUNNING: Option<State> = Some(State::Running { since: 1 });
const SECOND: Duration = Duration::from_secs(1);

fn running() -> Stage {
    let mut stage = Stage::new();
    stage.order(Some(order(Want::Running, 1)));
    stage.act();
    assert_eq!(stage.state(), RUNNING);
    stage.steps();
    stage
}

#[test]
fn a_new_environment_comes_up_step_by_step() {
    let mut stage = Stage::new();
    stage.order(Some(order(Want::Running, 1)));
    stage.act();
    assert_eq!(stage.steps(), ["fetch-template", "take-disk", "mount", "create", "network", "start"]);
    assert_eq!((stage.state(), stage.problem()), (RUNNING, String::new()));
    let report = stage.report.clone().unwrap();
    assert_eq!((report.epoch, report.starts, report.usage), (1, 0, None));
    // Its boot is left alone.
    stage.pass(FIRST_AFTER);
    assert_eq!(stage.report.clone().unwrap().usage.unwrap().memory, 1 << 20);
}

#[test]
fn stopped_it_shuts_down_and_everything_is_let_go_of() {
    let mut stage = running();
    stage.order(Some(order(Want::Stopped, 1)));
    stage.act();
    assert_eq!(stage.steps(), ["stop", "delete", "detach", "unmount", "release"]);
    assert_eq!(stage.state(), Some(State::Released));
    assert_eq!(stage.report.clone().unwrap().last_exit, "shut down as asked");
    stage.order(Some(order(Want::Running, 2)));
    stage.act();
    assert_eq!(stage.steps(), ["take-disk", "check-disk", "mount", "create", "network", "start"]);
    assert_eq!(stage.report.clone().unwrap().epoch, 2);
}

#[test]
fn an_init_that_does_not_listen_is_told_again_and_killed_when_its_time_is_over() {
    let mut stage = running();
    stage.fake.inner().manners = Manners::Deaf;
    stage.order(Some(order(Want::Stopped, 1)));
    stage.pass(SECOND * 29);
    assert_eq!((stage.steps(), stage.state()), (vec!["stop", "stop", "stop"], Some(State::Stopping)));
    stage.pass(SECOND * 5);
    assert_eq!(stage.steps(), ["kill", "delete", "detach", "unmount", "release"]);
    assert_eq!(stage.report.clone().unwrap().last_exit, "killed: it did not shut down within 30 s");
}

#[test]
fn destroyed_it_is_killed_at_once_and_its_directory_goes_last() {
    let mut stage = running();
    stage.order(Some(order(Want::Destroyed, 1)));
    stage.act();
    assert_eq!(stage.steps(), ["kill", "delete", "detach", "unmount", "release", "destroy"]);
    assert_eq!(stage.state(), Some(State::Destroyed));
    assert!(stage.fake.inner().share.is_empty());
    stage.order(None);
    stage.act();
    assert!(stage.is_gone && stage.report.is_none() && stage.steps().is_empty());
}

#[test]
fn what_is_not_assigned_any_more_is_shut_down_and_let_go_of() {
    let mut stage = running();
    stage.order(None);
    stage.act();
    assert_eq!(stage.steps(), ["stop", "delete", "detach", "unmount", "release"]);
    assert!(stage.is_gone && stage.report.is_none());
}

#[test]
fn poweroff_inside_is_an_end_and_an_asked_restart_begins_anew() {
    let mut stage = running();
    stage.fake.end(ID, 2);
    stage.act();
    assert_eq!(stage.steps(), ["delete", "detach", "unmount", "release"]);
    assert_eq!((stage.state(), stage.problem()), (Some(State::Ended), String::new()));
    assert_eq!(stage.report.clone().unwrap().last_exit, "powered off by itself");
    stage.kill_agent();
    stage.pass(SECOND * 600);
    assert_eq!((stage.state(), stage.steps().len()), (Some(State::Ended), 0), "a restart of the agent does not forget it");
    let mut again = order(Want::Running, 1);
    again.restarts_asked = 1;
    stage.order(Some(again));
    stage.act();
    assert_eq!((stage.state(), stage.report.clone().unwrap().restarts_done), (RUNNING, 1));
}

#[test]
fn reboot_inside_starts_it_again_without_letting_go_of_the_disk() {
    let mut stage = running();
    stage.fake.end(ID, 1);
    stage.act();
    assert_eq!(stage.steps(), ["delete", "detach", "create", "network", "start"]);
    let report = stage.report.clone().unwrap();
    assert_eq!(
        (report.state, report.starts, report.last_exit.as_str()),
        (State::Running { since: 1 }, 1, "rebooted by itself")
    );
}

#[test]
fn an_init_that_fails_is_started_again_with_growing_pauses_and_a_checked_disk() {
    let mut stage = running();
    stage.fake.end(ID, 1 << 8);
    stage.act();
    assert_eq!(stage.steps(), ["delete", "detach", "unmount", "release", "take-disk", "check-disk", "mount"]);
    assert_eq!(stage.state(), Some(State::Failed));
    assert_eq!(stage.problem(), "its init exited with status 1; it is started again after a pause");
    stage.pass(SECOND);
    assert_eq!(stage.state(), RUNNING);
    for starts in 2..10 {
        stage.fake.end(ID, 1 << 8);
        stage.pass(RETRY_MAX);
        assert_eq!(stage.report.clone().unwrap().starts, starts);
    }
    stage.pass(RETRY_MAX);
    assert_eq!(stage.state(), RUNNING);
}

#[test]
fn one_that_is_never_restarted_stays_ended() {
    let mut stage = Stage::new();
    let mut never = order(Want::Running, 1);
    never.restart = Restart::Never;
    stage.order(Some(never));
    stage.act();
    stage.fake.end(ID, 9);
    stage.pass(RETRY_MAX);
    assert_eq!(
        (stage.state(), stage.report.clone().unwrap().last_exit.as_str()),
        (Some(State::Ended), "its init was killed by SIGKILL")
    );
}

#[test]
fn a_status_that_comes_late_is_waited_for() {
    let mut stage = running();
    stage.fake.end(ID, 2);
    let told = std::mem::take(&mut stage.fake.inner().exits);
    stage.act();
    assert!(stage.steps().is_empty());
    stage.fake.inner().exits = told;
    stage.act();
    assert_eq!(stage.state(), Some(State::Ended));
}

#[test]
fn a_status_that_never_comes_is_a_failure() {
    let mut stage = running();
    stage.fake.end(ID, 2);
    stage.fake.inner().exits.clear();
    stage.pass(SECOND * 5);
    let report = stage.report.clone().unwrap();
    assert_eq!((report.state, report.last_exit.as_str()), (State::Running { since: 1 }, "ended; nobody saw how"));
}

#[test]
fn an_order_for_another_boot_starts_nothing() {
    let mut stage = Stage::new();
    let mut other = order(Want::Running, 1);
    other.boot = BootId(Uuid::from_u128(1));
    stage.order(Some(other.clone()));
    stage.pass(RETRY_MAX);
    assert!(stage.steps().is_empty() && stage.state() == Some(State::Failed));
    assert!(stage.problem().contains("which is over"), "{}", stage.problem());
    other.want = Want::Destroyed;
    stage.order(Some(other));
    stage.act();
    assert!(stage.steps().is_empty());
}

#[test]
fn a_newer_epoch_takes_the_old_one_down_first_and_an_older_one_does_nothing() {
    let mut stage = running();
    stage.order(Some(order(Want::Running, 2)));
    stage.act();
    let steps = stage.steps();
    assert_eq!(steps[..5], ["stop", "delete", "detach", "unmount", "release"]);
    assert_eq!((stage.state(), stage.report.clone().unwrap().epoch), (RUNNING, 2));
    stage.order(Some(order(Want::Destroyed, 1)));
    stage.pass(RETRY_MAX);
    assert!(stage.steps().is_empty());
    assert_eq!((stage.state(), stage.report.clone().unwrap().epoch), (RUNNING, 2));
    assert!(stage.problem().contains("the order is of epoch 1"));
}

#[test]
fn a_refusal_of_the_share_is_told_and_not_tried_again_before_other_orders() {
    let mut stage = Stage::new();
    stage.fake.inner().share.insert(ID, crate::environment::fake::Share { epoch: 7, ..Default::default() });
    stage.order(Some(order(Want::Running, 6)));
    stage.pass(RETRY_MAX * 5);
    assert_eq!(stage.steps(), ["fetch-template", "take-disk"]);
    assert_eq!((stage.state(), stage.problem().as_str()), (Some(State::Failed), "take-disk: epoch 6 is over"));
    stage.order(Some(order(Want::Running, 8)));
    stage.act();
    assert_eq!(stage.state(), RUNNING);
}

#[test]
fn an_address_in_use_is_told_until_it_is_free() {
    let mut stage = Stage::new();
    stage.fake.inner().failing.insert("network", "10.0.0.5 is in use by 52:54:00:12:34:56".into());
    stage.order(Some(order(Want::Running, 1)));
    stage.pass(SECOND * 20);
    assert_eq!(stage.state(), Some(State::Failed));
    assert_eq!(stage.problem(), "network: 10.0.0.5 is in use by 52:54:00:12:34:56");
    let tries = stage.steps().iter().filter(|step| **step == "network").count();
    assert_eq!(tries, 5, "at 0, 1, 3, 7 and 15 s");
    stage.fake.inner().failing.clear();
    stage.pass(SECOND * 20);
    assert_eq!((stage.state(), stage.problem()), (RUNNING, String::new()));
}

#[test]
fn limits_and_a_greater_disk_are_given_while_it_runs() {
    let mut stage = running();
    let mut more = order(Want::Running, 1);
    (more.memory, more.disk) = (256 << 20, 2 << 30);
    stage.order(Some(more));
    stage.act();
    assert_eq!(stage.steps(), ["grow-disk", "limits"]);
    assert_eq!(stage.state(), RUNNING);
}

#[test]
fn a_restart_is_carried_out_once_even_if_the_agent_is_killed_in_it() {
    let mut stage = running();
    let mut restart = order(Want::Running, 1);
    restart.restarts_asked = 1;
    stage.cut(2, Cut::After);
    stage.order(Some(restart));
    stage.act();
    assert_eq!((stage.state(), stage.deaths, stage.report.clone().unwrap().restarts_done), (RUNNING, 1, 1));
    assert_eq!(stage.steps(), ["stop", "delete", "detach", "take-disk", "create", "network", "start"]);
    stage.pass(RETRY_MAX);
    assert_eq!(stage.steps(), ["pass-cache"], "of the restart nothing is done again");
}

#[test]
fn a_node_that_goes_down_stops_everything_in_its_time() {
    let mut stage = running();
    stage.fake.inner().manners = Manners::Deaf;
    stage.tell(Message::Leave(Duration::from_secs(105)));
    stage.pass(SECOND * 4);
    assert_eq!(stage.steps(), ["stop"]);
    stage.pass(SECOND * 2);
    assert_eq!(stage.steps(), ["kill", "delete", "detach", "unmount", "release"]);
    assert_eq!(stage.state(), Some(State::Released));
}

#[test]
fn an_environment_that_a_snapshot_left_frozen_is_thawed() {
    let mut stage = running();
    stage.fake.inner().here.get_mut(&ID).unwrap().frozen = true;
    stage.kill_agent();
    stage.act();
    assert_eq!(stage.steps(), ["thaw"]);
}

#[test]
fn a_new_disk_is_cached_until_its_environment_has_booted() {
    let mut stage = running();
    stage.pass(CACHED - SECOND);
    assert!(stage.steps().is_empty());
    stage.pass(SECOND * 2);
    assert_eq!((stage.steps(), stage.state()), (vec!["pass-cache"], RUNNING));
    // Taken again it is an old one.
    stage.order(Some(order(Want::Stopped, 1)));
    stage.act();
    stage.order(Some(order(Want::Running, 2)));
    stage.act();
    stage.steps();
    stage.pass(CACHED * 2);
    assert!(stage.steps().is_empty());
}

#[test]
fn a_step_that_changes_nothing_is_told_and_not_done_without_end() {
    let mut stage = running();
    stage.fake.inner().idling.insert("detach");
    stage.order(Some(order(Want::Stopped, 1)));
    stage.act();
    assert_eq!((stage.steps(), stage.state()), (vec!["stop", "delete", "detach"], Some(State::Stopping)));
    assert!(stage.problem().contains("detach was done, and nothing has changed; here is: link, mounts"), "{}", stage.problem());
}

#[test]
fn tasks_are_done_between_two_steps_and_their_ends_are_told() {
    let mut stage = running();
    let task = |id, what| Message::Task(Box::new(Task { id: TaskId(Uuid::from_u128(id)), what }));
    stage.tell(task(1, TaskKind::Snapshot { environment: ID, snapshot: "before".into() }));
    stage.tell(task(2, TaskKind::Rollback { environment: ID, snapshot: "before".into() }));
    let outcomes: Vec<TaskOutcome> = stage.tasks.values().cloned().collect();
    let done = TaskOutcome::Done { bytes: 7, template: None };
    assert_eq!(outcomes, [done, TaskOutcome::Failed { error: "it runs".into() }]);
}

#[derive(Clone, Debug)]
enum Happening {
    Want(Want, bool),
    Restart,
    Unassign,
    End(i32),
    KillAgent,
    Cut(u32, Cut),
    Manners(Manners),
    Pass(u64),
}

fn happening() -> impl Strategy<Value = Happening> {
    let wants = prop_oneof![4 => Just(Want::Running), 2 => Just(Want::Suspended), 2 => Just(Want::Stopped), 1 => Just(Want::Killed), 1 => Just(Want::Destroyed)];
    let cuts = prop_oneof![Just(Cut::Before), Just(Cut::Within), Just(Cut::After)];
    prop_oneof![
        4 => (wants, any::<bool>()).prop_map(|(want, newer)| Happening::Want(want, newer)),
        1 => Just(Happening::Restart),
        1 => Just(Happening::Unassign),
        2 => prop_oneof![Just(1), Just(2), Just(9), Just(256)].prop_map(Happening::End),
        1 => Just(Happening::KillAgent),
        4 => (0..8_u32, cuts).prop_map(|(after, cut)| Happening::Cut(after, cut)),
        1 => prop_oneof![Just(Manners::Polite), Just(Manners::Deaf)].prop_map(Happening::Manners),
        3 => (0..90_u64).prop_map(Happening::Pass),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    /// Whatever happens, and wherever the agent is killed: the fake insists on the order of the steps, and in the end the node is as
    /// was asked for last.
    #[test]
    fn in_the_end_the_node_is_as_ordered(happenings in proptest::collection::vec(happening(), 1..25)) {
        let mut stage = Stage::new();
        let mut wanted = order(Want::Running, 1);
        stage.order(Some(wanted.clone()));
        for happening in happenings {
            match happening {
                Happening::Want(want, newer) => {
                    wanted.want = want;
                    if newer {
                        wanted.resume = stage.fake.inner().share.get(&ID).and_then(|share| share.checkpoint);
                        wanted.epoch += 1;
                    }
                    stage.order(Some(wanted.clone()));
                }
                Happening::Restart => {
                    wanted.restarts_asked += 1;
                    stage.order(Some(wanted.clone()));
                }
                Happening::Unassign => stage.order(None),
                Happening::End(status) => stage.fake.end(ID, status),
                Happening::KillAgent => stage.kill_agent(),
                Happening::Cut(after, cut) => stage.cut(after, cut),
                Happening::Manners(manners) => stage.fake.inner().manners = manners,
                Happening::Pass(seconds) => stage.pass(SECOND * u32::try_from(seconds).unwrap()),
            }
            for _ in 0..3 {
                stage.turn();
            }
        }
        stage.fake.inner().cut = None;
        stage.pass(RETRY_MAX * 10);
        stage.order(Some(wanted.clone()));
        stage.pass(RETRY_MAX * 10);
        let left = stage.fake.inner().here.get(&ID).cloned().unwrap_or_default();
        let runs = matches!(left.container, Container::Running { .. });
        let is_on_share = stage.fake.inner().share.contains_key(&ID);
        match (wanted.want, stage.state()) {
            (Want::Running, Some(State::Running { .. })) => prop_assert!(runs),
            (Want::Running, Some(State::Ended)) => prop_assert!(!runs && left.held.is_none()),
            (Want::Suspended | Want::Stopped | Want::Killed, Some(State::Released)) => prop_assert!(!runs && left.held.is_none()),
            (Want::Destroyed, Some(State::Destroyed)) => prop_assert!(!runs && left.held.is_none() && !is_on_share),
            (want, state) => prop_assert!(false, "{want:?} is asked for and {state:?} is said: {}", stage.problem()),
        }
        let report = stage.report.clone().unwrap();
        prop_assert_eq!((report.epoch, report.problem.as_str()), (wanted.epoch, ""));
        stage.order(None);
        stage.pass(RETRY_MAX);
        prop_assert!(stage.is_gone && stage.report.is_none());
    }
}
