//! `lodge incident …`, `lodge cluster disarm`, `arm` and `capacity`.

use clap::{Args, Subcommand};

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
