//! Environments as operators, users and agents meet them: the real center over HTTPS, with agents that the tests play.

#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeMap;

use lodge_client::{Center, Error, Power};
use lodge_model::api::NodeState;
use lodge_model::environment::order::{Assignment, State, TaskKind, TaskOutcome, Usage, Want};
use lodge_model::environment::spec::{Change, Spec};
use lodge_model::environment::view::{CloneOrder, EnvironmentView, Phase, Pool, Quota, SnapshotOrder, UserOrder};
use lodge_model::layout::{GIB, MIB};
use lodge_model::node::Role;
use support::cluster::{Node, another, environment, pool, report, soon, spec, two_nodes, with_template};
use support::{Running, register};

const AUTO: &str = r#"{"admit":"auto"}"#;

fn refused(result: Result<impl Sized, Error>) -> (u16, String) {
    match result {
        Err(Error::Refused { status, message }) => (status, message),
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("it was allowed"),
    }
}

/// A center with a share node, one worker, a pool and the template `tiny`.
async fn ready() -> (Running, Center, Node, Node) {
    let center = Running::start(AUTO);
    let (mut share, mut worker) = two_nodes(&center).await;
    let operator = center.as_operator();
    operator.add_pool(&pool()).await.unwrap();
    with_template(&center, &mut share, &mut worker, "tiny").await;
    (center, operator, share, worker)
}

/// Wait for an order about an environment, and carry it out.
async fn obey(worker: &mut Node, name: &str, want: Want) -> Assignment {
    let is_it = |assigned: &&Assignment| assigned.name == name && assigned.want == want;
    worker.until(|orders| orders.environments.iter().any(|assigned| is_it(&assigned))).await;
    let assigned = worker.orders.environments.iter().find(is_it).unwrap().clone();
    worker.obey().await;
    assigned
}

async fn phase(operator: &Center, name: &str, phase: Phase) -> EnvironmentView {
    environment(operator, name, |view| view.phase == phase).await
}

/// The environment is gone.
async fn gone(operator: &Center, name: &str) {
    soon(async {
        let mut version = 0;
        loop {
            match operator.environment_after(name, version).await {
                Ok(view) => version = view.version,
                Err(error) => return assert_eq!(refused(Err::<(), _>(error)).0, 404),
            }
        }
    })
    .await;
}

