//! The environment's end of its link, set from outside: `eth0` in its network namespace. Whatever has to be inside for that is done by a
//! thread of its own that enters the namespace and ends there, so that the caller's namespace never changes. Sockets belong to the
//! namespace that they were made in, and are used from outside.

use std::{
    collections::BTreeSet,
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::AsFd as _,
    path::Path,
    thread,
};

use anyhow::{Context as _, Result, anyhow};
use futures_util::TryStreamExt as _;
use lodge_sys::packet::{PacketSocket, Unbound};
use nix::{
    net::if_::if_nametoindex,
    sched::{CloneFlags, setns},
};
use rtnetlink::{
    LinkUnspec, RouteMessageBuilder,
    packet_route::{
        address::{AddressAttribute, AddressHeaderFlags, AddressMessage, AddressScope},
        link::LinkAttribute,
    },
};
use tokio::runtime::Handle;

use crate::{
    bridge::set_ipv6,
    frames,
    netlink::{LOOPBACK, Netlink},
    veth::Plan,
};

/// Name of the environment's end.
pub const NAME: &str = "eth0";

/// Settings of `eth0` that hold before it goes up. Addresses are given, never found: an address from a router's advertisement would
/// not pass the guard. They are the environment's alone (they were probed), so nothing waits for duplicate detection.
const IPV6: [(&str, &str); 4] = [("accept_ra", "0"), ("autoconf", "0"), ("accept_dad", "0"), ("ndisc_notify", "1")];

/// What is asked and said from inside: sockets that stay there, whoever uses them.
pub struct Inside {
    netlink: Netlink,
    frames: Unbound,
}

impl Inside {
    /// Open them. Needs a tokio runtime around it.
    pub fn open(namespace: &fs::File) -> Result<Self> {
        let runtime = Handle::current();
        within(namespace, move || {
            let _here = runtime.enter();
            Ok(Self { netlink: Netlink::connect()?, frames: Unbound::new()? })
        })
    }

    /// Kernel indices of `eth0` and of what it is paired with (0: with nothing); `None` where there is none.
    pub async fn pair(&self) -> Result<Option<(u32, u32)>> {
        let Some(link) = self.netlink.find(NAME).await? else { return Ok(None) };
        let paired = link.attributes.iter().find_map(|attribute| match attribute {
            LinkAttribute::Link(index) => Some(*index),
            _ => None,
        });
        Ok(Some((link.header.index, paired.unwrap_or(0))))
    }

    /// `eth0`, of this index, goes.
    pub async fn remove(&self, index: u32) -> Result<()> {
        self.netlink.handle.link().del(index).execute().await.with_context(|| format!("removing an old {NAME}"))
    }

    /// Loopback and `eth0`, of this index, are up, with exactly these addresses and default routes.
    pub async fn set_up(&self, index: u32, plan: &Plan) -> Result<()> {
        self.set_all(index, plan).await.with_context(|| format!("setting {NAME} up inside"))
    }

    async fn set_all(&self, index: u32, plan: &Plan) -> Result<()> {
        let links = self.netlink.handle.link();
        links.set(LinkUnspec::new_with_index(LOOPBACK).up().build()).execute().await.context("setting the loopback up")?;
        let up = LinkUnspec::new_with_index(index).address(plan.mac.0.to_vec()).up().build();
        links.set(up).execute().await.context("setting it up")?;
        set_addresses(&self.netlink, index, &plan.addresses).await?;
        for gateway in &plan.gateways {
            set_default(&self.netlink, index, *gateway).await?;
        }
        Ok(())
    }

    /// Say where each address is, from its own link, of this index.
    pub fn announce(self, index: u32, plan: &Plan) -> Result<()> {
        announce(self.frames.bind(index, frames::ARP)?, plan)
    }
}

/// `eth0` is as it has to be before it goes up.
pub fn prepare(namespace: &fs::File) -> Result<()> {
    within(namespace, || {
        for (key, value) in IPV6 {
            set_ipv6(NAME, key, value)?;
        }
        let arp_notify = Path::new("/proc/sys/net/ipv4/conf").join(NAME).join("arp_notify");
        fs::write(&arp_notify, "1").with_context(|| format!("writing {}", arp_notify.display()))
    })
    .with_context(|| format!("preparing {NAME} inside"))
}

/// Say again where each address is.
pub fn announce_again(namespace: &fs::File, plan: &Plan) -> Result<()> {
    within(namespace, || {
        let index = if_nametoindex(NAME).with_context(|| format!("looking for {NAME}"))?;
        announce(PacketSocket::open(index, frames::ARP)?, plan)
    })
}

fn announce(socket: PacketSocket, plan: &Plan) -> Result<()> {
    for (address, _) in &plan.addresses {
        let frame = frames::announcement(plan.mac, *address)?;
        socket.send(&frame).with_context(|| format!("announcing {address}"))?;
    }
    socket.close_later();
    Ok(())
}

/// Run on a thread inside the namespace.
pub fn within<T: Send>(namespace: &fs::File, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    let enter = || {
        setns(namespace.as_fd(), CloneFlags::CLONE_NEWNET).context("entering the network namespace")?;
        work()
    };
    let ended = thread::scope(|scope| scope.spawn(enter).join());
    ended.map_err(|_| anyhow!("the thread inside the network namespace panicked"))?
}

async fn set_addresses(netlink: &Netlink, link: u32, wanted: &[(IpAddr, u8)]) -> Result<()> {
    let mut present = BTreeSet::new();
    let mut found = netlink.handle.address().get().set_link_index_filter(link).execute();
    while let Some(message) = found.try_next().await.context("listing addresses")? {
        let Some(address) = address_of(&message) else { continue };
        let is_own = wanted.contains(&(address, message.header.prefix_len));
        if is_own {
            present.insert(address);
        } else if message.header.scope != AddressScope::Link {
            netlink.handle.address().del(message).execute().await.with_context(|| format!("taking {address} away"))?;
        }
    }
    for (address, prefix) in wanted.iter().filter(|(address, _)| !present.contains(address)) {
        let mut add = netlink.handle.address().add(link, *address, *prefix);
        add.message_mut().header.flags |= AddressHeaderFlags::Nodad;
        add.execute().await.with_context(|| format!("setting address {address}/{prefix}"))?;
    }
    Ok(())
}

fn address_of(message: &AddressMessage) -> Option<IpAddr> {
    let attribute = |wanted: fn(&AddressAttribute) -> Option<IpAddr>| message.attributes.iter().find_map(wanted);
    let local = attribute(|attribute| if let AddressAttribute::Local(ip) = attribute { Some(*ip) } else { None });
    local.or_else(|| attribute(|attribute| if let AddressAttribute::Address(ip) = attribute { Some(*ip) } else { None }))
}

/// The gateway may be outside of every prefix, as with hosters: it is on the link by our word.
async fn set_default(netlink: &Netlink, link: u32, gateway: IpAddr) -> Result<()> {
    let route = match gateway {
        IpAddr::V4(gateway) => {
            let route = RouteMessageBuilder::<Ipv4Addr>::new().destination_prefix(Ipv4Addr::UNSPECIFIED, 0);
            route.gateway(gateway).onlink().output_interface(link).build()
        }
        IpAddr::V6(gateway) => {
            let route = RouteMessageBuilder::<Ipv6Addr>::new().destination_prefix(Ipv6Addr::UNSPECIFIED, 0);
            route.gateway(gateway).onlink().output_interface(link).build()
        }
    };
    let add = netlink.handle.route().add(route).replace();
    add.execute().await.with_context(|| format!("setting the default route by {gateway}"))
}
