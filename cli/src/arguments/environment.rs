//! `lodge env …` and `lodge apply`.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::{ArgGroup, Args, Subcommand, ValueEnum};
use lodge_model::live;

use super::Confirm;
use super::drain::Move;
use super::repair::{self, Fsck, Reinstall, Repair};
use crate::amount::{parse_cpus, parse_label, parse_seconds, parse_size};

/// `lodge env …`.
#[derive(Debug, Subcommand)]
pub enum Environment {
    /// Make one, and start it.
    ///
    /// It gets an address from the pools, a disk of its own on the share, and root's authorized keys. Then `ssh root@ADDRESS` works.
    #[command(after_help = "Example:\n  lodge env create web1 --template debian-13 --disk 10G --memory 1G --cpus 2 \
                            --ssh-key ~/.ssh/id_ed25519.pub --wait")]
    Create(Box<Create>),
    /// List all, one line each, with what each is waiting for.
    Ls,
    /// Show everything about one.
    Show {
        /// Its name.
        name: String,
    },
    /// Start it.
    Start(Running),
    /// Let its init shut it down. It stays stopped until it is started.
    Stop(Names),
    /// Stop it and start it again.
    Restart(Running),
    /// End it at once, without asking it. What was not yet on its disk is lost.
    Kill(Names),
    /// Remove it, its disk and its snapshots for good.
    Destroy(Destroy),
    /// Run a program in it. Exit status: that of the program (128 + N when signal N ended it), 255 when it could not be run.
    ///
    /// With a terminal on both ends the program gets a terminal too; else its input and output are passed on as they are.
    #[command(after_help = "Examples:\n  lodge env exec web1 -- bash\n  tar c site | lodge env exec web1 -- tar x -C /var/www")]
    Exec(Exec),
    /// Attach to its console: what was printed before comes first. Ctrl-] leaves it.
    Console {
        /// Its name.
        name: String,
    },
    /// Print what was said on its console, the newest part.
    Logs {
        /// Its name.
        name: String,
    },
    /// Show what they use.
    Stats {
        /// Their names; all where they are left out.
        names: Vec<String>,
        /// Show it again every two seconds, until Ctrl-C.
        #[arg(short, long)]
        watch: bool,
    },
    /// Keep its disk as it is now; while that is done it is frozen for a moment.
    Snapshot(Snapshot),
    /// List the snapshots of one.
    Snapshots {
        /// Its name.
        name: String,
    },
    /// Put its disk back to a snapshot. It must be stopped.
    Rollback(OfSnapshot),
    /// Remove a snapshot.
    RemoveSnapshot(OfSnapshot),
    /// Make a new one with a copy of its disk, and addresses of its own.
    Clone(Clone),
    /// Change limits, priority, group or restart policy; at once, while it runs.
    Set(Set),
    /// Make its disk larger, or change its memory and processors; at once, while it runs. A disk does not become smaller.
    Resize(Resize),
    /// Move it to another node, with the same disk and addresses: with its processes, or by a clean stop here and a start there.
    ///
    /// As a rule its `--move` (lodge env set) or the cluster's decides which. `lodge env show` says which it would be now, and why.
    #[command(after_help = "Examples:\n  lodge env move web1 --dry-run\n  lodge env move web1 --to n2 --wait")]
    Move(Move),
    /// Open its files to a clean system, on any node, and give them back: for what does not start or let anybody in any more.
    #[command(after_help = repair::EXAMPLES)]
    Repair(Box<Repair>),
    /// Check the file system on its disk, and with --yes mend it. It must be stopped. Exit status: 0 in order or mended, 7 damaged.
    #[command(
        after_help = "Example:\n  lodge env stop web1 --wait\n  lodge env fsck web1            looks, and writes nothing\n  \
                            lodge env snapshot web1 --wait   keeps it as it is\n  lodge env fsck web1 --yes      mends what is wrong"
    )]
    Fsck(Fsck),
    /// Give it a new system, clean as its template, with its old files at /old.
    #[command(
        after_help = "Name, address and limits stay. What is on its disk is kept as a snapshot, and is at /old in the new system, to \
                            be copied from and removed; what was at /old before goes. `lodge env rollback NAME SNAPSHOT` brings the old \
                            system back.\n\nExample:\n  lodge env reinstall web1 --template debian-13 --dry-run\n  \
                            lodge env reinstall web1 --template debian-13 --yes --wait\n  ssh root@ADDRESS cp -a /old/srv/. /srv/"
    )]
    Reinstall(Reinstall),
    /// Give it another name; its host name follows at the next start.
    Rename {
        /// Its name.
        name: String,
        /// The new name.
        new: String,
    },
}

