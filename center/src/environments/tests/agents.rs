//! Played agents on a bad network, with people who change their minds: whatever happens in whatever order, an environment never runs
//! twice, and once the network is good everything is as it was asked for.

mod agent;
mod event;

use std::collections::BTreeMap;

use lodge_model::api::{Heartbeat, Orders, Register};
use lodge_model::drain::{Cause, DrainOrder, Leaving, MoveOrder, Power};
use lodge_model::environment::order::{TaskKind, TaskOutcome, TaskReport};
use lodge_model::environment::view::{RepairEnd, RepairOrder};
use lodge_model::fence::{FenceOutcome, Fenced, MarkAge, Signs};
use lodge_model::ids::EnvironmentId;
use lodge_model::layout::Slot;
use lodge_model::node::Role;

use event::{Event, event};

use super::*;
use crate::environments::drain;
use crate::environments::records::{Goal, Task};
use crate::environments::repair::request as repair;
use crate::failover::{incident, look::look};

/// An agent: it does what its newest orders say, one step at a time, and remembers nothing over a boot.
struct Agent {
    number: u128,
    boot: BootId,
    is_on: bool,
    leaving: bool,
    registered: bool,
    orders: Option<Orders>,
    held: BTreeMap<EnvironmentId, Held>,
    /// Heartbeats on their way to the center, and answers on their way back.
    out: Vec<Heartbeat>,
    back: Vec<Orders>,
    /// When it last wrote its heartbeat file, and with which boot.
    marked: Option<(BootId, i64)>,
}

/// The node that serves the share. It does what its newest orders say before it speaks.
struct Server {
    orders: Option<Orders>,
    /// Boots that cannot write any more.
    cut: BTreeSet<(NodeId, BootId)>,
}

/// The server's number.
const SERVER: u128 = 9;

#[derive(Clone, Copy, PartialEq)]
struct Held {
    epoch: u64,
    runs: bool,
    ended: bool,
    started_for: u64,
}

struct Play {
    rig: Rig,
    agents: Vec<Agent>,
    server: Server,
    boots: u128,
}

impl Play {
    fn new() -> Self {
        let rig = Rig::new();
        let agent = |number| Agent {
            number,
            boot: BootId(uuid::Uuid::from_u128(77)),
            is_on: true,
            leaving: false,
            registered: true,
            orders: None,
            held: BTreeMap::new(),
            out: vec![],
            back: vec![],
            marked: None,
        };
        rig.run(|tx| {
            let roles = vec![Role::Center, Role::Share];
            let node = Node { roles, ..testing::registered("center1", SERVER, "10.0.0.9") };
            tx.put(&NameClaim { name: node.name.clone(), node: node.id })?;
            tx.put(&Machine { node: Some(node.id), ..testing::machine(SERVER) })?;
            tx.put(&node)?;
            crate::flow::refresh_all(tx, at(100)).map(drop)
        });
        Self { agents: vec![agent(1), agent(2)], server: Server { orders: None, cut: BTreeSet::new() }, boots: 100, rig }
    }

    fn happens(&mut self, event: &Event) {
        match event {
            Event::Beat(at) => self.beat(*at),
            Event::Speak(at) => self.speak(*at),
            Event::Arrive(at, newest) => self.arrive(*at, *newest),
            Event::Answer(at, newest) => self.answer(*at, *newest),
            Event::Act(at, which) => self.agents[*at].act(*which as usize),
            Event::EndsByItself(at) => {
                if let Some(held) = self.agents[*at].held.values_mut().find(|held| held.runs) {
                    (held.runs, held.ended) = (false, true);
                }
            }
            Event::PowersOff(at) => {
                let agent = &mut self.agents[*at];
                agent.is_on = false;
                agent.held.clear();
            }
            Event::Boots(at) => self.boots(*at),
            Event::Leaves(at) => self.agents[*at].leaving = true,
            Event::Create(number) => {
                let _ = self.rig.create(&format!("e{number}"));
            }
            Event::Ask(number, what) => self.ask(&format!("e{number}"), *what),
            Event::Move(number) => {
                let (name, now) = (format!("e{number}"), testing::at(self.rig.now));
                let _ = self.rig.store.transact_blocking(|tx| {
                    drain::request::move_one(tx, &self.rig.world, &Caller::Operator, &name, &MoveOrder::default(), now)
                });
            }
            Event::Drain(at, by_itself) => self.drain(*at, *by_itself),
            Event::Undrain(at) => {
                let (name, now) = (format!("node{}", self.agents[*at].number), testing::at(self.rig.now));
                let _ = self.rig.store.transact_blocking(|tx| drain::request::undrain(tx, &self.rig.world, &name, now));
            }
            // People look at the machine before they say that it is off.
            Event::ConfirmOff(at) if !self.agents[*at].is_on => {
                let name = format!("node{}", self.agents[*at].number);
                let now = testing::at(self.rig.now);
                let _ = self.rig.store.transact_blocking(|tx| operator::confirm_off(tx, &self.rig.world, &name, now));
            }
            Event::ConfirmOff(_) => {}
            Event::Serves(is_lost) => self.serves(*is_lost),
            Event::Quiet(at) => {
                for _ in 0..6 {
                    self.rig.now += 2;
                    (0..self.agents.len()).filter(|other| other != at).for_each(|other| self.beat(other));
                    self.serves(false);
                    self.look();
                    self.rig.plan();
                    self.check();
                }
            }
            Event::Marks(at) => self.marks(*at),
            Event::Look => self.look(),
            Event::Plan => self.rig.plan(),
            Event::Time(seconds) => self.rig.now += seconds,
        }
        self.check();
    }

