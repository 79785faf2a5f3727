//! Drains over a cluster of plain values, with nodes that do as they are told.

mod live;

use std::collections::{BTreeMap, BTreeSet};

use lodge_model::drain::{Cause, DrainState, Settings, Verdict};
use lodge_model::environment::order::{State, Want};
use lodge_model::layout::MIB;

use super::{Drain, judge, moves, request};
use crate::environments::records::{Environment, Goal};
use crate::environments::settle::{self, Cluster, settle};
use crate::environments::testing::{boot_id, environment, environment_id, node_id, report, room};
use crate::testing::{self, at};

struct Play {
    cluster: Cluster,
    now: i64,
}

impl Play {
    /// So many environments, all of which run on the first node; further nodes have this much memory.
    fn new(environments: u32, others: &[u64]) -> Self {
        let mut rooms = vec![room(1, 100_000)];
        rooms.extend(others.iter().zip(2..).map(|(mib, number)| room(number, *mib)));
        for room in &mut rooms {
            room.warm.insert(crate::environments::testing::template().digest);
        }
        let environments = (1..=environments).map(|number| {
            let new = Environment { last: Some(node_id(1)), ..environment(&format!("e{number}"), number) };
            (new.id, new)
        });
        let (drains, settings) = (BTreeMap::new(), Settings::default());
        let environments = environments.collect();
        let tasks = BTreeMap::new();
        let cluster = Cluster { environments, tasks, rooms, drains, rolling: None, settings, listens: true };
        let mut play = Self { cluster, now: 1000 };
        play.settle();
        play.obey(100);
        play
    }

    fn settle(&mut self) {
        self.now += 1;
        settle(&mut self.cluster, at(self.now));
    }

    /// So many environments do as they are told.
    fn obey(&mut self, most: usize) {
        let told = self.cluster.environments.values_mut().filter(|environment| {
            let state = environment.report.as_ref().map(|report| &report.state);
            environment
                .place
                .as_ref()
                .is_some_and(|place| !matches!((place.want, state), (Want::Running, Some(State::Running { .. }))))
        });
        for environment in told.take(most) {
            let state = match environment.place.as_ref().unwrap().want {
                Want::Running => State::Running { since: 1 },
                Want::Suspended | Want::Stopped | Want::Killed => State::Released,
                Want::Destroyed => State::Destroyed,
            };
            environment.report = Some(report(environment, state));
        }
        self.settle();
    }

    fn drain(&mut self) -> &mut Drain {
        let node = testing::registered("node1", 1, "10.0.0.1");
        let new = request::new(&node, Cause::Operator, at(self.now));
        let new = Drain { node: node_id(1), boot: Some(boot_id(1)), stays: true, ..new };
        self.cluster.drains.entry(node_id(1)).or_insert(new)
    }

    fn stand(&self) -> &Drain {
        &self.cluster.drains[&node_id(1)]
    }

    fn verdicts(&self) -> Vec<Verdict> {
        self.stand().items.values().map(|item| item.verdict).collect()
    }

    /// Environments that are down: told to stop, and not running elsewhere.
    fn under_way(&self) -> usize {
        let moves = self.cluster.environments.values().filter_map(|environment| environment.moving.as_ref());
        moves.filter(|moving| moving.begun.is_some()).count()
    }
}

#[test]
fn all_are_planned_before_the_first_is_touched_and_moved_within_the_budgets() {
    let mut play = Play::new(20, &[2000, 2000]);
    play.drain();
    play.settle();
    assert!(play.stand().items.values().all(|item| item.to.is_some()), "{:?}", play.stand());
    assert_eq!(play.under_way(), 4, "by the budget of the source");
    let mut most = 0;
    for _ in 0..60 {
        play.obey(1);
        most = most.max(play.under_way());
    }
    assert_eq!((most, play.stand().state), (4, DrainState::Certifying));
    assert!(play.verdicts().iter().all(|verdict| *verdict == Verdict::Moved));
    for environment in play.cluster.environments.values() {
        let done = environment.moves.last().unwrap();
        assert_eq!((environment.epoch, done.from.as_str(), environment.moves.len()), (2, "node1", 1));
        assert!(done.gap_ms.unwrap() >= done.stop_ms.unwrap() && done.stop_ms.unwrap() > 0, "{done:?}");
    }
}

