//! One case each.

use super::*;

fn one(environment: Environment) -> Rig {
    let mut rig = Rig::new();
    rig.cluster.environments.insert(environment.id, environment);
    rig.settle();
    rig
}

fn only(rig: &Rig) -> Environment {
    rig.cluster.environments.values().next().unwrap().clone()
}

#[test]
fn a_stop_that_is_taken_back_ends_first_and_starts_with_the_next_epoch() {
    let mut rig = one(environment("web", 1));
    assert_eq!((only(&rig).epoch, only(&rig).place.unwrap().want), (1, Want::Running));
    rig.happens(&Event::Goal(1, Goal::Stopped));
    rig.settle();
    rig.happens(&Event::Goal(1, Goal::Running));
    rig.settle();
    assert_eq!((only(&rig).epoch, only(&rig).place.unwrap().want), (1, Want::Stopped));
    rig.happens(&Event::Says(1, State::Released));
    rig.settle();
    assert_eq!((only(&rig).epoch, only(&rig).place.unwrap().want), (2, Want::Running));
}

#[test]
fn a_silent_node_keeps_what_it_has_until_it_is_certainly_off() {
    let mut rig = one(environment("web", 1));
    let node = only(&rig).place.unwrap().node.0.as_u128() - 1000;
    rig.happens(&Event::Silent(node));
    rig.settle();
    assert_eq!((only(&rig).epoch, only(&rig).phase), (1, lodge_model::environment::view::Phase::Unknown));
    rig.happens(&Event::ConfirmedOff(node));
    rig.settle();
    let placed = only(&rig);
    assert_eq!(placed.epoch, 2);
    assert_ne!(placed.place.unwrap().node, node_id(node));
    // Whoever was declared off gets nothing, even if it talks again, until it has started anew.
    rig.happens(&Event::Heard(node));
    for number in 1..4 {
        if number != node {
            rig.happens(&Event::Silent(number));
            rig.happens(&Event::ConfirmedOff(number));
        }
    }
    rig.settle();
    assert!(only(&rig).place.is_none() && !only(&rig).reason.is_empty());
    rig.happens(&Event::Reboots(node));
    rig.settle();
    assert_eq!(only(&rig).place.unwrap().node, node_id(node));
}

#[test]
fn what_never_ran_is_gone_at_once_and_what_ran_is_removed_by_some_node() {
    let mut never = environment("never", 1);
    never.goal = Goal::Destroyed;
    assert!(one(never).cluster.environments.is_empty());
    let mut ran = environment("ran", 2);
    (ran.goal, ran.epoch) = (Goal::Destroyed, 4);
    let mut rig = one(ran);
    assert_eq!((only(&rig).epoch, only(&rig).place.unwrap().want), (5, Want::Destroyed));
    rig.happens(&Event::Says(2, State::Destroyed));
    rig.settle();
    assert!(rig.cluster.environments.is_empty());
}

#[test]
fn what_ended_by_itself_lets_go_and_stays_down() {
    let mut rig = one(environment("web", 1));
    rig.happens(&Event::Says(1, State::Ended));
    rig.settle();
    assert_eq!((only(&rig).goal, only(&rig).place.unwrap().want), (Goal::Ended, Want::Stopped));
    rig.happens(&Event::Says(1, State::Released));
    rig.settle();
    assert!(only(&rig).place.is_none());
}

#[test]
fn the_more_important_is_placed_first() {
    let mut rig = Rig::new();
    for number in 1..20 {
        let mut next = environment(&format!("e{number}"), number);
        next.spec.priority = if number == 19 { 500 } else { 100 };
        rig.cluster.environments.insert(next.id, next);
    }
    rig.settle();
    assert!(rig.cluster.environments[&environment_id(19)].place.is_some());
    assert!(rig.cluster.environments[&environment_id(18)].reason.contains("not enough free memory"));
}

#[test]
fn tasks_work_where_the_disk_is_one_at_a_time() {
    let mut rig = one(environment("web", 1));
    let place = only(&rig).place.unwrap();
    let task = |number: u128| Task {
        id: TaskId(uuid::Uuid::from_u128(number)),
        what: TaskKind::Snapshot { environment: environment_id(1), snapshot: format!("s{number}") },
        node: None,
        outcome: TaskOutcome::Running { percent: 0 },
        created: at(0),
    };
    rig.cluster.tasks.extend([1, 2].map(|number| (task(number).id, task(number))));
    rig.settle();
    let homes: Vec<_> = rig.cluster.tasks.values().map(|task| task.node).collect();
    assert_eq!(homes, [Some((place.node, place.boot)), None]);
    // While the first is not done, the environment may not go elsewhere.
    rig.happens(&Event::Goal(1, Goal::Stopped));
    rig.settle();
    rig.happens(&Event::Says(1, State::Released));
    rig.settle();
    rig.happens(&Event::Silent(place.node.0.as_u128() - 1000));
    rig.happens(&Event::Goal(1, Goal::Running));
    rig.settle();
    assert!(only(&rig).place.is_none() && only(&rig).reason.contains("working on its disk"), "{}", only(&rig).reason);
    rig.cluster.tasks.pop_first();
    rig.settle();
    assert!(only(&rig).place.is_some());
}
