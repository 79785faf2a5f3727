//! BMCs, leases and watchdogs: what fences a node besides the one that serves the share.

use lodge_model::bmc::{BmcOrder, Secret, Trust};
use lodge_model::guard::{Guard, Watchdog};
use lodge_model::settings::SettingsChange;

use super::*;
use crate::failover::bmc::redfish::Limits;
use crate::failover::bmc::testing::{Board, Firmware, PASSWORD, USER};

impl Rig {
    /// Look, run what is to be done, and note what came of it, as the center does.
    async fn look_and_run(&self) {
        let errands = self.run(|tx| look(tx, &self.world, self.up_for, at(self.now)));
        for errand in errands {
            let outcome = errand.run(&self.store).await.map_err(|error| format!("{error:#}"));
            self.run(|tx| errand.ended(tx, &self.world, &outcome, at(self.now)));
        }
        self.plan();
    }

    fn with_bmc(self, board: &Board) -> Self {
        let record = board.record(id(1));
        self.run(|tx| tx.put(&record));
        self
    }
}

fn board(firmware: Firmware) -> Board {
    Board::start(firmware, testing::machine_id(1).0)
}

#[tokio::test]
async fn a_bmc_takes_over_where_the_share_node_cannot_and_its_machine_comes_back() {
    let board = board(Firmware::Good(1));
    let mut rig = Rig::new().with_bmc(&board);
    rig.later(9, &[2, 3]);
    let id = rig.live(&[2, 3]).fence.banned[0].id;
    assert!(board.inside().orders.is_empty(), "the share node comes first");
    let failed = FenceOutcome::Failed { error: "nft: no such table".into() };
    rig.serves(&[2, 3], vec![Fenced { id, outcome: failed }]);
    rig.look_and_run().await;
    let incident = rig.incident();
    assert_eq!((incident.method, rig.web().epoch), (Some(Method::Bmc), 2), "{incident:?}");
    assert_ne!(rig.web().place.unwrap().name, "node1");
    let told = |step| incident.timeline.iter().rev().find(|entry| entry.step == step).unwrap().what.clone();
    assert!(told(Step::FenceOrdered).contains("its BMC is to switch it off: center1 cannot cut it off (nft: no such table)"));
    assert!(told(Step::Fenced).contains("took ForceOff, and was read back as Off"), "{incident:?}");
    // The ban stays: an old copy would still be refused.
    assert_eq!(rig.live(&[2, 3]).fence.banned.len(), 1);
    rig.look_and_run().await;
    let (power, orders) = {
        let inside = board.inside();
        (inside.power, inside.orders.clone())
    };
    assert_eq!((power, orders), ("On", vec!["ForceOff".to_owned(), "On".to_owned()]));
    assert!(rig.steps().contains(&Step::SwitchedOn));
    rig.look_and_run().await;
    assert_eq!(board.inside().orders.len(), 2, "once each");
    rig.registers(1, BootId(uuid::Uuid::from_u128(78)));
    assert!(rig.live(&[1, 2, 3]).fence.banned.is_empty());
}

#[tokio::test]
async fn a_bmc_that_cannot_is_told_once_and_tried_again() {
    let board = board(Firmware::Refuses);
    let mut rig = Rig::new().with_bmc(&board);
    rig.later(9, &[2, 3]);
    let id = rig.live(&[2, 3]).fence.banned[0].id;
    rig.serves(&[2, 3], vec![Fenced { id, outcome: FenceOutcome::Failed { error: "nft".into() } }]);
    for _ in 0..12 {
        rig.look_and_run().await;
        rig.later(1, &[2, 3]);
    }
    let incident = rig.incident();
    let told = incident.timeline.iter().filter(|entry| entry.what.contains("The firmware is being updated.")).count();
    assert_eq!((told, rig.web().epoch), (1, 1), "{incident:?}");
    assert!(incident.waits.contains("its BMC has to say that it is off, and is asked again"), "{}", incident.waits);
    assert_eq!(board.inside().orders.len(), 2, "at once, then after 5 s");
    // The share node can after all.
    let orders = rig.live(&[2, 3]);
    rig.confirm(&orders);
    assert_eq!((rig.incident().method, rig.web().epoch), (Some(Method::Share), 2));
}

#[tokio::test]
async fn a_boot_that_has_ended_by_itself_leaves_nothing_to_be_switched() {
    let board = board(Firmware::Good(0));
    let mut rig = Rig::new().with_bmc(&board);
    rig.later(9, &[2, 3]);
    let orders = rig.live(&[2, 3]);
    rig.confirm(&orders);
    let errands = rig.run(|tx| look(tx, &rig.world, Duration::from_secs(100), at(rig.now)));
    assert_eq!(errands.len(), 1, "to make sure");
    rig.registers(1, BootId(uuid::Uuid::from_u128(78)));
    let outcome = errands[0].run(&rig.store).await;
    assert!(outcome.is_err() && board.inside().orders.is_empty(), "{outcome:?}");
    let before = rig.steps();
    rig.run(|tx| errands[0].ended(tx, &rig.world, &Err("late".into()), at(rig.now)));
    assert_eq!(rig.steps(), before);
}