#[test]
fn the_budget_of_a_target_counts_too() {
    let mut play = Play::new(6, &[2000]);
    play.cluster.settings = Settings { moves_per_source: 10, moves_per_target: 2, ..Settings::default() };
    play.drain();
    play.settle();
    assert_eq!(play.under_way(), 2);
    play.cluster.settings.moves_per_cluster = 3;
    play.cluster.settings.moves_per_target = 10;
    play.settle();
    assert_eq!(play.under_way(), 3);
}

#[test]
fn one_that_cannot_move_blocks_only_itself_and_says_why() {
    let mut play = Play::new(3, &[2000]);
    play.cluster.environments.get_mut(&environment_id(2)).unwrap().spec.memory = 9000 * MIB;
    play.drain();
    play.settle();
    for _ in 0..10 {
        play.obey(9);
    }
    assert_eq!(play.verdicts(), [Verdict::Moved, Verdict::Waits, Verdict::Moved]);
    let drain = play.stand();
    assert_eq!(drain.state, DrainState::Draining);
    assert!(drain.waits.starts_with("no node takes e2: ") && drain.waits.contains("9000 MiB"), "{}", drain.waits);
    // It still runs, and moves as soon as there is room.
    assert_eq!(play.cluster.environments[&environment_id(2)].place.as_ref().unwrap().want, Want::Running);
    play.cluster.rooms[1].memory = 20_000 * MIB;
    for _ in 0..4 {
        play.obey(9);
    }
    assert_eq!(play.stand().state, DrainState::Certifying);
}

#[test]
fn at_the_deadline_what_is_left_is_stopped_cleanly_and_starts_when_there_is_room() {
    let mut play = Play::new(2, &[0]);
    let deadline = at(play.now + 100);
    play.drain().deadline = Some(deadline);
    play.settle();
    play.obey(9);
    assert_eq!((play.verdicts(), play.under_way()), (vec![Verdict::Waits; 2], 0));
    assert_eq!(moves::next(&play.cluster, at(play.now)).map(|next| next <= deadline), Some(true));
    play.now += 100;
    play.settle();
    assert_eq!(play.verdicts(), [Verdict::Stopping; 2]);
    play.obey(9);
    assert_eq!((play.verdicts(), play.stand().state), (vec![Verdict::Stopped; 2], DrainState::Certifying));
    (play.drain().state, play.drain().deadline) = (DrainState::Drained, None);
    play.cluster.rooms[1].memory = 2000 * MIB;
    play.settle();
    assert_eq!((play.verdicts(), play.stand().state), (vec![Verdict::Starting; 2], DrainState::Drained));
    play.obey(9);
    assert_eq!((play.verdicts(), play.stand().state), (vec![Verdict::Moved; 2], DrainState::Drained));
}

#[test]
fn a_machine_that_goes_down_does_not_wait_for_what_can_never_come() {
    let mut play = Play::new(2, &[2000]);
    play.cluster.environments.get_mut(&environment_id(1)).unwrap().spec.node = Some("node1".into());
    play.drain().goes_down = true;
    play.settle();
    play.obey(9);
    play.obey(9);
    assert_eq!((play.verdicts(), play.stand().state), (vec![Verdict::Stopped, Verdict::Moved], DrainState::Certifying));
    // An operator's drain waits: nothing is stopped by surprise.
    let mut play = Play::new(2, &[]);
    play.drain();
    play.settle();
    play.obey(9);
    assert_eq!(play.verdicts(), [Verdict::Waits; 2]);
}

#[test]
fn a_target_that_dies_is_replaced_before_and_after_the_stop() {
    let mut play = Play::new(1, &[2000, 2000]);
    play.drain();
    play.settle();
    let target = |play: &Play| play.cluster.environments[&environment_id(1)].moving.as_ref().unwrap().to.clone().unwrap().0;
    let first = target(&play);
    play.cluster.rooms.iter_mut().find(|room| room.node == first).unwrap().unready = "silent".into();
    play.settle();
    assert_ne!(target(&play), first);
    play.obey(9);
    play.obey(9);
    assert_eq!((play.verdicts(), play.cluster.environments[&environment_id(1)].epoch), (vec![Verdict::Moved], 2));
}

