//! Repairs, from the request to the end, with nodes that are played by hand.

use lodge_model::environment::order::{Beside, DiskCheck, Task, TaskKind, TaskOutcome, TaskReport, TemplateRef, Verdict};
use lodge_model::environment::view::{CheckOrder, ReinstallOrder, RepairEnd, RepairOrder};
use lodge_model::ids::Digest;

use super::*;
use crate::environments::repair::{reinstall, request as repair};
use crate::environments::snapshots;

impl Rig {
    /// "web1", which runs; its node and what that was told.
    fn running(&self) -> (u128, Assignment) {
        self.beat(1, vec![]);
        self.beat(2, vec![]);
        self.create("web1").unwrap();
        self.plan();
        self.runs()
    }

    /// What is to run of it does.
    fn runs(&self) -> (u128, Assignment) {
        let (number, assigned) = self.held();
        self.beat(number, vec![says(&assigned, State::Running { since: 100 })]);
        self.plan();
        (number, assigned)
    }

    fn held(&self) -> (u128, Assignment) {
        let id = self.view("web1").id;
        let of = |number| self.run(|tx| node::orders(tx, node_id(number))).environments.into_iter().find(|one| one.id == id);
        [1, 2].into_iter().find_map(|number| of(number).map(|assigned| (number, assigned))).unwrap()
    }

    /// Its node lets go of it.
    fn lets_go(&self) {
        let (number, assigned) = self.held();
        assert_eq!(assigned.want, Want::Stopped);
        self.beat(number, vec![says(&assigned, State::Released)]);
        self.plan();
    }

    fn begin(&self, order: &RepairOrder) -> Result<EnvironmentView, Fault> {
        let now = at(self.now);
        let begun =
            self.store.transact_blocking(|tx| repair::begin(tx, &self.world, &Caller::Operator, "web1", (order, false), now));
        self.plan();
        begun
    }

    fn finish(&self, rollback: bool) -> Result<EnvironmentView, Fault> {
        let (end, now) = (RepairEnd { rollback }, at(self.now));
        let ended = self.store.transact_blocking(|tx| repair::finish(tx, &self.world, &Caller::Operator, "web1", end, now));
        self.plan();
        ended
    }

    /// The one task of all nodes, and who does it.
    fn task(&self) -> Option<(u128, Task)> {
        let first = |number| self.run(|tx| node::orders(tx, node_id(number))).tasks.into_iter().next();
        [1, 2].into_iter().find_map(|number| first(number).map(|task| (number, task)))
    }

    fn does(&self, outcome: TaskOutcome) -> TaskKind {
        let (number, task) = self.task().unwrap();
        let said = Heartbeat { tasks: vec![TaskReport { id: task.id, outcome }], ..self.heartbeat(vec![]) };
        self.run(|tx| node::beat(tx, &self.world, node_id(number), &said, at(self.now)));
        self.plan();
        task.what
    }
}

fn done() -> TaskOutcome {
    TaskOutcome::Done { bytes: 7, template: None }
}

fn failed() -> TaskOutcome {
    TaskOutcome::Failed { error: "no room on the share".into() }
}

fn why(refused: Result<EnvironmentView, Fault>) -> String {
    let Err(Fault::Refused(_, why)) = refused else { panic!("it was not refused: {refused:?}") };
    why
}

#[test]
fn stopped_kept_opened_on_another_node_and_given_back() {
    let rig = Rig::new();
    let (number, own) = rig.running();
    let other = 3 - number;
    let order = RepairOrder {
        node: Some(format!("node{other}")),
        ssh_keys: vec!["ssh-ed25519 AAAAC3NzaC1lZDI1 ann".into()],
        ..RepairOrder::default()
    };
    let begun = rig.begin(&order).unwrap();
    assert!(begun.phase == Phase::Stopping && begun.reason.contains("opened for repair"), "{begun:?}");
    assert_eq!(rig.task(), None, "its disk is kept when it is at rest");
    let (_, stopping) = rig.held();
    assert_eq!((stopping.want, stopping.template, stopping.beside), (Want::Stopped, own.template.clone(), None));
    rig.lets_go();
    let waits = rig.view("web1");
    assert!(waits.phase == Phase::Waiting && waits.reason.contains("kept as snapshot"), "{waits:?}");
    let snapshot = waits.repair.unwrap().snapshot.unwrap();
    assert!(matches!(rig.does(done()), TaskKind::Snapshot { snapshot: name, .. } if name == snapshot));

    let (holder, assigned) = rig.runs();
    assert_eq!((holder, assigned.epoch, assigned.name.as_str()), (other, own.epoch + 1, "web1-repair"));
    assert_eq!(assigned.beside, Some(Beside::Repair { template: own.template.clone() }));
    assert_eq!(
        (assigned.addresses.clone(), assigned.ssh_keys.len(), assigned.template.meta.movable),
        (own.addresses.clone(), 1, false)
    );
    let view = rig.view("web1");
    assert!(view.repair.unwrap().open && view.phase == Phase::Running);
    assert!(why(rig.begin(&order)).contains("under repair already"));
    rig.beat(holder, vec![Report { mended: "FIXED".into(), ..says(&assigned, State::Running { since: 100 }) }]);
    assert_eq!(rig.view("web1").repair.unwrap().mended, "FIXED");

    rig.finish(false).unwrap();
    assert!(why(rig.finish(false)).contains("being ended already"));
    rig.lets_go();
    let (_, again) = rig.runs();
    assert_eq!((again.epoch, again.name.as_str(), again.beside, again.template), (own.epoch + 2, "web1", None, own.template));
    assert_eq!((rig.view("web1").repair, rig.task()), (None, None));
    assert!(why(rig.finish(false)).contains("not under repair"));
}

