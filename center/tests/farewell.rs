//! Last words, reachability after a move, and the reboot of a whole cluster: the real center over HTTPS, with agents that the test plays.

#![allow(clippy::unwrap_used)]

mod support;

use lodge_client::{Center, Error, sign_last_word};
use lodge_model::api::{Heartbeat, NodeState};
use lodge_model::drain::{Cause, Counts, MoveOrder, Power};
use lodge_model::environment::order::Want;
use lodge_model::environment::view::Phase;
use lodge_model::farewell::{LastWord, SignedWord};
use lodge_model::ids::BootId;
use lodge_model::reach::Reached;
use lodge_model::rolling::{RebootOrder, RebootState, TurnState};
use support::cluster::{Node, another, environment, pool, soon, spec, two_nodes, with_template};
use support::{Running, heartbeat};
use uuid::Uuid;

const AUTO: &str = r#"{"admit":"auto"}"#;

/// A center with a share node, two workers, and an environment that runs on the first of them.
async fn cluster() -> (Running, Center, Node, Node, Node) {
    let center = Running::start(AUTO);
    let (mut share, mut first) = two_nodes(&center).await;
    let operator = center.as_operator();
    operator.add_pool(&pool()).await.unwrap();
    with_template(&center, &mut share, &mut first, "tiny").await;
    operator.create_environment(&spec("e0", "tiny"), false).await.unwrap();
    first.until(|orders| !orders.environments.is_empty()).await;
    first.obey().await;
    let second = another(&center, &mut share, 3).await;
    (center, operator, share, first, second)
}

fn word(node: &Node, boot: u128, counts: Counts) -> SignedWord {
    let word = LastWord {
        node: node.enrolled.reply.node,
        last_of: BootId(Uuid::from_u128(boot)),
        at: 1_800_000_200,
        cause: Cause::Ups,
        power: Power::Poweroff,
        counts,
    };
    sign_last_word(&word, &node.enrolled.key, &node.enrolled.reply.certificate).unwrap()
}

async fn say(node: &mut Node, more: impl FnOnce(Heartbeat) -> Heartbeat) {
    let said = heartbeat(node.boot, node.share.clone(), &node.orders);
    node.orders = node.center.heartbeat(&more(said)).await.unwrap();
}

#[tokio::test]
async fn what_a_node_left_on_the_share_starts_its_environments_elsewhere_and_nothing_less_does() {
    let (_center, operator, mut share, first, mut second) = cluster().await;
    let id = first.enrolled.reply.node;
    // It went off, and what became of its environment was never heard.
    first.center.going_down("poweroff by power").await.unwrap();
    environment(&operator, "e0", |view| view.phase == Phase::Unknown).await;
    share.until(|orders| orders.absent == [id]).await;
    assert!(second.orders.absent.is_empty(), "one node looks, the server of the share first");

    let good = word(&first, first.boot, Counts::default());
    let mut torn = good.clone();
    torn.signed.payload = torn.signed.payload.replace("\"processes\":0", "\"processes\":00");
    let foreign = SignedWord { signer: good.signer.clone(), ..word(&second, first.boot, Counts::default()) };
    let other_key = SignedWord { signed: foreign.signed, signer: word(&second, 1, Counts::default()).signer };
    let bad = [
        word(&first, first.boot + 1, Counts::default()),
        word(&first, first.boot, Counts { processes: 1, ..Counts::default() }),
        torn,
        other_key,
    ];
    say(&mut share, |said| Heartbeat { last_words: bad.to_vec(), ..said }).await;
    say(&mut share, |said| said).await;
    let view = operator.environment("e0").await.unwrap();
    assert_eq!((view.node.as_deref(), view.epoch), (Some("node1"), 1), "{view:?}");

    say(&mut share, |said| Heartbeat { last_words: vec![good], ..said }).await;
    second.until(|orders| !orders.environments.is_empty()).await;
    second.obey().await;
    let view = environment(&operator, "e0", |view| view.phase == Phase::Running).await;
    assert_eq!((view.node.as_deref(), view.epoch), (Some("node2"), 2));
    let node = operator.node("node1").await.unwrap().node;
    assert!(node.state == NodeState::Off && node.reason.contains("by its power supply"), "{node:?}");
    share.until(|orders| orders.absent.is_empty()).await;
}