#[tokio::test]
async fn a_life_from_creation_to_destruction() {
    let (mut center, operator, _share, mut worker) = ready().await;
    let wanted = Spec { ssh_keys: vec!["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAA ann".into()], ..spec("web1", "tiny") };
    operator.create_environment(&wanted, false).await.unwrap();
    let first = obey(&mut worker, "web1", Want::Running).await;
    assert_eq!((first.epoch, first.memory, first.disk, first.cpu_millis), (1, 128 * MIB, GIB, 500));
    assert_eq!((first.boot.0.as_u128(), first.id_base, first.ssh_keys.clone()), (200, 65_536, wanted.ssh_keys));
    assert!(first.mac.starts_with("02:") && first.mac.len() == 17, "{}", first.mac);
    let address = &first.addresses[0];
    assert_eq!((address.ip.to_string(), address.prefix), ("10.77.0.100".into(), 24));
    assert_eq!(address.gateway.unwrap().to_string(), "10.77.0.2");
    let view = phase(&operator, "web1", Phase::Running).await;
    assert_eq!((view.node.as_deref(), view.epoch, view.reason.as_str()), (Some("node1"), 1, ""));
    assert_eq!(view.started.unwrap().as_second(), 1_800_000_000);

    // Usage is shown and is no change of the view.
    worker.environments[0].usage = Some(Usage { memory: 42, ..Usage::default() });
    worker.beat().await;
    let used = operator.environment("web1").await.unwrap();
    assert_eq!((used.usage.unwrap().memory, used.version), (42, view.version));

    // Neither a crash of the center nor one of the agent changes anything.
    let before = worker.orders.clone();
    center.crash();
    let operator = center.as_operator();
    worker.center = center.as_node(&worker.enrolled);
    worker.beat().await;
    assert_eq!(worker.orders.environments, before.environments);
    let again = operator.environment("web1").await.unwrap();
    assert_eq!((again.phase, again.epoch), (Phase::Running, 1));

    operator.power("web1", Power::Restart, false).await.unwrap();
    worker.until(|orders| orders.environments[0].restarts_asked == 1).await;
    assert_eq!(worker.orders.environments[0].epoch, 1);
    operator.power("web1", Power::Stop, false).await.unwrap();
    assert_eq!(obey(&mut worker, "web1", Want::Stopped).await.epoch, 1);
    let stopped = phase(&operator, "web1", Phase::Stopped).await;
    assert_eq!((stopped.node, stopped.usage), (None, None));
    worker.until(|orders| orders.environments.is_empty()).await;

    operator.power("web1", Power::Start, false).await.unwrap();
    assert_eq!(obey(&mut worker, "web1", Want::Running).await.epoch, 2);
    phase(&operator, "web1", Phase::Running).await;
    // What ends by itself stays down, says how, and its right to run is taken back.
    let mut ended = report(&worker.orders.environments[0], State::Ended);
    ended.last_exit = "powered off by itself".into();
    worker.environments = vec![ended];
    worker.beat().await;
    obey(&mut worker, "web1", Want::Stopped).await;
    let ended = environment(&operator, "web1", |view| view.node.is_none()).await;
    assert_eq!((ended.phase, ended.reason.as_str()), (Phase::Ended, "powered off by itself"));

    operator.destroy_environment("web1").await.unwrap();
    assert_eq!(obey(&mut worker, "web1", Want::Destroyed).await.epoch, 3);
    gone(&operator, "web1").await;
    assert_eq!(operator.pools().await.unwrap()[0].used, 0);
    operator.create_environment(&spec("web1", "tiny"), false).await.unwrap();
    let view = operator.environment("web1").await.unwrap();
    assert_eq!(view.addresses[0].ip.to_string(), "10.77.0.101", "an address that was just given back must rest");
    let told = operator.events(Some("node1"), 0, false).await.unwrap();
    assert!(told.iter().any(|event| event.text == "web1 is running on node1 (epoch 2)"), "{told:?}");
}

#[tokio::test]
async fn wrong_wishes_are_refused_in_words_and_leave_nothing() {
    let (center, operator, _share, _worker) = ready().await;
    let good = spec("web1", "tiny");
    let ip = |text: &str| text.parse().unwrap();
    let cases = [
        (Spec { name: "Web_1".into(), ..good.clone() }, 422, "name"),
        (Spec { disk: 1, ..good.clone() }, 422, "disk"),
        (Spec { template: "gentoo".into(), ..good.clone() }, 422, "no template \"gentoo\""),
        (Spec { addresses: vec![ip("10.99.0.1")], ..good.clone() }, 422, "10.99.0.1 is in no pool"),
        (Spec { addresses: vec![ip("10.77.0.105"), ip("10.77.0.105")], ..good.clone() }, 422, "given twice"),
        (Spec { node: Some("node7".into()), ..good.clone() }, 422, "no node node7"),
    ];
    for (wrong, status, words) in cases {
        let told = refused(operator.create_environment(&wrong, false).await);
        assert!(told.0 == status && told.1.contains(words), "{told:?}");
    }
    assert!(operator.environments().await.unwrap().is_empty());
    assert_eq!(operator.pools().await.unwrap()[0].used, 0);

    operator.create_environment(&Spec { addresses: vec![ip("10.77.0.110")], ..good.clone() }, false).await.unwrap();
    let told = refused(operator.create_environment(&good, false).await);
    assert!(told.0 == 409 && told.1.contains("environment web1 already"), "{told:?}");
    let taken = Spec { addresses: vec![ip("10.77.0.110")], ..spec("web2", "tiny") };
    assert!(refused(operator.create_environment(&taken, false).await).1.contains("in use"));
    let told = refused(operator.change_environment("web1", &Change { disk: Some(GIB / 2), ..Change::default() }, false).await);
    assert!(told.0 == 422 && told.1.contains("only grows"), "{told:?}");
    let told =
        refused(operator.change_environment("web1", &Change { memory: Some(2 * GIB), ..Change::default() }, false).await);
    assert!(told.0 == 409 && told.1.contains("node1"), "{told:?}");
    assert_eq!(refused(operator.power("nobody", Power::Start, false).await).0, 404);
    let told = refused(operator.snapshot("web1", &SnapshotOrder { name: Some("../x".into()) }).await);
    assert_eq!(told.0, 422, "{told:?}");

    let overlap = Pool { name: "other".into(), ..pool() };
    assert!(refused(operator.add_pool(&overlap).await).1.contains("site"));
    let node = Pool { name: "other".into(), first: ip("10.77.0.50"), last: ip("10.77.0.60"), ..pool() };
    assert!(refused(operator.add_pool(&node).await).1.contains("address of node node1"));
    assert!(refused(operator.remove_pool("site").await).1.contains("in use"));
    drop(center);
}