#[test]
fn a_rollback_puts_the_disk_back_before_it_is_started() {
    let rig = Rig::new();
    rig.running();
    rig.begin(&RepairOrder::default()).unwrap();
    rig.lets_go();
    assert!(why(rig.finish(true)).contains("not complete"));
    rig.does(done());
    rig.runs();
    rig.finish(true).unwrap();
    assert_eq!(rig.task(), None, "not while somebody has the disk");
    rig.lets_go();
    assert_eq!(rig.view("web1").phase, Phase::Waiting);
    // It cannot be done: nothing is started, the repair is as it was, and may be ended another way.
    assert!(matches!(rig.does(failed()), TaskKind::Rollback { .. }));
    let stopped = rig.view("web1");
    assert!(stopped.phase == Phase::Stopped && !stopped.repair.unwrap().ends && stopped.tasks.len() == 1);
    rig.finish(true).unwrap();
    rig.does(done());
    let (_, own) = rig.runs();
    assert_eq!((own.beside, rig.view("web1").repair), (None, None));
}

#[test]
fn without_its_snapshot_it_goes_on_as_before() {
    let rig = Rig::new();
    let (_, own) = rig.running();
    let new = RepairOrder { addresses: Some(vec![]), ..RepairOrder::default() };
    rig.begin(&new).unwrap();
    let claims = rig.run(|tx| tx.list::<Claim>()).len();
    rig.lets_go();
    rig.does(failed());
    let (_, again) = rig.runs();
    assert_eq!((again.epoch, again.beside, again.addresses), (own.epoch + 1, None, own.addresses.clone()));
    let view = rig.view("web1");
    assert!(view.repair.is_none() && view.tasks[0].what.contains("snapshot"), "{view:?}");
    assert_eq!(rig.run(|tx| tx.list::<Claim>()).len(), claims - 2, "the addresses of the repair are given back");
    // Who does not want one goes on without, and has no way back.
    rig.begin(&RepairOrder { snapshot: false, ..new }).unwrap();
    rig.lets_go();
    let (_, repair) = rig.runs();
    assert!(repair.beside.is_some());
    let view = rig.view("web1");
    assert_eq!(view.addresses, repair.addresses);
    assert_ne!(view.addresses, own.addresses);
    assert!(why(rig.finish(true)).contains("no snapshot"));
}

#[test]
fn it_is_taken_from_a_dead_node_once_that_is_certainly_off() {
    let mut rig = Rig::new();
    let (number, own) = rig.running();
    rig.now = 160;
    rig.beat(3 - number, vec![]);
    rig.plan();
    let unknown = rig.begin(&RepairOrder::default()).unwrap();
    assert_eq!(unknown.phase, Phase::Unknown);
    assert!(rig.view("web1").reason.contains("confirm-off") && rig.task().is_none());
    rig.run(|tx| operator::confirm_off(tx, &rig.world, &format!("node{number}"), at(160)));
    rig.plan();
    rig.does(done());
    let (holder, repair) = rig.runs();
    assert_eq!((holder, repair.epoch), (3 - number, own.epoch + 1));
    assert!(repair.beside.is_some());
}

#[test]
fn a_repair_environment_moves_and_comes_back_like_any_other() {
    let rig = Rig::new();
    rig.running();
    rig.begin(&RepairOrder { snapshot: false, ..RepairOrder::default() }).unwrap();
    rig.lets_go();
    let (number, first) = rig.runs();
    rig.beat(number, vec![says(&first, State::Released)]);
    rig.plan();
    let (other, second) = rig.runs();
    assert_eq!((other, second.epoch), (3 - number, first.epoch + 1), "a node that gives it back does not get it again at once");
    assert_eq!((second.beside, second.template), (first.beside, first.template));
}

