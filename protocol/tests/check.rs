//! The whole state space, and one counterexample for each mistake.

use std::time::Instant;

use lodge_protocol::{Mistake, Operator, Protocol};
use stateright::{Checker, HasDiscoveries, Model};

const FENCES: Protocol =
    Protocol { epochs: 2, boots: 2, fences: true, moves: false, operator: Operator::Absent, mistake: None };
const MOVES: Protocol = Protocol { epochs: 2, boots: 2, fences: false, moves: true, operator: Operator::Absent, mistake: None };
const OPERATOR: Protocol =
    Protocol { epochs: 2, boots: 2, fences: false, moves: false, operator: Operator::Honest, mistake: None };

const RIGHT: &str = "1: what runs was given to this boot, is on record, and nobody else has its lock";
const GIVEN: &str = "2: nothing is given anew while the former copy may run";
const STORED: &str = "3: whoever is shut out was stored as banned before";
const LET_IN: &str = "4: a fenced boot is never let in again";
const TWO_COPIES: &str = "no two copies run";
const DISK: &str = "the disk is never written by an epoch after a later one";

/// Walk through everything.
fn check(name: &str, protocol: Protocol) {
    let began = Instant::now();
    let checker = protocol.checker().threads(2).spawn_bfs().join();
    println!(
        "{name}: {} states ({} visits, depth {}) in {:.1} s",
        checker.unique_state_count(),
        checker.state_count(),
        checker.max_depth(),
        began.elapsed().as_secs_f32()
    );
    checker.assert_properties();
}

/// Walk until this property fails; the way there is printed.
fn finds(mistake: Mistake, protocol: Protocol, property: &'static str) {
    let began = Instant::now();
    let protocol = Protocol { mistake: Some(mistake), ..protocol };
    let until = HasDiscoveries::AnyOf([property].into());
    let checker = protocol.checker().threads(2).finish_when(until).spawn_bfs().join();
    let path = checker.discovery(property).unwrap_or_else(|| panic!("{mistake:?} was not found: {property}"));
    let steps: Vec<String> = path.into_actions().iter().map(|step| format!("{step:?}")).collect();
    println!(
        "{mistake:?}: {} steps, {} states in {:.1} s\n    {}",
        steps.len(),
        checker.unique_state_count(),
        began.elapsed().as_secs_f32(),
        steps.join(", ")
    );
}

#[test]
fn the_invariants_hold_with_fences() {
    check("fences", FENCES);
}

#[test]
fn the_invariants_hold_with_moves() {
    check("moves", MOVES);
}

#[test]
fn the_invariants_hold_with_an_operator_who_looks() {
    check("operator", OPERATOR);
}

#[test]
fn the_lock_saves_the_disk_from_an_operators_mistake() {
    check("mistaken operator", Protocol { operator: Operator::Errs, ..OPERATOR });
}

#[test]
fn lifting_a_ban_without_a_new_boot_is_found() {
    finds(Mistake::UnbansTheSameBoot, FENCES, LET_IN);
    finds(Mistake::UnbansTheSameBoot, Protocol { boots: 1, ..FENCES }, TWO_COPIES);
}

#[test]
fn a_start_before_the_fence_is_confirmed_is_found() {
    finds(Mistake::StartsBeforeConfirmed, FENCES, TWO_COPIES);
}

#[test]
fn a_fence_that_is_said_too_early_is_found() {
    finds(Mistake::ConfirmsBeforeExpired, Protocol { boots: 1, ..FENCES }, TWO_COPIES);
}

#[test]
fn orders_older_than_the_newest_are_found() {
    finds(Mistake::TakesOlderOrders, MOVES, GIVEN);
}

#[test]
fn an_order_for_another_boot_is_found() {
    finds(Mistake::StartsForAnotherBoot, FENCES, RIGHT);
}

#[test]
fn a_lock_on_another_descriptor_is_found() {
    finds(Mistake::LocksAnotherDescriptor, Protocol { operator: Operator::Errs, ..OPERATOR }, DISK);
}

#[test]
fn a_ban_that_is_stored_too_late_is_found() {
    finds(Mistake::StoresAfterActing, FENCES, STORED);
}

#[test]
fn a_late_registration_of_a_former_boot_is_found() {
    finds(Mistake::TakesFormerBoots, MOVES, GIVEN);
}

#[test]
fn an_epoch_that_is_started_again_after_its_release_is_found() {
    finds(Mistake::StartsAfterRelease, MOVES, GIVEN);
}
