//! All environments of this node off the network at once, and back. One nftables table of family `bridge`: while it is there nothing that
//! an environment sends passes its port, whichever environments come and go meanwhile. Nobody can find them then, not even by ARP.
//!
//! Their links stay up, so that addresses and routes inside are as they were when they are let in again.

use anyhow::{Context as _, Result};
use lodge_sys::program::Program;

use crate::{
    guard::{DEADLINE, apply},
    veth,
};

const TABLE: &str = "lodge-isolated";

/// Take them off the network, or let them in again. Idempotent.
pub fn set_isolated(isolated: bool) -> Result<()> {
    let (script, doing) = match isolated {
        true => (isolation(), "taking environments off the network"),
        // Removing what is not there is an error.
        false => (format!("add table bridge {TABLE}\ndelete table bridge {TABLE}\n"), "letting environments into the network"),
    };
    apply(&script).context(doing)
}

/// Whether they are off the network.
pub fn is_isolated() -> Result<bool> {
    let output = Program::Nft.call(["list", "tables", "bridge"]).deadline(DEADLINE).run().context("listing tables")?;
    Ok(output.text().lines().any(|line| line.trim() == format!("table bridge {TABLE}")))
}

fn isolation() -> String {
    format!(
        "add table bridge {TABLE}\n\
         add chain bridge {TABLE} ports {{ type filter hook prerouting priority -210; policy accept; }}\n\
         flush chain bridge {TABLE} ports\n\
         add rule bridge {TABLE} ports iifname \"{}*\" counter drop\n",
        veth::PREFIX,
    )
}

#[cfg(test)]
mod tests;