#[test]
fn what_cannot_be_repaired_is_told() {
    let rig = Rig::new();
    rig.beat(1, vec![]);
    rig.create("web1").unwrap();
    assert!(why(rig.begin(&RepairOrder::default())).contains("no disk yet"));
    rig.runs();
    let asked = |order: RepairOrder| why(rig.begin(&order));
    let plain = RepairOrder::default;
    assert!(asked(RepairOrder { node: Some("nowhere".into()), ..plain() }).contains("no node nowhere"));
    assert!(asked(RepairOrder { template: Some("nothing".into()), ..plain() }).contains("nothing"));
    assert!(asked(RepairOrder { ssh_keys: vec!["secret".into()], ..plain() }).contains("ssh-keys"));
    assert!(asked(RepairOrder { addresses: Some(vec![IpAddr::from([192, 0, 2, 1])]), ..plain() }).contains("in no pool"));
    assert!(rig.view("web1").repair.is_none() && rig.run(|tx| tx.list::<crate::environments::records::Task>()).is_empty());
    rig.run(|tx| snapshots::take(tx, &Caller::Operator, "web1", Some("mine"), at(rig.now)).map(drop));
    assert!(asked(plain()).contains("snapshot mine is not done yet"));
    let stranger = rig.store.transact_blocking(|tx| {
        repair::begin(
            tx,
            &rig.world,
            &Caller::User { name: "bob".into() },
            "web1",
            (&RepairOrder::default(), false),
            at(rig.now),
        )
    });
    assert!(why(stranger).contains("no environment"));
}

#[test]
fn a_disk_is_checked_when_nobody_has_it_and_what_was_found_is_kept() {
    let rig = Rig::new();
    rig.running();
    let check = |mend| {
        let (order, now) = (CheckOrder { mend }, at(rig.now));
        let asked = rig.store.transact_blocking(|tx| repair::check(tx, &rig.world, &Caller::Operator, "web1", order, now));
        rig.plan();
        asked
    };
    assert!(why(check(false)).contains("has not been stopped"));
    rig.run(|tx| request::stop(tx, &rig.world, &Caller::Operator, "web1", at(rig.now)).map(drop));
    rig.plan();
    assert!(why(check(false)).contains("has not been stopped"), "not while its node has it");
    rig.lets_go();
    check(true).unwrap();
    assert!(why(check(true)).contains("mending of its disk is not done yet"));
    rig.run(|tx| request::start(tx, &rig.world, &Caller::Operator, "web1", false, at(rig.now)).map(drop));
    rig.plan();
    assert_eq!(rig.view("web1").reason, "its disk is being checked", "it is not started under it");
    let found = DiskCheck { verdict: Verdict::Mended, has_journal: false, text: "FIXED".into() };
    rig.does(TaskOutcome::Checked(found.clone()));
    assert_eq!(rig.view("web1").disk_check.map(|check| check.found), Some(found));
    rig.runs();
}

#[test]
fn a_reinstalled_one_is_another_system_until_it_is_rolled_back() {
    let rig = Rig::new();
    let (_, own) = rig.running();
    let other = TemplateRef { digest: Digest::from_digest([8; 32]), ..own.template.clone() };
    let state = TemplateState::Ready { image: other.clone() };
    rig.run(|tx| tx.put(&Template { name: "other".into(), created: at(1), state: state.clone(), version: 1 }));
    let again = |template: Option<&str>| {
        let (order, now) = (ReinstallOrder { template: template.map(str::to_owned), snapshot: true }, at(rig.now));
        let asked = rig
            .store
            .transact_blocking(|tx| reinstall::reinstall(tx, &rig.world, &Caller::Operator, "web1", (&order, false), now));
        rig.plan();
        asked
    };
    assert!(why(again(Some("nothing"))).contains("nothing"));
    // Without its snapshot it is as it was.
    again(Some("other")).unwrap();
    rig.lets_go();
    rig.does(failed());
    let (_, same) = rig.runs();
    assert_eq!((same.template.clone(), same.beside), (own.template.clone(), None));
    assert_eq!(rig.view("web1").spec.template, "tiny");

    again(Some("other")).unwrap();
    rig.lets_go();
    rig.does(done());
    let (_, new) = rig.runs();
    assert_eq!((&new.template.digest, new.name.as_str()), (&other.digest, "web1"));
    assert_eq!(new.beside, Some(Beside::Old { template: own.template.clone(), generation: 2 }));
    let view = rig.view("web1");
    let snapshot = view.old.unwrap().snapshot.unwrap();
    assert_eq!(view.spec.template, "other");
    let used = rig.store.transact_blocking(|tx| crate::templates::remove(tx, "tiny", at(rig.now)));
    assert!(used.is_err(), "the old system needs its template");

    rig.run(|tx| request::stop(tx, &rig.world, &Caller::Operator, "web1", at(rig.now)).map(drop));
    rig.plan();
    rig.lets_go();
    rig.run(|tx| snapshots::rollback(tx, &rig.world, &Caller::Operator, "web1", &snapshot, at(rig.now)).map(drop));
    rig.plan();
    rig.does(done());
    rig.run(|tx| request::start(tx, &rig.world, &Caller::Operator, "web1", false, at(rig.now)).map(drop));
    rig.plan();
    let (_, back) = rig.runs();
    assert_eq!((back.template, back.beside), (own.template, None));
    assert_eq!((rig.view("web1").spec.template.as_str(), rig.view("web1").old), ("tiny", None));
}