#[tokio::test]
async fn what_cannot_be_placed_says_why_until_it_can() {
    let (center, operator, mut share, mut worker) = ready().await;
    // 1 GiB, of which 320 MiB are kept back.
    operator.create_environment(&Spec { memory: 600 * MIB, ..spec("big", "tiny") }, false).await.unwrap();
    obey(&mut worker, "big", Want::Running).await;
    operator.create_environment(&Spec { anti_affinity: Some("db".into()), ..spec("late", "tiny") }, false).await.unwrap();
    let waits = environment(&operator, "late", |view| view.reason.contains("free memory")).await;
    assert!(waits.phase == Phase::Waiting && waits.reason.contains("node1 has the most, 104 MiB"), "{}", waits.reason);
    // Shrinking makes room, at once.
    operator.change_environment("big", &Change { memory: Some(300 * MIB), ..Change::default() }, false).await.unwrap();
    obey(&mut worker, "late", Want::Running).await;
    assert_eq!(worker.orders.environments.iter().find(|assigned| assigned.name == "big").unwrap().memory, 300 * MIB);

    operator.create_environment(&Spec { anti_affinity: Some("db".into()), ..spec("later", "tiny") }, false).await.unwrap();
    environment(&operator, "later", |view| view.reason.contains("group db")).await;
    let labelled = Spec { node_labels: BTreeMap::from([("disk".into(), "ssd".into())]), ..spec("fast", "tiny") };
    operator.create_environment(&labelled, false).await.unwrap();
    environment(&operator, "fast", |view| view.reason == "no worker has the labels disk=ssd").await;
    let mut second = another(&center, &mut share, 3).await;
    obey(&mut second, "later", Want::Running).await;
    let labels = BTreeMap::from([("disk".to_owned(), "ssd".to_owned())]);
    operator.set_labels("node2", &labels).await.unwrap();
    obey(&mut second, "fast", Want::Running).await;
    assert_eq!(phase(&operator, "fast", Phase::Running).await.node.as_deref(), Some("node2"));
}

#[tokio::test]
async fn nothing_is_given_to_another_before_the_old_right_has_ended() {
    let (center, operator, mut share, mut first) = ready().await;
    operator.create_environment(&spec("web1", "tiny"), false).await.unwrap();
    obey(&mut first, "web1", Want::Running).await;
    let mut second = another(&center, &mut share, 3).await;

    // A new boot of the node is the end of what the old one ran.
    let again = register(2, 201, "S1", "10.77.0.51", vec![Role::Worker]);
    first.orders = first.center.register(&again).await.unwrap();
    (first.boot, first.environments) = (201, vec![]);
    // Both ask until one of them has it.
    let placed = environment(&operator, "web1", |view| view.epoch == 2);
    let beats = async {
        second.beat().await;
        first.beat().await;
    };
    let (placed, ()) = tokio::join!(placed, beats);
    let (mut holder, mut other) = match placed.node.as_deref() {
        Some("node1") => (first, second),
        _ => (second, first),
    };
    obey(&mut holder, "web1", Want::Running).await;
    phase(&operator, "web1", Phase::Running).await;
    let holder_name = placed.node.unwrap();

    // Its node goes down without having let go: nobody starts it, and it is told what is waited for.
    let told = refused(operator.confirm_off(&holder_name).await);
    assert!(told.0 == 409 && told.1.contains("not off"), "{told:?}");
    assert_eq!(refused(operator.forget(&holder_name).await).0, 409);
    holder.center.going_down("power button").await.unwrap();
    let unknown = phase(&operator, "web1", Phase::Unknown).await;
    assert!(unknown.reason.contains(&format!("lodge node confirm-off {holder_name}")), "{}", unknown.reason);
    other.beat().await;
    assert!(other.orders.environments.is_empty());

    operator.confirm_off(&holder_name).await.unwrap();
    assert_eq!(obey(&mut other, "web1", Want::Running).await.epoch, 3);
    // Whoever was declared off gets nothing, until it has started anew; what it says of the old epoch counts for nothing.
    holder.beat().await;
    holder.until(|orders| orders.environments.is_empty()).await;
    holder.beat().await;
    let view = phase(&operator, "web1", Phase::Running).await;
    assert_eq!(view.epoch, 3);
    // After its last word nothing that it says counts but a registration.
    let node = operator.node(&holder_name).await.unwrap().node;
    assert_eq!(node.state, NodeState::Off, "{node:?}");
}

