//! Draining: every environment leaves a node, the node proves it, and only then it may go.
//!
//! | path below `/api/v1` | who | what |
//! |---|---|---|
//! | `POST /nodes/{name}/drain` | operator | drain (`DrainOrder`); with `dry_run` only the plan is answered (`DrainView`) |
//! | `GET /nodes/{name}/drain` | operator | how it stands; `?wait=true&after=<version>` is answered when it has changed |
//! | `DELETE /nodes/{name}/drain` | operator | *undrain*: the node takes environments again; what has not begun to move stays |
//! | `GET /nodes/{name}/certificate` | operator | the newest certificate with every verdict (`CertificateView`) |
//! | `POST /environments/{name}/move` | operator, user | move one (`MoveOrder`) |
//! | `POST /node/leaving` | agent | the machine goes down (`Leaving`, `LeavingReply`) |
//! | `POST /node/certificate` | agent | what it counted, signed (`SignedCertificate`, `CertificateReply`) |

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::ids::{BootId, NodeId, TaskId};
use crate::live::MoveBy;
use crate::reach::ReachView;
pub use crate::settings::{DEADLINES, Settings, SettingsChange};

/// Why a node is drained.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Cause {
    /// An operator asked the center for it.
    Operator,
    /// Its power button or Ctrl-Alt-Del.
    Button,
    /// SIGPWR, from a UPS daemon.
    Ups,
    /// Something on the machine asked for a shutdown: `poweroff`, `busctl`, a program.
    Request,
}

impl Cause {
    /// For people.
    pub fn words(self) -> &'static str {
        match self {
            Self::Operator => "an operator",
            Self::Button => "its power button",
            Self::Ups => "its power supply",
            Self::Request => "a request on the machine",
        }
    }
}

/// How a node goes down after its drain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Power {
    /// Off.
    Poweroff,
    /// Restart.
    Reboot,
}

/// Body of `POST /nodes/{name}/drain`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DrainOrder {
    /// Seconds after which what could not be moved is stopped cleanly. Left out: it waits for as long as it takes, or, where the node
    /// is to go down afterwards, as the settings say.
    pub deadline: Option<u32>,
    /// Why, for people.
    pub reason: String,
    /// Answer with the plan and change nothing.
    pub dry_run: bool,
    /// Go down once it is drained.
    pub then: Option<Power>,
    /// Even if no other node could die any more then without loss.
    pub force: bool,
}

/// How a drain stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum DrainState {
    /// A plan; nothing has been changed.
    Planned,
    /// Environments leave.
    Draining,
    /// Nothing is assigned any more: the node counts what is left on it.
    Certifying,
    /// The certificate has been issued.
    Drained,
}

/// What has become of an environment of a drained node, or is to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// It is still to leave.
    Waits,
    /// It is being stopped here.
    Stopping,
    /// It is being started elsewhere.
    Starting,
    /// It runs elsewhere.
    Moved,
    /// It runs elsewhere, with the processes and connections that it had here.
    MovedLive,
    /// It was shut down, and has not been started elsewhere yet.
    Stopped,
    /// It had to be ended by force, and has not been started elsewhere yet.
    Killed,
}

impl Verdict {
    /// Nothing more becomes of it in this drain.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Moved | Self::MovedLive | Self::Stopped | Self::Killed)
    }
}

/// One environment of a drain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DrainItem {
    /// Its name.
    pub environment: String,
    /// The node that it goes to or has gone to; absent while none can take it.
    pub to: Option<String>,
    /// How it moves: `live`, or `restart`.
    pub way: String,
    /// Why it moves that way, for people.
    #[serde(default)]
    pub because: String,
    /// How it stands.
    pub verdict: Verdict,
    /// What keeps it here, or what is worth knowing of how it went, for people.
    pub reason: String,
    /// Milliseconds that its last move took, where there was one: what to expect.
    pub expected_ms: Option<u64>,
    /// Milliseconds from the order to stop until it ran elsewhere.
    pub gap_ms: Option<u64>,
}

/// `GET /nodes/{name}/drain`, and the answer to ordering one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DrainView {
    /// Name of the node.
    pub node: String,
    /// How it stands.
    pub state: DrainState,
    /// Who wants it.
    pub cause: Cause,
    /// Why, for people.
    pub reason: String,
    /// When it was ordered.
    pub ordered: Timestamp,
    /// When what is left is stopped.
    pub deadline: Option<Timestamp>,
    /// How the node goes down afterwards.
    pub then: Option<Power>,
    /// Its environments.
    pub items: Vec<DrainItem>,
    /// What it waits for, for people; empty when it goes on.
    pub waits: String,
    /// Grows with every change.
    pub version: u64,
}