/// `lodge env create`.
#[derive(Debug, Args)]
pub struct Create {
    /// Its name, which is its host name too: small letters, digits and hyphens.
    pub name: String,
    /// What it is made from; `lodge template ls` lists what there is.
    #[arg(long, short)]
    pub template: String,
    /// Size of its disk: 10G, 512M…
    #[arg(long, default_value = "10G", value_parser = parse_size)]
    pub disk: u64,
    /// Memory it may use.
    #[arg(long, default_value = "1G", value_parser = parse_size)]
    pub memory: u64,
    /// Processors it may use: 2, 0.5…
    #[arg(long, default_value = "1", value_parser = parse_cpus)]
    pub cpus: u32,
    /// A file with public keys, or one public key: who may log in as root. May be given several times.
    #[arg(long, value_name = "FILE|KEY")]
    pub ssh_key: Vec<String>,
    /// An address of a pool; the next free ones where it is left out. May be given several times.
    #[arg(long, value_name = "IP")]
    pub address: Vec<IpAddr>,
    /// The only node it may run on.
    #[arg(long)]
    pub node: Option<String>,
    /// A label that a node must have. May be given several times.
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse_label)]
    pub label: Vec<(String, String)>,
    /// Greater is started first and moved first.
    #[arg(long, default_value_t = lodge_model::environment::spec::PRIORITY)]
    pub priority: u32,
    /// Those of one group are kept on different nodes.
    #[arg(long, value_name = "GROUP")]
    pub anti_affinity: Option<String>,
    /// What happens when its init ends without having been told to.
    #[arg(long, value_enum, default_value_t = Restart::OnFailure)]
    pub restart: Restart,
    /// How it moves to another node.
    #[arg(long = "move", value_enum, value_name = "HOW", default_value_t = MoveBy::Cluster)]
    pub move_by: MoveBy,
    /// Even if no node could die any more then without loss (lodge cluster capacity). For operators.
    #[arg(long)]
    pub force: bool,
    /// Say what would be done, and do nothing.
    #[arg(long)]
    pub dry_run: bool,
    /// Whether to wait.
    #[command(flatten)]
    pub wait: Wait,
}

/// `--restart`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Restart {
    /// It is started again, with growing pauses.
    OnFailure,
    /// It is left as it is.
    Never,
}

/// `--move`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum MoveBy {
    /// As the cluster's settings say (lodge cluster settings).
    Cluster,
    /// With its processes and connections, where its template, a look at them, both nodes and its last moves speak for it.
    Auto,
    /// With its processes, whatever became of its last moves; where that is known not to be possible, by a restart.
    Live,
    /// By a clean stop here and a start there.
    Restart,
}

impl From<MoveBy> for live::MoveBy {
    fn from(asked: MoveBy) -> Self {
        match asked {
            MoveBy::Cluster => Self::Cluster,
            MoveBy::Auto => Self::Auto,
            MoveBy::Live => Self::Live,
            MoveBy::Restart => Self::Restart,
        }
    }
}

/// Some of them.
#[derive(Debug, Args)]
pub struct Names {
    /// Their names.
    #[arg(required = true)]
    pub names: Vec<String>,
    /// Whether to wait.
    #[command(flatten)]
    pub wait: Wait,
}

/// Some of them, which are to run then.
#[derive(Debug, Args)]
pub struct Running {
    /// Which.
    #[command(flatten)]
    pub names: Names,
    /// Even if no node could die any more then without loss (lodge cluster capacity). For operators.
    #[arg(long)]
    pub force: bool,
}

/// Whether to wait until it is done.
#[derive(Clone, Copy, Debug, Args)]
pub struct Wait {
    /// Wait until it is done, and tell meanwhile how it stands.
    #[arg(long)]
    pub wait: bool,
    /// How long to wait, in seconds; or 90s, 5m, 1h. It goes on afterwards, without being waited for.
    #[arg(long, default_value = "5m", value_parser = parse_seconds)]
    pub timeout: u64,
}