    fn look(&self) {
        let now = testing::at(self.rig.now);
        self.rig.run(|tx| look(tx, &self.rig.world, std::time::Duration::from_secs(100), now));
    }

    /// Whoever is cut off cannot write.
    fn marks(&mut self, at: usize) {
        let agent = &mut self.agents[at];
        if agent.is_on && !self.server.cut.contains(&agent.name()) {
            agent.marked = Some((agent.boot, self.rig.now));
        }
    }

    /// The share node carries out its newest orders and says how things stand.
    fn serves(&mut self, is_lost: bool) {
        let orders = self.server.orders.as_ref();
        let banned = orders.map_or(&[][..], |orders| &orders.fence.banned);
        let cut: BTreeSet<_> = banned.iter().map(|ban| (ban.node, ban.boot)).collect();
        for agent in &self.agents {
            let was_cut = self.server.cut.contains(&agent.name());
            assert!(!was_cut || cut.contains(&agent.name()), "node{} is let in without a new boot", agent.number);
        }
        let confirmed = || FenceOutcome::Confirmed { at: 1, proof: "gone".into() };
        let fenced = banned.iter().map(|ban| Fenced { id: ban.id, outcome: confirmed() }).collect();
        let age = |at: i64| u64::try_from((self.rig.now - at) * 1000).unwrap();
        let mark =
            |agent: &Agent| agent.marked.map(|(boot, at)| MarkAge { node: node_id(agent.number), boot, age_ms: age(at) });
        let signs = Signs { fenced, marks: self.agents.iter().filter_map(mark).collect(), ..Signs::default() };
        let generation = orders.map_or(0, |orders| orders.generation);
        self.server.cut = cut;
        let said = Heartbeat { share: ShareHealth::Serving, generation, signs, ..self.agents[0].heartbeat() };
        let said = Heartbeat { boot: BootId(uuid::Uuid::from_u128(77)), environments: vec![], warm: vec![], ..said };
        let now = testing::at(self.rig.now);
        let orders = self.rig.run(|tx| node::beat(tx, &self.rig.world, node_id(SERVER), &said, now));
        if !is_lost {
            self.server.orders = Some(orders);
        }
    }

    /// By an operator, or because the machine goes down, which it says itself.
    fn drain(&self, at: usize, by_itself: bool) {
        let (agent, now) = (&self.agents[at], testing::at(self.rig.now));
        let _ = self.rig.store.transact_blocking(|tx| match by_itself {
            true => {
                let said = Leaving { boot: agent.boot, cause: Cause::Button, power: Power::Poweroff, seconds: 60 };
                drain::leaving::leaving(tx, &self.rig.world, node_id(agent.number), &said, now).map(drop)
            }
            false => {
                let order = DrainOrder { deadline: Some(30), ..DrainOrder::default() };
                drain::request::drain(tx, &self.rig.world, &format!("node{}", agent.number), &order, now).map(drop)
            }
        });
    }

    fn beat(&mut self, at: usize) {
        self.marks(at);
        self.speak(at);
        self.arrive(at, true);
        self.answer(at, false);
        for which in 0..3 {
            self.agents[at].act(which);
        }
    }

    fn speak(&mut self, at: usize) {
        let agent = &mut self.agents[at];
        if agent.is_on && agent.registered && agent.out.len() < 3 {
            agent.out.push(agent.heartbeat());
        }
    }

    /// A heartbeat reaches the center: the newest one or the oldest, for a network may hold one back.
    fn arrive(&mut self, at: usize, newest: bool) {
        let agent = &mut self.agents[at];
        let Some(said) = (if newest { agent.out.pop() } else { (!agent.out.is_empty()).then(|| agent.out.remove(0)) }) else {
            return;
        };
        let (id, now) = (node_id(agent.number), testing::at(self.rig.now));
        let orders = self.rig.run(|tx| node::beat(tx, &self.rig.world, id, &said, now));
        if said.boot == agent.boot {
            agent.back.push(orders);
        }
    }

