//! A model of the protocol by which environments change hands: a center, two nodes, the share, and one environment. `tests/check.rs`
//! walks through all its states and holds the invariants of `properties.rs` in each.
//!
//! Why a model: fencing and moves go wrong in orders of events that no test bench ever shows. Here a message is delivered late, again or
//! never; a machine stops between any two steps and goes on later, or not at all; the center forgets whatever it has not stored.
//!
//! What it assumes: `fence` works as the share node's agent does it (dropped, then expired, then said), NFS gives a lock whose holder has
//! fallen silent to whoever asks next, and a store's transaction is one step. Time is not modelled: a timeout may come at any moment, which
//! is worse than any real one. It will not say how long anything takes; the simulator does.
//!
//! | in the model | in the product |
//! |---|---|
//! | `Center::holder`, `Center::epoch` | `Environment::place` and `epoch` (`center/src/environments/records.rs`) |
//! | `Center::ended` | `Room::has_ended` (`center/src/environments/place.rs`) |
//! | `Step::Give` | `settle::place_all`, `settle::give` |
//! | `Step::AskBack` | `settle::tell`, `drain::moves::begin`: `Want::Stopped` |
//! | `Step::HearReleased` | `environments::report::environment`, then `settle::take_report` |
//! | `Step::HearRegister` | `flow::node::register`, then `settle::release_after_boot` and the lifting of a ban |
//! | `Step::Suspect` | `center/src/failover`: the ban is stored as intended |
//! | `Step::HearFenced` | `center/src/failover`: the ban is confirmed |
//! | `Step::ConfirmOff` | `flow::operator::confirm_off`; a BMC or a lease that is believed is an honest operator (`failover::methods`) |
//! | `orders`, `bans`: all versions that there ever were | `Orders` with their `generation`, told with every answer (`orders::refresh_duties`) |
//! | `Step::Obey` | `session::Generation::accept`, then `environment::keeper` |
//! | `Step::Lock`, `Step::Own` | `Action::Hold`: `share::may_hold`, the lock, `share::may_hold` again, the owner record |
//! | `Step::Start`, `Step::Write` | `Action::Start`, and what the environment's programs do |
//! | `Step::Kill`, `Step::LetGo` | `Action::Kill` and the steps down to `Action::Release` |
//! | `Step::SayReleased` | `environment::plan::report`: `State::Released` |
//! | `Step::Leave` | the node goes down in order (`shutdown.rs`): everything is let go of, whatever is ordered |
//! | `Step::Crash`, `Step::Boot` | a machine loses its power; it starts (after a crash or out of the blue) with another boot id |
//! | `Step::Ban`, `Step::Expire`, `Step::Unban` | `agent/src/fence`: nftables and exports, `expire`, letting in again |
//! | `Step::Serve` | the kernel's NFS server does what has reached it |
//!
//! A pause needs no step: a machine that is paused is one that takes none. Nor does a network that is cut, or a crash before a boot.
//! The nodes are alike, so the first right goes to the first one.

mod mistakes;
mod properties;
mod state;
mod step;

pub use mistakes::Mistake;
pub use properties::properties;
pub use state::State;
pub use step::Step;

use stateright::{Model, Property};

/// What is checked: how far it goes, and what is wrong with it.
#[derive(Clone, Copy, Debug)]
pub struct Protocol {
    /// Rights are given so often at most.
    pub epochs: u8,
    /// The first machine starts so often at most; the second one twice where nobody is fenced, else once.
    pub boots: u8,
    /// The center suspects nodes, and has them fenced.
    pub fences: bool,
    /// The center asks for the environment back, and nodes go down in order.
    pub moves: bool,
    /// An operator may say that a machine is off.
    pub operator: Operator,
    /// The mistake that has been made in the product, if any.
    pub mistake: Option<Mistake>,
}

/// What an operator's word is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operator {
    /// There is none.
    Absent,
    /// What is said to be off is off.
    Honest,
    /// Once, a machine that is not off is said to be. Only the disk is safe then, by its lock.
    Errs,
}

impl Model for Protocol {
    type State = State;
    type Action = Step;

    fn init_states(&self) -> Vec<State> {
        vec![State::new()]
    }

    fn actions(&self, state: &State, steps: &mut Vec<Step>) {
        step::possible(self, state, steps);
    }

    fn next_state(&self, before: &State, step: Step) -> Option<State> {
        let mut after = before.clone();
        step::take(self, &mut after, step);
        (after != *before).then_some(after)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        properties(self)
    }
}
