//! Deaths that a cluster bears, and those that it does not.

use std::collections::BTreeMap;

use lodge_model::settings::Settings;

use super::*;
use crate::environments::testing::{environment, place, room};
use crate::testing::at;

/// Workers with so many MiB, and environments of 128 MiB, each on a worker.
fn cluster(workers: &[u64], on: &[u128]) -> Cluster {
    let rooms = workers.iter().zip(1..).map(|(mib, number)| room(number, *mib)).collect();
    let environments = on.iter().zip(1..).map(|(node, number)| {
        let mut one = environment(&format!("e{number}"), number);
        (one.place, one.epoch) = (Some(place(*node, Want::Running)), 1);
        (one.id, one)
    });
    Cluster {
        environments: environments.collect(),
        tasks: BTreeMap::new(),
        rooms,
        drains: BTreeMap::new(),
        rolling: None,
        settings: Settings::default(),
        listens: true,
    }
}

fn proof(cluster: &mut Cluster) -> CapacityView {
    prove(cluster, at(1000))
}

fn lost_to(view: &CapacityView, node: &str) -> Vec<String> {
    lost(view).filter(|(dead, _)| *dead == node).map(|(_, stranded)| stranded.environment.clone()).collect()
}

#[test]
fn the_proof_names_what_would_not_fit_after_which_death() {
    let view = proof(&mut cluster(&[400, 400, 400], &[1, 1, 2, 3]));
    assert!(view.holds && view.nodes.iter().all(|loss| loss.stranded.is_empty()), "{view:?}");
    assert_eq!(view.nodes.iter().map(|loss| loss.fits).collect::<Vec<_>>(), [2, 1, 1]);
    // What node1 and node2 run together is more than either has.
    let view = proof(&mut cluster(&[400, 400], &[1, 1, 2, 2]));
    assert!(!view.holds);
    assert_eq!((lost_to(&view, "node1"), lost_to(&view, "node2")), (vec!["e2".into()], vec!["e4".into()]));
    assert!(view.nodes[0].stranded[0].why.contains("not enough free memory"), "{view:?}");
    assert!(!proof(&mut cluster(&[], &[])).holds);
}

#[test]
fn the_more_important_would_be_saved_first() {
    let mut cluster = cluster(&[400, 400], &[1, 1, 2, 2]);
    let second = cluster.environments.values_mut().find(|one| one.spec.name == "e2").unwrap();
    second.spec.priority = 900;
    assert_eq!(lost_to(&proof(&mut cluster), "node1"), ["e1"]);
}

#[test]
fn what_was_asked_to_be_bound_does_not_count() {
    let mut pinned = cluster(&[400, 400], &[1, 2]);
    pinned.environments.values_mut().for_each(|one| one.spec.node = one.place.as_ref().map(|place| place.name.clone()));
    let view = proof(&mut pinned);
    assert!(view.holds && view.nodes.iter().all(|loss| loss.stranded.len() == 1 && loss.stranded[0].bound), "{view:?}");
    // One of a pair that is kept apart has nowhere to go, and the other one runs on.
    let mut pair = cluster(&[400, 400], &[1, 2]);
    pair.environments.values_mut().for_each(|one| one.spec.anti_affinity = Some("db".into()));
    assert!(proof(&mut pair).holds);
}

/// What the refusal says, where there is one.
fn refusal(cluster: &mut Cluster, wanted: &Environment) -> Option<String> {
    match bears(cluster, wanted, at(1000)) {
        Ok(()) => None,
        Err(Fault::Refused(_, why)) => Some(why),
        Err(fault) => panic!("{fault:?}"),
    }
}

#[test]
fn what_is_stopped_is_counted_when_it_is_started() {
    let full = || cluster(&[300, 300], &[1, 2]);
    let mut stopped = environment("late", 9);
    (stopped.goal, stopped.epoch) = (Goal::Stopped, 3);
    let started = Environment { goal: Goal::Running, ..stopped.clone() };
    let mut cluster = full();
    cluster.environments.insert(stopped.id, stopped);
    assert!(proof(&mut cluster).holds, "what is stopped needs no room");
    let why = refusal(&mut cluster, &started).unwrap();
    assert!(why.contains("would not run") && why.contains("--force"), "{why}");
    // It is being stopped and has its memory still: it is the same.
    let mut stopping = full();
    let mut wanted = Environment { place: Some(place(1, Want::Stopped)), ..started.clone() };
    stopping.environments.insert(wanted.id, wanted.clone());
    assert!(refusal(&mut stopping, &wanted).is_some());
    wanted.spec.memory /= 4;
    assert_eq!(refusal(&mut full(), &wanted), None);
    assert_eq!(refusal(&mut self::cluster(&[600, 600], &[1, 2]), &started), None);
}

#[test]
fn what_grows_is_counted_where_it_runs() {
    let grown = |cluster: &Cluster, factor: u64| {
        let mut one = cluster.environments.values().next().unwrap().clone();
        one.spec.memory *= factor;
        one
    };
    let mut roomy = cluster(&[400, 400], &[1, 2]);
    let wanted = grown(&roomy, 2);
    assert_eq!(refusal(&mut roomy, &wanted), None);
    let mut tight = cluster(&[400, 400], &[1, 2]);
    let wanted = grown(&tight, 3);
    let why = refusal(&mut tight, &wanted).unwrap();
    assert!(why.contains("after the death of node1, e1 would not run"), "{why}");
}

#[test]
fn only_what_makes_things_worse_is_refused_and_not_where_one_worker_is_left() {
    let whole = proof(&mut cluster(&[400, 400], &[1, 2]));
    let mut full = cluster(&[400, 400], &[1, 1, 2, 2]);
    let worse = proof(&mut full);
    let told = compare(&whole, &worse, &full.rooms).unwrap_err();
    assert!(matches!(told, Fault::Refused(_, why) if why.contains("after the death of node1, e2") && why.contains("--force")));
    assert!(compare(&worse, &worse, &full.rooms).is_ok());
    assert!(compare(&whole, &worse, &full.rooms[..1]).is_ok());
}
