//! The cluster as a whole under random events: what may never happen, and what always happens in the end.

mod cases;

use super::*;
use crate::environments::drain::way::Way;
use crate::environments::records::{Asked, Move};
use crate::environments::testing::{self, boot_id, environment, environment_id, node_id, report};
use crate::testing::at;
use lodge_model::drain::Cause;
use lodge_model::environment::order::{Checkpoint, Report, TaskOutcome};
use lodge_model::live::MoveBy;
use proptest::prelude::*;

/// What nodes can do by themselves, and what people ask for.
#[derive(Clone, Debug)]
enum Event {
    Create(u32),
    Goal(u32, Goal),
    Says(u32, State),
    Reboots(u128),
    Silent(u128),
    Heard(u128),
    ConfirmedOff(u128),
    Snapshot(u32),
    TaskDone,
    Drain(u128, bool),
    Undrain(u128),
    Move(u32),
    Time(i64),
}

fn state() -> impl Strategy<Value = State> {
    prop_oneof![
        Just(State::Preparing { step: "mount".into() }),
        Just(State::Running { since: 5 }),
        Just(State::Stopping),
        Just(State::Ended),
        Just(State::Released),
        Just(State::Destroyed),
        Just(State::Failed),
    ]
}

fn goal() -> impl Strategy<Value = Goal> {
    prop_oneof![4 => Just(Goal::Running), 2 => Just(Goal::Stopped), 1 => Just(Goal::Killed), 1 => Just(Goal::Destroyed)]
}

fn event() -> impl Strategy<Value = Event> {
    let which = 1..14u32;
    let node = 1..4u128;
    prop_oneof![
        3 => which.clone().prop_map(Event::Create),
        3 => (which.clone(), goal()).prop_map(|(id, goal)| Event::Goal(id, goal)),
        8 => (which.clone(), state()).prop_map(|(id, state)| Event::Says(id, state)),
        1 => node.clone().prop_map(Event::Reboots),
        1 => node.clone().prop_map(Event::Silent),
        1 => node.clone().prop_map(Event::Heard),
        1 => node.clone().prop_map(Event::ConfirmedOff),
        2 => (node.clone(), any::<bool>()).prop_map(|(node, stays)| Event::Drain(node, stays)),
        1 => node.prop_map(Event::Undrain),
        2 => which.clone().prop_map(Event::Move),
        1 => (1..30i64).prop_map(Event::Time),
        1 => which.prop_map(Event::Snapshot),
        1 => Just(Event::TaskDone),
    ]
}

struct Rig {
    cluster: Cluster,
    /// Who ever had an epoch.
    holders: BTreeMap<(EnvironmentId, u64), (NodeId, BootId)>,
    /// Rights that have ended, by proof.
    ended: BTreeSet<(EnvironmentId, u64)>,
    /// Those whose processes were kept.
    kept: BTreeSet<(EnvironmentId, u64)>,
    /// No id is ever used twice.
    created: BTreeSet<u32>,
    boots: u128,
    now: i64,
}

impl Rig {
    fn new() -> Self {
        let rooms = (1..4).map(|number| testing::room(number, 400)).collect();
        let cluster = Cluster {
            environments: BTreeMap::new(),
            tasks: BTreeMap::new(),
            rooms,
            drains: BTreeMap::new(),
            rolling: None,
            settings: Settings::default(),
            listens: true,
        };
        Self {
            cluster,
            holders: BTreeMap::new(),
            ended: BTreeSet::new(),
            kept: BTreeSet::new(),
            created: BTreeSet::new(),
            boots: 100,
            now: 1000,
        }
    }

    fn room(&mut self, number: u128) -> &mut Room {
        self.cluster.rooms.iter_mut().find(|room| room.node == node_id(number)).unwrap()
    }

    /// Note that everything that this boot held has ended.
    fn end_of(&mut self, boot: BootId) {
        let held = self.holders.iter().filter(|(_, holder)| holder.1 == boot).map(|(right, _)| *right);
        self.ended.extend(held.collect::<Vec<_>>());
    }