#[tokio::test]
async fn a_bmc_is_asked_before_it_is_stored_and_must_know_the_machine() {
    let board = board(Firmware::Good(0));
    let rig = Rig::new();
    let order = |trust: Option<Trust>| BmcOrder {
        url: board.url.clone(),
        user: USER.into(),
        password: Secret(PASSWORD.into()),
        system: None,
        trust,
        stays_off: true,
        force: false,
    };
    let set = async |order: BmcOrder| match bmc::request::set(&rig.store, "node1", order, Limits::default(), at(1)).await {
        Ok(view) => Ok(view),
        Err(Fault::Refused(_, why)) => Err(why),
        Err(fault) => panic!("{fault:?}"),
    };
    let why = set(order(None)).await.unwrap_err();
    assert!(why.contains(&format!("--fingerprint {}", board.fingerprint)), "{why}");
    let known = || order(Some(Trust::Fingerprint(board.fingerprint.clone())));
    board.inside().uuid = uuid::Uuid::from_u128(4711);
    let why = set(known()).await.unwrap_err();
    assert!(why.contains("switching it off would hit another machine"), "{why}");
    assert!(rig.run(|tx| tx.list::<bmc::Bmc>()).is_empty());
    board.inside().uuid = testing::machine_id(1).0;
    let why = set(BmcOrder { user: String::new(), ..known() }).await.unwrap_err();
    assert!(why.starts_with("user: "), "{why}");
    let view = set(known()).await.unwrap();
    assert_eq!((view.machine, view.stays_off), (Some(testing::machine_id(1).0), true));
    let shown = rig.run(|tx| bmc::request::show(tx, "node1"));
    assert!(shown == view && !serde_json::to_string(&view).unwrap().contains(PASSWORD));
    let tested = bmc::request::test(&rig.store, "node1", Limits::default()).await.unwrap();
    assert_eq!((tested.power.as_str(), tested.model.as_str()), ("On", "Lodge Board"));
    let log = rig.run(|tx| tx.events_after(0, None));
    assert!(log.iter().any(|event| event.text.contains("the BMC of node1 is at https://")));
    assert!(log.iter().all(|event| !event.text.contains(PASSWORD)));
    rig.run(|tx| bmc::request::remove(tx, "node1", at(2)));
    assert!(rig.run(|tx| tx.list::<bmc::Bmc>()).is_empty());
}

/// Heartbeats of the workers with what they attest.
fn attest(rig: &Rig, guard: &Guard) {
    for number in [1, 2, 3] {
        rig.beat(number, Signs { guard: Some(guard.clone()), ..Signs::default() });
    }
}

fn set(rig: &Rig, change: SettingsChange) -> Result<(), String> {
    match rig.store.transact_blocking(|tx| crate::environments::drain::request::set(tx, &change, at(rig.now))) {
        Ok(_) => Ok(()),
        Err(Fault::Refused(_, why)) => Err(why),
        Err(fault) => panic!("{fault:?}"),
    }
}

fn wait(seconds: u32) -> SettingsChange {
    SettingsChange { lease_wait: Some(seconds), ..SettingsChange::default() }
}

#[test]
fn settings_that_break_the_inequality_are_refused_and_a_lease_that_keeps_it_frees_what_a_node_ran() {
    let mut rig = Rig::new();
    let watchdog = Watchdog { identity: "iTCO_wdt".into(), timeout: 60, is_hardware: true };
    let guard = Guard { lease_ms: None, watchdog: Some(watchdog), is_virtual: false };
    assert!(set(&rig, wait(100)).unwrap_err().contains("node1: it has attested nothing"));
    attest(&rig, &Guard { is_virtual: true, ..guard.clone() });
    assert!(set(&rig, wait(100)).unwrap_err().contains("of no worker"), "a virtual machine proves nothing");
    attest(&rig, &guard);
    assert!(set(&rig, wait(90)).unwrap_err().contains("node1: it may go on for 90 s"));
    set(&rig, wait(95)).unwrap();
    let patient = SettingsChange { patience: Some(2), ..SettingsChange::default() };
    assert!(set(&rig, patient).unwrap_err().contains("it may go on for 105 s"));
    // Nodes are told, and hold themselves to it.
    rig.plan();
    assert!(rig.beat(1, Signs::default()).fence.lease);
    attest(&rig, &Guard { lease_ms: Some(20_000), ..guard });
    let shown = rig.run(super::super::attested::show);
    let node1 = shown.nodes.iter().find(|node| node.node == "node1").unwrap();
    assert_eq!((node1.bound, node1.lease.as_str(), node1.share.as_str()), (Some(90), "", ""));

    rig.later(9, &[2, 3]);
    let id = rig.live(&[2, 3]).fence.banned[0].id;
    rig.serves(&[2, 3], vec![Fenced { id, outcome: FenceOutcome::Failed { error: "nft".into() } }]);
    let mut passed = 0;
    while rig.web().epoch == 1 {
        rig.later(1, &[2, 3]);
        passed += 1;
        rig.up_for += Duration::from_secs(1);
        assert!(passed < 200, "{:?}", rig.incident());
    }
    assert!(passed >= 95, "after {passed} s");
    assert_eq!(rig.incident().method, Some(Method::Lease));
}