#[tokio::test]
async fn what_a_node_lets_go_of_is_started_elsewhere() {
    let (center, operator, mut share, mut first) = ready().await;
    operator.create_environment(&spec("web1", "tiny"), false).await.unwrap();
    obey(&mut first, "web1", Want::Running).await;
    let mut second = another(&center, &mut share, 3).await;
    first.environments = vec![report(&first.orders.environments[0], State::Released)];
    first.beat().await;
    assert_eq!(obey(&mut second, "web1", Want::Running).await.epoch, 2);
    // A word about an epoch that is over is not taken for one about the present one.
    first.beat().await;
    let view = phase(&operator, "web1", Phase::Running).await;
    assert_eq!((view.node.as_deref(), view.epoch), (Some("node2"), 2));
}

#[tokio::test]
async fn snapshots_rollback_and_clones_are_tasks_of_the_node_with_the_disk() {
    let (_center, operator, _share, mut worker) = ready().await;
    let order = SnapshotOrder { name: Some("before".into()) };
    operator.create_environment(&Spec { memory: 64 * GIB, ..spec("big", "tiny") }, false).await.unwrap();
    let told = refused(operator.snapshot("big", &order).await);
    assert!(told.0 == 409 && told.1.contains("no disk yet"), "{told:?}");
    operator.create_environment(&spec("web1", "tiny"), false).await.unwrap();
    let id = obey(&mut worker, "web1", Want::Running).await.id;
    operator.snapshot("web1", &order).await.unwrap();
    assert_eq!(refused(operator.snapshot("web1", &order).await).0, 409);
    worker.until(|orders| !orders.tasks.is_empty()).await;
    assert_eq!(worker.orders.tasks[0].what, TaskKind::Snapshot { environment: id, snapshot: "before".into() });
    worker.tell(TaskOutcome::Running { percent: 40 }).await;
    let view = environment(&operator, "web1", |view| !view.tasks.is_empty()).await;
    assert_eq!(
        (view.tasks[0].what.as_str(), &view.tasks[0].outcome),
        ("snapshot before", &TaskOutcome::Running { percent: 40 })
    );
    worker.tell(TaskOutcome::Done { bytes: 77, template: None }).await;
    worker.until(|orders| orders.tasks.is_empty()).await;
    let kept = operator.snapshots("web1").await.unwrap();
    assert_eq!(kept[0].outcome, TaskOutcome::Done { bytes: 77, template: None });

    // A clone waits for its disk, and runs then.
    operator.clone_environment("web1", &CloneOrder { name: "web2".into() }, false).await.unwrap();
    let told = refused(operator.destroy_environment("web1").await);
    assert!(told.0 == 409 && told.1.contains("being copied"), "{told:?}");
    worker.until(|orders| !orders.tasks.is_empty()).await;
    let TaskKind::Clone { from, to } = worker.orders.tasks[0].what.clone() else { panic!("{:?}", worker.orders.tasks) };
    assert_eq!(from, id);
    assert_eq!(worker.orders.environments.len(), 1);
    worker.tell(TaskOutcome::Done { bytes: 0, template: None }).await;
    let clone = obey(&mut worker, "web2", Want::Running).await;
    assert_eq!((clone.id, clone.epoch), (to, 1));
    assert_ne!(clone.addresses, operator.environment("web1").await.unwrap().addresses);

    // A rollback needs it to be stopped, and nobody starts it meanwhile.
    assert!(refused(operator.rollback("web1", "before").await).1.contains("lodge env stop web1"));
    operator.power("web1", Power::Stop, false).await.unwrap();
    obey(&mut worker, "web1", Want::Stopped).await;
    phase(&operator, "web1", Phase::Stopped).await;
    operator.rollback("web1", "before").await.unwrap();
    operator.power("web1", Power::Start, false).await.unwrap();
    environment(&operator, "web1", |view| view.reason.contains("put back to snapshot before")).await;
    worker.until(|orders| !orders.tasks.is_empty()).await;
    worker.tell(TaskOutcome::Failed { error: "no space left".into() }).await;
    let failed = environment(&operator, "web1", |view| view.tasks.iter().any(|task| task.what.contains("rollback"))).await;
    assert!(matches!(&failed.tasks[0].outcome, TaskOutcome::Failed { error } if error == "no space left"), "{failed:?}");
    assert_eq!(obey(&mut worker, "web1", Want::Running).await.epoch, 2);

    operator.remove_snapshot("web1", "before").await.unwrap();
    worker.until(|orders| orders.tasks.iter().any(|task| matches!(task.what, TaskKind::RemoveSnapshot { .. }))).await;
    worker.tell(TaskOutcome::Done { bytes: 0, template: None }).await;
    assert!(operator.snapshots("web1").await.unwrap().is_empty());

    // A clone whose disk could not be copied says so, and can be destroyed without any node.
    operator.clone_environment("web1", &CloneOrder { name: "web3".into() }, false).await.unwrap();
    worker.until(|orders| orders.tasks.iter().any(|task| matches!(task.what, TaskKind::Clone { .. }))).await;
    worker.tell(TaskOutcome::Failed { error: "no space left".into() }).await;
    assert!(phase(&operator, "web3", Phase::Failed).await.reason.contains("no space left"));
    operator.destroy_environment("web3").await.unwrap();
    gone(&operator, "web3").await;
}

