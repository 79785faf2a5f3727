//! The cases told apart, the brake, and under any signs: nobody is fenced who should not be.

use lodge_model::timing::{MARK, Timing};
use proptest::prelude::*;

use super::*;
use crate::testing::at;

const NOW: i64 = 1000;

fn node_id(number: u128) -> NodeId {
    NodeId(uuid::Uuid::from_u128(1000 + number))
}

fn boot_id(number: u128) -> BootId {
    BootId(uuid::Uuid::from_u128(9000 + number))
}

/// A worker that was heard so many seconds ago, and whose file was seen to change so many seconds before the share node's last word.
fn worker(number: u128, heard: i64, file: Option<i64>) -> Worker {
    let mark = |age: i64| MarkAge { node: node_id(number), boot: boot_id(number), age_ms: u64::try_from(age).unwrap() * 1000 };
    Worker {
        node: node_id(number),
        name: format!("node{number}"),
        boot: boot_id(number),
        heard: at(NOW - heard),
        mark: file.map(|age| (mark(age), at(NOW))),
        holds: true,
        settled: false,
        banned: false,
        is_gone: false,
    }
}

fn facts(workers: Vec<Worker>) -> Facts {
    Facts {
        now: at(NOW),
        timing: Timing::new(1),
        up_for: Duration::from_secs(100),
        disarmed: None,
        share: Some(ShareFacts { name: "center1".into(), heard: at(NOW - 1) }),
        last_wide: None,
        workers,
    }
}

/// Three more that are well.
fn with_others(worker: Worker) -> Facts {
    facts([vec![worker], (7..10).map(|number| self::worker(number, 1, Some(1))).collect()].concat())
}

fn only(facts: &Facts) -> (Case, Decision) {
    let plan = plan(facts);
    assert_eq!(plan.verdicts.len(), 1, "{plan:?}");
    (plan.verdicts[0].case, plan.verdicts[0].decision.clone())
}

fn held(facts: &Facts) -> String {
    match only(facts).1 {
        Decision::Hold(why) => why,
        Decision::Fence => panic!("it would be fenced"),
    }
}

#[test]
fn the_cases_are_told_apart() {
    assert_eq!(plan(&with_others(worker(1, 1, Some(1)))).verdicts, []);
    assert_eq!(only(&with_others(worker(1, 9, Some(8)))), (Case::NodeSilent, Decision::Fence));
    assert_eq!(only(&with_others(worker(1, 1, Some(8)))), (Case::ShareLost, Decision::Fence));
    let (case, decision) = only(&with_others(worker(1, 9, Some(1))));
    assert!(case == Case::CenterCut && matches!(decision, Decision::Hold(_)));
    // Between two words of the share node nothing is decided.
    let mut between = worker(1, 9, Some(5));
    between.mark.as_mut().unwrap().1 = at(NOW - 2);
    assert_eq!(plan(&with_others(between)).verdicts, []);
}

#[test]
fn a_boot_that_never_wrote_a_file_gets_a_little_longer() {
    assert_eq!(plan(&with_others(worker(1, 8, None))).verdicts, []);
    assert_eq!(only(&with_others(worker(1, 9, None))), (Case::NodeSilent, Decision::Fence));
    // The file of a former boot says nothing about this one.
    let mut other = worker(1, 9, Some(1));
    other.mark.as_mut().unwrap().0.boot = boot_id(99);
    assert_eq!(only(&with_others(other)), (Case::NodeSilent, Decision::Fence));
}

#[test]
fn when_all_have_lost_the_share_nobody_is_fenced() {
    let all = facts((1..4).map(|number| worker(number, 1, Some(30))).collect());
    let plan = plan(&all);
    assert!(plan.is_wide && plan.verdicts.len() == 3, "{plan:?}");
    for verdict in plan.verdicts {
        assert!(verdict.case == Case::ShareLostByAll && verdict.decision != Decision::Fence, "{verdict:?}");
    }
    assert_eq!(only(&facts(vec![worker(1, 1, Some(30))])).0, Case::ShareLostByAll);
}

#[test]
fn the_first_to_be_noticed_is_not_the_only_one() {
    // The share went away for all; their last writes were up to a period apart.
    let all = |age: i64| facts(vec![worker(1, 1, Some(age)), worker(2, 1, Some(age - 2)), worker(3, 1, Some(age - 1))]);
    for age in 2..30 {
        let plan = plan(&all(age));
        assert!(plan.verdicts.iter().all(|verdict| verdict.decision != Decision::Fence), "after {age} s: {plan:?}");
    }
    // The same, with the network of all of them.
    for silent in 3..30 {
        let all = facts((0..3).map(|later| worker(1 + later as u128, silent - later, Some(silent))).collect());
        let plan = plan(&all);
        assert!(plan.verdicts.iter().all(|verdict| verdict.decision != Decision::Fence), "after {silent} s: {plan:?}");
    }
}

#[test]
fn a_center_that_was_away_suspects_nobody_before_it_has_listened() {
    let after = |seconds| Facts {
        up_for: Duration::from_secs(seconds),
        ..facts((1..4).map(|number| worker(number, 70, None)).collect())
    };
    assert_eq!(plan(&after(14)).verdicts, []);
    assert_eq!(plan(&after(15)).verdicts.len(), 3);
}

