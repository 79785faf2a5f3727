//! From a silence to the next boot, over a store and a clock that is set.

mod methods;

use std::time::Duration;

use jiff::Timestamp;
use lodge_model::api::{Heartbeat, Orders, Register, ShareHealth};
use lodge_model::environment::order::{Address, State};
use lodge_model::fence::{FenceOutcome, Fenced, MarkAge, PeerWord, Signs};
use lodge_model::ids::{BootId, NodeId};
use lodge_model::incident::{ArmOrder, Case, IncidentView, Method, Step};
use lodge_model::layout::Slot;
use lodge_model::node::Role;
use lodge_model::reach::Reached;
use tempfile::TempDir;

use super::{
    bmc,
    look::{begin, look},
    request,
};
use crate::ca::Ca;
use crate::environments::{reach, reconcile, records::Environment, testing as environments};
use crate::fault::Fault;
use crate::flow::{World, node, operator, refresh_all};
use crate::live::Live;
use crate::records::{Machine, NameClaim, Node};
use crate::store::{Store, Tx};
use crate::testing::{self, at};

const SHARE: u128 = 9;
const BOOT: BootId = BootId(uuid::Uuid::from_u128(77));

/// A center without its outside: the share node "center1" and the workers "node1" to "node3", all heard at second 1000, and "web" on
/// "node1".
struct Rig {
    store: Store,
    world: World,
    now: i64,
    up_for: Duration,
    _dir: TempDir,
}

fn id(number: u128) -> NodeId {
    testing::admitted("", number).id
}

