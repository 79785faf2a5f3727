//! Random schedules of failures: nothing runs twice, no epoch writes after a later one, and in the end all is as it was asked for.

use std::sync::atomic::{AtomicU64, Ordering};

use lodge_simulator::schedule;
use proptest::prelude::*;

/// How many are run, unless this says another number: `cargo xtask test` has it say a thousand. `cargo xtask simulate` runs as many as it is
/// told, built to be fast: that takes longer than a thousand do without.
const SCHEDULES: (&str, u64) = ("LODGE_SCHEDULES", 50);

#[test]
fn schedules_of_failures_come_to_rest() {
    let schedules = std::env::var(SCHEDULES.0).map_or(SCHEDULES.1, |text| text.parse().expect("LODGE_SCHEDULES is a number"));
    let jobs = std::thread::available_parallelism().map_or(1, usize::from);
    let next = AtomicU64::new(0);
    let work = || {
        while let Some(seed) = Some(next.fetch_add(1, Ordering::Relaxed)).filter(|seed| *seed < schedules) {
            if let Err(broken) = schedule::run(seed, false).expect("simulating") {
                let log = schedule::run(seed, true).expect("simulating").expect_err("it breaks again").log;
                panic!("{}\nagain: cargo xtask simulate --schedules 1 --seed {seed}\n{log}", broken.what);
            }
        }
    };
    std::thread::scope(|scope| (0..jobs).for_each(|_| drop(scope.spawn(work))));
    println!("{schedules} schedules came to rest");
}

#[test]
fn nothing_ends_because_the_center_is_away() {
    for seed in 0..8 {
        let broken = schedule::without_center(seed).expect("simulating");
        assert_eq!(broken, None, "seed {seed}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Events in any order and number, shrunk to the fewest that break something.
    #[test]
    fn events_in_any_order_come_to_rest(events in proptest::collection::vec((any::<u64>(), 0..8000u64), 1..24)) {
        let broken = schedule::play(&events).expect("simulating");
        prop_assert!(broken.is_none(), "{}", broken.map_or(String::new(), |broken| broken.log));
    }
}