/// What an agent counts on its node: what the kernel knows, not what the agent remembers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Counts {
    /// Processes in control groups of environments.
    pub processes: u32,
    /// Mounts of environments.
    pub mounts: u32,
    /// Loop devices whose file is on the share.
    pub loop_devices: u32,
    /// Open files on the share, but the agent's own directory there.
    pub open_files: u32,
}

impl Counts {
    /// Nothing is left.
    pub fn are_zero(&self) -> bool {
        *self == Self::default()
    }

    /// What is left, for people.
    pub fn words(&self) -> String {
        let Self { processes, mounts, loop_devices, open_files } = self;
        format!(
            "{processes} processes in control groups of environments, {mounts} mounts of environments, {loop_devices} loop devices on \
             the share, {open_files} open files on the share"
        )
    }
}

/// What a node says when it has been drained.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Certificate {
    /// The question that it answers (`Leave::Certify`).
    pub id: TaskId,
    /// The node.
    pub node: NodeId,
    /// Its boot.
    pub boot: BootId,
    /// Seconds since 1970, by the node's clock.
    pub at: i64,
    /// What it counted.
    pub counts: Counts,
}

/// A certificate as it travels: the very bytes that were signed, and the signature.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SignedCertificate {
    /// JSON of a `Certificate`.
    pub payload: String,
    /// ECDSA P-256/SHA-256 signature (ASN.1 DER) over the payload by the node's key, in base64.
    pub signature: String,
}

/// Answer to `POST /node/certificate`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CertificateReply {
    /// It is issued. Otherwise the node counts again.
    pub issued: bool,
    /// Why it is not, for people.
    pub why: String,
}

/// `GET /nodes/{name}/certificate`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CertificateView {
    /// Name of the node.
    pub node: String,
    /// What the node said.
    pub certificate: Certificate,
    /// The same as it was signed.
    pub signed: SignedCertificate,
    /// The node's certificate (X.509, DER, base64) that the signature was checked with.
    pub signer: String,
    /// When the center issued it.
    pub issued: Timestamp,
    /// Why the node was drained.
    pub cause: Cause,
    /// Why, for people.
    pub reason: String,
    /// What has become of its environments.
    pub items: Vec<DrainItem>,
}

/// Body of `POST /environments/{name}/move`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct MoveOrder {
    /// The node that is to take it; the best one where it is left out.
    pub to: Option<String>,
    /// How; as it is said of the environment where it is left out.
    pub by: Option<MoveBy>,
    /// Say where it would go and how, and change nothing.
    pub dry_run: bool,
}

/// A move of an environment, done or going on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MoveView {
    /// The node it leaves.
    pub from: String,
    /// The node that takes it; absent while none can.
    pub to: Option<String>,
    /// How: `live`, or `restart`.
    pub way: String,
    /// Why that way, for people: of a move that is done, where it was to be live and was not, in `not_live`.
    #[serde(default)]
    pub because: String,
    /// It was to be live, and was not.
    #[serde(default)]
    pub not_live: Option<NotLive>,
    /// When it ended.
    pub at: Option<Timestamp>,
    /// Milliseconds from the order to stop until its old node had let go of it.
    pub stop_ms: Option<u64>,
    /// Milliseconds from the order to stop until it ran on its new node.
    pub gap_ms: Option<u64>,
    /// What is worth knowing of it, for people.
    pub note: String,
    /// Whether it was reached at its addresses afterwards; absent until that was tried.
    #[serde(default)]
    pub reach: Option<ReachView>,
}

/// Why a move that was to be live was a restart.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NotLive {
    /// For people.
    pub why: String,
    /// Its processes had been ended already, in the middle of what they did; otherwise they were shut down as for every restart.
    pub ended: bool,
}

/// Body of `POST /node/leaving`: the machine goes down, whatever the center says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Leaving {
    /// This boot.
    pub boot: BootId,
    /// Who asked.
    pub cause: Cause,
    /// How.
    pub power: Power,
    /// Seconds that the machine can wait at most.
    pub seconds: u32,
}

/// Answer to `Leaving`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LeavingReply {
    /// Names the certificate that the node waits for.
    pub id: TaskId,
    /// Seconds that the center takes to move what it can. What is left then is shut down.
    pub seconds: u32,
    /// Seconds after which the machine is to be down, whatever is left: by the settings.
    pub total: u32,
}

/// What a drained node is to do, in its `Orders`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case", tag = "leave")]
pub enum Leave {
    /// Nothing is assigned any more: count, sign, say so.
    Certify {
        /// This question.
        id: TaskId,
        /// The boot it is for.
        boot: BootId,
    },
    /// Go down.
    GoDown {
        /// The boot it is for.
        boot: BootId,
        /// How.
        power: Power,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_nothing_at_all_is_zero() {
        assert!(Counts::default().are_zero());
        assert!(!Counts { open_files: 1, ..Counts::default() }.are_zero());
    }
}
