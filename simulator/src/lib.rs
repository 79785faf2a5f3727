//! The real center and many real agents in one thread, with a clock that is moved by hand, on a network that loses, delays and repeats
//! what is said, and on machines that die, stand still and start again. The same seed gives the same run, to the byte.
//!
//! | real | played here |
//! |---|---|
//! | the center's flows, settle, drains, failover, store (SQLite in memory) | its loops (`center.rs`), operators (`scenario.rs`) |
//! | the agent's keeper, workers, plans, notes, refusal of old orders | its talk and its end (`talk.rs`, `leave.rs`), its lifeline and the share node's fence (`fence.rs`), its machine (`host.rs`) |
//! | certificates, signed and checked | the share (`share.rs`), the network and time (`clock.rs`, `network.rs`) |
//!
//! Every environment writes its epoch and a counter to its disk. After every event it is checked (`check.rs`) that no environment runs
//! twice and that no epoch writes after a later one; where a run comes to rest, that everything is as it was asked for.
//!
//! It assumes that a step of an agent has its whole effect at one moment, and then takes its time; steps cut in half are the business of
//! the agent's own tests. It does not say how fast anything is on real machines.

mod center;
mod check;
mod clock;
mod fence;
mod host;
mod leave;
mod machine;
mod network;
mod record;
mod rest;
pub mod scenario;
pub mod schedule;
mod share;
mod signer;
mod simulation;
mod talk;

pub use simulation::{Broken, Simulation};
