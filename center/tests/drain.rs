//! Drains as operators and agents meet them: the real center over HTTPS, with agents that the tests play.

#![allow(clippy::unwrap_used)]

mod support;

use std::time::Duration;

use lodge_client::{Center, Error, sign_certificate, verify_certificate};
use lodge_model::api::NodeState;
use lodge_model::drain::{
    Cause, Certificate, CertificateReply, Counts, DrainOrder, DrainState, DrainView, Leave, Leaving, MoveOrder, Power,
    Settings, SettingsChange, SignedCertificate, Verdict,
};
use lodge_model::environment::order::Want;
use lodge_model::environment::spec::Spec;
use lodge_model::environment::view::Phase;
use lodge_model::ids::TaskId;
use support::Running;
use support::cluster::{Node, another, environment, pool, soon, spec, two_nodes, with_template};

const AUTO: &str = r#"{"admit":"auto"}"#;

fn refused(result: Result<impl Sized, Error>) -> (u16, String) {
    match result {
        Err(Error::Refused { status, message }) => (status, message),
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("it was allowed"),
    }
}

/// A center with a share node, two workers, and so many environments that run on the first of them.
async fn cluster(environments: u32) -> (Running, Center, Node, Node, Node) {
    let center = Running::start(AUTO);
    let (mut share, mut first) = two_nodes(&center).await;
    let operator = center.as_operator();
    operator.add_pool(&pool()).await.unwrap();
    with_template(&center, &mut share, &mut first, "tiny").await;
    for number in 0..environments {
        operator.create_environment(&spec(&format!("e{number}"), "tiny"), false).await.unwrap();
    }
    while first.environments.len() < environments as usize {
        first.obey().await;
    }
    first.obey().await;
    let second = another(&center, &mut share, 3).await;
    (center, operator, share, first, second)
}

/// Both nodes do as they are told until the drain is so.
async fn until(operator: &Center, [one, other]: [&mut Node; 2], is_it: impl Fn(&DrainView) -> bool) -> DrainView {
    for _ in 0..60 {
        let view = operator.drain_of("node1").await.unwrap();
        if is_it(&view) {
            return view;
        }
        tokio::join!(one.obey(), other.obey());
    }
    panic!("in vain: {:?}", operator.drain_of("node1").await);
}

/// What the node says when it is asked to count.
fn certificate(node: &Node, counts: Counts) -> (Certificate, SignedCertificate) {
    let Some(Leave::Certify { id, boot }) = node.orders.leave.clone() else { panic!("it was not asked: {:?}", node.orders) };
    let certificate = Certificate { id, node: node.enrolled.reply.node, boot, at: 1_800_000_100, counts };
    let signed = sign_certificate(&certificate, &node.enrolled.key).unwrap();
    (certificate, signed)
}

async fn certify(node: &mut Node) -> CertificateReply {
    node.until(|orders| matches!(orders.leave, Some(Leave::Certify { .. }))).await;
    let (_, signed) = certificate(node, Counts::default());
    node.center.certify(&signed).await.unwrap()
}

fn leaving(node: &Node, cause: Cause, seconds: u32) -> Leaving {
    Leaving { boot: lodge_model::ids::BootId(uuid::Uuid::from_u128(node.boot)), cause, power: Power::Poweroff, seconds }
}