#[tokio::test]
async fn users_see_and_control_their_own_within_their_quota() {
    let (center, operator, _share, mut worker) = ready().await;
    let quota = Quota { environments: Some(1), ..Quota::default() };
    let token = |name: &str| UserOrder { name: name.into(), quota: quota.clone() };
    let ann = center.with_token(&operator.add_user(&token("ann")).await.unwrap().token);
    let bob = center.with_token(&operator.add_user(&token("bob")).await.unwrap().token);
    ann.create_environment(&spec("web1", "tiny"), false).await.unwrap();
    obey(&mut worker, "web1", Want::Running).await;
    assert_eq!(ann.environments().await.unwrap().len(), 1);
    assert!(bob.environments().await.unwrap().is_empty());
    assert_eq!(refused(bob.environment("web1").await).0, 404);
    assert_eq!(refused(bob.power("web1", Power::Kill, false).await).0, 404);
    assert_eq!(refused(bob.destroy_environment("web1").await).0, 404);
    let told = refused(ann.create_environment(&spec("web2", "tiny"), false).await);
    assert!(told.0 == 409 && told.1.contains("the quota is 1"), "{told:?}");
    assert_eq!(refused(ann.clone_environment("web1", &CloneOrder { name: "web2".into() }, false).await).0, 409);
    assert_eq!(refused(ann.pools().await).0, 403);
    assert_eq!(operator.environment("web1").await.unwrap().owner.as_deref(), Some("ann"));
    ann.power("web1", Power::Kill, false).await.unwrap();
    obey(&mut worker, "web1", Want::Killed).await;
    assert_eq!(phase(&ann, "web1", Phase::Stopped).await.node, None);
}