    /// Orders reach the agent, or are lost. Older ones than the newest it has seen are refused.
    fn answer(&mut self, at: usize, is_lost: bool) {
        let agent = &mut self.agents[at];
        let Some(orders) = agent.back.pop().filter(|_| agent.is_on && !is_lost) else { return };
        if agent.orders.as_ref().is_none_or(|newest| newest.generation <= orders.generation) {
            let is_fenced = orders.fence.fenced == Some(agent.boot);
            agent.orders = Some(orders);
            if is_fenced {
                self.boots(at);
            }
        }
    }

    fn boots(&mut self, at: usize) {
        self.boots += 1;
        let agent = &mut self.agents[at];
        agent.boot = BootId(uuid::Uuid::from_u128(self.boots));
        (agent.is_on, agent.leaving) = (true, false);
        agent.held.clear();
        agent.back.clear();
        let said = Register {
            boot: agent.boot,
            facts: testing::facts(agent.number, vec![]),
            roles: vec![Role::Worker],
            version: "0.1.0".into(),
            kernel: "6.12".into(),
            slot: Slot::A,
            disk_serial: "S1".into(),
            address: format!("10.0.0.{}", agent.number),
            phases: vec![],
        };
        let (id, now) = (node_id(agent.number), testing::at(self.rig.now));
        agent.orders = Some(self.rig.run(|tx| node::register(tx, &self.rig.world, id, &said, now)));
    }

    fn ask(&self, name: &str, what: u8) {
        let (world, who, now) = (&self.rig.world, Caller::Operator, testing::at(self.rig.now));
        // Refusals are part of the game.
        let _ = self.rig.store.transact_blocking(|tx| match what {
            0 => request::start(tx, world, &who, name, true, now).map(drop),
            1 => request::stop(tx, world, &who, name, now).map(drop),
            2 => request::kill(tx, world, &who, name, now).map(drop),
            3 => request::restart(tx, world, &who, name, true, now).map(drop),
            5 | 6 => {
                let order = RepairOrder { snapshot: what == 5, ..RepairOrder::default() };
                repair::begin(tx, world, &who, name, (&order, true), now).map(drop)
            }
            7 | 8 => repair::finish(tx, world, &who, name, RepairEnd { rollback: what == 8 }, now).map(drop),
            _ => request::destroy(tx, world, &who, name, now).map(drop),
        });
    }

    /// A copy on a node that is cut off is none: what it writes does not arrive.
    fn check(&self) {
        let mut running = BTreeSet::new();
        for agent in self.agents.iter().filter(|agent| !self.server.cut.contains(&agent.name())) {
            for (id, _) in agent.held.iter().filter(|(_, held)| held.runs) {
                assert!(running.insert(*id), "{id} runs twice");
            }
        }
        for task in self.rig.run(|tx| tx.list::<Task>()).iter().filter(|task| task.node.is_some()) {
            if let TaskKind::Rollback { environment, .. } = task.what {
                assert!(!running.contains(&environment), "{environment} runs while its disk is put back");
            }
        }
    }

    /// From now on all is well.
    fn calm(&mut self) {
        for drain in self.rig.run(|tx| tx.list::<drain::Drain>()) {
            self.rig.run(|tx| tx.delete::<drain::Drain>(&drain.node));
        }
        for at in 0..self.agents.len() {
            self.agents[at].out.clear();
            if self.agents[at].leaving || !self.agents[at].is_on {
                self.boots(at);
            }
        }
        for _ in 0..40 {
            self.rig.now += 5;
            for at in 0..self.agents.len() {
                self.marks(at);
                self.speak(at);
                self.arrive(at, true);
                self.rig.plan();
                self.answer(at, false);
                for which in 0..3 {
                    self.agents[at].act(which);
                    self.agents[at].act(which);
                }
                self.check();
            }
            self.serves(false);
            self.look();
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn nothing_ever_runs_twice_and_in_the_end_all_is_as_asked(events in proptest::collection::vec(event(), 60..200)) {
        let mut play = Play::new();
        for event in &events {
            play.happens(event);
        }
        play.calm();
        prop_assert_eq!(play.rig.run(incident::open), vec![]);
        prop_assert!(play.rig.run(|tx| tx.list::<Node>()).iter().all(|node| node.ban.is_none()));
        for environment in play.rig.run(|tx| tx.list::<Environment>()) {
            let holders = play.agents.iter().filter(|agent| agent.held.get(&environment.id).is_some_and(|held| held.runs)).count();
            prop_assert!(environment.goal != Goal::Running || environment.repair.as_ref().is_none_or(|repair| !repair.ends));
            match environment.goal {
                Goal::Running => prop_assert_eq!((holders, environment.phase), (1, Phase::Running), "{:?}", environment),
                Goal::Stopped | Goal::Killed | Goal::Ended => prop_assert_eq!((holders, environment.place), (0, None)),
                Goal::Destroyed => prop_assert!(false, "{:?} was not destroyed", environment),
            }
        }
    }
}
