//! Who must not reach this machine's NFS server. One nftables table of family `inet` (nft(8)) with one set of addresses of each kind;
//! each change is one transaction of the kernel.
//!
//! What comes from a banned address for the server's port is dropped before connections are tracked: those that are established end
//! there as well. Other ports stay open, because the control center may be on the same machine, and a banned node must hear from it.

use std::{collections::BTreeSet, net::IpAddr};

use anyhow::{Context as _, Result};
use lodge_sys::program::Program;
use serde_json::Value;

use crate::guard::{DEADLINE, apply};

const TABLE: &str = "lodge-fence";

/// From now on these addresses are banned, and no others.
pub fn set_banned(addresses: &BTreeSet<IpAddr>) -> Result<()> {
    apply(&rules(addresses)).context("banning addresses from the NFS server")
}

/// The addresses that are banned, as the kernel says; none where anything of the rules is missing.
pub fn banned() -> Result<BTreeSet<IpAddr>> {
    // The listing of a family never fails; that of a table does where there is none.
    let output = Program::Nft.call(["-j", "list", "ruleset", "inet"]).deadline(DEADLINE).run().context("listing bans")?;
    read(&output.text())
}

/// The transaction.
fn rules(addresses: &BTreeSet<IpAddr>) -> String {
    let mut script = format!("add table inet {TABLE}\n");
    for (set, kind) in [("banned4", "ipv4_addr"), ("banned6", "ipv6_addr")] {
        script += &format!("add set inet {TABLE} {set} {{ type {kind}; }}\nflush set inet {TABLE} {set}\n");
    }
    script += &format!(
        "add chain inet {TABLE} input {{ type filter hook input priority -310; policy accept; }}\n\
         flush chain inet {TABLE} input\n\
         add rule inet {TABLE} input tcp dport 2049 ip saddr @banned4 counter drop\n\
         add rule inet {TABLE} input tcp dport 2049 ip6 saddr @banned6 counter drop\n"
    );
    for address in addresses {
        let set = if address.is_ipv4() { "banned4" } else { "banned6" };
        script += &format!("add element inet {TABLE} {set} {{ {address} }}\n");
    }
    script
}

/// The addresses of a listing (libnftables-json(5)) whose set has its rule.
fn read(listing: &str) -> Result<BTreeSet<IpAddr>> {
    let listing: Value = serde_json::from_str(listing).context("reading the listing of nft")?;
    let objects =
        listing.get("nftables").and_then(Value::as_array).context("reading the listing of nft: no \"nftables\" in it")?;
    let ours = |kind| {
        let objects = objects.iter().filter_map(move |object| object.get(kind));
        objects.filter(|object| object.get("table").and_then(Value::as_str) == Some(TABLE))
    };
    let rules: Vec<String> = ours("rule").map(Value::to_string).filter(|rule| rule.contains(r#"{"drop":null}"#)).collect();
    let mut banned = BTreeSet::new();
    for set in ours("set") {
        let name = set.get("name").and_then(Value::as_str).unwrap_or_default();
        if !rules.iter().any(|rule| rule.contains(&format!(r#""right":"@{name}""#))) {
            continue;
        }
        let elements = set.get("elem").and_then(Value::as_array).into_iter().flatten();
        for address in elements.filter_map(Value::as_str) {
            banned.insert(address.parse().with_context(|| format!("reading the banned address {address:?}"))?);
        }
    }
    Ok(banned)
}

#[cfg(test)]
mod tests;
