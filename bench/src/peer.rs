//! A container that is not Lodge's: names, ids and addresses, out of the way of environments.

use std::{net::Ipv4Addr, path::PathBuf, process::Command};

use anyhow::{Context as _, Result, bail};
use clap::Args;
use lodge_model::environment::order::IDS;

/// Where everything of a bench is on the node.
pub const WORK: &str = "/run/bench";
/// Where the peers' disks are: the share, as environments' are.
const DISKS: &str = "/share/bench";
/// Ids of the first peer: far above those that the center gives.
const FIRST_ID: u32 = 20_000 * IDS;

/// A peer.
#[derive(Args, Clone, Debug)]
pub struct Peer {
    /// Its name.
    pub name: String,
    /// Its number among those that run at the same time.
    #[arg(long)]
    pub number: u8,
    /// Its address, of the site's network.
    #[arg(long)]
    pub address: Ipv4Addr,
}

impl Peer {
    /// The first of its 65,536 ids.
    pub fn base(&self) -> u32 {
        FIRST_ID + u32::from(self.number) * IDS
    }

    /// Its hardware address.
    pub fn mac(&self) -> String {
        format!("02:00:00:be:00:{:02x}", self.number)
    }

    /// Its own directory on the node.
    pub fn dir(&self) -> PathBuf {
        PathBuf::from(WORK).join("peers").join(&self.name)
    }

    /// Its disk.
    pub fn disk(&self) -> PathBuf {
        PathBuf::from(DISKS).join(format!("{}.img", self.name))
    }
}

/// Run a program of the node or of the bench's disk to its end; a failure holds what it said.
pub fn call(command: &mut Command) -> Result<()> {
    let shown = format!("{command:?}");
    let output = command.output().with_context(|| format!("starting {shown}"))?;
    if !output.status.success() {
        bail!("{shown} failed ({}): {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}
