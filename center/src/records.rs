//! What the center keeps of machines, nodes, tickets and tokens. Plain values; the flows change them.

use std::collections::BTreeMap;

use jiff::Timestamp;
use lodge_model::answer::{CenterAnswer, SiteAnswer};
use lodge_model::api::{InstallOrder, NodeState, Orders, Phase, ShareHealth, StepTime};
use lodge_model::facts::Facts;
use lodge_model::guard::Guard;
use lodge_model::ids::{BootId, MachineId, NodeId, TicketId};
use lodge_model::layout::Slot;
use lodge_model::live::Capability;
use lodge_model::node::Role;
use lodge_model::ticket::{SignedTicket, Ticket};
use serde::{Deserialize, Serialize};

use crate::failover::records::Ban;
use crate::store::Record;

/// A machine that has said something at least once.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Machine {
    /// Who it is.
    pub id: MachineId,
    /// Its hardware, as last reported by its installer or agent.
    pub facts: Option<Facts>,
    /// The host name its answer asks for.
    pub asked_name: Option<String>,
    /// An operator's word for it: approval, disk, wipe.
    pub order: Option<InstallOrder>,
    /// The node it is, once admitted.
    pub node: Option<NodeId>,
    /// Its newest ticket.
    pub ticket: Option<TicketId>,
    /// What its installation waits for or failed with, for people; empty when all goes well.
    pub reason: String,
    /// The step its installer is at, and percent.
    pub step: Option<(String, u8)>,
    /// Times of the steps of its last installation.
    pub install: Vec<StepTime>,
    /// When its installer last said something.
    pub seen: Timestamp,
}

/// As many former boots of a node are remembered: a request cannot be under way for longer than that many starts.
pub const FORMER_KEPT: usize = 8;

/// A node: a machine that has been admitted.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Node {
    /// Who it is; survives a reinstall.
    pub id: NodeId,
    /// The machine it is on.
    pub machine: MachineId,
    /// Host name.
    pub name: String,
    /// What it does.
    pub roles: Vec<Role>,
    /// When it was admitted.
    pub admitted: Timestamp,
    /// SHA-256 (hexadecimal) of its newest certificate's DER form; no other one is accepted.
    pub certificate: Option<String>,
    /// Address it was enrolled or registered with.
    pub address: Option<String>,
    /// When its last installation was reported complete, and what was installed.
    pub installed: Option<Installed>,
    /// Its last registration.
    pub registered: Option<Registered>,
    /// Boots that were registered before, the newest last; at most `FORMER_KEPT`. What comes late from one of them counts for nothing.
    #[serde(default)]
    pub former: Vec<BootId>,
    /// Installed, and not registered since. A flag and not two times compared: clocks are set between the two.
    pub is_fresh: bool,
    /// The share as it sees it.
    pub share: ShareHealth,
    /// Newest generation of orders it has carried out.
    pub carried_out: u64,
    /// What keeps it from carrying out an order.
    pub problem: Option<String>,
    /// Last sign of life of its agent, at most `live::WRITE_AFTER` old while it lives.
    pub seen: Option<Timestamp>,
    /// Why it went down in order; cleared by the next registration.
    pub off: Option<String>,
    /// Its newest orders.
    pub orders: Option<Orders>,
    /// A reinstall that has been ordered. Holds a join token in clear text, because it must be told; it is bound to the machine.
    pub reinstall: Option<CenterAnswer>,
    /// The state that the event log last told of.
    pub told: Option<NodeState>,
    /// Labels that environments can ask for.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// The boot that an operator has said has ended. It gets nothing to do any more.
    #[serde(default)]
    pub confirmed_off: Option<BootId>,
    /// The boot that has said on the share that nothing is left of it.
    #[serde(default)]
    pub said_farewell: Option<BootId>,
    /// What it can do about processes of environments, in the boot that is registered.
    #[serde(default)]
    pub criu: Option<Capability>,
    /// A boot of it that is to be cut from the share, or is.
    #[serde(default)]
    pub ban: Option<Ban>,
    /// What it attests of its lease and its watchdog.
    #[serde(default)]
    pub guard: Option<Guard>,
}

impl Node {
    /// The boot of it that is fenced with proof.
    pub fn fenced(&self) -> Option<BootId> {
        self.ban.as_ref().filter(|ban| ban.confirmed.is_some()).map(|ban| ban.boot)
    }

