//! Failover: a node that has died is fenced with proof, and what it ran goes to other nodes.
//!
//! Nothing here places anything. A *ban* (`records::Ban`, kept in the node's record) is stored before anybody acts, travels to the share
//! node in its orders for as long as it is there, and becomes a proof when the share node has read back that the boot is gone, or another
//! way has proven it (`methods.rs`). From then on that boot has ended as far as `settle` is concerned, and `place` does the rest. A center that dies anywhere in between finds the
//! ban in its records and goes on: every step is idempotent.
//!
//! | file | what |
//! |---|---|
//! | `signs.rs` | what was heard lately, in memory |
//! | `plan.rs` | signs → what is wrong, what is done; the brake; pure |
//! | `look.rs` | records and signs → facts → plan → bans and incidents, by the clock |
//! | `methods.rs`, `methods/` | the ways of fencing: share node, BMC, lease, operator; which one is tried next; pure |
//! | `drive.rs` | a ban → what is to be done about it → done and noted |
//! | `attested.rs` | by which ways each worker could be fenced now; whether settings keep the inequality |
//! | `bmc.rs`, `bmc/` | BMCs: Redfish, and how each node's is reached |
//! | `hear.rs` | what nodes say: marks, neighbours, a confirmed ban, a new boot |
//! | `orders.rs` | what nodes are told; pure |
//! | `incident.rs` | the timeline of an incident, and what becomes of the environments it concerns |
//! | `request.rs` | what operators ask for: incidents, arm, disarm |

pub mod attested;
pub mod bmc;
pub mod drive;
pub mod hear;
pub mod incident;
pub mod look;
mod methods;
pub mod orders;
pub mod plan;
pub mod records;
pub mod request;
pub mod signs;
#[cfg(test)]
mod tests;
