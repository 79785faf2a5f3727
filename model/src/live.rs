//! Whether an environment moves with its processes: who decides, and what is known beforehand. `docs/decisions/0024`.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// How an environment is to move: said of one (`Spec`), of one move (`MoveOrder`), or of all (`Settings`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum MoveBy {
    /// As the cluster's settings say.
    #[default]
    Cluster,
    /// With its processes, where its template, the probe, both nodes and its last moves speak for it; else by a restart.
    Auto,
    /// With its processes, whatever became of its last moves; by a restart where it is known not to be possible.
    Live,
    /// By a clean stop and a start.
    Restart,
}

impl MoveBy {
    /// The same word as in JSON.
    pub fn word(self) -> &'static str {
        match self {
            Self::Cluster => "cluster",
            Self::Auto => "auto",
            Self::Live => "live",
            Self::Restart => "restart",
        }
    }
}

/// What a node has seen of the processes of a running environment, without stopping them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case", tag = "probe")]
pub enum Probe {
    /// Nothing speaks against keeping them.
    Clear,
    /// They cannot be kept.
    Obstacle {
        /// What keeps them from it, for people.
        why: String,
    },
}

/// What a node can do about processes of environments, found once a boot.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Capability {
    /// Why it can neither keep them nor let them go on, as `criu check` says; empty where it can.
    pub problem: String,
    /// Kernel release. Processes go on only with the one that they were kept with.
    pub kernel: String,
    /// What its processors can do, as `/proc/cpuinfo` has it (`flags`), sorted. Processes may use all that the old ones could.
    pub cpu: Vec<String>,
}
