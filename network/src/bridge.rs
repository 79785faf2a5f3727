//! The bridge of a worker. Its uplink and the links of its environments are ports of it; the node's own address is on the bridge, which
//! has the uplink's hardware address, so that the network sees the same machine as before.
//!
//! What is there is kept: environments that are connected stay so when `agent network` starts again, and an address that is there stays.

use std::{fs, io::ErrorKind, path::PathBuf, time::Duration};

use anyhow::{Context as _, Result, anyhow, bail};
use futures_util::TryStreamExt as _;
use rtnetlink::{
    LinkBridge, LinkUnspec,
    packet_route::link::{BridgeStpState, LinkAttribute, LinkFlags, LinkMessage},
};

use crate::{
    BRIDGE,
    address::Mac,
    netlink::{Link, Netlink},
    veth,
};

/// How long the bridge may take to carry something once its port does. The kernel needs no time for it.
const CARRIER: Duration = Duration::from_secs(10);

/// The bridge, for those who connect to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bridge {
    /// Kernel index.
    pub index: u32,
    /// Hardware address.
    pub mac: Mac,
    /// Bytes of its greatest packet.
    pub mtu: u32,
}

impl Netlink {
    /// The bridge that `agent network` has made.
    pub async fn bridge(&self) -> Result<Bridge> {
        let there = self.carrier(BRIDGE).await?;
        there.ok_or_else(|| anyhow!("there is no bridge {BRIDGE}: `agent network` makes it on a worker"))
    }

    /// A link that can stand in its place where there is none; `None` where there is no such link.
    pub async fn carrier(&self, name: &str) -> Result<Option<Bridge>> {
        let Some(message) = self.find(name).await? else { return Ok(None) };
        let mut bridge = Bridge { index: message.header.index, mac: Mac([0; 6]), mtu: 1500 };
        for attribute in &message.attributes {
            match attribute {
                LinkAttribute::Address(mac) => bridge.mac = Mac(mac.as_slice().try_into().context("reading its address")?),
                LinkAttribute::Mtu(mtu) => bridge.mtu = *mtu,
                _ => {}
            }
        }
        Ok(Some(bridge))
    }

    /// The bridge is there with this link as its only uplink; returns the bridge in the link's place, carrying.
    pub async fn bridge_uplink(&mut self, uplink: &Link) -> Result<Link> {
        self.build(uplink).await.with_context(|| format!("putting {} into {BRIDGE}", uplink.name))
    }

    async fn build(&mut self, uplink: &Link) -> Result<Link> {
        let mac: Mac = uplink.mac.parse()?;
        if self.find(BRIDGE).await?.is_none() {
            // Groups are not snooped: an environment that has just come is to hear its neighbours' solicitations at once.
            let new = LinkBridge::new(BRIDGE).address(mac.0.to_vec()).stp_state(BridgeStpState::Disabled).forward_delay(0);
            let new = new.mcast_snooping(false).up().build();
            self.handle.link().add(new).execute().await.context("making the bridge")?;
        }
        let bridge = self.bridge().await?;
        self.release_others(&bridge, uplink).await?;
        // A port has no addresses of its own; those of IPv6 come by themselves unless they are forbidden.
        forbid_ipv6(&uplink.name)?;
        self.clear_addresses(uplink.index).await?;
        if uplink.controller != Some(bridge.index) {
            let port = LinkUnspec::new_with_index(uplink.index).controller(bridge.index).up().build();
            self.handle.link().set(port).execute().await.context("making it a port")?;
        }
        let set = LinkUnspec::new_with_index(bridge.index).address(mac.0.to_vec()).up().build();
        self.handle.link().set(set).execute().await.context("setting the bridge up")?;
        let carrier = tokio::time::timeout(CARRIER, self.carrying_bridge()).await;
        carrier.map_err(|_| anyhow!("{BRIDGE} has no carrier though {} has one", uplink.name))?
    }

    async fn carrying_bridge(&mut self) -> Result<Link> {
        loop {
            if let Some(link) = self.bridge_link().await?.filter(|link| link.carrier) {
                return Ok(link);
            }
            self.changed().await;
        }
    }

    /// The bridge as a link, if there is one.
    pub async fn bridge_link(&self) -> Result<Option<Link>> {
        let Some(message) = self.find(BRIDGE).await? else { return Ok(None) };
        let bridge = self.bridge().await?;
        Ok(Some(Link {
            index: bridge.index,
            name: BRIDGE.to_owned(),
            mac: bridge.mac.to_string(),
            up: message.header.flags.contains(LinkFlags::Up),
            carrier: message.header.flags.contains(LinkFlags::LowerUp),
            hardware: false,
            controller: None,
        }))
    }

    /// Any other uplink goes out: two of them would make a loop through the network.
    async fn release_others(&self, bridge: &Bridge, uplink: &Link) -> Result<()> {
        for port in self.ports(bridge.index).await? {
            if port.header.index != uplink.index && !name(&port).starts_with(veth::PREFIX) {
                let free = LinkUnspec::new_with_index(port.header.index).nocontroller().build();
                self.handle.link().set(free).execute().await.with_context(|| format!("taking {} out", name(&port)))?;
            }
        }
        Ok(())
    }

    async fn ports(&self, bridge: u32) -> Result<Vec<LinkMessage>> {
        let links: Vec<LinkMessage> = self.handle.link().get().execute().try_collect().await.context("listing links")?;
        Ok(links.into_iter().filter(|link| link.attributes.contains(&LinkAttribute::Controller(bridge))).collect())
    }
}

/// The links that may become the uplink of a worker: those that are nobody's port, and the bridge. A bridge whose uplink has a carrier
/// is the only one: environments are connected through it, and another link that answers first must not take it from them.
pub fn candidates(links: Vec<Link>, bridge: Option<Link>) -> Vec<Link> {
    let Some(bridge) = bridge else { return links };
    if links.iter().any(|link| link.controller == Some(bridge.index) && link.carrier) {
        return vec![bridge];
    }
    links.into_iter().filter(|link| link.controller.is_none()).collect()
}

/// No IPv6 address comes to this link. A kernel without IPv6 has nothing to forbid.
pub fn forbid_ipv6(link: &str) -> Result<()> {
    set_ipv6(link, "disable_ipv6", "1")
}

/// Set an IPv6 setting of a link (kernel, Documentation/networking/ip-sysctl.rst), where the kernel has IPv6.
pub fn set_ipv6(link: &str, key: &str, value: &str) -> Result<()> {
    let path = PathBuf::from("/proc/sys/net/ipv6/conf").join(link).join(key);
    match fs::write(&path, value) {
        Err(error) if error.kind() != ErrorKind::NotFound => bail!("writing {value} to {}: {error}", path.display()),
        _ => Ok(()),
    }
}

fn name(message: &LinkMessage) -> &str {
    let name = message.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::IfName(name) => Some(name.as_str()),
        _ => None,
    });
    name.unwrap_or_default()
}

#[cfg(test)]
mod tests;
