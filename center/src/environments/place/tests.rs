use super::*;
use crate::environments::testing::{environment, node_id, room};
use crate::testing::at;

fn demand(environment: &Environment) -> Demand<'_> {
    Demand { environment, only: None, leaves: None, removal: false, now: at(100) }
}

fn why(rooms: &[Room], environment: &Environment) -> String {
    choose(rooms, &demand(environment)).unwrap_err()
}

#[test]
fn load_spreads_and_the_last_node_wins() {
    let mut rooms = [room(1, 1024), room(2, 1024)];
    rooms[0].held.add(&environment("other", 9));
    let mut web = environment("web", 1);
    assert_eq!(choose(&rooms, &demand(&web)), Ok(1));
    web.last = Some(node_id(1));
    assert_eq!(choose(&rooms, &demand(&web)), Ok(0));
}

#[test]
fn what_does_not_fit_says_what_would() {
    let mut web = environment("web", 1);
    web.spec.memory = 2048 * MIB;
    let reason = why(&[room(1, 1024), room(2, 1500)], &web);
    assert!(reason.contains("2048 MiB") && reason.contains("node2 has the most, 1500 MiB"), "{reason}");
    assert!(choose(&[room(1, 1024)], &Demand { removal: true, ..demand(&web) }).is_ok());
}

#[test]
fn a_group_is_kept_apart() {
    let mut first = environment("a", 1);
    first.spec.anti_affinity = Some("db".into());
    let second = Environment { id_range: 2, ..first.clone() };
    let mut rooms = [room(1, 1024)];
    rooms[0].held.add(&first);
    assert!(why(&rooms, &second).contains("group db"));
}

#[test]
fn one_range_of_ids_is_never_twice_on_a_node() {
    let mut rooms = [room(1, 1024)];
    rooms[0].held.add(&environment("a", 3));
    assert!(why(&rooms, &environment("b", 3)).contains("range of ids"));
}

#[test]
fn every_other_reason_is_told() {
    let mut web = environment("web", 1);
    assert!(why(&[], &web).contains("no worker"));
    let mut silent = room(1, 1024);
    silent.unready = "no word from it since noon".into();
    assert!(why(&[silent.clone()], &web).contains("node1: no word from it since noon"));
    web.spec.node_labels.insert("disk".into(), "ssd".into());
    assert_eq!(why(&[silent, room(2, 1024)], &web), "no worker has the labels disk=ssd");
    web.spec.node_labels.clear();
    web.spec.node = Some("node7".into());
    assert!(why(&[room(2, 1024)], &web).contains("node7"));
    web.spec.node = None;
    web.given_back = Some(crate::environments::records::GivenBack { node: node_id(1), at: at(90) });
    assert!(why(&[room(1, 1024)], &web).contains("let go"));
    assert!(choose(&[room(1, 1024)], &Demand { now: at(121), ..demand(&web) }).is_ok());
    // A clock that was set back does not exclude the node for long.
    assert!(choose(&[room(1, 1024)], &Demand { now: at(1), ..demand(&web) }).is_ok());
    let mut off = room(1, 1024);
    off.confirmed_off = off.boot;
    web.given_back = None;
    assert!(choose(&[off], &demand(&web)).is_err());
}

#[test]
fn a_reserve_is_kept() {
    assert_eq!(reserve(2048 * MIB, &[Role::Worker]), 384 * MIB);
    assert_eq!(reserve(2048 * MIB, &[Role::Worker, Role::Share]), 640 * MIB);
}
