use lodge_model::answer::{Admit, SiteAnswer};
use lodge_model::api::{Decision, Heartbeat, Hello, InstallOrder, MachineEvent, Register};
use lodge_model::ids::BootId;
use lodge_model::layout::Slot;
use tempfile::TempDir;

use super::*;
use crate::records::Site;
use crate::store::Store;
use crate::testing::{at, disk, facts, machine_id};

/// A center without its outside, and one node of it, "node1" on machine 2, registered and ready at second 100.
struct Rig {
    store: Store,
    world: World,
    node: NodeId,
    _dir: TempDir,
}

const BOOT: BootId = BootId(uuid::Uuid::from_u128(77));

fn bundle() -> machine::BundleUrl {
    Ok("http://10.0.0.1/boot/lodge-os.tar.gz".into())
}

fn beat(generation: u64) -> Heartbeat {
    let share = ShareHealth::Mounted { probe_ms: 1 };
    Heartbeat {
        boot: BOOT,
        share,
        generation,
        problem: None,
        phases: vec![],
        environments: vec![],
        tasks: vec![],
        warm: vec![],
        last_words: vec![],
        reached: vec![],
        signs: Default::default(),
        criu: None,
    }
}

impl Rig {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let ca = Ca::open(dir.path()).unwrap();
        let world = World { ca, url: "https://10.0.0.1:8443".into(), live: Live::default() };
        let store = Store::in_memory();
        let site = Site { answer: SiteAnswer { admit: Admit::Auto, ..SiteAnswer::default() } };
        let id = machine_id(2);
        let hello = Hello { facts: facts(2, vec![disk("S1", None)]), name: None, version: "0.1.0".into() };
        let installed = MachineEvent::Installed { version: "0.1.0".into(), slot: Slot::A, disk_serial: "S1".into() };
        let node = store
            .transact_blocking(|tx| {
                tx.put(&site)?;
                let decision = machine::hello(tx, &world, &bundle(), id, &hello, at(1))?;
                assert!(matches!(decision, Decision::Install { .. }), "{decision:?}");
                machine::events(tx, &world, id, std::slice::from_ref(&installed), at(50))?;
                let node = operator::find(tx, "node1")?.node.unwrap().id;
                node::register(tx, &world, node, &registration(), at(99))?;
                node::beat(tx, &world, node, &beat(1), at(100))?;
                Ok(node)
            })
            .unwrap();
        Self { store, world, node, _dir: dir }
    }

    fn state(&self, now: i64) -> NodeState {
        self.store.transact_blocking(|tx| Ok(operator::node(tx, &self.world, "node1", at(now))?.node.state)).unwrap()
    }

    /// What time alone does, then the kinds of all events.
    fn look_around(&self, now: i64) -> Vec<String> {
        let look = |tx: &Tx| {
            node::look_around(tx, &self.world, at(now))?;
            Ok(tx.events_after(0, None)?.into_iter().map(|event| event.kind).collect())
        };
        self.store.transact_blocking(look).unwrap()
    }

    fn beat(&self, now: i64) -> lodge_model::api::Orders {
        self.store.transact_blocking(|tx| node::beat(tx, &self.world, self.node, &beat(1), at(now))).unwrap()
    }
}

fn registration() -> Register {
    Register {
        boot: BOOT,
        facts: facts(2, vec![disk("S1", Some("gpt"))]),
        roles: vec![Role::Worker],
        version: "0.1.0".into(),
        kernel: "6.12".into(),
        slot: Slot::A,
        disk_serial: "S1".into(),
        address: "10.0.0.2".into(),
        phases: vec![],
    }
}

#[test]
fn silence_is_told_once_and_so_is_the_return() {
    let rig = Rig::new();
    assert_eq!(rig.state(101), NodeState::Ready);
    rig.look_around(112);
    assert_eq!(rig.look_around(112).last().unwrap(), "ready");
    let silent = rig.look_around(113);
    assert_eq!(silent.last().unwrap(), "silent");
    assert_eq!(rig.look_around(150).len(), silent.len());
    rig.beat(151);
    assert_eq!(rig.look_around(152).last().unwrap(), "ready");
}

#[test]
fn a_clock_that_is_set_back_neither_hides_nor_invents_silence() {
    let rig = Rig::new();
    rig.beat(5000);
    assert_eq!(rig.state(5001), NodeState::Ready);
    // The clock goes back by an hour: the next heartbeat counts by the new one.
    rig.beat(1400);
    assert_eq!(rig.state(1401), NodeState::Ready);
    assert_eq!(rig.state(1413), NodeState::Silent);
}

#[test]
fn a_reinstall_that_nobody_comes_for_is_taken_back() {
    let rig = Rig::new();
    let order = |tx: &Tx| operator::reinstall(tx, &rig.world, &bundle(), "node1", &InstallOrder::default(), at(101));
    rig.store.transact_blocking(order).unwrap();
    let ordered = rig.beat(102);
    assert!(ordered.reinstall.is_some());
    let after = rig.beat(101 + 3700);
    assert!(after.reinstall.is_none() && after.generation > ordered.generation, "{after:?}");
    assert_eq!(rig.state(101 + 3701), NodeState::Ready);
}

#[test]
fn another_boot_than_the_registered_one_registers_again() {
    let rig = Rig::new();
    let other = Heartbeat { boot: BootId(uuid::Uuid::from_u128(78)), ..beat(1) };
    let orders = rig.store.transact_blocking(|tx| node::beat(tx, &rig.world, rig.node, &other, at(102))).unwrap();
    assert!(orders.register_again);
}

#[test]
fn a_reinstall_of_what_holds_data_must_be_meant() {
    let rig = Rig::new();
    let try_with = |roles: Vec<Role>, order: InstallOrder| {
        rig.store.transact_blocking(|tx| {
            let mut node: Node = tx.get(&rig.node)?.unwrap();
            node.roles.clone_from(&roles);
            tx.put(&node)?;
            operator::reinstall(tx, &rig.world, &bundle(), "node1", &order, at(101))
        })
    };
    let wipe = InstallOrder { wipe: true, ..InstallOrder::default() };
    assert!(try_with(vec![Role::Center, Role::Share], wipe.clone()).is_err());
    assert!(try_with(vec![Role::Share], InstallOrder::default()).is_err());
    assert!(try_with(vec![Role::Share], wipe).is_ok());
}

#[test]
fn a_late_registration_of_a_former_boot_counts_for_nothing() {
    let rig = Rig::new();
    let register = |boot: u128, now| {
        let said = Register { boot: BootId(uuid::Uuid::from_u128(boot)), ..registration() };
        rig.store.transact_blocking(|tx| node::register(tx, &rig.world, rig.node, &said, at(now)))
    };
    register(78, 110).unwrap();
    let Err(Fault::Refused(_, why)) = register(77, 111) else { panic!("a boot that is over was taken in") };
    assert!(why.contains("is over"), "{why}");
    let known = rig.store.transact_blocking(|tx| tx.get::<Node>(&rig.node)).unwrap().unwrap();
    assert_eq!(known.registered.unwrap().boot, BootId(uuid::Uuid::from_u128(78)));
    register(78, 112).unwrap();
}