    fn happens(&mut self, event: &Event) {
        match event {
            Event::Create(number) => {
                let mut new = environment(&format!("e{number}"), *number);
                new.spec.anti_affinity = Some(format!("g{}", number % 5));
                if self.created.insert(*number) {
                    self.cluster.environments.insert(new.id, new);
                }
            }
            Event::Goal(number, goal) => {
                if let Some(environment) = self.cluster.environments.get_mut(&environment_id((*number).into()))
                    && environment.goal != Goal::Destroyed
                {
                    environment.goal = *goal;
                }
            }
            Event::Says(number, state) => {
                if let Some(environment) = self.cluster.environments.get_mut(&environment_id((*number).into()))
                    && environment.place.is_some()
                {
                    if matches!(state, State::Released | State::Destroyed) {
                        self.ended.insert((environment.id, environment.epoch));
                    }
                    let suspended = environment.place.as_ref().is_some_and(|place| place.want == Want::Suspended);
                    let is_kept = suspended && *state == State::Released;
                    if is_kept {
                        self.kept.insert((environment.id, environment.epoch));
                    }
                    let said = report(environment, state.clone());
                    environment.report = Some(Report { checkpoint: is_kept.then_some(Checkpoint::Kept), ..said });
                }
            }
            Event::Reboots(number) => {
                let old = self.room(*number).boot.unwrap();
                self.end_of(old);
                self.boots += 1;
                let new = boot_id(self.boots);
                let room = self.room(*number);
                (room.boot, room.unready, room.silent) = (Some(new), String::new(), String::new());
            }
            Event::Silent(number) => {
                let room = self.room(*number);
                (room.unready, room.silent) = ("silent".into(), "silent".into());
            }
            Event::Heard(number) => {
                let room = self.room(*number);
                (room.unready, room.silent) = (String::new(), String::new());
            }
            Event::ConfirmedOff(number) => {
                let boot = self.room(*number).boot.unwrap();
                self.end_of(boot);
                self.room(*number).confirmed_off = Some(boot);
            }
            Event::Snapshot(number) => {
                let id = environment_id((*number).into());
                if self.cluster.environments.get(&id).is_some_and(|environment| environment.epoch > 0) {
                    let what = TaskKind::Snapshot { environment: id, snapshot: "s".into() };
                    let id = TaskId(uuid::Uuid::from_u128(u128::from(self.now.unsigned_abs())));
                    let outcome = TaskOutcome::Running { percent: 0 };
                    let task = Task { id, what, node: None, outcome, created: at(self.now) };
                    self.cluster.tasks.insert(task.id, task);
                }
            }
            Event::TaskDone => {
                self.cluster.tasks.pop_first();
            }
            Event::Drain(number, stays) => {
                let (node, boot) = (node_id(*number), self.room(*number).boot);
                let deadline = (!stays).then(|| at(self.now + 20));
                let record = crate::testing::registered(&format!("node{number}"), *number, "10.0.0.1");
                let drain = crate::environments::drain::request::new(&record, Cause::Operator, at(self.now));
                let drain = Drain { node, boot, deadline, stays: *stays, goes_down: !stays, ..drain };
                self.cluster.drains.entry(node).or_insert(drain);
            }
            Event::Undrain(number) => {
                self.cluster.drains.remove(&node_id(*number));
            }
            Event::Move(number) => {
                if let Some(environment) = self.cluster.environments.get_mut(&environment_id((*number).into()))
                    && let Some(place) = environment.place.clone().filter(|place| place.want == Want::Running)
                    && environment.moving.is_none()
                {
                    environment.moving = Some(Move {
                        from: place.node,
                        from_name: place.name,
                        epoch: environment.epoch,
                        to: None,
                        asked: Some(Asked { to: None }),
                        planned: at(self.now),
                        begun: None,
                        released: None,
                        waits: String::new(),
                        by: if number.is_multiple_of(2) { MoveBy::Live } else { MoveBy::Restart },
                        way: Way::default(),
                        live: None,
                    });
                }
            }
            Event::Time(seconds) => self.now += seconds,
        }
    }

    fn settle(&mut self) {
        self.now += 1;
        let before = self.cluster.environments.clone();
        settle(&mut self.cluster, at(self.now));
        for (id, environment) in &self.cluster.environments {
            let is_new = before.get(id).is_none_or(|before| before.epoch != environment.epoch);
            if let Some(place) = environment.place.as_ref().filter(|_| is_new) {
                assert!(!self.cluster.drains.contains_key(&place.node), "{environment:?} was given to a node that is drained");
            }
        }
        self.check();
    }

