//! Whether an environment that has moved is reached at its addresses: tried by a node that it does not run on, on the center's side where
//! that is possible. An address that is announced and not reached is a switch or a filter on the way, which neither old nor new node sees.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::ids::EnvironmentId;

/// Try to reach an environment. Travels in `Orders` until it has been answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Reach {
    /// The environment.
    pub id: EnvironmentId,
    /// Its epoch, so that an answer is not taken for one about another move.
    pub epoch: u64,
    /// Its addresses.
    #[schema(value_type = Vec<String>)]
    pub addresses: Vec<IpAddr>,
    /// The hardware address that is to answer for all of them.
    pub mac: String,
}

/// What came of it. Travels in `Heartbeat`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Reached {
    /// The environment.
    pub id: EnvironmentId,
    /// Its epoch.
    pub epoch: u64,
    /// Milliseconds until all its addresses had answered, or until it was given up.
    pub ms: u32,
    /// What did not answer, or who else did, for people; empty when all is well.
    pub problem: String,
}

/// The same in the history of a move.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ReachView {
    /// Name of the node that tried it.
    pub from: String,
    /// Milliseconds until it was reached.
    pub ms: u32,
    /// Why it was not, for people; empty when it was.
    pub problem: String,
}
