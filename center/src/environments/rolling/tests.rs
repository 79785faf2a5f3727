//! The reboot of a cluster of plain values, with nodes that do as they are told, some of them late and some never.

use std::collections::{BTreeMap, BTreeSet};

use lodge_model::drain::{DrainState, Settings};
use lodge_model::environment::order::{State, Want};
use lodge_model::ids::NodeId;
use lodge_model::layout::MIB;
use lodge_model::node::Role;
use lodge_model::rolling::{RebootState, TurnState};
use proptest::prelude::*;

use super::{Rolling, plan};
use crate::environments::records::Environment;
use crate::environments::settle::{Cluster, settle};
use crate::environments::testing::{boot_id, environment, node_id, report, room, template};
use crate::testing::{self, at};

const MEMORY: u64 = 1000;

struct Play {
    cluster: Cluster,
    now: i64,
    boots: u128,
    /// Nodes that do not come back.
    broken: BTreeSet<NodeId>,
    most_down: usize,
}

impl Play {
    /// Nodes of the same size; on each run environments of these sizes in MiB.
    fn new(loads: &[Vec<u64>], at_once: u32) -> Self {
        let mut rooms: Vec<_> = (1..=loads.len() as u128).map(|number| room(number, MEMORY)).collect();
        for room in &mut rooms {
            room.warm.insert(template().digest);
        }
        let sized = loads.iter().zip(1..).flat_map(|(load, node)| load.iter().map(move |mib| (node, *mib)));
        let environments = sized.zip(1..).map(|((node, mib), number)| {
            let mut new = Environment { last: Some(node_id(node)), ..environment(&format!("e{number}"), number) };
            new.spec.memory = mib * MIB;
            new.spec.node = Some(format!("node{node}"));
            (new.id, new)
        });
        let environments = environments.collect();
        let (tasks, drains, settings) = (BTreeMap::new(), BTreeMap::new(), Settings::default());
        let cluster = Cluster { environments, tasks, rooms, drains, rolling: None, settings, listens: true };
        let mut play = Self { cluster, now: 1000, boots: 50, broken: BTreeSet::new(), most_down: 0 };
        play.settle();
        play.obey(usize::MAX);
        for environment in play.cluster.environments.values_mut() {
            environment.spec.node = None;
        }
        play.order(at_once);
        play
    }

    fn order(&mut self, at_once: u32) {
        let nodes: Vec<_> = (1..=self.cluster.rooms.len() as u128)
            .map(|number| {
                let mut node = testing::registered(&format!("node{number}"), number, "10.0.0.1");
                (node.id, node.roles) = (node_id(number), vec![Role::Worker]);
                node
            })
            .collect();
        let turns = plan::turns(&self.cluster, &nodes);
        self.cluster.rolling = Some(Rolling {
            ordered: at(self.now),
            at_once,
            deadline: 900,
            patience: 60,
            reason: String::new(),
            state: RebootState::Running,
            waits: String::new(),
            turns,
            version: 1,
        });
    }

    fn settle(&mut self) {
        self.now += 1;
        settle(&mut self.cluster, at(self.now));
        let down = self.cluster.rooms.iter().filter(|room| !room.silent.is_empty() || !room.cordoned.is_empty()).count();
        self.most_down = self.most_down.max(down);
    }

    /// So many environments do as they are told; then nodes that are empty are certified, those that are certified go down, and those that
    /// are down come back.
    fn obey(&mut self, most: usize) {
        let is_late = |environment: &&mut Environment| {
            let state = environment.report.as_ref().map(|report| &report.state);
            let place = environment.place.as_ref();
            place.is_some_and(|place| !matches!((place.want, state), (Want::Running, Some(State::Running { .. }))))
        };
        for environment in self.cluster.environments.values_mut().filter(is_late).take(most) {
            let stays = environment.place.as_ref().is_some_and(|place| place.want == Want::Running);
            environment.report = Some(report(environment, if stays { State::Running { since: 1 } } else { State::Released }));
        }
        for room in &mut self.cluster.rooms {
            if !room.silent.is_empty() && !self.broken.contains(&room.node) {
                self.boots += 1;
                (room.boot, room.silent, room.unready) = (Some(boot_id(self.boots)), String::new(), String::new());
            }
        }
        for drain in self.cluster.drains.values_mut() {
            let room = self.cluster.rooms.iter_mut().find(|room| room.node == drain.node).unwrap();
            match drain.state {
                DrainState::Certifying => drain.state = DrainState::Drained,
                DrainState::Drained => (room.silent, room.unready) = ("off".into(), "off".into()),
                DrainState::Planned | DrainState::Draining => {}
            }
        }
        self.settle();
    }

    fn rolling(&self) -> &Rolling {
        self.cluster.rolling.as_ref().unwrap()
    }

