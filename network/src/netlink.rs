//! Links, addresses and routes of the kernel, over rtnetlink (rtnetlink(7)).

use std::net::{IpAddr, Ipv4Addr};

use anyhow::{Context as _, Result};
use futures_util::{StreamExt as _, TryStreamExt as _};
use nix::errno::Errno;
use rtnetlink::{
    Error, Handle, LinkUnspec, MulticastGroup, RouteMessageBuilder,
    packet_core::NetlinkMessage,
    packet_route::{
        AddressFamily, RouteNetlinkMessage,
        address::AddressAttribute,
        link::{InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkLayerType, LinkMessage},
    },
};

use crate::veth;

/// An Ethernet link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Kernel index.
    pub index: u32,
    /// Kernel name.
    pub name: String,
    /// Hardware address, lower case with colons.
    pub mac: String,
    /// Administratively up.
    pub up: bool,
    /// Something is at the other end.
    pub carrier: bool,
    /// Hardware, and not a bridge, pair or tunnel.
    pub hardware: bool,
    /// Kernel index of the bridge that it is a port of.
    pub controller: Option<u32>,
}

/// Index of the loopback link, the same in every network namespace (LOOPBACK_IFINDEX in the kernel's include/net/flow.h).
pub const LOOPBACK: u32 = 1;

type Messages = Box<dyn futures_util::Stream<Item = NetlinkMessage<RouteNetlinkMessage>> + Send + Unpin>;

/// A connection to the kernel. Needs a tokio runtime around it.
pub struct Netlink {
    pub(crate) handle: Handle,
    messages: Messages,
}

impl Netlink {
    /// One that asks, and hears of nothing.
    pub fn connect() -> Result<Self> {
        Self::hearing(&[])
    }

    /// One that also hears of changed links. Where it is not awaited for long, news take the room that answers need, and those are lost:
    /// everything that is asked by it needs a time limit.
    pub fn listen() -> Result<Self> {
        Self::hearing(&[MulticastGroup::Link])
    }

    fn hearing(groups: &[MulticastGroup]) -> Result<Self> {
        let (connection, handle, messages) = rtnetlink::new_multicast_connection(groups).context("connecting to rtnetlink")?;
        tokio::spawn(connection);
        Ok(Self { handle, messages: Box::new(messages.map(|(message, _)| message)) })
    }

    /// The link of this name, with all that the kernel tells of it.
    pub async fn find(&self, name: &str) -> Result<Option<LinkMessage>> {
        match self.handle.link().get().match_name(name.to_owned()).execute().try_next().await {
            Ok(found) => Ok(found),
            Err(Error::NetlinkError(error)) if error.raw_code() == -(Errno::ENODEV as i32) => Ok(None),
            Err(error) => Err(error).with_context(|| format!("looking for {name}")),
        }
    }

    /// The Ethernet links but those of environments; where there is hardware, only that.
    pub async fn links(&self) -> Result<Vec<Link>> {
        let messages: Vec<LinkMessage> = self.handle.link().get().execute().try_collect().await.context("listing links")?;
        let mut links: Vec<Link> = messages.iter().filter_map(read).collect();
        if links.iter().any(|link| link.hardware) {
            links.retain(|link| link.hardware);
        }
        Ok(links)
    }

    /// Every link up, the loopback too: without it the kernel's own calls to 127.0.0.1 wait instead of being refused.
    pub async fn raise_all(&self) -> Result<()> {
        let loopback = LinkUnspec::new_with_index(LOOPBACK).up().build();
        self.handle.link().set(loopback).execute().await.context("setting the loopback up")?;
        for link in self.links().await?.iter().filter(|link| !link.up) {
            let message = LinkUnspec::new_with_index(link.index).up().build();
            let set = self.handle.link().set(message).execute().await;
            set.with_context(|| format!("setting {} up", link.name))?;
        }
        Ok(())
    }

    /// Returns when a link has changed, of which `listen` hears; more changes may have been heard of by then.
    pub async fn changed(&mut self) {
        if self.messages.next().await.is_none() {
            // The kernel closed the socket; the caller's own time limit goes on.
            std::future::pending::<()>().await;
        }
    }

    /// The link has this address; all its other IPv4 addresses are taken away.
    pub async fn set_address(&self, link: u32, address: Ipv4Addr, prefix: u8) -> Result<()> {
        let mut present = self.handle.address().get().set_link_index_filter(link).execute();
        while let Some(message) = present.try_next().await.context("listing addresses")? {
            let local = message.attributes.iter().find_map(|attribute| match attribute {
                AddressAttribute::Local(IpAddr::V4(local)) => Some(*local),
                _ => None,
            });
            if local.is_some_and(|local| (local, message.header.prefix_len) != (address, prefix)) {
                self.handle.address().del(message).execute().await.context("taking an old address away")?;
            }
        }
        // After the old ones: the kernel takes secondary addresses of a network away with its first one.
        let add = self.handle.address().add(link, IpAddr::V4(address), prefix).replace();
        add.execute().await.with_context(|| format!("setting address {address}/{prefix}"))
    }

    /// All IPv4 addresses of the link are taken away.
    pub async fn clear_addresses(&self, link: u32) -> Result<()> {
        let mut present = self.handle.address().get().set_link_index_filter(link).execute();
        while let Some(message) = present.try_next().await.context("listing addresses")? {
            if message.header.family == AddressFamily::Inet {
                self.handle.address().del(message).execute().await.context("taking an old address away")?;
            }
        }
        Ok(())
    }

    /// A route through the link, to a gateway or (none) to what is on it; another one to the same place is replaced.
    pub async fn set_route(&self, link: u32, to: Ipv4Addr, prefix: u8, gateway: Option<Ipv4Addr>) -> Result<()> {
        let mut route = RouteMessageBuilder::<Ipv4Addr>::new().destination_prefix(to, prefix).output_interface(link);
        if let Some(gateway) = gateway {
            // A gateway outside the prefix is legal in DHCP answers of clouds and hosters.
            route = route.gateway(gateway).onlink();
        }
        let add = self.handle.route().add(route.build()).replace();
        add.execute().await.with_context(|| format!("setting the route to {to}/{prefix}"))
    }
}

fn read(message: &LinkMessage) -> Option<Link> {
    let header = &message.header;
    let flags = header.flags;
    if header.link_layer_type != LinkLayerType::Ether || flags.contains(LinkFlags::Loopback) {
        return None;
    }
    let mut link = Link {
        index: header.index,
        name: String::new(),
        mac: String::new(),
        up: flags.contains(LinkFlags::Up),
        carrier: flags.contains(LinkFlags::LowerUp),
        hardware: true,
        controller: None,
    };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name.clone_from(name),
            LinkAttribute::Address(mac) => link.mac = mac_text(mac),
            LinkAttribute::Controller(controller) => link.controller = (*controller != 0).then_some(*controller),
            LinkAttribute::LinkInfo(infos) => {
                let kind = infos.iter().find_map(|info| if let LinkInfo::Kind(kind) = info { Some(kind) } else { None });
                match kind {
                    None => {}
                    Some(InfoKind::Veth) => link.hardware = false,
                    Some(_) => return None,
                }
            }
            _ => {}
        }
    }
    (!link.name.starts_with(veth::PREFIX)).then_some(link)
}

fn mac_text(mac: &[u8]) -> String {
    mac.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(":")
}
