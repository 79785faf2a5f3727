//! The environment's end of its link, set from outside: `eth0` in its network namespace. Everything here runs on a thread of its own
//! that enters the namespace and ends there, so that the caller's namespace never changes.

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
use lodge_sys::packet::PacketSocket;
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

use crate::{
    bridge::set_ipv6,
    frames,
    netlink::{LOOPBACK, Netlink},
    runtime,
    veth::Plan,
};

/// Name of the environment's end.
pub const NAME: &str = "eth0";

/// Settings of `eth0` that hold before it goes up. Addresses are given, never found: an address from a router's advertisement would
/// not pass the guard. They are the environment's alone (they were probed), so nothing waits for duplicate detection.
const IPV6: [(&str, &str); 4] = [("accept_ra", "0"), ("autoconf", "0"), ("accept_dad", "0"), ("ndisc_notify", "1")];

/// Kernel indices of what `eth0` is paired with (0: with nothing) and of `eth0`; `None` where there is none.
pub fn peer(namespace: &fs::File) -> Result<Option<(u32, u32)>> {
    within(namespace, || {
        runtime()?.block_on(async {
            let link = Netlink::connect()?.find(NAME).await?;
            Ok(link.map(|link| {
                let paired = link.attributes.iter().find_map(|attribute| match attribute {
                    LinkAttribute::Link(index) => Some(*index),
                    _ => None,
                });
                (paired.unwrap_or(0), link.header.index)
            }))
        })
    })
}

/// There is no `eth0`.
pub fn remove(namespace: &fs::File) -> Result<()> {
    within(namespace, || {
        runtime()?.block_on(async {
            let netlink = Netlink::connect()?;
            let Some(link) = netlink.find(NAME).await? else { return Ok(()) };
            netlink.handle.link().del(link.header.index).execute().await.with_context(|| format!("removing an old {NAME}"))
        })
    })
}

/// Loopback is up, and `eth0` is as it has to be before it goes up.
pub fn prepare(namespace: &fs::File) -> Result<()> {
    within(namespace, || {
        runtime()?.block_on(async {
            let loopback = LinkUnspec::new_with_index(LOOPBACK).up().build();
            Netlink::connect()?.handle.link().set(loopback).execute().await.context("setting the loopback up")
        })?;
        for (key, value) in IPV6 {
            set_ipv6(NAME, key, value)?;
        }
        let arp_notify = Path::new("/proc/sys/net/ipv4/conf").join(NAME).join("arp_notify");
        fs::write(&arp_notify, "1").with_context(|| format!("writing {}", arp_notify.display()))
    })
    .with_context(|| format!("preparing {NAME} inside"))
}

/// `eth0` is up, with exactly these addresses and default routes.
pub fn set_up(namespace: &fs::File, plan: &Plan) -> Result<()> {
    within(namespace, || runtime()?.block_on(set_all(plan))).with_context(|| format!("setting {NAME} up inside"))
}

/// Say where each address is, from its own link.
pub fn announce(namespace: &fs::File, plan: &Plan) -> Result<()> {
    within(namespace, || {
        let index = if_nametoindex(NAME).with_context(|| format!("looking for {NAME}"))?;
        let socket = PacketSocket::open(index, frames::ARP)?;
        for (address, _) in &plan.addresses {
            let frame = frames::announcement(plan.mac, *address)?;
            socket.send(&frame).with_context(|| format!("announcing {address}"))?;
        }
        socket.close_later();
        Ok(())
    })
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

async fn index(netlink: &Netlink) -> Result<u32> {
    let link = netlink.find(NAME).await?;
    Ok(link.ok_or_else(|| anyhow!("there is no {NAME} inside"))?.header.index)
}

async fn set_all(plan: &Plan) -> Result<()> {
    let netlink = Netlink::connect()?;
    let index = index(&netlink).await?;
    let links = netlink.handle.link();
    let up = LinkUnspec::new_with_index(index).address(plan.mac.0.to_vec()).up().build();
    links.set(up).execute().await.context("setting it up")?;
    set_addresses(&netlink, index, &plan.addresses).await?;
    for gateway in &plan.gateways {
        set_default(&netlink, index, *gateway).await?;
    }
    Ok(())
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
