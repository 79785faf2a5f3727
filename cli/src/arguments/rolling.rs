//! `lodge cluster reboot`.

use clap::Args;

use super::Confirm;
use super::drain::DrainWait;
use crate::amount::parse_seconds;

/// `lodge cluster reboot`.
#[derive(Debug, Args)]
pub struct Reboot {
    /// Nodes at a time.
    #[arg(long, value_name = "N", default_value_t = 1, conflicts_with_all = LATER)]
    pub at_once: u32,
    /// Stop cleanly what could not be moved off a node by then: 90s, 15m, 1h; as the cluster's settings say where it is left out.
    #[arg(long, value_name = "TIME", value_parser = parse_seconds, conflicts_with_all = LATER)]
    pub deadline: Option<u64>,
    /// How long a node may take from when it went down until it is ready again.
    #[arg(long, value_name = "TIME", value_parser = parse_seconds, default_value = "15m", conflicts_with_all = LATER)]
    pub patience: u64,
    /// Why, for whoever looks at the nodes.
    #[arg(long, default_value = "", conflicts_with_all = LATER)]
    pub reason: String,
    /// Show how far it is, or how the last one ended.
    #[arg(long)]
    pub status: bool,
    /// Go on after it has stopped: a node that is still away is left out.
    #[arg(long = "continue", conflicts_with = "status")]
    pub go_on: bool,
    /// Restart no further node.
    #[arg(long, conflicts_with_all = ["status", "go_on"])]
    pub cancel: bool,
    /// What is asked before it is done.
    #[command(flatten)]
    pub confirm: Confirm,
    /// What is waited for.
    #[command(flatten)]
    pub wait: DrainWait,
}

/// What is said about a reboot that has been ordered already.
const LATER: [&str; 3] = ["status", "go_on", "cancel"];
