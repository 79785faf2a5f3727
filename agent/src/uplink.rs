//! The address of this node, as `agent network` wrote it down.

use std::fs;
use std::net::IpAddr;

use anyhow::{Context as _, Result, anyhow};
use lodge_model::answer::parse_cidr;
use lodge_network::Uplink;

/// Where `agent network` says that the uplink is there, and how.
pub const FILE: &str = "/run/lodge/network.json";

/// The uplink as it is now.
pub fn read() -> Result<Uplink> {
    let text = fs::read_to_string(FILE).with_context(|| format!("reading {FILE}"))?;
    serde_json::from_str(&text).with_context(|| format!("reading {FILE}"))
}

/// Its address, without the prefix length.
pub fn address(uplink: &Uplink) -> Result<IpAddr> {
    let parsed = parse_cidr(&uplink.address);
    parsed.map(|(address, _)| address).ok_or_else(|| anyhow!("the uplink's address {:?} is not ADDRESS/PREFIX", uplink.address))
}
