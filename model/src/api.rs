//! What travels between the center and everybody else. JSON over HTTPS, all paths below `/api/v1`.
//!
//! | who | proves itself by | paths |
//! |---|---|---|
//! | installer | `Authorization: Bearer <join token>` | `/machines/{machine}/…` |
//! | agent | its client certificate (subject CN = node id) | `/node/…` |
//! | operator | `Authorization: Bearer <operator token>` | everything else; environments: `environment::view` |
//! | user | `Authorization: Bearer <user token>` | her own environments, and templates to read |

mod agent;
mod installer;
mod operator;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

pub use agent::{Heartbeat, Orders, Phase, Register, ShareHealth};
pub use installer::{Decision, EnrolReply, EnrolRequest, Hello, MachineEvent, ShareMount};
pub use operator::{
    ClusterView, EventView, InstallOrder, LocalJoin, NodeDetail, NodeState, NodeView, StepTime, TicketView, TokenView,
};

/// Every error answer of the API.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ErrorBody {
    /// One sentence for people: the thing, the cause, the next step.
    pub error: String,
}
