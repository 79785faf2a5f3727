//! BMCs of nodes: how each is reached, and what is asked of it.
//!
//! | file | what |
//! |---|---|
//! | `bmc/redfish.rs` | the protocol: find the system, read its power, switch it, read it back |
//! | `bmc/tls.rs` | knowing the BMC that was meant |
//! | `bmc/request.rs` | what operators ask for: set, show, test, remove |

pub mod redfish;
pub mod request;
#[cfg(test)]
pub(crate) mod testing;
mod tls;

use jiff::Timestamp;
use lodge_model::bmc::{BmcView, Secret, Trust};
use lodge_model::ids::NodeId;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::store::Record;

/// How the BMC of a node is reached. Holds a password in clear text, because it must be told; the database is readable by the center alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bmc {
    /// The node.
    pub node: NodeId,
    /// `https://ADDRESS`.
    pub url: String,
    /// The account.
    pub user: String,
    /// Its password.
    pub password: Secret,
    /// Which of the systems it manages.
    pub system: Option<String>,
    /// How it is known.
    pub trust: Trust,
    /// What was switched off stays off.
    pub stays_off: bool,
    /// The machine that it manages (SMBIOS UUID), as far as anybody knows. It is asked to switch no other one.
    pub machine: Option<Uuid>,
    /// When it was set.
    pub set: Timestamp,
}

impl Bmc {
    /// As operators are shown.
    pub fn view(self) -> BmcView {
        let Self { node: _, url, user, password: _, system, trust, stays_off, machine, set } = self;
        BmcView { url, user, system, trust, stays_off, machine, set }
    }
}

impl Record for Bmc {
    const KIND: &'static str = "bmc";
    fn key(&self) -> String {
        self.node.to_string()
    }
}