impl Rig {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let world = World { ca: Ca::open(dir.path()).unwrap(), url: "https://10.0.0.1:8443".into(), live: Live::default() };
        let up_for = Duration::from_secs(100);
        let mut rig = Self { store: Store::in_memory(), world, now: 1000, up_for, _dir: dir };
        rig.run(|tx| {
            for (name, number, roles) in [
                ("center1", SHARE, vec![Role::Center, Role::Share]),
                ("node1", 1, vec![Role::Worker]),
                ("node2", 2, vec![Role::Worker]),
                ("node3", 3, vec![Role::Worker]),
            ] {
                let node = Node { roles, ..testing::registered(name, number, &format!("10.0.0.{number}")) };
                tx.put(&NameClaim { name: node.name.clone(), node: node.id })?;
                tx.put(&Machine { node: Some(node.id), ..testing::machine(number) })?;
                tx.put(&node)?;
            }
            refresh_all(tx, at(100)).map(drop)
        });
        rig.live(&[1, 2, 3]);
        rig.run(|tx| {
            let mut web = environments::environment("web", 1);
            web.addresses = vec![Address { ip: "10.0.1.1".parse().unwrap(), prefix: 24, gateway: None }];
            tx.put(&web)
        });
        rig.plan();
        assert_eq!(rig.web().place.unwrap().name, "node1");
        rig
    }

    fn run<T>(&self, work: impl Fn(&Tx) -> Result<T, Fault>) -> T {
        self.store.transact_blocking(work).unwrap()
    }

    fn plan(&self) {
        self.run(|tx| reconcile::run(tx, &self.world, true, at(self.now)).map(drop));
    }

    fn web(&self) -> Environment {
        self.run(|tx| tx.list::<Environment>()).remove(0)
    }

    fn look(&self) {
        let _ = self.run(|tx| look(tx, &self.world, self.up_for, at(self.now)));
    }

    fn beat(&self, number: u128, signs: Signs) -> Orders {
        let share = if number == SHARE { ShareHealth::Serving } else { ShareHealth::Mounted { probe_ms: 1 } };
        let said = Heartbeat {
            boot: BOOT,
            share,
            generation: 1,
            problem: None,
            phases: vec![],
            environments: vec![],
            tasks: vec![],
            warm: vec![],
            last_words: vec![],
            reached: vec![],
            signs,
            criu: None,
        };
        self.run(|tx| node::beat(tx, &self.world, id(number), &said, at(self.now)))
    }

    /// The share node speaks: these workers' files are fresh, the others' are as old as their silence.
    fn serves(&self, fresh: &[u128], fenced: Vec<Fenced>) -> Orders {
        let age = |number: u128| if fresh.contains(&number) { 500 } else { u64::try_from(self.now - 1000).unwrap() * 1000 };
        let marks = [1, 2, 3].map(|number| MarkAge { node: id(number), boot: BOOT, age_ms: age(number) });
        self.beat(SHARE, Signs { fenced, marks: marks.into(), ..Signs::default() })
    }

    /// These workers and the share node speak.
    fn live(&mut self, who: &[u128]) -> Orders {
        who.iter().for_each(|number| drop(self.beat(*number, Signs::default())));
        self.serves(who, vec![])
    }

    /// Time goes by, while only these live.
    fn later(&mut self, seconds: i64, who: &[u128]) {
        for _ in 0..seconds {
            self.now += 1;
            self.live(who);
            self.look();
            self.plan();
        }
    }

    fn confirm(&self, orders: &Orders) {
        let done =
            |id| Fenced { id, outcome: FenceOutcome::Confirmed { at: 1, proof: "no client with 10.0.0.1 is left".into() } };
        self.serves(&[2, 3], orders.fence.banned.iter().map(|ban| done(ban.id)).collect());
        self.plan();
    }

    /// The new node runs it, and the share node, which is asked, reaches it.
    fn takes_up(&self, node: NodeId) {
        let mut web = self.web();
        web.report = Some(environments::report(&web, State::Running { since: 1 }));
        self.run(|tx| tx.put(&web));
        self.plan();
        self.plan();
        let asked = self.beat(SHARE, Signs::default()).reach;
        assert!(asked.len() == 1 && node != id(SHARE), "{asked:?}");
        let said = Reached { id: web.id, epoch: asked[0].epoch, ms: 3, problem: String::new() };
        self.run(|tx| reach::take_in(tx, id(SHARE), &said, at(self.now)));
    }

    fn registers(&self, number: u128, boot: BootId) -> Orders {
        let said = Register {
            boot,
            facts: testing::facts(number, vec![]),
            roles: vec![Role::Worker],
            version: "0.1.0".into(),
            kernel: "6.12".into(),
            slot: Slot::A,
            disk_serial: "S1".into(),
            address: format!("10.0.0.{number}"),
            phases: vec![],
        };
        let orders = self.run(|tx| node::register(tx, &self.world, id(number), &said, at(self.now)));
        self.plan();
        orders
    }

    fn incident(&self) -> IncidentView {
        let mut all = self.run(request::incidents);
        assert_eq!(all.len(), 1, "{all:?}");
        all.remove(0)
    }

    fn steps(&self) -> Vec<Step> {
        self.incident().timeline.iter().map(|entry| entry.step).collect()
    }

    fn state(&self, number: u128) -> Node {
        self.run(|tx| tx.get::<Node>(&id(number))).unwrap()
    }
}

fn order(reason: &str) -> ArmOrder {
    ArmOrder { reason: reason.into() }
}

fn seconds(view: &IncidentView, step: Step) -> i64 {
    let at = |wanted: Step| -> Timestamp { view.timeline.iter().find(|entry| entry.step == wanted).unwrap().at };
    at(step).as_second() - at(Step::LastSign).as_second()
}