    fn check(&mut self) {
        let mut promised: BTreeMap<NodeId, u64> = BTreeMap::new();
        let mut ranges = BTreeSet::new();
        let mut groups = BTreeSet::new();
        for environment in self.cluster.environments.values() {
            let Some(place) = &environment.place else { continue };
            // One epoch, one holder, for ever.
            let right = (environment.id, environment.epoch);
            let holder = *self.holders.entry(right).or_insert((place.node, place.boot));
            assert_eq!(holder, (place.node, place.boot), "two holders of {right:?}");
            // The former right has ended, by proof.
            let before = (environment.id, environment.epoch - 1);
            assert!(
                before.1 == 0 || !self.holders.contains_key(&before) || self.ended.contains(&before),
                "{right:?} was given while {before:?} was held"
            );
            // Processes go on only from the epoch before, and only where they were kept.
            let resumed = crate::environments::drain::moves::resumes(environment);
            assert!(
                resumed.is_none_or(|made| made == before.1 && self.kept.contains(&before)),
                "{right:?} goes on from nothing"
            );
            let memory = if place.to_remove { 0 } else { environment.spec.memory };
            *promised.entry(place.node).or_default() += memory;
            assert!(ranges.insert((place.node, environment.id_range)));
            let group = environment.spec.anti_affinity.clone().filter(|_| !place.to_remove);
            assert!(group.is_none_or(|group| groups.insert((place.node, group))), "a group meets");
        }
        // What is reserved counts as what is there.
        for environment in self.cluster.environments.values() {
            let Some((to, _)) = environment.moving.as_ref().and_then(|moving| moving.to.clone()) else { continue };
            if environment.place.as_ref().is_none_or(|place| place.node != to) {
                *promised.entry(to).or_default() += environment.spec.memory;
                let group = environment.spec.anti_affinity.clone();
                assert!(group.is_none_or(|group| groups.insert((to, group))), "a group is to meet");
            }
        }
        for room in &self.cluster.rooms {
            assert!(promised.get(&room.node).copied().unwrap_or(0) <= room.memory, "memory is promised twice");
        }
        for environment in self.cluster.environments.values() {
            let waits_in_words = environment.place.is_some()
                || !matches!(environment.goal, Goal::Running | Goal::Destroyed)
                || !environment.reason.is_empty();
            assert!(waits_in_words, "{environment:?} waits and does not say why");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn nothing_has_two_holders_and_no_memory_is_promised_twice(
        steps in proptest::collection::vec(proptest::collection::vec(event(), 1..3), 1..80)
    ) {
        let mut rig = Rig::new();
        for events in &steps {
            for event in events {
                rig.happens(event);
            }
            rig.settle();
        }
        // In the end everybody is heard and does as told: what is to run runs, what is to go is gone.
        rig.cluster.drains.clear();
        for number in 1..4 {
            rig.happens(&Event::Reboots(number));
            rig.room(number).memory = 8 << 30;
        }
        for _ in 0..8 {
            rig.cluster.tasks.clear();
            let ids: Vec<EnvironmentId> = rig.cluster.environments.keys().copied().collect();
            for id in ids {
                let environment = rig.cluster.environments.get_mut(&id).unwrap();
                let Some(place) = &environment.place else { continue };
                let state = match place.want {
                    Want::Running => State::Running { since: 1 },
                    Want::Suspended | Want::Stopped | Want::Killed => State::Released,
                    Want::Destroyed => State::Destroyed,
                };
                if state == State::Released {
                    rig.ended.insert((id, environment.epoch));
                }
                environment.report = Some(report(environment, state));
            }
            rig.now += 40;
            rig.settle();
        }
        for environment in rig.cluster.environments.values() {
            prop_assert_ne!(environment.goal, Goal::Destroyed);
            prop_assert_eq!(environment.place.is_some(), environment.goal == Goal::Running, "{:?}", environment);
        }
    }

    #[test]
    fn settling_twice_changes_nothing(events in proptest::collection::vec(event(), 1..40)) {
        let mut rig = Rig::new();
        for event in &events {
            rig.happens(event);
            rig.settle();
        }
        let (environments, tasks) = (rig.cluster.environments.clone(), rig.cluster.tasks.clone());
        settle(&mut rig.cluster, at(rig.now));
        // What is waited for is told once more when a task has found its node, which comes after the places.
        let untold = |environments: BTreeMap<EnvironmentId, Environment>| -> Vec<Environment> {
            environments.into_values().map(|environment| Environment { waits: String::new(), ..environment }).collect()
        };
        prop_assert_eq!(untold(environments), untold(rig.cluster.environments));
        prop_assert_eq!(tasks, rig.cluster.tasks);
    }
}