    fn run(&mut self, most: usize) {
        for _ in 0..2000 {
            if self.rolling().state != RebootState::Running {
                return;
            }
            self.obey(most);
        }
        panic!("it never ends: {:?}", self.rolling());
    }

    fn states(&self) -> Vec<TurnState> {
        self.rolling().turns.iter().map(|turn| turn.state).collect()
    }

    fn most_moves(&self) -> usize {
        self.cluster.environments.values().map(|environment| environment.moves.len()).max().unwrap_or(0)
    }

    fn all_run(&self) -> bool {
        let runs = |environment: &Environment| {
            environment.report.as_ref().is_some_and(|report| matches!(report.state, State::Running { .. }))
        };
        self.cluster.environments.values().all(runs)
    }
}

#[test]
fn four_nodes_with_twelve_environments_each_of_which_moves_twice_at_most() {
    let mut play = Play::new(&vec![vec![128; 3]; 4], 1);
    play.run(1);
    assert_eq!((play.rolling().state, play.states()), (RebootState::Done, vec![TurnState::Done; 4]));
    assert!(play.most_moves() <= 2 && play.all_run(), "{}", play.most_moves());
    assert_eq!(play.most_down, 1);
    // What left the first node is all that moved twice.
    let twice = play.cluster.environments.values().filter(|environment| environment.moves.len() == 2).count();
    assert_eq!(twice, 3);
}

#[test]
fn the_plan_is_what_happens() {
    let mut play = Play::new(&[vec![100; 4], vec![200; 2], vec![300], vec![50; 6]], 1);
    let rolling = play.rolling().clone();
    let mut copy = Play::new(&[vec![100; 4], vec![200; 2], vec![300], vec![50; 6]], 1);
    copy.cluster.rolling = None;
    let played = plan::play(&mut copy.cluster, &rolling, at(play.now));
    play.run(usize::MAX);
    for environment in play.cluster.environments.values() {
        let planned = played.moves.get(&environment.id).copied().unwrap_or(0);
        assert_eq!(planned as usize, environment.moves.len(), "{}", environment.spec.name);
    }
}

#[test]
fn it_stops_at_the_first_node_that_does_not_come_back() {
    let mut play = Play::new(&vec![vec![128; 2]; 3], 1);
    let second = play.rolling().turns[1].node;
    play.broken.insert(second);
    play.run(usize::MAX);
    assert_eq!(play.rolling().state, RebootState::Stopped);
    assert_eq!(play.states(), [TurnState::Done, TurnState::Failed, TurnState::Waits]);
    let why = &play.rolling().waits;
    assert!(why.contains("node2 has not become ready within 60 s: off"), "{why}");
    assert!(play.all_run(), "its environments run elsewhere");
}

#[test]
fn a_node_that_is_not_ready_at_its_turn_is_waited_for() {
    let mut play = Play::new(&vec![vec![128]; 2], 1);
    play.cluster.rooms[0].unready = "the share is not mounted yet".into();
    play.settle();
    assert_eq!(play.states(), [TurnState::Waits; 2]);
    assert!(play.rolling().turns[0].told.contains("the share"), "{:?}", play.rolling());
    play.cluster.rooms[0].unready.clear();
    play.run(usize::MAX);
    assert_eq!(play.rolling().state, RebootState::Done);
}

#[test]
fn a_cancelled_drain_stops_it() {
    let mut play = Play::new(&vec![vec![128; 2]; 3], 1);
    play.settle();
    play.cluster.drains.clear();
    play.settle();
    assert_eq!(play.rolling().state, RebootState::Stopped);
    assert!(play.rolling().waits.contains("the drain of node1 was cancelled"), "{}", play.rolling().waits);
}

#[test]
fn several_at_once_are_no_more_than_that() {
    let mut play = Play::new(&vec![vec![100; 2]; 5], 2);
    play.run(3);
    assert_eq!((play.rolling().state, play.most_down), (RebootState::Done, 2));
    assert!(play.most_moves() <= 2 && play.all_run());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    /// Whatever the loads, as long as one node can be empty: nobody moves more than twice, one node at a time is away, all run in the end.
    #[test]
    fn nobody_moves_more_than_twice(
        loads in prop::collection::vec(prop::collection::vec(20_u64..120, 0..5), 2..6),
        most in 1_usize..6,
    ) {
        let nodes = loads.len();
        let total: u64 = loads.iter().flatten().sum();
        prop_assume!(total <= (nodes as u64 - 1) * MEMORY * 3 / 5);
        let mut play = Play::new(&loads, 1);
        play.run(most);
        prop_assert_eq!(play.rolling().state, RebootState::Done);
        prop_assert!(play.most_moves() <= 2, "{}", play.most_moves());
        prop_assert_eq!(play.most_down, 1);
        prop_assert!(play.all_run());
    }
}