#[test]
fn a_dead_node_is_fenced_its_environment_goes_on_and_it_is_let_in_with_its_next_boot() {
    let mut rig = Rig::new();
    rig.later(6, &[2, 3]);
    assert!(rig.run(request::incidents).is_empty());
    rig.later(2, &[2, 3]);
    // The intent is stored and ordered; nothing moves before the proof.
    let orders = rig.live(&[2, 3]);
    assert_eq!(orders.fence.banned.len(), 1);
    assert_eq!(
        (orders.fence.banned[0].boot, orders.fence.banned[0].addresses.clone()),
        (BOOT, vec!["10.0.0.1".parse().unwrap()])
    );
    rig.later(20, &[2, 3]);
    let waiting = rig.web();
    assert_eq!((waiting.place.unwrap().name.as_str(), waiting.epoch), ("node1", 1));
    assert!(rig.incident().waits.contains("center1 has to confirm that node1 is cut off"), "{:?}", rig.incident());
    rig.confirm(&orders);
    let taken = rig.web();
    assert_ne!(taken.place.as_ref().unwrap().name, "node1");
    assert_eq!(taken.epoch, 2);
    assert_eq!(
        rig.steps(),
        [Step::LastSign, Step::Suspect, Step::Corroborated, Step::FenceOrdered, Step::Fenced, Step::Placed]
    );
    let incident = rig.incident();
    assert_eq!((incident.method, incident.case), (Some(Method::Share), Case::NodeSilent));
    assert!(seconds(&incident, Step::FenceOrdered) <= 8, "{incident:?}");

    rig.takes_up(taken.place.unwrap().node);
    assert_eq!(rig.steps()[6..], [Step::Started, Step::Reachable]);

    // It wakes up: it is told, and gets nothing, for as long as its boot is the same.
    let woken = rig.beat(1, Signs::default());
    assert_eq!((woken.fence.fenced, woken.environments.len()), (Some(BOOT), 0));
    rig.registers(1, BOOT);
    assert_eq!(rig.live(&[1, 2, 3]).fence.banned.len(), 1);
    let next = BootId(uuid::Uuid::from_u128(78));
    rig.registers(1, next);
    assert!(rig.live(&[2, 3]).fence.banned.is_empty());
    assert_eq!(rig.state(1).ban, None);
    assert!(rig.steps().contains(&Step::LetIn));
}

#[test]
fn only_the_node_that_serves_the_share_is_believed_about_it() {
    let mut rig = Rig::new();
    rig.later(9, &[2, 3]);
    let orders = rig.live(&[2, 3]);
    let confirmed = FenceOutcome::Confirmed { at: 1, proof: "believe me".into() };
    let fenced = vec![Fenced { id: orders.fence.banned[0].id, outcome: confirmed }];
    rig.beat(2, Signs { fenced, ..Signs::default() });
    rig.plan();
    assert_eq!(rig.web().place.unwrap().name, "node1");
    let failed = FenceOutcome::Failed { error: "nft: no such table".into() };
    for _ in 0..3 {
        rig.serves(&[2, 3], vec![Fenced { id: orders.fence.banned[0].id, outcome: failed.clone() }]);
    }
    let told = rig.incident().timeline.iter().filter(|entry| entry.step == Step::FenceFailed).count();
    assert_eq!((told, rig.web().epoch), (1, 1));
}

#[test]
fn disarmed_nothing_is_taken_over_and_armed_again_it_is() {
    let mut rig = Rig::new();
    assert!(matches!(rig.store.transact_blocking(|tx| request::disarm(tx, &order(" "), at(1))), Err(Fault::Refused(..))));
    rig.run(|tx| request::disarm(tx, &order("new switch"), at(1)));
    rig.later(30, &[2, 3]);
    assert_eq!((rig.state(1).ban, rig.web().epoch), (None, 1));
    let incident = rig.incident();
    assert!(incident.waits.contains("new switch") && incident.waits.contains("lodge cluster arm"), "{}", incident.waits);
    assert!(rig.run(request::state).held.contains("new switch"));
    rig.run(|tx| request::arm(tx, &order(""), at(1)));
    rig.later(1, &[2, 3]);
    assert!(rig.state(1).ban.is_some() && rig.run(request::state).held.is_empty());
}

