//! Failover as operators and agents meet it: the real center over HTTPS, with agents that the tests play.

#![allow(clippy::unwrap_used)]

mod support;

use lodge_client::{Center, Error};
use lodge_model::environment::view::Phase;
use lodge_model::fence::{FenceOutcome, Fenced, MarkAge};
use lodge_model::ids::BootId;
use lodge_model::incident::{ArmOrder, IncidentView, Method, Step};
use lodge_model::node::Role;
use lodge_model::settings::SettingsChange;
use support::cluster::{Node, another, running, two_nodes, with_template};
use support::{Running, register};
use uuid::Uuid;

const AUTO: &str = r#"{"admit":"auto"}"#;
/// The center listens for 15 s after its start, suspects after 6, and its nodes answer in 2.
const TRIES: usize = 40;

/// Heartbeats of all that live, and the share node's word of every heartbeat file: those of the living are fresh.
async fn live(share: &mut Node, living: &mut [&mut Node], dead: &[&Node], began: std::time::Instant) {
    let mark =
        |node: &Node, age_ms| MarkAge { node: node.enrolled.reply.node, boot: BootId(Uuid::from_u128(node.boot)), age_ms };
    let silence = u64::try_from(began.elapsed().as_millis()).unwrap();
    let mut marks: Vec<MarkAge> = living.iter().map(|node| mark(node, 100)).collect();
    marks.extend(dead.iter().map(|node| mark(node, silence)));
    share.signs.marks = marks;
    let beats = living.iter_mut().map(|node| node.beat());
    tokio::join!(share.beat(), futures_util::future::join_all(beats));
}

/// Until the one incident is so.
async fn incident(operator: &Center, id: u64, is_it: impl Fn(&IncidentView) -> bool) -> IncidentView {
    support::cluster::soon(async {
        let mut view = operator.incident(id).await.unwrap();
        while !is_it(&view) {
            view = operator.incident_after(id, view.version).await.unwrap();
        }
        view
    })
    .await
}

fn has(view: &IncidentView, step: Step) -> bool {
    view.timeline.iter().any(|entry| entry.step == step)
}

#[tokio::test]
async fn a_center_that_dies_between_intent_and_proof_goes_on_with_what_it_had_stored() {
    let mut center = Running::start(AUTO);
    let (mut share, mut first) = two_nodes(&center).await;
    with_template(&center, &mut share, &mut first, "tiny").await;
    let operator = center.as_operator();
    running(&center, &operator, &mut first, "web").await;
    let mut second = another(&center, &mut share, 3).await;

    // The first worker is silent from here on.
    let began = std::time::Instant::now();
    for _ in 0..TRIES {
        live(&mut share, &mut [&mut second], &[&first], began).await;
        if !share.orders.fence.banned.is_empty() {
            break;
        }
    }
    let banned = share.orders.fence.banned.clone();
    assert_eq!(banned.len(), 1, "{:?} {:?}", share.orders, operator.incidents().await);
    let opened = operator.incidents().await.unwrap().remove(0);
    assert!(has(&opened, Step::FenceOrdered) && !has(&opened, Step::Fenced), "{opened:?}");

    center.crash();
    (share.center, second.center) = (center.as_node(&share.enrolled), center.as_node(&second.enrolled));
    let operator = center.as_operator();
    share.beat().await;
    assert_eq!(share.orders.fence.banned, banned, "the same ban, under the same name");
    let still = operator.environment("web").await.unwrap();
    assert_eq!((still.epoch, still.node.as_deref()), (1, Some("node1")));

    let done = FenceOutcome::Confirmed { at: 1, proof: "no client with 10.77.0.51 is left".into() };
    share.signs.fenced = vec![Fenced { id: banned[0].id, outcome: done }];
    live(&mut share, &mut [&mut second], &[&first], began).await;
    second.run_all().await;
    let told = incident(&operator, opened.id, |view| has(view, Step::Started)).await;
    assert_eq!(told.method, Some(Method::Share));
    let taken = operator.environment("web").await.unwrap();
    assert_eq!((taken.epoch, taken.node.as_deref(), taken.phase), (2, Some("node2"), Phase::Running));

    // The first one wakes up, restarts, and is let in.
    first.center = center.as_node(&first.enrolled);
    first.beat().await;
    assert_eq!(first.orders.fence.fenced, Some(BootId(Uuid::from_u128(first.boot))));
    assert!(first.orders.environments.is_empty());
    first.boot += 1;
    first.orders = first.center.register(&register(2, first.boot, "S1", "10.77.0.51", vec![Role::Worker])).await.unwrap();
    share.until(|orders| orders.fence.banned.is_empty()).await;
    assert!(incident(&operator, opened.id, |view| view.closed.is_some()).await.waits.is_empty());
    first.beat().await;
    assert_eq!(first.orders.fence.fenced, None);
}

#[tokio::test]
async fn operators_disarm_with_a_reason_arm_and_set_the_patience() {
    let center = Running::start(AUTO);
    let operator = center.as_operator();
    let refused = operator.disarm(&ArmOrder::default()).await.unwrap_err();
    assert!(matches!(refused, Error::Refused { status: 422, ref message } if message.contains("--reason")), "{refused}");
    let state = operator.disarm(&ArmOrder { reason: "new switch".into() }).await.unwrap();
    assert_eq!((state.armed, state.reason.as_str(), state.since.is_some()), (false, "new switch", true));
    assert!(
        operator.events(None, 0, false).await.unwrap().iter().any(|event| event.text.contains("disarms takeovers: new switch"))
    );
    assert!(operator.arm(&ArmOrder::default()).await.unwrap().armed && operator.failover().await.unwrap().armed);
    let change = SettingsChange { patience: Some(4), ..SettingsChange::default() };
    assert_eq!(operator.change_settings(&change).await.unwrap().patience, 4);
    let (mut share, _) = two_nodes(&center).await;
    share.until(|orders| orders.fence.patience == 4).await;
    let wrong = SettingsChange { patience: Some(99), ..SettingsChange::default() };
    assert!(matches!(operator.change_settings(&wrong).await, Err(Error::Refused { status: 422, .. })));
    assert!(matches!(operator.incident(1).await, Err(Error::Refused { status: 404, .. })));
    assert!(operator.incidents().await.unwrap().is_empty());
}
