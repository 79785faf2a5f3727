//! How a worker stands towards share and center, and what follows for its environments. Pure; time is an argument.
//!
//! | share | center | neighbours | what follows |
//! |---|---|---|---|
//! | written | | | all is well |
//! | lost | heard | | the center decides: it bans the one that lost the share alone, and nobody when all have |
//! | lost | lost | somebody answers | off the network, and held: the one machine with center and share may just be restarting |
//! | lost | lost | nobody answers | off the network, and after `give_up` ended: this node is cut off |
//! | | fenced | | ended at once |
//!
//! Where the node holds itself to a lease (`lodge_model::guard`) it ends what it runs and restarts as soon as that is over, whoever answers on
//! its network, and init is vouched to for no longer than the lease goes: the machine restarts in time whether the agent can do that or not.

use std::time::Duration;

use lodge_model::initproto::Vouch;
use lodge_model::timing::{LEASE_SLACK, Timing};

/// What is known. Times are since the kernel started.
#[derive(Clone, Copy, Debug)]
pub struct Facts {
    /// Now.
    pub now: Duration,
    /// When the heartbeat file was last written, or the agent started.
    pub written: Duration,
    /// When the center answered last.
    pub heard: Option<Duration>,
    /// The beginning of the last write or heartbeat that went through; nothing where this agent knows of none.
    pub renewed: Option<Duration>,
    /// The node holds itself to a lease.
    pub holds_lease: bool,
    /// When the rest of the agent last showed a pulse.
    pub pulse: Duration,
    /// The center says that this boot is banned.
    pub is_fenced: bool,
    /// Something of an environment runs.
    pub runs: bool,
    /// What came of asking whether anybody is there.
    pub neighbours: Neighbours,
    /// The periods.
    pub timing: Timing,
}

/// Who answers on the node's own network: the gateway, the machines of center and share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Neighbours {
    /// Not asked, or nobody is known who could be.
    Unknown,
    /// Somebody.
    Answer,
    /// Nobody.
    Silent,
}

/// What follows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stand {
    /// Environments are off the network.
    pub isolated: bool,
    /// Everything of them is ended.
    pub ends: bool,
    /// What init is told; nothing where the rest of the agent hangs.
    pub vouch: Option<Vouch>,
    /// Whether anybody is there is to be asked.
    pub asks: bool,
    /// For people.
    pub why: String,
}

/// Decide.
pub fn stand(facts: &Facts) -> Stand {
    let Facts { now, written, heard, timing, .. } = *facts;
    let vouch = word(facts);
    let well = Stand { isolated: false, ends: false, vouch, asks: false, why: String::new() };
    if facts.is_fenced {
        let why = "this node was fenced: its environments were given to others".to_owned();
        return Stand { isolated: true, ends: true, vouch: Some(Vouch::Refused), why, ..well };
    }
    if let Some(renewed) = facts.renewed.filter(|renewed| facts.holds_lease && now.saturating_sub(*renewed) > timing.give_up) {
        let why = format!("its lease is over: nothing has renewed it for {} s", now.saturating_sub(renewed).as_secs());
        return Stand { isolated: true, ends: true, vouch: Some(Vouch::Refused), why, ..well };
    }
    let silence = now.saturating_sub(heard.map_or(written, |heard| heard.max(written)));
    if silence <= timing.isolate {
        return well;
    }
    let ends = facts.runs && silence > timing.give_up && facts.neighbours == Neighbours::Silent;
    let vouch = if ends { Some(Vouch::Refused) } else { vouch };
    let alone = if ends { ", nor has anybody on its network" } else { "" };
    let why = format!("neither the share nor the center has answered for {} s{alone}", silence.as_secs());
    Stand { isolated: true, ends, vouch, asks: true, why }
}

/// A hung agent would not hear that its node was fenced.
fn word(facts: &Facts) -> Option<Vouch> {
    let seconds = |time: Duration| u32::try_from(time.as_secs()).unwrap_or(u32::MAX);
    let is_alive = facts.now.saturating_sub(facts.pulse) <= facts.timing.vouch / 2;
    let word = match (facts.holds_lease, facts.runs) {
        (true, _) => Vouch::For(seconds(of_lease(facts)?.min(facts.timing.vouch))),
        (false, true) => Vouch::For(seconds(facts.timing.vouch)),
        (false, false) => Vouch::NothingRuns,
    };
    is_alive.then_some(word)
}

