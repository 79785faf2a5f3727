//! What a node is told to do once, and how it went.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::TemplateRef;
use crate::ids::{Digest, EnvironmentId, TaskId};

/// Something that is done once. Travels in `Orders` until its outcome has been reported.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Task {
    /// Names it; a task that has been done is not done again.
    pub id: TaskId,
    /// What to do.
    pub what: TaskKind,
}

/// What is done once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case", tag = "task")]
pub enum TaskKind {
    /// Keep the contents of the disk as they are now; a running environment is frozen for it.
    Snapshot {
        /// Whose disk.
        environment: EnvironmentId,
        /// Name of the snapshot.
        snapshot: String,
    },
    /// Put a snapshot in place of the disk of an environment that does not run.
    Rollback {
        /// Whose disk.
        environment: EnvironmentId,
        /// Name of the snapshot.
        snapshot: String,
    },
    /// Remove a snapshot.
    RemoveSnapshot {
        /// Whose.
        environment: EnvironmentId,
        /// Name of the snapshot.
        snapshot: String,
    },
    /// Check all of the file system on the disk of an environment that does not run.
    CheckDisk {
        /// Whose disk.
        environment: EnvironmentId,
        /// Mend what is wrong with it; nothing is written otherwise.
        mend: bool,
    },
    /// Make the disk of a new environment from that of another one (frozen for it, if it runs here).
    Clone {
        /// Whose disk is copied.
        from: EnvironmentId,
        /// Whose disk is made.
        to: EnvironmentId,
    },
    /// Make a template on the share from an upload that the center holds (`GET /node/uploads/{upload}`).
    ImportTemplate {
        /// The upload; its SHA-256.
        upload: Digest,
    },
    /// Remove a template from the share.
    RemoveTemplate {
        /// Digest of the image.
        digest: Digest,
    },
}

/// How a task stands. Travels in `Heartbeat` until the task is not in the orders any more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TaskReport {
    /// Which.
    pub id: TaskId,
    /// How it stands.
    pub outcome: TaskOutcome,
}

/// How a task stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case", tag = "outcome")]
pub enum TaskOutcome {
    /// Going on.
    Running {
        /// 0 to 100.
        percent: u8,
    },
    /// Done.
    Done {
        /// Bytes of a snapshot on the share, where one was made.
        #[serde(default)]
        bytes: u64,
        /// The template, where one was made.
        #[serde(default)]
        template: Option<TemplateRef>,
    },
    /// A disk has been checked.
    Checked(DiskCheck),
    /// Not done, and it left nothing behind.
    Failed {
        /// For people.
        error: String,
    },
}

/// What a check of a disk has found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DiskCheck {
    /// In one word.
    pub verdict: Verdict,
    /// The environment was not shut down: its journal holds what was written last, and is played back at its next start, or when the disk is
    /// mended. Until then some of it may look wrong that is not.
    pub has_journal: bool,
    /// What e2fsck says, its beginning; empty where all is in order.
    pub text: String,
}

/// How a file system is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// Nothing is wrong.
    InOrder,
    /// Something was wrong, and is not any more.
    Mended,
    /// Something is wrong.
    Damaged,
}
