//! What can be asked for. The help texts are the manual.

pub mod drain;
pub mod environment;
pub mod failover;
pub mod hosting;
pub mod repair;
pub mod rolling;

use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;
use lodge_model::ids::Fingerprint;

use crate::amount::parse_label;
use drain::{Down, Drain, Set};
use environment::{Apply, Environment};
use failover::{Arm, Bmc, Disarm, Incident};
use hosting::{Pool, Template, User};
use rolling::Reboot;

const EXIT_CODES: &str = "\
Exit status:
  0  done
  1  failed
  2  the command line is wrong, or a question was answered with no
  3  there is no such node, environment or thing
  4  not allowed: the token is wrong or has not the right
  5  the center cannot be reached, or is not the one that was named
  6  refused as things are now: try again later, or look at `lodge node show` and `lodge env show`
  `lodge env exec`: that of the program, 255 when it could not be run

Environment:
  LODGE_URL, LODGE_CA, LODGE_TOKEN  take the place of what `lodge login` stored
  XDG_CONFIG_HOME                   where it is stored: lodge/config.toml below it (or below ~/.config)";

const APPLY_FILE: &str = "\
The file:
  [defaults]                 # for all below; optional
  template = \"debian-13\"
  ssh-key-files = [\"~/.ssh/id_ed25519.pub\"]

  [[environment]]
  name = \"web1\"
  disk = \"10G\"
  memory = \"1G\"
  cpus = 2
  # also: ssh-keys, addresses, node, node-labels, priority, anti-affinity, restart";

/// See and steer the machines and the environments of a Lodge cluster.
#[derive(Debug, Parser)]
#[command(name = "lodge", version, about, after_help = EXIT_CODES, propagate_version = true)]
pub struct Arguments {
    /// Print JSON for programs instead of tables: one value, or for events one object a line.
    #[arg(long, global = true)]
    pub json: bool,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Remember a center, its fingerprint and your token; the connection is checked first.
    ///
    /// A new center prints the whole line once, on its console, at its first start.
    Login(Login),
    /// Environments: personal servers.
    #[command(subcommand, visible_alias = "environment")]
    Env(Environment),
    /// Make environments be as a file says. What would be done is shown first; nothing is ever removed.
    #[command(after_help = APPLY_FILE)]
    Apply(Apply),
    /// What environments are made from.
    #[command(subcommand)]
    Template(Template),
    /// Addresses that environments may have.
    #[command(subcommand)]
    Pool(Pool),
    /// People who have environments of their own.
    #[command(subcommand)]
    User(User),
    /// Nodes, and machines that want to become one.
    #[command(subcommand)]
    Node(Node),
    /// Nodes that fell silent, and what became of what they ran.
    #[command(subcommand)]
    Incident(Incident),
    /// Permissions to write a disk.
    #[command(subcommand)]
    Ticket(Ticket),
    /// Tokens by which machines may ask to be installed.
    #[command(subcommand)]
    Token(Token),
    /// The cluster as a whole.
    #[command(subcommand)]
    Cluster(Cluster),
    /// Print completions for a shell: `lodge completions bash > /etc/bash_completion.d/lodge`.
    Completions {
        /// The shell.
        shell: Shell,
    },
}

/// `lodge login`.
#[derive(Debug, Args)]
pub struct Login {
    /// The center: https://ADDRESS:PORT
    pub url: String,
    /// Fingerprint of the center's CA certificate: sha256:…
    #[arg(long, env = "LODGE_CA")]
    pub ca: Fingerprint,
    /// Your token; "-" reads it from standard input, so that it is not seen in the list of processes.
    #[arg(long, env = "LODGE_TOKEN", hide_env_values = true)]
    pub token: String,
}

/// `lodge node …`.
#[derive(Debug, Subcommand)]
pub enum Node {
    /// List all, one line each, with what each is waiting for.
    Ls,
    /// Show everything about one: hardware, disk, versions, share, times of the installation and of the last boot.
    Show {
        /// Name of the node, or a machine id.
        node: String,
    },
    /// Show what happened, oldest first.
    Events {
        /// Name of the node, or a machine id; all where it is left out.
        node: Option<String>,
        /// Go on with new events as they happen, until Ctrl-C.
        #[arg(short, long)]
        follow: bool,
        /// Only events with a greater number than this.
        #[arg(long, default_value_t = 0)]
        after: i64,
    },
    /// Print what the machine said on its console: of its installation and of its last boots.
    ConsoleLog {
        /// Name of the node, or a machine id.
        node: String,
    },
    /// Let a waiting machine be installed.
    Approve(Approve),
    /// Install a node anew. It keeps its name and its id; everything on its disk is lost.
    Reinstall(Reinstall),
    /// Set labels of a node, for `lodge env create --label`; KEY= removes one.
    Label {
        /// Name of the node.
        node: String,
        /// KEY=VALUE
        #[arg(required = true, value_parser = parse_label)]
        labels: Vec<(String, String)>,
    },
    /// Say that a silent node is really off, so that its environments may start elsewhere.
    ///
    /// If it is not off, two copies of an environment can run. Look at the machine.
    ConfirmOff {
        /// Name of the node.
        node: String,
        /// What is asked before it is done.
        #[command(flatten)]
        confirm: Confirm,
    },
    /// The BMC of a node: by it a machine that hangs is switched off for certain.
    #[command(subcommand)]
    Bmc(Bmc),
    /// Move every environment off a node, and prove it: the node signs that nothing is left. Nothing new comes to it until `undrain`.
    ///
    /// First comes the plan: where each goes, and what keeps those that cannot go. One that cannot go blocks only itself.
    #[command(
        after_help = "Examples:\n  lodge node drain n1 --dry-run\n  lodge node drain n1 --deadline 15m --reason 'new memory' --wait\n  \
                            lodge node drain n1 --status\n  lodge node drain n1 --cancel"
    )]
    Drain(Drain),
    /// Let a node that was drained take environments again.
    Undrain {
        /// Name of the node.
        node: String,
    },
    /// Show the newest certificate of a node, checked: what it counted when it was drained, and what became of each environment.
    Certificate {
        /// Name of the node.
        node: String,
    },
    /// Drain a node, and switch it off.
    #[command(visible_alias = "off")]
    Poweroff(Down),
    /// Drain a node, and restart it. It takes environments again when it is back.
    Reboot(Down),
    /// Take a node out of the cluster for good: its certificate no longer counts, it may no longer mount the share.
    Forget(Forget),
}

