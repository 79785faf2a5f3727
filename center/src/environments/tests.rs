//! Requests, reports and planning together, over a store and a clock that is set.

mod agents;
mod planning;
mod repair;

use std::collections::BTreeSet;
use std::net::IpAddr;

use lodge_model::api::{Heartbeat, Orders, ShareHealth};
use lodge_model::environment::order::{Assignment, Report, State, Want};
use lodge_model::environment::view::{EnvironmentView, Phase, Pool};
use lodge_model::ids::{BootId, NodeId};
use proptest::prelude::*;
use tempfile::TempDir;

use super::records::{Claim, Environment};
use super::testing::spec;
use super::{claims, pools, reconcile, request, view};
use crate::auth::Caller;
use crate::ca::Ca;
use crate::fault::Fault;
use crate::flow::{World, node, operator};
use crate::live::Live;
use crate::records::{Machine, NameClaim, Node};
use crate::store::{Store, Tx};
use crate::templates::{State as TemplateState, Template};
use crate::testing::{self, at};

/// A center without its outside, with the nodes "node1" and "node2".
struct Rig {
    store: Store,
    world: World,
    now: i64,
    _dir: TempDir,
}

fn pool(name: &str, first: &str, last: &str, prefix: u8) -> Pool {
    let ip = |text: &str| -> IpAddr { text.parse().unwrap() };
    Pool { name: name.into(), first: ip(first), last: ip(last), prefix, gateway: None, dns: vec![ip("10.0.0.53")] }
}

fn node_id(number: u128) -> NodeId {
    testing::admitted("", number).id
}

impl Rig {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let world = World { ca: Ca::open(dir.path()).unwrap(), url: "https://10.0.0.1:8443".into(), live: Live::default() };
        let rig = Self { store: Store::in_memory(), world, now: 100, _dir: dir };
        rig.run(|tx| {
            for number in [1, 2] {
                let node = testing::registered(&format!("node{number}"), number, &format!("10.0.0.{number}"));
                tx.put(&NameClaim { name: node.name.clone(), node: node.id })?;
                tx.put(&Machine { node: Some(node.id), ..testing::machine(number) })?;
                tx.put(&node)?;
            }
            crate::flow::refresh_all(tx, at(100))?;
            let state = TemplateState::Ready { image: super::testing::template() };
            tx.put(&Template { name: "tiny".into(), created: at(1), state, version: 1 })?;
            pools::add(tx, &pool("v4", "10.0.1.1", "10.0.1.6", 24), at(1))?;
            pools::add(tx, &pool("v6", "fd00::1", "fd00::ffff", 64), at(2)).map(drop)
        });
        rig
    }

    fn run<T>(&self, work: impl Fn(&Tx) -> Result<T, Fault>) -> T {
        self.store.transact_blocking(work).unwrap()
    }

    fn heartbeat(&self, environments: Vec<Report>) -> Heartbeat {
        Heartbeat {
            boot: BootId(uuid::Uuid::from_u128(77)),
            share: ShareHealth::Mounted { probe_ms: 1 },
            generation: 1,
            problem: None,
            phases: vec![],
            environments,
            tasks: vec![],
            warm: vec![],
            last_words: vec![],
            reached: vec![],
            signs: Default::default(),
            criu: None,
        }
    }

    fn beat(&self, number: u128, environments: Vec<Report>) -> Orders {
        let said = self.heartbeat(environments);
        self.run(|tx| node::beat(tx, &self.world, node_id(number), &said, at(self.now)))
    }

    fn plan(&self) {
        self.run(|tx| reconcile::run(tx, &self.world, true, at(self.now)).map(drop));
    }

    fn create(&self, name: &str) -> Result<EnvironmentView, Fault> {
        self.store.transact_blocking(|tx| request::create(tx, &self.world, &Caller::Operator, &spec(name), false, at(self.now)))
    }

    fn view(&self, name: &str) -> EnvironmentView {
        self.run(|tx| view::named(tx, &self.world, &Caller::Operator, name))
    }

    /// The node that has an environment, and its assignment.
    fn holder(&self, name: &str) -> (u128, Assignment) {
        let find = |number: u128| {
            let orders = self.run(|tx| node::orders(tx, node_id(number)));
            orders.environments.into_iter().find(|assigned| assigned.name == name).map(|assigned| (number, assigned))
        };
        find(1).or_else(|| find(2)).unwrap()
    }
}

fn says(assigned: &Assignment, state: State) -> Report {
    Report::new(assigned.id, assigned.epoch, state)
}

