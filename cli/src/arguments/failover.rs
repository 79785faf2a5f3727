//! `lodge incident …`, `lodge node bmc …`, `lodge cluster disarm`, `arm` and `capacity`.

use std::path::PathBuf;

use clap::{ArgGroup, Args, Subcommand};
use lodge_model::ids::Fingerprint;

use super::Confirm;

/// `lodge incident …`.
#[derive(Debug, Subcommand)]
pub enum Incident {
    /// List all, newest first, with what each is waiting for, and whether anything is taken over at present.
    Ls,
    /// Show the timeline of one: last sign, suspect, fenced with its proof, placed, started.
    Show {
        /// Its number.
        id: u64,
        /// Go on with new lines as they happen, until it is over or Ctrl-C.
        #[arg(short, long)]
        follow: bool,
    },
}

/// `lodge cluster disarm`.
#[derive(Debug, Args)]
pub struct Disarm {
    /// Why, for whoever wonders that nothing is taken over.
    #[arg(long)]
    pub reason: String,
}

/// `lodge cluster arm`.
#[derive(Debug, Args)]
pub struct Arm {
    /// Why, for the event log.
    #[arg(long, default_value = "")]
    pub reason: String,
}

/// `lodge node bmc …`.
#[derive(Debug, Subcommand)]
pub enum Bmc {
    /// Tell the center how the BMC of a node is reached. It is asked at once, and stored when it answers and knows the machine.
    ///
    /// Say how it is known: by the fingerprint of its certificate, or by the CA that signed that. Without either, the fingerprint that it
    /// presents is told and nothing is stored; compare it with what the BMC shows itself.
    #[command(after_help = "Examples:\n  lodge node bmc set n1 --url https://10.0.9.1 --user lodge --fingerprint sha256:…\n  \
                            lodge node bmc set n1 --url https://chassis --system n1 --user lodge --password-file pw --ca ca.pem")]
    Set(SetBmc),
    /// Show how the BMC of a node is reached; never its password.
    Show {
        /// Name of the node.
        node: String,
    },
    /// Ask the BMC of a node now. Nothing is switched.
    Test {
        /// Name of the node.
        node: String,
    },
    /// Have the BMC of a node forgotten.
    Rm {
        /// Name of the node.
        node: String,
        /// What is asked before it is done.
        #[command(flatten)]
        confirm: Confirm,
    },
}

/// `lodge node bmc set`.
#[derive(Debug, Args)]
#[command(group(ArgGroup::new("trust")))]
pub struct SetBmc {
    /// Name of the node.
    pub node: String,
    /// Its address: https://ADDRESS
    #[arg(long)]
    pub url: String,
    /// An account that may control power; best one of its own, with no other right.
    #[arg(long)]
    pub user: String,
    /// A file with the password on its first line; "-" or nothing reads it from standard input, unseen on a terminal.
    #[arg(long, value_name = "FILE")]
    pub password_file: Option<PathBuf>,
    /// Which system, where the BMC manages several.
    #[arg(long, value_name = "ID")]
    pub system: Option<String>,
    /// The certificate that it presents: sha256:…
    #[arg(long, group = "trust")]
    pub fingerprint: Option<Fingerprint>,
    /// A file (PEM) with the CA that its certificate holds under.
    #[arg(long, group = "trust", value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// Leave a machine off that was switched off to fence it, to look at it. Otherwise it is switched on again.
    #[arg(long)]
    pub stays_off: bool,
    /// Even if it does not answer now, or says that it manages another machine.
    #[arg(long)]
    pub force: bool,
}
