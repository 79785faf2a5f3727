//! `lodge template …`, `lodge pool …`, `lodge user …`.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::{ArgGroup, Args, Subcommand};

use super::Confirm;
use crate::amount::{parse_cpus, parse_size};

/// `lodge template …`.
#[derive(Debug, Subcommand)]
pub enum Template {
    /// List all.
    Ls,
    /// Show everything about one.
    Show {
        /// Its name.
        name: String,
    },
    /// Make one from a root tarball (.tar, .tar.gz, .tar.zst) or an OCI image archive.
    ///
    /// OCI image archives are what `docker save` and `skopeo copy … oci-archive:FILE` write. The archive is checked while it is imported:
    /// digests, paths that lead out of it, devices, sizes. It is waited for.
    Import(Import),
    /// Remove one. Those that environments were made from stay.
    Rm {
        /// Its name.
        name: String,
        /// What is asked before it is done.
        #[command(flatten)]
        confirm: Confirm,
    },
}

/// `lodge template import`.
#[derive(Debug, Args)]
pub struct Import {
    /// Its name.
    pub name: String,
    /// The archive.
    pub file: PathBuf,
    /// Do not wait for the import once the archive has been sent.
    #[arg(long)]
    pub no_wait: bool,
    /// It is waited for anyway.
    #[arg(long, hide = true, conflicts_with = "no_wait")]
    pub wait: bool,
}

/// `lodge pool …`.
#[derive(Debug, Subcommand)]
pub enum Pool {
    /// List all, and how full they are.
    Ls,
    /// Let environments have these addresses.
    #[command(after_help = "Example:\n  lodge pool add office 192.0.2.50-192.0.2.99/24 --gateway 192.0.2.1 --dns 192.0.2.1")]
    Add(AddPool),
    /// Remove a pool of which no address is in use.
    Rm {
        /// Its name.
        name: String,
    },
}

/// `lodge pool add`.
#[derive(Debug, Args)]
pub struct AddPool {
    /// Its name.
    pub name: String,
    /// First and last address, and the length of the network's prefix: FIRST-LAST/PREFIX
    pub range: String,
    /// Default gateway of the network.
    #[arg(long)]
    pub gateway: Option<IpAddr>,
    /// A name server. May be given several times.
    #[arg(long)]
    pub dns: Vec<IpAddr>,
}

/// `lodge user …`.
#[derive(Debug, Subcommand)]
pub enum User {
    /// List all, with what they have and may have.
    Ls,
    /// Show one.
    Show {
        /// The name.
        name: String,
    },
    /// Let somebody have environments. The token is shown once.
    Add(WithQuota),
    /// Change what somebody may have. What is left out stays as it is; "none" takes a limit away.
    Set(ChangeQuota),
    /// Make a new token; the others stay good.
    Token {
        /// The name.
        name: String,
    },
    /// Take back all tokens of somebody, for when one has been lost.
    Revoke {
        /// The name.
        name: String,
        /// What is asked before it is done.
        #[command(flatten)]
        confirm: Confirm,
    },
    /// Remove somebody who has no environment any more.
    Rm {
        /// The name.
        name: String,
        /// What is asked before it is done.
        #[command(flatten)]
        confirm: Confirm,
    },
}

/// Somebody, and what she may have.
#[derive(Debug, Args)]
pub struct WithQuota {
    /// The name.
    pub name: String,
    /// Greatest number of environments.
    #[arg(long)]
    pub environments: Option<u32>,
    /// Memory of all of them.
    #[arg(long, value_parser = parse_size)]
    pub memory: Option<u64>,
    /// Disk of all of them.
    #[arg(long, value_parser = parse_size)]
    pub disk: Option<u64>,
    /// Processors of all of them.
    #[arg(long, value_parser = parse_cpus)]
    pub cpus: Option<u32>,
}

/// `lodge user set`.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("limit").required(true).multiple(true).args(["environments", "memory", "disk", "cpus"]))]
pub struct ChangeQuota {
    /// The name.
    pub name: String,
    /// Greatest number of environments.
    #[arg(long, value_parser = limit(|text| text.parse::<u64>().map_err(|_| format!("{text:?} is no number"))))]
    pub environments: Option<Limit>,
    /// Memory of all of them.
    #[arg(long, value_parser = limit(parse_size))]
    pub memory: Option<Limit>,
    /// Disk of all of them.
    #[arg(long, value_parser = limit(parse_size))]
    pub disk: Option<Limit>,
    /// Processors of all of them.
    #[arg(long, value_parser = limit(|text| parse_cpus(text).map(u64::from)))]
    pub cpus: Option<Limit>,
}

/// A limit, or that there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit(pub Option<u64>);

fn limit(parse: fn(&str) -> Result<u64, String>) -> impl Fn(&str) -> Result<Limit, String> + Clone + Send + Sync {
    move |text| match text {
        "none" => Ok(Limit(None)),
        text => parse(text).map(|number| Limit(Some(number))),
    }
}