#[test]
fn whoever_writes_its_file_works_on_and_is_heard_of_when_it_is_back() {
    let mut rig = Rig::new();
    for _ in 0..20 {
        rig.now += 1;
        let asked = rig.beat(3, Signs::default()).fence.ask_about;
        let peers = asked.iter().map(|peer| PeerWord { node: peer.node, answers: true }).collect();
        rig.beat(2, Signs { peers, ..Signs::default() });
        rig.serves(&[1, 2, 3], vec![]);
        rig.look();
        rig.plan();
    }
    let incident = rig.incident();
    assert_eq!((incident.case, rig.state(1).ban), (Case::CenterCut, None));
    assert!(incident.timeline.iter().any(|entry| entry.what == "1 of 1 neighbours reach it"), "{incident:?}");
    rig.later(1, &[1, 2, 3]);
    let incident = rig.incident();
    assert!(incident.closed.is_some() && incident.timeline.last().unwrap().step == Step::Returned, "{incident:?}");
    assert_eq!(rig.web().epoch, 1);
    assert!(rig.live(&[1, 2, 3]).fence.ask_about.is_empty());
}

#[test]
fn what_was_said_before_the_last_word_and_comes_after_it_counts_for_nothing() {
    let mut rig = Rig::new();
    rig.run(|tx| node::off(tx, &rig.world, id(2), "poweroff by its power button", at(rig.now)));
    assert!(rig.beat(2, Signs::default()).register_again);
    assert!(rig.state(2).off.is_some());
    // Silent without a word, even with nothing on it, it may have left one on the share; that is looked for.
    rig.later(20, &[1]);
    assert_eq!(rig.live(&[1]).absent, [id(3)]);
    rig.registers(2, BOOT);
    assert!(rig.state(2).off.is_none());
}

#[test]
fn an_operators_word_is_an_entry_too_and_bans_whoever_is_on_after_all() {
    let mut rig = Rig::new();
    rig.run(|tx| request::disarm(tx, &order("by hand"), at(1)));
    rig.later(15, &[2, 3]);
    rig.run(|tx| operator::confirm_off(tx, &rig.world, "node1", at(rig.now)));
    rig.plan();
    assert_eq!((rig.web().epoch, rig.incident().method), (2, Some(Method::Operator)));
    let orders = rig.live(&[2, 3]);
    assert_eq!(orders.fence.banned.len(), 1);
    rig.confirm(&orders);
    let incident = rig.incident();
    let fenced: Vec<_> = incident.timeline.iter().filter(|entry| entry.step == Step::Fenced).collect();
    assert!(fenced.len() == 2 && fenced[1].what.contains("no client with 10.0.0.1"), "{incident:?}");
}

#[test]
fn what_a_node_that_went_down_could_not_stop_is_taken_over_once_it_is_fenced() {
    let mut rig = Rig::new();
    rig.run(|tx| node::off(tx, &rig.world, id(1), "poweroff by its power supply", at(rig.now)));
    rig.later(9, &[2, 3]);
    let orders = rig.live(&[2, 3]);
    assert_eq!((orders.fence.banned.len(), rig.web().epoch), (1, 1));
    rig.confirm(&orders);
    assert_eq!(rig.web().epoch, 2);
    // One with nothing left is off, and nobody is concerned.
    let mut rig = Rig::new();
    rig.run(|tx| node::off(tx, &rig.world, id(2), "poweroff by an operator", at(rig.now)));
    rig.later(20, &[1, 3]);
    assert!(rig.run(request::incidents).is_empty());
}

#[test]
fn a_center_that_was_away_says_so_once() {
    let rig = Rig::new();
    rig.run(|tx| begin(tx, at(rig.now + 60)));
    let told = rig.run(|tx| tx.events_after(0, None)).pop().unwrap();
    assert!(told.text.starts_with("the center was away: nothing was heard for up to 60 s"), "{}", told.text);
}
