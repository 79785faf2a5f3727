//! Which way is tried when.

use std::time::Duration;

use lodge_model::guard::{Guard, Watchdog};
use lodge_model::ids::{BootId, TaskId};
use proptest::prelude::*;

use super::*;
use crate::failover::records::{Confirmed, Failed, Word};
use crate::testing::{self, at};

const SINCE: i64 = 1000;

fn ban() -> Ban {
    let node = testing::registered("node1", 1, "10.0.0.1");
    Ban::new(TaskId(uuid::Uuid::from_u128(1)), &node, BootId(uuid::Uuid::from_u128(77)), at(SINCE))
}

fn share(heard: i64) -> ShareFacts {
    ShareFacts { name: "center1".into(), heard: at(heard) }
}

/// So many seconds after the ban, with a BMC and a share node that is heard.
fn after(seconds: i64, ban: &Ban, look: impl FnOnce(&mut Case)) -> Next {
    with_share(Some(&share(SINCE + seconds)), seconds, ban, look)
}

fn with_share(share: Option<&ShareFacts>, seconds: i64, ban: &Ban, look: impl FnOnce(&mut Case)) -> Next {
    let mut case = Case {
        now: at(SINCE + seconds),
        timing: Timing::new(1),
        name: "node1",
        ban,
        confirmed_off: false,
        is_gone: false,
        share,
        bmc: Some(BmcRule { stays_off: false }),
        lease: lease::Facts::default(),
    };
    look(&mut case);
    next(&case)
}

fn plain(seconds: i64, ban: &Ban) -> Next {
    after(seconds, ban, |_| {})
}

fn switches(next: &Next) -> Option<&Act> {
    next.acts.iter().find(|(method, _)| *method == Method::Bmc).map(|(_, act)| act)
}

fn why(next: &Next) -> &str {
    match switches(next) {
        Some(Act::SwitchOff(why)) => why,
        other => panic!("it is not switched off: {other:?} {}", next.waits),
    }
}

fn off(mut ban: Ban) -> Ban {
    ban.confirmed = Some(Confirmed { at: at(SINCE + 4), proof: "off".into() });
    ban.bmc.off = Some(at(SINCE + 4));
    ban
}

#[test]
fn the_share_node_is_first_and_the_bmc_takes_over_where_it_cannot() {
    let mut ban = ban();
    let first = plain(1, &ban);
    assert_eq!(first.acts, []);
    for word in ["center1 has to confirm that node1 is cut off", "asked if that takes too long", "lodge node confirm-off node1"]
    {
        assert!(first.waits.contains(word), "{}", first.waits);
    }
    assert_eq!(why(&plain(6, &ban)), "center1 takes too long");
    ban.share = Word::Failed("nft: no such table".into());
    assert_eq!(why(&plain(1, &ban)), "center1 cannot cut it off (nft: no such table)");
    let silent = with_share(Some(&share(SINCE)), 7, &self::ban(), |_| {});
    assert_eq!(why(&silent), "center1, which serves the share, is silent");
    assert_eq!(why(&with_share(None, 1, &self::ban(), |_| {})), "no node serves the share");
}

#[test]
fn without_a_bmc_it_is_waited_for_the_share_node_or_an_operator() {
    let mut ban = ban();
    ban.share = Word::Failed("nft".into());
    let waits = after(60, &ban, |case| case.bmc = None);
    assert!(waits.acts.is_empty() && waits.waits.contains("and cannot yet: nft"), "{waits:?}");
}

#[test]
fn a_fence_that_is_confirmed_is_made_sure_of_and_the_machine_comes_back() {
    let mut ban = ban();
    ban.share = Word::Confirmed;
    ban.confirmed = Some(Confirmed { at: at(SINCE + 2), proof: "gone".into() });
    assert_eq!(why(&plain(2, &ban)), "to make sure");
    let ban = off(ban);
    assert_eq!(switches(&plain(5, &ban)), Some(&Act::SwitchOn));
    assert_eq!(after(5, &ban, |case| case.bmc = Some(BmcRule { stays_off: true })).acts, []);
    let mut on = ban.clone();
    on.bmc.on = true;
    assert_eq!(plain(9, &on).acts, []);
    let mut found_off = ban;
    found_off.bmc.was_off = true;
    assert_eq!(plain(9, &found_off).acts, [], "somebody else has switched it off");
}

#[test]
fn what_fails_is_tried_again_with_pauses_and_for_ever_only_where_it_is_needed() {
    let mut ban = ban();
    ban.share = Word::Failed("nft".into());
    let failed = |tries| Some(Failed { tries, at: at(SINCE + 10), why: "no route".into() });
    ban.bmc.failed = failed(1);
    let pause = plain(14, &ban);
    assert!(pause.acts.is_empty() && pause.waits.contains("it failed 1 times: no route"), "{}", pause.waits);
    assert!(switches(&plain(15, &ban)).is_some());
    ban.bmc.failed = failed(1000);
    assert!(switches(&plain(69, &ban)).is_none() && switches(&plain(70, &ban)).is_some());
    // It is fenced already: it only makes sure.
    ban.share = Word::Confirmed;
    ban.confirmed = Some(Confirmed { at: at(SINCE + 2), proof: "gone".into() });
    assert!(switches(&plain(700, &ban)).is_none());
}

