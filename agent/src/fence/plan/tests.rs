use super::*;
use lodge_model::ids::{BootId, NodeId, TaskId};
use proptest::prelude::*;
use uuid::Uuid;

pub fn ban(number: u128, addresses: &[&str]) -> Ban {
    Ban {
        id: TaskId(Uuid::from_u128(number)),
        node: NodeId(Uuid::from_u128(number)),
        boot: BootId(Uuid::from_u128(number)),
        addresses: addresses.iter().map(|address| address.parse().unwrap()).collect(),
    }
}

fn export(address: &str) -> Export {
    Export { path: "/state/share".into(), client: address.into() }
}

fn client(number: u64, address: &str) -> Client {
    Client { number, address: address.parse().ok() }
}

/// Three nodes that have mounted.
fn serving() -> Facts {
    let nodes = ["10.77.0.101", "10.77.0.102", "10.77.0.103"];
    Facts {
        exports: nodes.iter().map(|address| export(address)).collect(),
        clients: (1..).zip(nodes).map(|(number, address)| client(number, address)).collect(),
        ..Facts::default()
    }
}

/// What a step does when it goes well.
fn apply(facts: &mut Facts, step: &Step) {
    match step {
        Step::Keep(bans) => facts.kept.clone_from(bans),
        Step::Drop(addresses) => facts.dropped.clone_from(addresses),
        Step::Unexport(exports) => facts.exports.retain(|export| !exports.contains(export)),
        Step::Expire(clients) => facts.clients.retain(|client| !clients.contains(&client.number)),
    }
}

fn steps(facts: &mut Facts, banned: &[Ban]) -> Vec<Step> {
    let mut steps = Vec::new();
    while let Some(step) = next(facts, banned) {
        apply(facts, &step);
        steps.push(step);
        assert!(steps.len() < 10, "it does not come to an end: {steps:?}");
    }
    steps
}

fn in_force(facts: &Facts, banned: &[Ban]) -> usize {
    let outcomes = outcomes(facts, banned, None, |_| 7);
    outcomes.iter().filter(|fenced| matches!(fenced.outcome, FenceOutcome::Confirmed { at: 7, .. })).count()
}

#[test]
fn a_node_is_cut_in_the_one_order_that_leaves_no_gap() {
    let mut facts = serving();
    let banned = [ban(1, &["10.77.0.102"])];
    let steps = steps(&mut facts, &banned);
    let expected = [
        Step::Keep(banned.to_vec()),
        Step::Drop(addresses(&banned)),
        Step::Unexport(vec![export("10.77.0.102")]),
        Step::Expire(vec![2]),
    ];
    assert_eq!(steps, expected);
    assert_eq!(facts.clients.len(), 2);
    let proof = "10.77.0.102: dropped at port 2049, not exported to, no client of the NFS server".to_owned();
    let fenced = Fenced { id: banned[0].id, outcome: FenceOutcome::Confirmed { at: 7, proof } };
    assert_eq!(outcomes(&facts, &banned, None, |_| 7), [fenced]);
}

#[test]
fn nothing_is_confirmed_before_the_last_step_and_nothing_after_it_is_undone() {
    let banned = [ban(1, &["10.77.0.102"])];
    let mut facts = serving();
    while let Some(step) = next(&facts, &banned) {
        assert_eq!(in_force(&facts, &banned), 0, "before {step:?}");
        let failed = outcomes(&facts, &banned, Some("no nft"), |_| 7);
        assert!(matches!(&failed[0].outcome, FenceOutcome::Failed { error } if error == "no nft"));
        apply(&mut facts, &step);
    }
    let cut = facts.clone();
    for undo in [
        |facts: &mut Facts| facts.kept.clear(),
        |facts: &mut Facts| facts.dropped.clear(),
        |facts: &mut Facts| facts.exports.extend([export("10.77.0.0/24")]),
        |facts: &mut Facts| facts.clients.push(client(9, "10.77.0.102")),
    ] {
        let mut facts = cut.clone();
        assert_eq!(in_force(&facts, &banned), 1);
        undo(&mut facts);
        assert_eq!(in_force(&facts, &banned), 0);
        steps(&mut facts, &banned);
        assert_eq!(in_force(&facts, &banned), 1);
    }
}

