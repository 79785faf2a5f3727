//! Environments of this node: what the center assigns is brought about step by step, and everything is found again from the node
//! itself.
//!
//! | file | what |
//! |---|---|
//! | `environment/host.rs` | the steps that can be done on a node, and what can be found there: the seam between deciding and doing |
//! | `environment/host/real.rs` | the steps, done by this machine's kernel |
//! | `environment/session.rs` | `exec` and `console` |

pub mod host;
pub mod session;