#[test]
fn a_machine_that_was_to_go_down_is_not_switched_on_and_switched_off_only_where_nothing_else_proves_it() {
    let mut ban = ban();
    ban.share = Word::Failed("nft".into());
    assert!(switches(&after(1, &ban, |case| case.is_gone = true)).is_some());
    assert_eq!(after(5, &off(ban.clone()), |case| case.is_gone = true).acts, []);
    ban.share = Word::Confirmed;
    ban.confirmed = Some(Confirmed { at: at(SINCE + 2), proof: "gone".into() });
    assert_eq!(after(5, &ban, |case| case.is_gone = true).acts, []);
}

#[test]
fn after_an_operators_word_nothing_is_done_to_the_machine() {
    let mut ban = ban();
    ban.share = Word::Failed("nft".into());
    for ban in [ban.clone(), off(ban)] {
        assert_eq!(after(60, &ban, |case| case.confirmed_off = true).acts, []);
    }
}

prop_compose! {
    fn any_ban()(share in 0..3u8, confirmed: bool, off in proptest::option::of(0..60i64), on: bool, tries in 0..9u32, failed in 0..60i64)
        -> Ban {
        let mut ban = ban();
        ban.share = [Word::None, Word::Failed("x".into()), Word::Confirmed][usize::from(share)].clone();
        ban.bmc.off = off.map(|after| at(SINCE + after));
        ban.bmc.on = on && off.is_some();
        ban.bmc.failed = (tries > 0).then(|| Failed { tries, at: at(SINCE + failed), why: "y".into() });
        let proven = confirmed || ban.share == Word::Confirmed || off.is_some();
        ban.confirmed = proven.then(|| Confirmed { at: at(SINCE + 1), proof: "z".into() });
        ban
    }
}

proptest! {
    #[test]
    fn a_machine_is_switched_off_before_it_is_switched_on_and_each_once(ban in any_ban(), seconds in 0..200i64, confirmed_off: bool) {
        let next = after(seconds, &ban, |case| case.confirmed_off = confirmed_off);
        prop_assert!(next.acts.len() <= 1);
        match switches(&next) {
            Some(Act::SwitchOff(why)) => prop_assert!(ban.bmc.off.is_none() && !confirmed_off && !why.is_empty()),
            Some(Act::SwitchOn) => prop_assert!(ban.bmc.off.is_some() && !ban.bmc.on && !confirmed_off),
            Some(Act::Believe(_)) => prop_assert!(false),
            None => {}
        }
        // Nobody is left without a word of what is waited for.
        prop_assert!(ban.confirmed.is_some() || confirmed_off || !next.waits.is_empty());
    }
}

/// The share node has failed and is heard, and lease and watchdog of the node are known.
fn held(seconds: i64, ban: &Ban, lease: lease::Facts) -> Next {
    after(seconds, ban, |case| (case.bmc, case.lease) = (None, lease))
}

fn attested(lease: u64, timeout: u32) -> Guard {
    let watchdog = Watchdog { identity: "iTCO_wdt".into(), timeout, is_hardware: true };
    Guard { lease_ms: Some(lease * 1000), watchdog: Some(watchdog), is_virtual: false }
}

fn quiet(seconds: u64) -> lease::Facts {
    let wait = Some(Duration::from_secs(100));
    lease::Facts { wait, guard: Some(attested(20, 60)), quiet: Some(Duration::from_secs(seconds)) }
}

fn believed(next: &Next) -> bool {
    next.acts.iter().any(|act| matches!(act, (Method::Lease, Act::Believe(_))))
}

#[test]
fn a_lease_is_believed_when_it_must_be_over_and_nothing_else_is_to_be_had() {
    let mut ban = ban();
    assert!(!believed(&held(500, &ban, quiet(500))), "the share node has not said that it cannot");
    ban.share = Word::Failed("nft".into());
    let waits = held(99, &ban, quiet(99));
    assert!(!believed(&waits) && waits.waits.contains("its lease and its watchdog end it in 1 s"), "{}", waits.waits);
    let proof = held(100, &ban, quiet(100));
    assert!(matches!(&proof.acts[..], [(Method::Lease, Act::Believe(why))] if why.contains("nothing of it writes after 90 s")));
    // Its BMC is asked first, and looked past only when it does not help.
    assert!(!believed(&after(100, &ban, |case| case.lease = quiet(100))));
    ban.bmc.failed = Some(Failed { tries: 3, at: at(SINCE + 99), why: "no route".into() });
    assert!(believed(&after(100, &ban, |case| case.lease = quiet(100))));
}

#[test]
fn without_attested_times_that_keep_the_inequality_no_wait_is_long_enough() {
    let mut ban = ban();
    ban.share = Word::Failed("nft".into());
    let facts = quiet(3600);
    let soft = Watchdog { identity: "Software Watchdog".into(), timeout: 60, is_hardware: false };
    for bad in [
        lease::Facts { wait: None, ..facts.clone() },
        lease::Facts { guard: None, ..facts.clone() },
        lease::Facts { quiet: None, ..facts.clone() },
        lease::Facts { guard: Some(attested(30, 60)), ..facts.clone() },
        lease::Facts { guard: Some(Guard { lease_ms: None, ..attested(20, 60) }), ..facts.clone() },
        lease::Facts { guard: Some(Guard { is_virtual: true, ..attested(20, 60) }), ..facts.clone() },
        lease::Facts { guard: Some(Guard { watchdog: Some(soft), ..attested(20, 60) }), ..facts.clone() },
    ] {
        assert!(!believed(&held(3600, &ban, bad.clone())), "{bad:?}");
    }
    assert!(believed(&held(3600, &ban, facts)));
}
