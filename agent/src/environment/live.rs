//! Live moves: the processes of an environment are written down by criu on one node and go on from there on another, with their
//! connections.
//!
//! | file | what |
//! |---|---|
//! | `live/arguments.rs` | what criu is told; pure |
//! | `live/probe.rs` | whether criu can be asked at all: what the processes of an environment are |
//! | `live/node.rs` | whether this node can do it at all |
//! | `live/groups.rs` | the control groups that an environment has made for itself |
//! | `live/hook.rs` | what this program does when criu calls it |
//!
//! A checkpoint is a directory beside the disk on the share. It is whole when `RECORD` is in it, which criu's last word before it ends the
//! processes puts there (`hook.rs`). It is good for the next epoch alone and is renamed before anybody goes on from it: it can never meet
//! a disk that was written since.

pub mod arguments;
pub mod groups;
pub mod hook;
pub mod node;
pub mod probe;

use std::collections::BTreeMap;

use lodge_model::ids::EnvironmentId;
use serde::{Deserialize, Serialize};

/// In a checkpoint: what must be known of it besides criu's own images. While it is being made it is called `DRAFT`.
pub const RECORD: &str = "checkpoint.json";
/// The record of a checkpoint that is not whole.
pub const DRAFT: &str = "checkpoint.draft";
/// In a checkpoint: the environment's control groups.
pub const GROUPS: &str = "groups.json";
/// In a checkpoint: where `hook.rs` finds the environment on the node that works with it now.
pub const HERE: &str = "here.json";

/// What must be known of a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// Whose processes.
    pub environment: EnvironmentId,
    /// The epoch they ran in.
    pub epoch: u64,
    /// Seconds since 1970 of their start.
    pub since: i64,
    /// Files of the node that are mounted inside, by their names there.
    pub mounts: Vec<String>,
    /// Device and file system of the console, as criu names them.
    pub console: Option<String>,
    /// Settings of its network namespace (`lodge_network::settings`).
    pub settings: BTreeMap<String, String>,
}