#[tokio::test]
async fn a_node_is_planned_drained_certified_switched_off_and_comes_back() {
    let (mut center, operator, share, mut first, mut second) = cluster(3).await;
    let order = DrainOrder { reason: "new memory".into(), then: Some(Power::Poweroff), ..DrainOrder::default() };
    let plan = operator.drain("node1", &DrainOrder { dry_run: true, ..order.clone() }).await.unwrap();
    assert_eq!((plan.state, plan.items.len()), (DrainState::Planned, 3));
    assert!(plan.items.iter().all(|item| item.to.as_deref() == Some("node2") && item.verdict == Verdict::Waits), "{plan:?}");
    assert_eq!(refused(operator.drain_of("node1").await).0, 404, "a dry run changes nothing");

    let ordered = operator.drain("node1", &order).await.unwrap();
    assert_eq!(ordered.deadline.unwrap().duration_since(ordered.ordered).as_secs(), 900);
    // Nothing new comes from that instant on.
    operator.create_environment(&spec("new", "tiny"), false).await.unwrap();
    // The center may be killed in the middle: it goes on from what it has stored.
    center.crash();
    let operator = center.as_operator();
    for node in [&mut first, &mut second] {
        node.center = center.as_node(&node.enrolled);
    }
    drop(share);
    let view = until(&operator, [&mut first, &mut second], |view| view.state == DrainState::Certifying).await;
    assert!(view.items.iter().all(|item| item.verdict == Verdict::Moved && item.gap_ms.is_some()), "{view:?}");
    assert_eq!(environment(&operator, "new", |view| view.phase == Phase::Running).await.node.as_deref(), Some("node2"));

    // Something is left; a wrong key; a wrong question; and the right one.
    first.until(|orders| orders.leave.is_some()).await;
    let (_, left) = certificate(&first, Counts { mounts: 1, ..Counts::default() });
    let reply = first.center.certify(&left).await.unwrap();
    assert!(!reply.issued && reply.why.contains("1 mounts of environments"), "{reply:?}");
    let (good, signed) = certificate(&first, Counts::default());
    let foreign = sign_certificate(&good, &second.enrolled.key).unwrap();
    assert!(refused(first.center.certify(&foreign).await).1.contains("not signed with this node's key"));
    assert!(!second.center.certify(&sign_certificate(&good, &second.enrolled.key).unwrap()).await.unwrap().issued);
    let other = Certificate { id: TaskId(uuid::Uuid::from_u128(1)), ..good.clone() };
    assert!(!first.center.certify(&sign_certificate(&other, &first.enrolled.key).unwrap()).await.unwrap().issued);
    assert_eq!(refused(operator.certificate("node1").await).0, 404);
    assert!(first.center.certify(&signed).await.unwrap().issued);
    let issued = operator.certificate("node1").await.unwrap();
    let ca = operator.ca_der().unwrap().to_vec();
    assert_eq!(verify_certificate(&issued.signed, &issued.signer, &ca).unwrap(), good);
    assert!(verify_certificate(&foreign, &issued.signer, &ca).is_err());
    assert_eq!((issued.items.len(), issued.reason.as_str()), (3, "new memory"));

    // Now it may go down; it says so itself, and counts once more.
    first.until(|orders| matches!(orders.leave, Some(Leave::GoDown { power: Power::Poweroff, .. }))).await;
    assert!(refused(operator.undrain("node1").await).1.contains("cannot be taken back"));
    let reply = first.center.leaving(&leaving(&first, Cause::Request, 900)).await.unwrap();
    assert!((1..=900).contains(&reply.seconds), "{reply:?}");
    assert!(certify(&mut first).await.issued);
    first.center.going_down("poweroff by request").await.unwrap();
    let node = operator.node("node1").await.unwrap().node;
    assert_eq!((node.state, node.reason.as_str()), (NodeState::Off, "expected: poweroff by request"));

    // With its next boot the drain is over.
    first.boot += 1;
    let roles = vec![lodge_model::node::Role::Worker];
    first.orders = first.center.register(&support::register(2, first.boot, "S1", "10.77.0.51", roles)).await.unwrap();
    first.environments.clear();
    first.beat().await;
    soon(async {
        while operator.drain_of("node1").await.is_ok() {
            first.beat().await;
        }
    })
    .await;
    let here = Spec { node: Some("node1".into()), ..spec("back", "tiny") };
    operator.create_environment(&here, false).await.unwrap();
    first.until(|orders| orders.environments.iter().any(|assigned| assigned.name == "back")).await;
    let told = operator.events(Some("node1"), 0, false).await.unwrap();
    for text in ["an operator has node1 drained, and goes down then (poweroff): new memory", "its certificate is issued"] {
        assert!(told.iter().any(|event| event.text.contains(text)), "{text}: {told:?}");
    }
}

#[tokio::test]
async fn one_is_moved_and_the_gap_is_told() {
    let (_center, operator, _share, mut first, mut second) = cluster(1).await;
    let wrong = |to: &str| MoveOrder { to: Some(to.into()), ..MoveOrder::default() };
    assert!(refused(operator.move_environment("e0", &wrong("node1")).await).1.contains("on node1 already"));
    assert!(refused(operator.move_environment("e0", &wrong("node9")).await).1.contains("no node"));
    let told = refused(operator.move_environment("e0", &wrong("center1")).await);
    assert!(told.0 == 409 && told.1.contains("cannot move"), "{told:?}");
    let dry = operator.move_environment("e0", &MoveOrder { dry_run: true, ..MoveOrder::default() }).await.unwrap();
    assert_eq!(dry.moving.unwrap().to.as_deref(), Some("node2"));
    assert!(operator.environment("e0").await.unwrap().moving.is_none());

    operator.move_environment("e0", &MoveOrder::default()).await.unwrap();
    // The template is fetched there before anything is stopped.
    second.until(|orders| !orders.warm.is_empty()).await;
    assert_eq!(first.orders.environments[0].want, Want::Running);
    second.beat().await;
    first.until(|orders| orders.environments[0].want == Want::Stopped).await;
    assert!(refused(operator.move_environment("e0", &MoveOrder::default()).await).1.contains("on its way from node1 to node2"));
    tokio::time::sleep(Duration::from_millis(50)).await;
    first.obey().await;
    second.until(|orders| !orders.environments.is_empty()).await;
    assert_eq!(second.orders.environments[0].epoch, 2);
    second.obey().await;
    let view = environment(&operator, "e0", |view| !view.moves.is_empty()).await;
    let done = &view.moves[0];
    assert_eq!((done.from.as_str(), done.to.as_deref(), view.node.as_deref()), ("node1", Some("node2"), Some("node2")));
    assert!(done.gap_ms.unwrap() >= 50 && done.gap_ms >= done.stop_ms, "{done:?}");
    let told = operator.events(None, 0, false).await.unwrap();
    assert!(told.iter().any(|event| event.text.starts_with("e0 has moved from node1 to node2 by restart: ")), "{told:?}");
    operator.power("e0", lodge_client::Power::Stop, false).await.unwrap();
    second.obey().await;
    second.obey().await;
    assert!(refused(operator.move_environment("e0", &MoveOrder::default()).await).1.contains("lodge env start e0"));
}