#[tokio::test]
async fn an_environment_that_has_moved_is_tried_from_the_centers_side() {
    let (_center, operator, mut share, mut first, mut second) = cluster().await;
    operator.move_environment("e0", &MoveOrder::default()).await.unwrap();
    second.until(|orders| !orders.warm.is_empty()).await;
    second.beat().await;
    first.until(|orders| orders.environments[0].want == Want::Stopped).await;
    first.obey().await;
    second.until(|orders| !orders.environments.is_empty()).await;
    second.obey().await;
    share.until(|orders| !orders.reach.is_empty()).await;
    let asked = share.orders.reach[0].clone();
    let view = operator.environment("e0").await.unwrap();
    assert_eq!((asked.epoch, &asked.mac, asked.addresses), (2, &view.mac, vec![view.addresses[0].ip]));
    let answer = |epoch, problem: &str| Reached { id: view.id, epoch, ms: 7, problem: problem.into() };
    // Nobody else is believed, nor an answer about another epoch.
    say(&mut first, |said| Heartbeat { reached: vec![answer(2, "")], ..said }).await;
    say(&mut share, |said| Heartbeat { reached: vec![answer(1, "")], ..said }).await;
    assert!(operator.environment("e0").await.unwrap().moves[0].reach.is_none());
    say(&mut share, |said| Heartbeat { reached: vec![answer(2, "10.77.0.100 does not answer")], ..said }).await;
    let told = environment(&operator, "e0", |view| view.moves[0].reach.is_some()).await.moves[0].reach.clone().unwrap();
    assert_eq!((told.from.as_str(), told.problem.as_str()), ("center1", "10.77.0.100 does not answer"));
    share.until(|orders| orders.reach.is_empty()).await;
    let events = operator.events(None, 0, false).await.unwrap();
    assert!(events.iter().any(|event| event.text.contains("e0 has moved and is not reached")), "{events:?}");
    assert_eq!(events.iter().filter(|event| event.text.starts_with("e0 has moved from")).count(), 1, "{events:?}");
}

#[tokio::test]
async fn a_cluster_is_restarted_in_turn_over_a_crash_of_the_center_and_can_be_ended() {
    let (mut center, operator, share, mut first, mut second) = cluster().await;
    let refused = |result: Result<_, Error>| match result {
        Err(Error::Refused { status, message }) => (status, message),
        other => panic!("{other:?}"),
    };
    assert_eq!(refused(operator.cluster_reboot().await).0, 404);
    let wrong = RebootOrder { at_once: 2, ..RebootOrder::default() };
    assert!(refused(operator.reboot_cluster(&wrong).await).1.contains("of 2 nodes 1 can be restarted at once"));
    let wrong = RebootOrder { patience: 1, ..RebootOrder::default() };
    assert_eq!(refused(operator.reboot_cluster(&wrong).await).0, 422);
    let plan = operator.reboot_cluster(&RebootOrder { dry_run: true, ..RebootOrder::default() }).await.unwrap();
    let nodes: Vec<_> = plan.turns.iter().map(|turn| (turn.node.as_str(), turn.state)).collect();
    assert_eq!(nodes, [("node2", TurnState::Waits), ("node1", TurnState::Waits), ("center1", TurnState::LeftOut)]);
    assert_eq!((plan.state, plan.moved, plan.most_moves), (RebootState::Planned, 1, 1));
    assert_eq!(refused(operator.cluster_reboot().await).0, 404, "a dry run changes nothing");

    let order = RebootOrder { reason: "firmware".into(), ..RebootOrder::default() };
    let view = operator.reboot_cluster(&order).await.unwrap();
    assert_eq!((view.state, view.turns[0].state), (RebootState::Running, TurnState::Draining));
    assert!(refused(operator.reboot_cluster(&order).await).1.contains("already"));
    center.crash();
    let operator = center.as_operator();
    for node in [&mut first, &mut second] {
        node.center = center.as_node(&node.enrolled);
    }
    drop(share);
    soon(async {
        while second.orders.leave.is_none() {
            tokio::join!(first.obey(), second.obey());
        }
    })
    .await;
    let drained = operator.drain_of("node2").await.unwrap();
    assert_eq!((drained.reason.as_str(), drained.then), ("firmware", Some(Power::Reboot)));
    // Back with another boot, and ready: the next one.
    second.boot += 1;
    let roles = vec![lodge_model::node::Role::Worker];
    second.orders = second.center.register(&support::register(3, second.boot, "S3", "10.77.0.53", roles)).await.unwrap();
    second.environments.clear();
    soon(async {
        loop {
            tokio::join!(first.obey(), second.obey());
            let view = operator.cluster_reboot().await.unwrap();
            if view.turns[1].state == TurnState::Draining {
                break assert_eq!(view.turns[0].state, TurnState::Done);
            }
        }
    })
    .await;
    let view = operator.cancel_cluster_reboot().await.unwrap();
    assert_eq!((view.state, view.turns[1].state), (RebootState::Cancelled, TurnState::Waits));
    assert_eq!(refused(operator.drain_of("node1").await.map(|_| view)).0, 404);
    assert_eq!(refused(operator.continue_cluster_reboot().await).0, 409);
}
