//! What an environment may send: frames from its own hardware address, with its own addresses in them, and nothing else. One nftables
//! table of family `bridge` (nft(8)), one chain an environment; each change is one transaction of the kernel.
//!
//! What cannot be told to be the environment's own is dropped: tagged frames, frames that are neither ARP nor IP, answers of DHCP
//! servers, router advertisements and redirects. A port with an environment's name that has no chain passes nothing.
//!
//! It assumes that every frame of an environment comes in by its port of the bridge. What is sent to an environment is not looked at.

use std::{
    collections::BTreeSet,
    fmt::Write as _,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::unix::fs::MetadataExt as _,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context as _, Result};
use lodge_model::ids::EnvironmentId;
use lodge_sys::program::Program;
use serde_json::Value;

use crate::{address::Mac, veth};

/// nft answers at once; it waits only for other transactions.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);
/// Names of the chains: this and the environment's id.
const CHAIN: &str = "environment-";

/// What one environment may say of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Guard {
    /// Whose.
    pub id: EnvironmentId,
    /// Its hardware address.
    pub mac: Mac,
    /// Its addresses; the link-local one that follows from the hardware address is not among them.
    pub addresses: Vec<IpAddr>,
}

/// The environments that have a guard, by network namespace, once the kernel was asked. That takes a program each time, and the agent
/// looks at every step: nobody but this process changes these chains. Forgotten when a change fails.
static KNOWN: Mutex<Option<(u64, BTreeSet<EnvironmentId>)>> = Mutex::new(None);

/// Guard the environment's port from now on in this way, whether the port is there yet or not.
pub fn set(guard: &Guard) -> Result<()> {
    let known = |ids: &mut BTreeSet<EnvironmentId>| ids.insert(guard.id);
    change(&rules(guard), known).with_context(|| format!("guarding the link of environment {}", guard.id))
}

/// Forget the guard of an environment, if there is one. Until its port is gone nothing passes it.
pub fn remove(id: EnvironmentId) -> Result<()> {
    let known = |ids: &mut BTreeSet<EnvironmentId>| ids.remove(&id);
    change(&removal(id), known).with_context(|| format!("removing the guard of environment {id}"))
}

/// The environments that have a guard.
pub fn list() -> Result<BTreeSet<EnvironmentId>> {
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    let here = namespace()?;
    if let Some((space, ids)) = &*known
        && *space == here
    {
        return Ok(ids.clone());
    }
    // Without the table (nothing was ever guarded) nft says so and ends with 1; a table listing without a name never fails.
    let output = Program::Nft.call(["-j", "list", "chains", "bridge"]).deadline(DEADLINE).run().context("listing guards")?;
    let ids = guarded(&output.text())?;
    *known = Some((here, ids.clone()));
    Ok(ids)
}

fn change(script: &str, note: impl FnOnce(&mut BTreeSet<EnvironmentId>) -> bool) -> Result<()> {
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    let before = known.take();
    apply(script)?;
    let here = namespace()?;
    *known = before.filter(|(space, _)| *space == here);
    if let Some((_, ids)) = &mut *known {
        note(ids);
    }
    Ok(())
}

/// The network namespace of this thread, by its number.
fn namespace() -> Result<u64> {
    let path = "/proc/thread-self/ns/net";
    Ok(std::fs::metadata(path).with_context(|| format!("looking at {path}"))?.ino())
}

pub(crate) fn apply(script: &str) -> Result<()> {
    // One at a time: nft gives up when another transaction changes the rules under it.
    static ONE: Mutex<()> = Mutex::new(());
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    Program::Nft.call(["-f", "-"]).input(script).deadline(DEADLINE).run()?;
    Ok(())
}

/// What every change begins with: all of it is as it was where it is there already.
fn frame(id: EnvironmentId) -> String {
    let (port, chain) = (veth::port_name(id), chain(id));
    format!(
        "add table bridge lodge\n\
         add map bridge lodge guards {{ type ifname : verdict; }}\n\
         add chain bridge lodge ports {{ type filter hook prerouting priority -200; policy accept; }}\n\
         flush chain bridge lodge ports\n\
         add rule bridge lodge ports iifname vmap @guards\n\
         add rule bridge lodge ports iifname \"{}*\" counter drop\n\
         add chain bridge lodge {chain}\n\
         add element bridge lodge guards {{ \"{port}\" : goto {chain} }}\n\
         flush chain bridge lodge {chain}\n",
        veth::PREFIX,
    )
}

