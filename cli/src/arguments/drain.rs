//! `lodge node drain` and what belongs to it, `lodge env move`, `lodge cluster settings`.

use clap::{ArgGroup, Args};

use super::Confirm;
use super::environment::{MoveBy, Wait};
use crate::amount::parse_seconds;

/// `lodge node drain`.
#[derive(Debug, Args)]
pub struct Drain {
    /// Name of the node.
    pub node: String,
    /// Stop cleanly what could not be moved by then: 90s, 15m, 1h. Without it the drain waits for as long as it takes.
    #[arg(long, value_parser = parse_seconds)]
    pub deadline: Option<u64>,
    /// Why, for whoever looks at the node.
    #[arg(long, default_value = "")]
    pub reason: String,
    /// Even if no other node could die any more then without loss (lodge cluster capacity).
    #[arg(long)]
    pub force: bool,
    /// Show the plan, and change nothing.
    #[arg(long)]
    pub dry_run: bool,
    /// Cancel the drain that is going on: what has not been told to stop stays.
    #[arg(long, conflicts_with_all = ["deadline", "reason", "dry_run", "wait"])]
    pub cancel: bool,
    /// Show how the drain stands; with --wait follow it to its end.
    #[arg(long, conflicts_with_all = ["deadline", "reason", "dry_run", "cancel"])]
    pub status: bool,
    /// What is waited for.
    #[command(flatten)]
    pub wait: DrainWait,
}

/// Waiting is the usual thing where somebody looks on.
#[derive(Clone, Copy, Debug, Args)]
pub struct DrainWait {
    /// Wait until the certificate is issued, and tell meanwhile how it stands. As a rule on a terminal.
    #[arg(long)]
    pub wait: bool,
    /// Do not wait.
    #[arg(long, conflicts_with = "wait")]
    pub no_wait: bool,
}

/// `lodge node poweroff` and `lodge node reboot`.
#[derive(Debug, Args)]
pub struct Down {
    /// Name of the node.
    pub node: String,
    /// Stop cleanly what could not be moved by then; as the cluster's settings say where it is left out.
    #[arg(long, value_parser = parse_seconds)]
    pub deadline: Option<u64>,
    /// Why, for whoever looks at the node.
    #[arg(long, default_value = "")]
    pub reason: String,
    /// Even if no other node could die any more then without loss (lodge cluster capacity).
    #[arg(long)]
    pub force: bool,
    /// What is asked before it is done.
    #[command(flatten)]
    pub confirm: Confirm,
    /// What is waited for.
    #[command(flatten)]
    pub wait: DrainWait,
}

/// `lodge env move`.
#[derive(Debug, Args)]
pub struct Move {
    /// Its name.
    pub name: String,
    /// The node that is to take it; the best one where it is left out.
    #[arg(long, value_name = "NODE")]
    pub to: Option<String>,
    /// With its processes and connections, which stand still meanwhile, whatever became of its last moves. Where that is known or turns
    /// out not to be possible it is stopped here and started there.
    #[arg(long)]
    pub live: bool,
    /// By a clean stop here and a start there.
    #[arg(long, conflicts_with = "live")]
    pub restart: bool,
    /// Say where it would go, how and why so, and change nothing.
    #[arg(long, conflicts_with = "wait")]
    pub dry_run: bool,
    /// What is waited for.
    #[command(flatten)]
    pub wait: Wait,
}

/// `lodge cluster set`.
#[derive(Debug, Args)]
#[command(group(ArgGroup::new("setting").required(true).multiple(true)))]
pub struct Set {
    /// How long a node that an operator or a program switches off waits for its environments.
    #[arg(long, group = "setting", value_name = "TIME", value_parser = parse_seconds)]
    pub operator_deadline: Option<u64>,
    /// The same for the power button and Ctrl-Alt-Del.
    #[arg(long, group = "setting", value_name = "TIME", value_parser = parse_seconds)]
    pub button_deadline: Option<u64>,
    /// The same for a UPS that runs out.
    #[arg(long, group = "setting", value_name = "TIME", value_parser = parse_seconds)]
    pub ups_deadline: Option<u64>,
    /// Moves that leave one node at a time.
    #[arg(long, group = "setting", value_name = "N")]
    pub moves_per_source: Option<u32>,
    /// Moves that come to one node at a time.
    #[arg(long, group = "setting", value_name = "N")]
    pub moves_per_target: Option<u32>,
    /// Moves at a time in the whole cluster.
    #[arg(long, group = "setting", value_name = "N")]
    pub moves_per_cluster: Option<u32>,
    /// How environments move of which nothing else is said: auto, live or restart.
    #[arg(long = "move", group = "setting", value_enum, value_name = "HOW")]
    pub move_by: Option<MoveBy>,
    /// Factor of all times after which a silent node is taken for dead: more than 1 for machines or networks that stall.
    #[arg(long, group = "setting", value_name = "FACTOR")]
    pub patience: Option<u32>,
    /// Refuse what would leave no room for the environments of a node that dies.
    #[arg(long, group = "setting", value_name = "true|false")]
    pub spare: Option<bool>,
    /// Where neither share node nor BMC has a proof: take a node's lease and watchdog for one after so long; 0 for never. Refused where a
    /// node could go on for longer (lodge cluster fencing).
    #[arg(long, group = "setting", value_name = "TIME", value_parser = parse_seconds)]
    pub lease_wait: Option<u64>,
}