/// `lodge env destroy`.
#[derive(Debug, Args)]
pub struct Destroy {
    /// Their names.
    #[arg(required = true)]
    pub names: Vec<String>,
    /// What is asked before it is done.
    #[command(flatten)]
    pub confirm: Confirm,
    /// Whether to wait.
    #[command(flatten)]
    pub wait: Wait,
}

/// `lodge env exec`.
#[derive(Debug, Args)]
pub struct Exec {
    /// Name of the environment.
    pub name: String,
    /// Give the program a terminal, whatever standard input and output are here.
    #[arg(short, long, conflicts_with = "no_tty")]
    pub tty: bool,
    /// Give the program no terminal.
    #[arg(short = 'T', long)]
    pub no_tty: bool,
    /// Program and arguments, after `--`.
    #[arg(required = true, last = true)]
    pub command: Vec<String>,
}

/// `lodge env snapshot`.
#[derive(Debug, Args)]
pub struct Snapshot {
    /// Name of the environment.
    pub name: String,
    /// Name of the snapshot; the time where it is left out.
    pub snapshot: Option<String>,
    /// Whether to wait.
    #[command(flatten)]
    pub wait: Wait,
}

/// What is done to a snapshot.
#[derive(Debug, Args)]
pub struct OfSnapshot {
    /// Name of the environment.
    pub name: String,
    /// Name of the snapshot.
    pub snapshot: String,
    /// What is asked before it is done.
    #[command(flatten)]
    pub confirm: Confirm,
    /// Whether to wait.
    #[command(flatten)]
    pub wait: Wait,
}

/// `lodge env clone`.
#[derive(Debug, Args)]
pub struct Clone {
    /// Name of the environment.
    pub name: String,
    /// Name of the new one.
    pub new: String,
    /// Even if no node could die any more then without loss (lodge cluster capacity). For operators.
    #[arg(long)]
    pub force: bool,
    /// Whether to wait.
    #[command(flatten)]
    pub wait: Wait,
}

/// `lodge env set`.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("setting").required(true).multiple(true).args(["memory", "cpus", "priority", "anti_affinity", "restart", "move_by"]))]
pub struct Set {
    /// Name of the environment.
    pub name: String,
    /// Memory it may use.
    #[arg(long, value_parser = parse_size)]
    pub memory: Option<u64>,
    /// Processors it may use.
    #[arg(long, value_parser = parse_cpus)]
    pub cpus: Option<u32>,
    /// How it moves to another node. Said anew, what became of its moves before does not count any more.
    #[arg(long = "move", value_enum, value_name = "HOW")]
    pub move_by: Option<MoveBy>,
    /// Greater is started first and moved first.
    #[arg(long)]
    pub priority: Option<u32>,
    /// Those of one group are kept on different nodes; "" takes it out of its group.
    #[arg(long, value_name = "GROUP")]
    pub anti_affinity: Option<String>,
    /// What happens when its init ends without having been told to.
    #[arg(long, value_enum)]
    pub restart: Option<Restart>,
    /// Even if no node could die any more then without loss (lodge cluster capacity). For operators.
    #[arg(long)]
    pub force: bool,
}

/// `lodge env resize`.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("size").required(true).multiple(true).args(["disk", "memory", "cpus"]))]
pub struct Resize {
    /// Name of the environment.
    pub name: String,
    /// Size of its disk; it only grows.
    #[arg(long, value_parser = parse_size)]
    pub disk: Option<u64>,
    /// Memory it may use.
    #[arg(long, value_parser = parse_size)]
    pub memory: Option<u64>,
    /// Processors it may use.
    #[arg(long, value_parser = parse_cpus)]
    pub cpus: Option<u32>,
    /// Even if no node could die any more then without loss (lodge cluster capacity). For operators.
    #[arg(long)]
    pub force: bool,
}

/// `lodge apply`.
#[derive(Debug, Args)]
pub struct Apply {
    /// The file; "-" is standard input.
    #[arg(short, long)]
    pub file: PathBuf,
    /// What is asked before it is done.
    #[command(flatten)]
    pub confirm: Confirm,
    /// Whether to wait.
    #[command(flatten)]
    pub wait: Wait,
}