/// The transaction that sets a guard.
fn rules(guard: &Guard) -> String {
    let Guard { id, mac, addresses } = guard;
    let v4: Vec<Ipv4Addr> = addresses.iter().filter_map(|ip| if let IpAddr::V4(ip) = ip { Some(*ip) } else { None }).collect();
    let v6 = addresses.iter().filter_map(|ip| if let IpAddr::V6(ip) = ip { Some(*ip) } else { None });
    let v6: Vec<Ipv6Addr> = v6.chain([mac.link_local()]).collect();
    let mut script = frame(*id);
    let mut rule = |text: &str| {
        // Writing to a string cannot fail.
        let _ = writeln!(script, "add rule bridge lodge {} {text}", chain(*id));
    };
    rule(&format!("ether saddr != {mac} counter drop"));
    if !v4.is_empty() {
        let v4 = set_of(&v4);
        // 0.0.0.0 is the sender of a probe (RFC 5227).
        let arp = format!("ether type arp arp htype 1 arp ptype 0x0800 arp hlen 6 arp plen 4 arp saddr ether {mac}");
        rule(&format!("{arp} arp saddr ip {{ 0.0.0.0, {v4} }} accept"));
        rule("ether type ip udp sport 67 counter drop");
        rule(&format!("ether type ip ip saddr {{ {v4} }} accept"));
    }
    rule("ether type ip6 icmpv6 type { nd-router-advert, nd-redirect } counter drop");
    rule("ether type ip6 udp sport 547 counter drop");
    let unspecified = "ether type ip6 ip6 saddr :: icmpv6 type";
    let own = format!("ether type ip6 ip6 saddr {{ {} }}", set_of(&v6));
    for ip in &v6 {
        // The target is after type, code, checksum and 32 bits of flags (RFC 4861, 4.3 and 4.4).
        let target = format!("@th,64,128 {:#034x}", u128::from(*ip));
        rule(&format!("{unspecified} nd-neighbor-solicit {target} accept"));
        rule(&format!("{own} icmpv6 type nd-neighbor-advert {target} accept"));
    }
    rule(&format!(
        "{unspecified} {{ nd-router-solicit, mld-listener-report, mld-listener-done, mld2-listener-report }} accept"
    ));
    rule("ether type ip6 icmpv6 type nd-neighbor-advert counter drop");
    rule(&format!("{own} accept"));
    rule("counter drop");
    script
}

/// The transaction that removes one. It adds first, because removing what is not there is an error.
fn removal(id: EnvironmentId) -> String {
    let (port, chain) = (veth::port_name(id), chain(id));
    format!("{}delete element bridge lodge guards {{ \"{port}\" }}\ndelete chain bridge lodge {chain}\n", frame(id))
}

fn chain(id: EnvironmentId) -> String {
    format!("{CHAIN}{id}")
}

fn set_of<T: ToString>(addresses: &[T]) -> String {
    addresses.iter().map(T::to_string).collect::<Vec<_>>().join(", ")
}

/// The environments of a listing of chains (libnftables-json(5)).
fn guarded(listing: &str) -> Result<BTreeSet<EnvironmentId>> {
    let listing: Value = serde_json::from_str(listing).context("reading the listing of nft")?;
    let objects =
        listing.get("nftables").and_then(Value::as_array).context("reading the listing of nft: no \"nftables\" in it")?;
    let chains = objects.iter().filter_map(|object| object.get("chain"));
    let ours = chains.filter(|chain| chain.get("table").and_then(Value::as_str) == Some("lodge"));
    let names = ours.filter_map(|chain| chain.get("name").and_then(Value::as_str));
    Ok(names.filter_map(|name| name.strip_prefix(CHAIN)?.parse().ok()).collect())
}

#[cfg(test)]
mod tests;
