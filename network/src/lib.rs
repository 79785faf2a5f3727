//! Brings a machine's uplink up: links, a fixed address or a DHCP lease, and what the DHCP answer says of the center. On a worker it puts
//! the uplink into a bridge and connects environments to it, each held to its own addresses.
//!
//! | file | what |
//! |---|---|
//! | `bridge.rs` | the bridge that takes the uplink in |
//! | `veth.rs`, `inside.rs` | an environment's link, the node's side and the environment's |
//! | `guard.rs` | what an environment may send |
//! | `isolation.rs` | all environments of a node off the network at once |
//! | `ban.rs` | who must not reach this machine's NFS server |
//! | `probe.rs`, `frames.rs` | who has an address; announcing one |
//!
//! Why it exists: the installer and the running node must come up on the network in the same way. Links, addresses and routes go
//! through rtnetlink, DHCP is `mozim`'s (docs/decisions/0008-dhcp-client.md); what is here chooses the link and applies the lease.
//!
//! It assumes the privileges for both. The calls block; a small runtime inside drives the sockets. The node's own address
//! is IPv4 only: its IPv6 addresses come from the kernel's own autoconfiguration. It never decides what an answer means.

mod address;
mod ban;
mod bridge;
mod dhcp;
mod fixed;
mod frames;
mod guard;
mod inform;
mod inside;
mod isolation;
mod netlink;
mod probe;
mod resolv;
mod settings;
mod veth;

use std::{convert::Infallible, net::IpAddr};

use anyhow::{Context as _, Result};
use lodge_model::answer::NetworkAnswer;
use serde::{Deserialize, Serialize};
use tokio::runtime::{Builder, Runtime};

pub use ban::{banned, set_banned};
pub use inform::inform;
pub use isolation::{is_isolated, set_isolated};
pub use netlink::Link;
pub use probe::{LISTEN, Taken, probe, probe_on};
pub use resolv::write_resolv_conf;
pub use settings::{NO_PING_GROUPS, PING_GROUPS, WINDOW_SCALING, set_setting, set_settings, settings};
pub use veth::{Guarded, LinkSpec, Presence, Traffic, announce, attach, detach, guard, list, look, port_name, traffic};

/// The bridge of a worker: its uplink and all environments are ports of it, and the node's own address is on it.
pub const BRIDGE: &str = "br0";

use netlink::Netlink;

/// How this machine reaches the world, as `/run/lodge/network.json` says it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Uplink {
    /// Kernel name of the interface.
    pub interface: String,
    /// Its hardware address, lower case with colons.
    pub mac: String,
    /// Address with prefix length: `10.0.0.5/24`.
    pub address: String,
    /// Default gateway.
    pub gateway: Option<IpAddr>,
    /// Name servers.
    pub dns: Vec<IpAddr>,
    /// The `lodge.` words of the DHCP answer (option 224), not read yet.
    pub dhcp_words: Option<String>,
}

impl Uplink {
    /// The address alone.
    pub fn ip(&self) -> &str {
        self.address.split('/').next().unwrap_or_default()
    }
}

/// An uplink that is up. Dropping it leaves the address as it is; `maintain` keeps it.
#[derive(Debug)]
pub struct Lease {
    runtime: Runtime,
    uplink: Uplink,
    source: Source,
}

/// What carries the node's address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum On {
    /// The uplink itself.
    Link,
    /// `BRIDGE`, with the uplink as a port: on a worker.
    Bridge,
}

#[derive(Debug)]
enum Source {
    Fixed,
    Dhcp(Box<dhcp::Client>),
}

/// The Ethernet links of this machine, in the kernel's order.
pub fn links() -> Result<Vec<Link>> {
    runtime()?.block_on(async { Netlink::connect()?.links().await })
}

/// Bring the uplink up: as the fixed set-up says, else by DHCP on every link that has a carrier; the first lease wins. One bounded
/// try: an error says what stands in the way, and the caller tries again. `log` gets a line for people per step.
///
/// On the bridge nothing that is connected to it is disturbed, and an uplink that it has and that carries is kept.
pub fn bring_up(config: Option<&NetworkAnswer>, on: On, log: &mut dyn FnMut(&str)) -> Result<Lease> {
    let runtime = runtime()?;
    let (uplink, source) = runtime.block_on(async {
        let mut netlink = Netlink::listen()?;
        netlink.raise_all().await?;
        match config {
            Some(config) => Ok((fixed::set_up(&mut netlink, config, on, log).await?, Source::Fixed)),
            None => {
                let (uplink, client) = dhcp::first_lease(&mut netlink, on, log).await?;
                anyhow::Ok((uplink, Source::Dhcp(Box::new(client))))
            }
        }
    })?;
    Ok(Lease { runtime, uplink, source })
}

impl Lease {
    /// The uplink as it was set up.
    pub fn uplink(&self) -> &Uplink {
        &self.uplink
    }

    /// Keep the uplink for ever: renew the lease, ask for a new one when it is lost, and apply what changes; `changed` is told.
    /// A fixed address needs nothing, and this only waits.
    pub fn maintain(self, changed: &mut dyn FnMut(&Uplink), log: &mut dyn FnMut(&str)) -> Infallible {
        let Self { runtime, uplink, source } = self;
        match source {
            Source::Fixed => runtime.block_on(std::future::pending()),
            Source::Dhcp(client) => runtime.block_on(dhcp::maintain(*client, uplink, changed, log)),
        }
    }
}

fn runtime() -> Result<Runtime> {
    Builder::new_current_thread().enable_all().build().context("starting the network runtime")
}

#[cfg(test)]
mod tests;
