//! The last word of a node that goes down while its center is away: signed, on the share, so that the center can start what ran there
//! elsewhere as soon as it is back. It is the clean-stop acknowledgement of everything at once, for one boot.
//!
//! A certificate (`drain::Certificate`) answers a question and says how things were then; the last word says that this boot starts nothing
//! ever again. The two are different types, so that one can never be taken for the other.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::drain::{Cause, Counts, Power, SignedCertificate};
use crate::ids::{BootId, NodeId};

/// The last word of a node on the share, relative to its root: a `SignedWord` as JSON.
pub fn word_path(node: NodeId) -> String {
    format!("nodes/{node}/last-word")
}

/// What a node says when nothing is left on it and nothing will ever be started again by this boot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LastWord {
    /// The node.
    pub node: NodeId,
    /// The boot that ends.
    pub last_of: BootId,
    /// Seconds since 1970, by the node's clock.
    pub at: i64,
    /// Why it goes down.
    pub cause: Cause,
    /// How.
    pub power: Power,
    /// What it counted.
    pub counts: Counts,
}

/// A last word as it is kept and travels.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SignedWord {
    /// JSON of a `LastWord`, signed with the node's key.
    pub signed: SignedCertificate,
    /// The node's certificate (X.509, DER, base64).
    pub signer: String,
}