#[tokio::test]
async fn a_machine_that_goes_down_is_drained_whoever_asked() {
    let (_center, operator, _share, mut first, mut second) = cluster(2).await;
    let change = SettingsChange { button_deadline: Some(40), ..SettingsChange::default() };
    assert_eq!(operator.change_settings(&change).await.unwrap().button_deadline, 40);
    assert_eq!(operator.settings().await.unwrap(), Settings { button_deadline: 40, ..Settings::default() });
    let told = operator.events(None, 0, false).await.unwrap();
    assert!(told.iter().any(|event| event.text.ends_with("settings: button_deadline 300 → 40")), "{told:?}");
    let wrong = SettingsChange { ups_deadline: Some(1), ..SettingsChange::default() };
    assert_eq!(refused(operator.change_settings(&wrong).await).0, 422);
    let reply = first.center.leaving(&leaving(&first, Cause::Button, 300)).await.unwrap();
    assert_eq!((reply.seconds, reply.total), (20, 40));
    // What the UPS says is more pressing, and saying it again gives no more time.
    assert!(first.center.leaving(&leaving(&first, Cause::Ups, 20)).await.unwrap().seconds <= 10);
    assert!(first.center.leaving(&leaving(&first, Cause::Button, 300)).await.unwrap().seconds <= 10);
    let foreign = Leaving { boot: lodge_model::ids::BootId(uuid::Uuid::from_u128(5)), ..leaving(&first, Cause::Button, 300) };
    assert_eq!(refused(first.center.leaving(&foreign).await).0, 409);
    let view = until(&operator, [&mut first, &mut second], |view| view.state == DrainState::Certifying).await;
    assert!(view.cause == Cause::Button && view.items.iter().all(|item| item.verdict == Verdict::Moved), "{view:?}");
    assert!(certify(&mut first).await.issued);
    // An agent that is started again meanwhile counts again.
    first.until(|orders| orders.leave.is_none()).await;
    let again = first.center.leaving(&leaving(&first, Cause::Ups, 20)).await.unwrap();
    first.until(|orders| matches!(&orders.leave, Some(Leave::Certify { id, .. }) if *id == again.id)).await;
    assert!(certify(&mut first).await.issued);
    let node = operator.node("node1").await.unwrap().node;
    assert!(node.drain.contains("its power button") && node.drain.contains("goes down"), "{node:?}");
}

#[tokio::test]
async fn an_operators_drain_waits_is_cancelled_and_lasts_over_a_boot() {
    let (_center, operator, _share, mut first, mut second) = cluster(1).await;
    operator.create_environment(&Spec { node: Some("node1".into()), ..spec("pinned", "tiny") }, false).await.unwrap();
    first.until(|orders| orders.environments.len() == 2).await;
    first.obey().await;
    assert_eq!(refused(operator.drain("node1", &DrainOrder { deadline: Some(1), ..DrainOrder::default() }).await).0, 422);
    assert_eq!(refused(operator.drain("node9", &DrainOrder::default()).await).0, 404);
    operator.drain("node1", &DrainOrder::default()).await.unwrap();
    let moved = |view: &DrainView| view.items.iter().any(|item| item.verdict == Verdict::Moved);
    let view = until(&operator, [&mut first, &mut second], moved).await;
    assert!(view.waits.contains("no node takes pinned: the only node it may run on is node1"), "{view:?}");
    assert_eq!(view.deadline, None);
    operator.undrain("node1").await.unwrap();
    assert_eq!(refused(operator.undrain("node1").await).0, 404);
    first.beat().await;
    assert_eq!(first.orders.environments[0].want, Want::Running, "what has not begun stays");

    // Stopped by hand, it is in nobody's way.
    operator.drain("node1", &DrainOrder::default()).await.unwrap();
    operator.power("pinned", lodge_client::Power::Stop, false).await.unwrap();
    let view = until(&operator, [&mut first, &mut second], |view| view.state == DrainState::Certifying).await;
    assert_eq!(view.items[0].verdict, Verdict::Stopped);
    assert!(certify(&mut first).await.issued);
    first.boot += 1;
    let roles = vec![lodge_model::node::Role::Worker];
    first.orders = first.center.register(&support::register(2, first.boot, "S1", "10.77.0.51", roles)).await.unwrap();
    first.environments.clear();
    first.beat().await;
    assert_eq!(operator.drain_of("node1").await.unwrap().state, DrainState::Drained);
    operator.power("pinned", lodge_client::Power::Start, false).await.unwrap();
    let view = environment(&operator, "pinned", |view| view.reason.contains("lodge node undrain node1")).await;
    assert_eq!(view.phase, Phase::Waiting);
    operator.undrain("node1").await.unwrap();
    first.until(|orders| orders.environments.iter().any(|assigned| assigned.name == "pinned")).await;
}