#[test]
fn a_client_that_cannot_be_told_is_neither_expired_nor_overlooked() {
    let banned = [ban(1, &["10.77.0.102"])];
    let mut facts = serving();
    facts.clients.push(client(9, "in words that nobody understands"));
    assert_eq!(steps(&mut facts, &banned).last(), Some(&Step::Expire(vec![2])));
    assert_eq!(in_force(&facts, &banned), 0);
    facts.clients.pop();
    assert_eq!(in_force(&facts, &banned), 1);
}

#[test]
fn one_that_is_let_in_again_is_forgotten_last_and_others_stay_out() {
    let (first, second) = (ban(1, &["10.77.0.102"]), ban(2, &["10.77.0.103"]));
    let mut facts = serving();
    steps(&mut facts, &[first.clone(), second.clone()]);
    let lifted = steps(&mut facts, std::slice::from_ref(&second));
    let still = std::slice::from_ref(&second);
    assert_eq!(lifted, [Step::Drop(addresses(still)), Step::Keep(still.to_vec())]);
    assert_eq!(in_force(&facts, &[second]), 1);
    assert_eq!(steps(&mut facts, &[]), [Step::Drop(BTreeSet::new()), Step::Keep(Vec::new())]);
    assert_eq!(facts.exports.len(), 1, "exports come back by the center's order alone");
}

#[test]
fn a_ban_of_a_later_boot_replaces_one_of_the_same_address_without_a_gap() {
    let (old, new) = (ban(1, &["10.77.0.102"]), ban(2, &["10.77.0.102"]));
    let mut facts = serving();
    steps(&mut facts, std::slice::from_ref(&old));
    let replaced = steps(&mut facts, std::slice::from_ref(&new));
    assert!(replaced.iter().all(|step| matches!(step, Step::Keep(_))), "{replaced:?}");
}

#[test]
fn a_ban_that_names_no_address_is_never_in_force() {
    let mut facts = serving();
    let banned = [ban(1, &[])];
    steps(&mut facts, &banned);
    assert_eq!((in_force(&facts, &banned), facts.clients.len()), (0, 3));
}

fn some_bans() -> impl Strategy<Value = Vec<Ban>> {
    prop::collection::vec((1..4_u128, 1..4_u8), 0..4).prop_map(|bans| {
        let mut all: Vec<Ban> = bans.iter().map(|(id, host)| ban(*id, &[&format!("10.77.0.10{host}")])).collect();
        all.dedup_by_key(|ban| ban.id);
        all
    })
}

proptest! {
    /// Whatever was ordered before, wherever it was cut short, and whoever mounts meanwhile: it comes to what is ordered now, and nobody who
    /// is not banned is cut off.
    #[test]
    fn it_comes_to_what_is_ordered_from_anywhere(
        before in some_bans(), done in 0..6_usize, after in some_bans(), back in prop::collection::vec(1..4_u8, 0..3),
    ) {
        let mut facts = serving();
        for _ in 0..done {
            let Some(step) = next(&facts, &before) else { break };
            apply(&mut facts, &step);
        }
        for host in back {
            facts.clients.push(client(20 + u64::from(host), &format!("10.77.0.10{host}")));
        }
        let touched: BTreeSet<IpAddr> = addresses(&before).union(&addresses(&after)).copied().collect();
        steps(&mut facts, &after);
        prop_assert_eq!(in_force(&facts, &after), after.len());
        prop_assert_eq!(&facts.dropped, &addresses(&after));
        let untouched = serving().exports.into_iter().filter(|export| !lets_in(export, &touched)).count();
        prop_assert_eq!(facts.exports.iter().filter(|export| !lets_in(export, &touched)).count(), untouched);
    }
}
