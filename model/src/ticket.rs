//! The ticket: the center's one-shot signed permission to write one named disk of one named machine. No ticket, no write.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::disk::{DiskRule, Refusal};
use crate::facts::{Disk, Facts};
use crate::ids::{MachineId, NodeId, TicketId};
use crate::node::Role;

/// What the center allows, and what it wants there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Ticket {
    /// This permission. It is used up when the installation begins.
    pub id: TicketId,
    /// The machine it is for.
    pub machine: MachineId,
    /// The node the machine becomes (or stays).
    pub node: NodeId,
    /// Its host name.
    pub name: String,
    /// Its roles.
    pub roles: Vec<Role>,
    /// Serial number of the disk that may be written.
    pub disk_serial: String,
    /// What is on that disk may be overwritten: a reinstall, or an operator's word. Without it the disk must be blank.
    pub wipe: bool,
    /// `http://…` of the bundle to install.
    pub bundle: String,
    /// Seconds since 1970 after which it is void.
    pub expires: i64,
}

/// A ticket as it travels: the very bytes that were signed, and the signature.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SignedTicket {
    /// JSON of a `Ticket`.
    pub payload: String,
    /// ECDSA P-256/SHA-256 signature (ASN.1 DER) over the payload by the center's CA key, in base64.
    pub signature: String,
}

/// Why a ticket does not allow an installation.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum TicketError {
    /// For another machine.
    #[error("the ticket is for machine {ticket}, this is {this}")]
    OtherMachine {
        /// Named by the ticket.
        ticket: MachineId,
        /// This one.
        this: MachineId,
    },
    /// Too old.
    #[error("the ticket has expired; ask the center for a new one")]
    Expired,
    /// The disk it names is not there or may not be taken.
    #[error("the ticket names disk {serial:?}, but {refusal}")]
    Disk {
        /// Serial number in the ticket.
        serial: String,
        /// Why it is not taken.
        refusal: Refusal,
    },
}

impl Ticket {
    /// The disk that this ticket allows to be written on this machine at this time (seconds since 1970).
    pub fn disk<'a>(&self, facts: &'a Facts, now: i64) -> Result<&'a Disk, TicketError> {
        if self.machine != facts.machine {
            return Err(TicketError::OtherMachine { ticket: self.machine, this: facts.machine });
        }
        if now > self.expires {
            return Err(TicketError::Expired);
        }
        let rule = DiskRule { wipe: self.wipe, ..DiskRule::by_serial(&self.disk_serial) };
        rule.choose(&facts.disks).map_err(|refusal| TicketError::Disk { serial: self.disk_serial.clone(), refusal })
    }
}
