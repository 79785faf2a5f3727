//! Environments of this node: what the center assigns is brought about step by step, and everything is found again from the node
//! itself.
//!
//! | file | what |
//! |---|---|
//! | `environment/host.rs` | the steps that can be done on a node, and what can be found there: the seam between deciding and doing |
//! | `environment/host/real.rs` | the steps, done by this machine's kernel |
//! | `environment/plan.rs` | the decision about one environment: the next step and the report |
//! | `environment/notes.rs` | what must be remembered and cannot be found: one small file each below `/run` |
//! | `environment/exits.rs` | how an environment's init ended, as init tells it |
//! | `environment/worker.rs` | one environment's thread: look, decide, do one step |
//! | `environment/session.rs` | `exec` and `console` |

mod exits;
#[cfg(test)]
mod fake;
pub mod host;
mod keeper;
mod notes;
mod plan;
pub mod report;
pub mod session;
#[cfg(test)]
mod stage;
mod tasks;
mod worker;