#[test]
fn one_that_has_gone_and_left_something_behind_is_fenced_and_explains_its_own_silence() {
    let gone = |number| Worker { is_gone: true, ..worker(number, 9, Some(8)) };
    let two = with_others(gone(1));
    let two = Facts { workers: [vec![gone(2)], two.workers.clone()].concat(), ..two };
    assert_eq!(
        plan(&two).verdicts.iter().map(|verdict| verdict.decision.clone()).collect::<Vec<_>>(),
        [Decision::Fence, Decision::Fence]
    );
    // While nobody else has the share it waits.
    let frozen = facts(vec![gone(1), worker(2, 1, Some(8)), worker(3, 1, Some(8))]);
    assert!(plan(&frozen).verdicts.iter().all(|verdict| verdict.decision != Decision::Fence));
}

#[test]
fn what_holds_a_takeover_back_is_told() {
    let dead = || with_others(worker(1, 9, Some(8)));
    let lost = with_others(worker(1, 1, Some(8)));
    assert!(held(&Facts { up_for: Duration::from_secs(3), ..lost }).contains("just started"));
    assert!(held(&Facts { disarmed: Some("new switch".into()), ..dead() }).contains("new switch"));
    assert!(held(&Facts { last_wide: Some(at(NOW - 3)), ..dead() }).contains("just come back"));
    assert!(held(&Facts { share: None, ..dead() }).contains("no share node"));
    assert!(held(&facts(vec![worker(1, 9, Some(8))])).contains("no other worker"));
    let mut idle = dead();
    idle.workers[0].holds = false;
    assert!(held(&idle).contains("nothing is to be taken over"));
    let silent = ShareFacts { name: "center1".into(), heard: at(NOW - 8) };
    let (case, decision) = only(&Facts { share: Some(silent), ..dead() });
    assert!(case == Case::Unclear && matches!(decision, Decision::Hold(why) if why.contains("center1 is silent")));
}

#[test]
fn many_at_once_are_a_fault_of_something_else_and_old_losses_do_not_count() {
    let mut cluster = with_others(worker(1, 9, Some(8)));
    cluster.workers.push(worker(2, 9, Some(8)));
    let held = plan(&cluster);
    assert!(held.is_wide && held.held.contains("2 of 5 workers"), "{held:?}");
    cluster.workers[4].settled = true;
    assert_eq!(only(&cluster).1, Decision::Fence);
    assert_eq!([1, 3, 6, 7, 10, 100].map(limit), [1, 1, 1, 2, 3, 30]);
}

#[test]
fn a_clock_that_jumps_fences_nobody() {
    let dead = with_others(worker(1, 1, Some(1)));
    for jump in [-4000, 60, 4000] {
        let plan = plan(&Facts { now: at(NOW + jump), ..dead.clone() });
        assert!(plan.verdicts.iter().all(|verdict| verdict.decision != Decision::Fence), "{plan:?}");
    }
}

fn any_worker(number: u128) -> impl Strategy<Value = Worker> {
    let age = prop_oneof![3 => 0..3i64, 1 => 3..40i64];
    (age.clone(), proptest::option::of(age), any::<bool>(), prop::bool::weighted(0.1), prop::bool::weighted(0.1))
        .prop_map(move |(heard, file, holds, settled, banned)| Worker { holds, settled, banned, ..worker(number, heard, file) })
}

fn any_facts() -> impl Strategy<Value = Facts> {
    let workers = (1..9usize).prop_flat_map(|count| (1..=count).map(|number| any_worker(number as u128)).collect::<Vec<_>>());
    (workers, 0..20u64, prop::bool::weighted(0.1), 0..9i64, proptest::option::of(0..40i64)).prop_map(
        |(workers, up, disarmed, share, wide)| Facts {
            up_for: Duration::from_secs(up * 5),
            disarmed: disarmed.then(|| "work".to_owned()),
            share: Some(ShareFacts { name: "center1".into(), heard: at(NOW - share) }),
            last_wide: wide.map(|ago| at(NOW - ago)),
            ..facts(workers)
        },
    )
}

proptest! {
    #[test]
    fn whoever_is_fenced_has_lost_the_share_and_is_one_of_few(facts in any_facts()) {
        let plan = plan(&facts);
        let fenced: Vec<_> = plan.verdicts.iter().filter(|verdict| verdict.decision == Decision::Fence).collect();
        prop_assert!(fenced.len() <= limit(facts.workers.len()));
        for verdict in &fenced {
            let worker = facts.workers.iter().find(|worker| worker.node == verdict.node).unwrap();
            let age = worker.mark.as_ref().map(|(mark, _)| Duration::from_millis(mark.age_ms));
            // By then the node has taken its environments off the network by itself.
            prop_assert!(age.is_none_or(|age| age >= facts.timing.isolate + Duration::from_secs(1)));
            prop_assert!(worker.holds && !worker.settled && facts.disarmed.is_none() && facts.up_for >= facts.timing.listen);
        }
        prop_assert!(fenced.is_empty() || plan.held.is_empty());
        for verdict in &plan.verdicts {
            prop_assert!(!verdict.signs.is_empty() && verdict.decision != Decision::Hold(String::new()));
        }
    }

    #[test]
    fn a_worker_that_both_hear_is_left_alone(facts in any_facts()) {
        let plan = plan(&facts);
        for worker in &facts.workers {
            let file = worker.mark.as_ref().is_some_and(|(mark, _)| mark.age_ms < 2 * MARK.as_millis() as u64);
            if since(worker.heard, facts.now) <= MARK && file {
                prop_assert!(plan.verdicts.iter().all(|verdict| verdict.node != worker.node));
            }
        }
    }
}