#[test]
fn silence_is_shown_and_only_an_operators_word_ends_it() {
    let mut rig = Rig::new();
    rig.beat(1, vec![]);
    rig.beat(2, vec![]);
    rig.create("web1").unwrap();
    rig.plan();
    let (number, assigned) = rig.holder("web1");
    rig.beat(number, vec![says(&assigned, State::Running { since: 100 })]);
    assert_eq!(rig.view("web1").phase, Phase::Running);
    let (name, other) = (format!("node{number}"), 3 - number);

    // Silent for a while, and back: it was running all the time, and nobody else was told to.
    rig.now = 130;
    rig.beat(other, vec![]);
    rig.plan();
    let lost = rig.view("web1");
    assert_eq!((lost.phase, lost.epoch, lost.node), (Phase::Unknown, 1, Some(name.clone())));
    rig.beat(number, vec![says(&assigned, State::Running { since: 100 })]);
    rig.plan();
    assert_eq!((rig.view("web1").phase, rig.view("web1").epoch), (Phase::Running, 1));
    let early = rig.store.transact_blocking(|tx| operator::confirm_off(tx, &rig.world, &name, at(131)));
    assert!(early.is_err());

    rig.now = 160;
    rig.beat(other, vec![]);
    rig.run(|tx| operator::confirm_off(tx, &rig.world, &name, at(160)));
    rig.plan();
    let (holder, assigned) = rig.holder("web1");
    assert_eq!((holder, assigned.epoch, assigned.want), (other, 2, Want::Running));
    // The first node is heard again, in the same boot: it has nothing, gets nothing, and its word counts for nothing.
    let orders = rig.beat(number, vec![says(&Assignment { epoch: 1, ..assigned.clone() }, State::Running { since: 100 })]);
    assert!(orders.environments.is_empty());
    assert_eq!(rig.view("web1").phase, Phase::Starting);
    rig.create("web2").unwrap();
    rig.plan();
    assert_eq!(rig.holder("web2").0, other);
}

#[test]
fn a_center_that_has_just_started_does_not_take_its_own_deafness_for_silence() {
    let mut rig = Rig::new();
    rig.beat(1, vec![]);
    rig.beat(2, vec![]);
    rig.create("web1").unwrap();
    rig.plan();
    let (number, assigned) = rig.holder("web1");
    rig.beat(number, vec![says(&assigned, State::Running { since: 100 })]);
    rig.now = 500;
    rig.run(|tx| reconcile::run(tx, &rig.world, false, at(rig.now)));
    assert_eq!(rig.view("web1").phase, Phase::Running);
    rig.plan();
    assert_eq!(rig.view("web1").phase, Phase::Unknown);
}

#[test]
fn a_plan_that_changes_nothing_writes_nothing() {
    let rig = Rig::new();
    rig.beat(1, vec![]);
    rig.beat(2, vec![]);
    rig.create("web1").unwrap();
    rig.plan();
    let (views, changes) = (rig.store.views(), rig.store.changes());
    let before = (rig.view("web1"), rig.holder("web1"));
    rig.plan();
    assert!(!views.has_changed().unwrap() && !changes.has_changed().unwrap());
    assert_eq!((rig.view("web1"), rig.holder("web1")), before);
}

#[test]
fn a_full_pool_is_told_and_a_second_one_of_the_family_goes_on() {
    let rig = Rig::new();
    for number in 0..6 {
        rig.create(&format!("e{number}")).unwrap();
    }
    let Err(Fault::Refused(_, why)) = rig.create("late") else { panic!("there was an address left") };
    assert!(why.contains("no address is free in v4"), "{why}");
    rig.run(|tx| pools::add(tx, &pool("more", "10.0.2.1", "10.0.2.2", 24), at(3)).map(drop));
    let late = rig.create("late").unwrap();
    assert_eq!(late.addresses.iter().map(|address| address.ip.to_string()).collect::<Vec<_>>(), ["10.0.2.1", "fd00::7"]);
}

fn check_unique(rig: &Rig) {
    let environments = rig.run(|tx| tx.list::<Environment>());
    let mut seen = BTreeSet::new();
    let mut claimed = 0;
    for environment in &environments {
        let mut own = vec![environment.spec.name.clone(), environment.mac.clone(), environment.id_range.to_string()];
        own.extend(environment.addresses.iter().map(|address| address.ip.to_string()));
        claimed += own.len();
        for thing in own {
            assert!(seen.insert(thing.clone()), "{thing} is given twice");
        }
    }
    assert_eq!(rig.run(|tx| tx.list::<Claim>()).len(), claimed, "claims and what is held are not the same");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(8))]

    #[test]
    fn names_addresses_macs_and_ids_are_unique_and_given_back(
        steps in proptest::collection::vec((0..9u32, 0..3u8), 20..40)
    ) {
        let rig = Rig::new();
        for (number, what) in steps {
            let name = format!("e{number}");
            // Refusals (a name that is taken, a full pool, nothing to destroy) must leave nothing behind either.
            let _ = match what {
                0 | 1 => rig.create(&name).map(drop),
                _ => rig.store.transact_blocking(|tx| {
                    request::destroy(tx, &rig.world, &Caller::Operator, &name, at(rig.now)).map(drop)
                }),
            };
            rig.plan();
            check_unique(&rig);
        }
        for environment in rig.run(|tx| tx.list::<Environment>()) {
            let name = environment.spec.name;
            rig.run(|tx| request::destroy(tx, &rig.world, &Caller::Operator, &name, at(rig.now)).map(drop));
        }
        rig.plan();
        prop_assert_eq!(rig.run(|tx| tx.list::<Claim>()), vec![]);
        prop_assert_eq!(rig.run(|tx| claims::named(tx, "e1")), None);
        prop_assert!(rig.run(|tx| tx.list::<Node>()).iter().all(|node| node.orders.as_ref().unwrap().environments.is_empty()));
    }
}