#[test]
fn a_cancelled_drain_ends_what_has_begun_and_leaves_the_rest() {
    let mut play = Play::new(8, &[4000]);
    play.drain();
    play.settle();
    assert_eq!(play.under_way(), 4);
    play.cluster.drains.clear();
    for _ in 0..6 {
        play.obey(9);
    }
    let moved = play.cluster.environments.values().filter(|environment| environment.epoch == 2).count();
    assert_eq!((moved, play.under_way()), (4, 0));
    assert!(play.cluster.environments.values().all(|environment| environment.place.is_some() && environment.moving.is_none()));
}

#[test]
fn a_dead_source_is_told_and_its_environments_do_not_run_twice() {
    let mut play = Play::new(2, &[2000]);
    play.drain();
    let silent = "no word from it since noon";
    (play.cluster.rooms[0].silent, play.cluster.rooms[0].unready) = (silent.into(), silent.into());
    play.settle();
    assert!(play.stand().waits.contains(silent) && play.under_way() == 0, "{:?}", play.stand());
    play.cluster.rooms[0].boot = Some(boot_id(50));
    play.settle();
    play.obey(9);
    assert!(play.cluster.environments.values().all(|environment| environment.place.as_ref().unwrap().node == node_id(2)));
    assert_eq!(play.stand().boot, Some(boot_id(50)), "an operator's drain outlives the boot");
}

#[test]
fn the_drain_of_a_shutdown_ends_with_the_boot() {
    let mut play = Play::new(1, &[2000]);
    let drain = play.drain();
    (drain.stays, drain.goes_down) = (false, true);
    play.settle();
    assert!(!play.cluster.rooms[0].takes());
    play.cluster.rooms[0].boot = Some(boot_id(50));
    play.settle();
    assert!(play.cluster.drains.is_empty() && play.cluster.rooms[0].takes());
}

#[test]
fn what_is_stopped_or_destroyed_meanwhile_has_its_verdict() {
    let mut play = Play::new(2, &[0]);
    play.drain();
    play.settle();
    play.cluster.environments.get_mut(&environment_id(1)).unwrap().goal = Goal::Killed;
    play.cluster.environments.get_mut(&environment_id(1)).unwrap().last_exit = "killed as asked".into();
    play.cluster.environments.get_mut(&environment_id(2)).unwrap().goal = Goal::Destroyed;
    play.settle();
    play.obey(9);
    play.obey(9);
    assert_eq!(play.verdicts(), [Verdict::Killed, Verdict::Stopped]);
    assert_eq!(play.stand().state, DrainState::Certifying);
}

#[test]
fn a_plan_is_what_is_done() {
    let mut play = Play::new(12, &[900, 1000]);
    play.drain();
    let mut planned = Play { cluster: copy(&play.cluster), now: play.now };
    settle::cordon(&mut planned.cluster);
    moves::reserve(&mut planned.cluster, at(play.now));
    judge::judge(&mut planned.cluster, at(play.now));
    assert!(planned.under_way() == 0 && planned.verdicts().iter().all(|verdict| *verdict == Verdict::Waits));
    play.settle();
    let targets = |play: &Play| play.stand().items.values().map(|item| item.to.clone()).collect::<Vec<_>>();
    assert_eq!(targets(&planned), targets(&play));
    let busy = BTreeSet::from([environment_id(1)]);
    moves::begin(&mut planned.cluster, &busy, at(play.now));
    assert!(planned.cluster.environments[&environment_id(1)].moving.as_ref().unwrap().begun.is_none());
}

fn copy(cluster: &Cluster) -> Cluster {
    Cluster {
        environments: cluster.environments.clone(),
        tasks: cluster.tasks.clone(),
        rooms: cluster.rooms.clone(),
        drains: cluster.drains.clone(),
        rolling: cluster.rolling.clone(),
        settings: cluster.settings.clone(),
        listens: cluster.listens,
    }
}