/// `lodge node approve`.
#[derive(Debug, Args)]
pub struct Approve {
    /// Machine id, or the name `lodge node ls` shows.
    pub machine: String,
    /// Serial number of the disk; by the site's rule where it is left out.
    #[arg(long)]
    pub disk: Option<String>,
    /// The disk may be overwritten although something is on it.
    #[arg(long)]
    pub wipe: bool,
    /// Host name for the node.
    #[arg(long)]
    pub name: Option<String>,
    /// What is asked before it is done.
    #[command(flatten)]
    pub confirm: Confirm,
}

/// `lodge node reinstall`.
#[derive(Debug, Args)]
pub struct Reinstall {
    /// Name of the node.
    pub node: String,
    /// Serial number of another disk than the one it is installed on.
    #[arg(long)]
    pub disk: Option<String>,
    /// That other disk may be overwritten although something is on it.
    #[arg(long, requires = "disk")]
    pub wipe: bool,
    /// What is asked before it is done.
    #[command(flatten)]
    pub confirm: Confirm,
}

/// `lodge node forget`.
#[derive(Debug, Args)]
pub struct Forget {
    /// Name of the node, or a machine id.
    pub node: String,
    /// What is asked before it is done.
    #[command(flatten)]
    pub confirm: Confirm,
}

/// What is asked before something is destroyed.
#[derive(Clone, Copy, Debug, Args)]
pub struct Confirm {
    /// Do it without asking. Needed where there is no terminal to ask on.
    #[arg(long, conflicts_with = "dry_run")]
    pub yes: bool,
    /// Say what would be done, and do nothing.
    #[arg(long)]
    pub dry_run: bool,
}

/// `lodge ticket …`.
#[derive(Debug, Subcommand)]
pub enum Ticket {
    /// List all, newest last.
    Ls,
}

/// `lodge token …`.
#[derive(Debug, Subcommand)]
pub enum Token {
    /// Make a join token, good for one machine and a limited time. It is shown once.
    New,
}

/// `lodge cluster …`.
#[derive(Debug, Subcommand)]
pub enum Cluster {
    /// Show the cluster's settings: how long each kind of shutdown waits, and how many environments move at a time.
    Settings,
    /// Change settings.
    Set(Set),
    /// Restart every worker in turn: each is drained, restarted, and waited for before the next one is touched.
    ///
    /// It goes on in the center, whoever looks on, and stops at the first node that does not come back ready. A node that serves the share
    /// or is the center is left out.
    #[command(
        after_help = "Examples:\n  lodge cluster reboot --dry-run\n  lodge cluster reboot --reason 'new firmware' --wait\n  \
                            lodge cluster reboot --status\n  lodge cluster reboot --continue"
    )]
    Reboot(Reboot),
    /// Prove that any one node may die, or name what would not run then: each death is played with the rule that places environments.
    Capacity,
    /// Show by which ways each worker could be fenced: share node, BMC, lease and watchdog, and what is missing for them.
    Fencing,
    /// Take nothing over from silent nodes until `lodge cluster arm`, as for planned work on the network.
    Disarm(Disarm),
    /// Take over from nodes that die again.
    Arm(Arm),
    /// Show the center's version, fingerprint and bundle, and how many nodes are ready.
    Show,
}

#[cfg(test)]
mod tests;
