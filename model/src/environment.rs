//! Environments: personal servers on the operating-system level. What a user asks for, what the center assigns to a node, what the node
//! reports, and what lies on the share.
//!
//! | file | what |
//! |---|---|
//! | `environment/spec.rs` | what may be asked for, with its limits |
//! | `environment/order.rs` | the center's assignment to a node, and the node's report |
//! | `environment/share.rs` | paths and the owner record on the share |
//! | `environment/view.rs` | what operators and users are shown |
//! | `environment/session.rs` | the frames of `exec` and `console` |

pub mod order;
pub mod session;
pub mod share;
pub mod spec;
pub mod view;