/// What is left of the lease, and the time in which the node ends it itself. An agent that knows of no renewal says nothing of it: what the one
/// before it has said stands.
fn of_lease(facts: &Facts) -> Option<Duration> {
    let end = facts.renewed? + facts.timing.give_up;
    Some(end.saturating_sub(facts.now) + LEASE_SLACK / 2)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn facts(now: u64, written: u64, heard: u64) -> Facts {
        Facts {
            now: at(now),
            written: at(written),
            heard: Some(at(heard)),
            renewed: Some(at(written.max(heard))),
            holds_lease: false,
            pulse: at(now),
            is_fenced: false,
            runs: true,
            neighbours: Neighbours::Unknown,
            timing: Timing::new(1),
        }
    }

    fn is_undisturbed(facts: &Facts) -> bool {
        let stand = stand(facts);
        !stand.isolated && !stand.ends && matches!(stand.vouch, Some(Vouch::For(_)))
    }

    #[test]
    fn nobody_is_disturbed_when_all_lose_the_share_however_long() {
        for now in 100..1000 {
            assert!(is_undisturbed(&facts(now, 100, now - 2)), "the center answers and does not say that it is banned");
        }
    }

    #[test]
    fn nobody_is_disturbed_while_the_center_is_away() {
        for now in 100..1000 {
            assert!(is_undisturbed(&facts(now, now - 3, 100)));
        }
    }

    #[test]
    fn the_one_machine_with_center_and_share_restarts_and_nobody_is_ended() {
        for now in 107..1000 {
            let away = stand(&Facts { neighbours: Neighbours::Answer, ..facts(now, 100, 101) });
            assert!(away.isolated && !away.ends && matches!(away.vouch, Some(Vouch::For(_))), "{away:?}");
        }
        assert!(is_undisturbed(&facts(1000, 999, 101)), "back on the network with the first write");
    }

    #[test]
    fn a_node_that_is_cut_off_is_off_the_network_before_anybody_may_take_over_and_ends_later() {
        let timing = Timing::new(1);
        let alone =
            |silence: Duration| stand(&Facts { neighbours: Neighbours::Silent, now: at(100) + silence, ..facts(0, 100, 99) });
        assert!(!alone(timing.isolate).isolated);
        let early = alone(timing.isolate + at(1));
        assert!(early.isolated && early.asks && !early.ends && early.why.contains("neither the share nor the center"));
        assert!(!alone(timing.give_up).ends);
        let late = alone(timing.give_up + at(1));
        assert!(late.ends && late.vouch == Some(Vouch::Refused) && late.why.contains("nor has anybody"));
        let idle = Facts { runs: false, neighbours: Neighbours::Silent, ..facts(1000, 100, 99) };
        assert_eq!(
            (stand(&idle).ends, stand(&idle).vouch),
            (false, Some(Vouch::NothingRuns)),
            "nothing to end, nothing to restart for"
        );
    }

    #[test]
    fn an_agent_without_a_pulse_says_nothing_and_a_slow_one_does() {
        let half = Timing::new(1).vouch / 2;
        let with = |pulse: Duration| stand(&Facts { pulse, ..facts(100, 99, 99) }).vouch;
        assert!(with(at(100) - half).is_some());
        assert_eq!(with(at(99) - half), None);
    }

    #[test]
    fn a_fenced_node_ends_whatever_it_can_reach_and_restarts_even_if_nothing_runs() {
        for runs in [true, false] {
            let told = stand(&Facts { is_fenced: true, runs, ..facts(100, 99, 99) });
            assert!(told.isolated && told.ends && told.vouch == Some(Vouch::Refused));
        }
    }

    #[test]
    fn a_lease_that_is_over_ends_everything_whoever_answers() {
        let timing = Timing::new(1);
        let held = |silence: Duration| {
            let now = at(100) + silence;
            stand(&Facts { holds_lease: true, neighbours: Neighbours::Answer, now, pulse: now, ..facts(0, 100, 99) })
        };
        assert!(matches!(held(at(0)).vouch, Some(Vouch::For(seconds)) if at(seconds.into()) <= timing.lease));
        assert!(held(timing.give_up).isolated && !held(timing.give_up).ends);
        let over = held(timing.give_up + at(1));
        assert!(over.ends && over.vouch == Some(Vouch::Refused) && over.why.contains("its lease is over"), "{over:?}");
        // An agent that has just started renews nothing by that, and speaks for nothing.
        let fresh = Facts { holds_lease: true, renewed: None, ..facts(1000, 1000, 1000) };
        assert_eq!((stand(&fresh).vouch, stand(&fresh).ends), (None, false));
    }

    proptest! {
        /// Whatever happens to the agent after its last word, init restarts the machine before the lease is over for everybody else.
        #[test]
        fn init_is_never_told_to_wait_beyond_the_lease(now in 0..400_u64, renewed in 0..400_u64, runs: bool, patience in 1..=20_u32) {
            let timing = Timing::new(patience);
            let renewed = renewed.min(now);
            let facts = Facts { holds_lease: true, renewed: Some(at(renewed)), runs, timing, ..facts(now, renewed, renewed) };
            match stand(&facts).vouch {
                Some(Vouch::For(seconds)) => prop_assert!(at(now + u64::from(seconds)) <= at(renewed) + timing.lease),
                Some(Vouch::Refused) => prop_assert!(at(now) > at(renewed) + timing.give_up),
                other => prop_assert!(false, "{:?}", other),
            }
        }

        /// Nothing is ended without the center's word or full silence on all sides, and what is ended is never on the network.
        #[test]
        fn nothing_ends_without_a_reason(
            now in 0..200_u64, written in 0..200_u64, heard in prop::option::of(0..200_u64), is_fenced: bool, runs: bool,
            neighbours in prop::sample::select(vec![Neighbours::Unknown, Neighbours::Answer, Neighbours::Silent]), patience in 0..30_u32,
            renewed in prop::option::of(0..200_u64), holds_lease: bool,
        ) {
            let timing = Timing::new(patience);
            let (heard, renewed) = (heard.map(at), renewed.map(at));
            let facts = Facts { heard, renewed, holds_lease, is_fenced, runs, neighbours, timing, ..facts(now, written, 0) };
            let stand = stand(&facts);
            let lost = |last: Duration| facts.now > last + timing.give_up;
            let is_cut_off = neighbours == Neighbours::Silent && lost(facts.written) && facts.heard.is_none_or(lost);
            let is_over = holds_lease && renewed.is_some_and(lost);
            prop_assert!(!stand.ends || is_fenced || is_cut_off || is_over);
            prop_assert!(!stand.ends || stand.isolated);
            prop_assert_eq!(stand.ends, stand.vouch == Some(Vouch::Refused));
        }
    }
}
