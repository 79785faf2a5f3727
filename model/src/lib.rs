//! The words and rules that two or more Lodge programs share.
//!
//! Why it exists: the installer, the agent, the center and the tests must agree on a disk layout, on an answer file and on
//! what travels over the wire; a rule that both ends apply (which disk may be written) must be one function, not two.
//!
//! It assumes nothing about where it runs. It never does I/O, never reads a clock, never spawns, and has no async: time comes
//! in as an argument, decisions go out as values.

pub mod answer;
pub mod api;
pub mod bmc;
pub mod bundle;
pub mod disk;
pub mod drain;
pub mod environment;
pub mod facts;
pub mod farewell;
pub mod fence;
pub mod guard;
pub mod ids;
pub mod incident;
pub mod initproto;
pub mod keywords;
pub mod layout;
pub mod live;
pub mod node;
pub mod paths;
pub mod progress;
pub mod reach;
pub mod rolling;
pub mod settings;
pub mod ticket;
pub mod timing;