    /// Whether what a boot of it held may be given to others: another one has registered, it is fenced, or its end was confirmed.
    pub fn has_ended(&self, boot: BootId) -> bool {
        self.registered.as_ref().is_some_and(|registered| registered.boot != boot)
            || [self.confirmed_off, self.said_farewell, self.fenced()].contains(&Some(boot))
    }
}

/// What `MachineEvent::Installed` said.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Installed {
    /// When.
    pub at: Timestamp,
    /// Version of the base OS.
    pub version: String,
    /// Slot.
    pub slot: Slot,
    /// Disk.
    pub disk_serial: String,
}

/// What `Register` said, without the facts.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Registered {
    /// When.
    pub at: Timestamp,
    /// Boot id.
    pub boot: BootId,
    /// Version of the base OS.
    pub version: String,
    /// Kernel release.
    pub kernel: String,
    /// Slot.
    pub slot: Slot,
    /// Disk.
    pub disk_serial: String,
    /// Times of this boot.
    pub phases: Vec<Phase>,
}

/// A ticket and what has become of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TicketRecord {
    /// What is allowed.
    pub ticket: Ticket,
    /// As it is given out.
    pub signed: SignedTicket,
    /// Where it stands.
    pub state: TicketState,
    /// When it was made.
    pub created: Timestamp,
}

/// `open` → `used` → `done`; `withdrawn` from the first two. Expiry is a question of time, not stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TicketState {
    /// Given, or ready to be given; nothing has been written.
    Open,
    /// Its installation has begun.
    Used,
    /// Its installation is complete.
    Done,
    /// Replaced or taken back.
    Withdrawn,
}

impl TicketRecord {
    /// Whether it still allows something at that time.
    pub fn is_active(&self, now: Timestamp) -> bool {
        matches!(self.state, TicketState::Open | TicketState::Used) && !self.has_expired(now)
    }

    /// Whether it waits to be used at that time.
    pub fn is_open(&self, now: Timestamp) -> bool {
        self.state == TicketState::Open && !self.has_expired(now)
    }

    /// Whether its time is over.
    pub fn has_expired(&self, now: Timestamp) -> bool {
        now.as_second() > self.ticket.expires
    }

    /// Its state in the API's words.
    pub fn state_word(&self, now: Timestamp) -> &'static str {
        match self.state {
            TicketState::Done => "done",
            TicketState::Withdrawn => "withdrawn",
            _ if self.has_expired(now) => "expired",
            TicketState::Open => "open",
            TicketState::Used => "used",
        }
    }
}

/// Takes a name for a node. Its own record, so that two nodes cannot take one name.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct NameClaim {
    /// The name.
    pub name: String,
    /// Whose it is.
    pub node: NodeId,
}

/// A token, by its digest alone.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TokenRecord {
    /// SHA-256 of the token, hexadecimal.
    pub digest: String,
    /// What it is good for.
    pub purpose: Purpose,
    /// The only machine it is good for; set by the first use.
    pub bound: Option<MachineId>,
    /// When it becomes void; never, where it is absent.
    pub expires: Option<Timestamp>,
    /// The user it speaks for, if it is a user's.
    #[serde(default)]
    pub user: Option<String>,
}

/// What a token is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Purpose {
    /// A machine may ask to be installed.
    Join,
    /// The center's own machine may enrol without a ticket.
    Local,
    /// Everything an operator does.
    Operator,
    /// What a user does with her own environments.
    User,
}

/// The site's settings, taken over at the first start.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Site {
    /// As answered.
    pub answer: SiteAnswer,
}

impl Record for Machine {
    const KIND: &'static str = "machine";
    fn key(&self) -> String {
        self.id.to_string()
    }
}

impl Record for Node {
    const KIND: &'static str = "node";
    fn key(&self) -> String {
        self.id.to_string()
    }
}

impl Record for TicketRecord {
    const KIND: &'static str = "ticket";
    fn key(&self) -> String {
        self.ticket.id.to_string()
    }
}

impl Record for NameClaim {
    const KIND: &'static str = "name";
    fn key(&self) -> String {
        self.name.clone()
    }
}

impl Record for TokenRecord {
    const KIND: &'static str = "token";
    fn key(&self) -> String {
        self.digest.clone()
    }
}

impl Record for Site {
    const KIND: &'static str = "site";
    fn key(&self) -> String {
        "site".to_owned()
    }
}
