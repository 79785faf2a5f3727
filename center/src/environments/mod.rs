//! Environments: what was asked for, where each of them may run, and what the nodes say of them.
//!
//! Requests store an intent and reports store what a node says; neither decides. `settle` decides: pure, over all records, woken by a
//! signal and by time. What it changes is written, and every node's slice of the orders is computed from the records again.
//!
//! | file | what |
//! |---|---|
//! | `records.rs` | what is kept |
//! | `settle.rs` | who may run what: releases, epochs, placements, homes of tasks; pure |
//! | `place.rs` | which node has room, or why none has; pure |
//! | `capacity.rs` | whether any one node may die |
//! | `phase.rs` | where an environment stands, in one word and one sentence; pure |
//! | `addresses.rs`, `quota.rs` | pools, hardware addresses, id ranges; limits of users; pure |
//! | `claims.rs` | what is unique in the cluster, taken and given back |
//! | `drain/` | moves, drains, certificates |
//! | `repair/` | a clean system with an environment's files beside it |
//! | `reconcile.rs` | reads all, settles, writes, refreshes orders |
//! | `request.rs`, `snapshots.rs`, `pools.rs` | what operators and users ask for |
//! | `report.rs` | what nodes say |
//! | `tasks.rs` | what is done once, from its order to its end |
//! | `view.rs` | what operators and users are shown |

mod addresses;
pub mod capacity;
mod claims;
pub mod drain;
mod phase;
mod place;
pub mod pools;
pub mod quota;
pub mod reach;
pub mod reconcile;
pub mod records;
pub mod repair;
pub mod report;
pub mod request;
pub mod rolling;
mod settle;
pub mod snapshots;
pub mod tasks;
#[cfg(test)]
pub(crate) mod testing;
pub mod view;

#[cfg(test)]
mod tests;
