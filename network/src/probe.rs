//! Who has an address already? Asked on the bridge before an environment is started: an answer means that an old copy lives, or that
//! the address is somebody else's.
//!
//! IPv4 by ARP probes (RFC 5227, 2.1.1: sender 0.0.0.0, so that nobody's cache is spoilt), IPv6 by the neighbour solicitations of
//! duplicate address detection (RFC 4862, 5.4.2: from the unspecified address). Silence proves nothing about a machine that is cut off.

use std::{net::IpAddr, time::Duration};

use anyhow::{Result, bail};

/// How long `probe` listens when nobody answers.
pub const LISTEN: Duration = Duration::from_millis(500);

/// An address that somebody has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taken {
    /// The address.
    pub address: IpAddr,
    /// Hardware address of who answered; of the bridge, when it is this node's own address.
    pub mac: String,
}

/// Ask for all of these addresses at once, several times over `LISTEN`, and return those that are taken (none: good). Returns early
/// only when all of them are. Call it before `attach`: an environment that is connected here would answer for itself.
pub fn probe(addresses: &[IpAddr]) -> Result<Vec<Taken>> {
    bail!("probing {addresses:?} is not written yet")
}
