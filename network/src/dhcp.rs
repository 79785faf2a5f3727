//! A DHCP lease: asked for on every link with a carrier, applied, kept.

use std::{collections::BTreeSet, convert::Infallible, net::IpAddr, net::Ipv4Addr, time::Duration};

use anyhow::{Context as _, Result, bail};
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use lodge_model::keywords::DHCP_OPTION;
use mozim::{DhcpV4Client, DhcpV4Config, DhcpV4Lease, DhcpV4State};

use crate::{
    BRIDGE, On, Uplink, bridge,
    netlink::{Link, Netlink},
};

/// How long one try takes. mozim sends again after about 4, 8 and 16 s.
const TRY: Duration = Duration::from_secs(35);
/// Pause before a lost lease is asked for anew: a server that refuses us cannot tell us when it will not.
const AGAIN: Duration = Duration::from_secs(5);

/// A client that has a lease.
#[derive(Debug)]
pub struct Client {
    link: Link,
    client: DhcpV4Client,
}

/// The first lease that any link gets; on a worker the bridge takes the link in and the lease over.
pub async fn first_lease(netlink: &mut Netlink, on: On, log: &mut dyn FnMut(&str)) -> Result<(Uplink, Client)> {
    let end = tokio::time::sleep(TRY);
    tokio::pin!(end);
    let mut asked = BTreeSet::new();
    let mut asking = FuturesUnordered::new();
    let mut errors = Vec::new();
    loop {
        netlink.raise_all().await?;
        for link in candidates(netlink, on).await? {
            if link.carrier && asked.insert(link.index) {
                log(&format!("asking for an address on {}", link.name));
                asking.push(ask(link));
            }
        }
        tokio::select! {
            Some(answer) = asking.next() => match answer {
                Ok((client, lease)) => {
                    let client = settle(netlink, on, client, &lease).await?;
                    let uplink = apply(netlink, &client.link, &lease).await?;
                    log(&format!("{} has the address {} from {}", uplink.interface, uplink.address, lease.srv_id));
                    return Ok((uplink, client));
                }
                Err(error) => errors.push(format!("{error:#}")),
            },
            () = netlink.changed() => {}
            () = &mut end => break,
        }
    }
    let links = netlink.links().await?;
    if links.is_empty() {
        bail!("this machine has no network interface that its kernel knows");
    }
    let states: Vec<String> = links
        .iter()
        .map(|link| format!("{} ({}) {}", link.name, link.mac, if link.carrier { "no answer" } else { "no carrier" }))
        .chain(errors)
        .collect();
    bail!("no DHCP lease within {} s: {}", TRY.as_secs(), states.join(", "))
}

/// Renew for ever.
pub async fn maintain(
    client: Client,
    mut uplink: Uplink,
    changed: &mut dyn FnMut(&Uplink),
    log: &mut dyn FnMut(&str),
) -> Infallible {
    let Client { link, mut client } = client;
    loop {
        match client.run().await {
            Ok(DhcpV4State::Done(lease)) => match reapply(&link, &lease).await {
                Ok(new) if new != uplink => {
                    log(&format!("{} now has the address {}", new.interface, new.address));
                    uplink = new;
                    changed(&uplink);
                }
                Ok(_) => {}
                Err(error) => log(&format!("applying a lease: {error:#}")),
            },
            Ok(_) => {}
            Err(error) => {
                log(&format!("the lease on {} is lost: {error}; asking again", link.name));
                client.clean_up();
                tokio::time::sleep(AGAIN).await;
            }
        }
    }
}

async fn candidates(netlink: &Netlink, on: On) -> Result<Vec<Link>> {
    let links = netlink.links().await?;
    Ok(match on {
        On::Link => links,
        On::Bridge => bridge::candidates(links, netlink.bridge_link().await?),
    })
}

/// The client where the address is to be.
async fn settle(netlink: &mut Netlink, on: On, client: Client, lease: &DhcpV4Lease) -> Result<Client> {
    if on == On::Link || client.link.name == BRIDGE {
        return Ok(client);
    }
    // Its socket is bound to the link, by which nothing comes in any more.
    let Client { link, client } = client;
    drop(client);
    let link = netlink.bridge_uplink(&link).await?;
    let mut client = start(&link).await?;
    client.done(lease.clone()).with_context(|| format!("taking the lease over to {}", link.name))?;
    Ok(Client { link, client })
}

async fn start(link: &Link) -> Result<DhcpV4Client> {
    let mut config = DhcpV4Config::new(&link.name);
    config.set_iface_index(link.index);
    config.set_iface_mac(&link.mac).with_context(|| format!("reading the hardware address of {}", link.name))?;
    config.request_extra_dhcp_opts(&[DHCP_OPTION]);
    DhcpV4Client::init(config, None).await.with_context(|| format!("starting DHCP on {}", link.name))
}

async fn ask(link: Link) -> Result<(Client, DhcpV4Lease)> {
    let mut client = start(&link).await?;
    loop {
        if let DhcpV4State::Done(lease) = client.run().await.with_context(|| format!("asking by DHCP on {}", link.name))? {
            return Ok((Client { link, client }, *lease));
        }
    }
}

async fn reapply(link: &Link, lease: &DhcpV4Lease) -> Result<Uplink> {
    apply(&Netlink::connect()?, link, lease).await
}

async fn apply(netlink: &Netlink, link: &Link, lease: &DhcpV4Lease) -> Result<Uplink> {
    let prefix = lease.prefix_length();
    if prefix == 0 {
        bail!("the DHCP answer of {} on {} has no subnet mask", lease.srv_id, link.name);
    }
    netlink.set_address(link.index, lease.yiaddr, prefix).await.with_context(|| format!("setting up {}", link.name))?;
    let routes = routes(lease);
    for (to, prefix, gateway) in &routes {
        netlink.set_route(link.index, *to, *prefix, *gateway).await.with_context(|| format!("setting up {}", link.name))?;
    }
    let default = routes.iter().find(|(_, prefix, _)| *prefix == 0).and_then(|(_, _, gateway)| *gateway);
    let servers = lease.dns_srvs.iter().flatten();
    Ok(Uplink {
        interface: link.name.clone(),
        mac: link.mac.clone(),
        address: format!("{}/{prefix}", lease.yiaddr),
        gateway: default.map(IpAddr::V4),
        dns: servers.map(|server| IpAddr::V4(*server)).collect(),
        dhcp_words: lease.get_option_raw(DHCP_OPTION).and_then(|raw| words(&raw)),
    })
}

/// Destination, prefix, gateway. Classless routes replace the router option (RFC 3442).
fn routes(lease: &DhcpV4Lease) -> Vec<(Ipv4Addr, u8, Option<Ipv4Addr>)> {
    if let Some(routes) = &lease.classless_routes {
        let gateway = |router: Ipv4Addr| (!router.is_unspecified()).then_some(router);
        return routes.iter().map(|route| (route.destination, route.prefix_length, gateway(route.router))).collect();
    }
    let gateway = lease.gateways.as_ref().and_then(|gateways| gateways.first());
    gateway.map(|gateway| (Ipv4Addr::UNSPECIFIED, 0, Some(*gateway))).into_iter().collect()
}

/// The text of a raw option: pieces of code, length, bytes (RFC 3396).
fn words(raw: &[u8]) -> Option<String> {
    let mut text = Vec::new();
    let mut rest = raw;
    while let [_, length, after @ ..] = rest {
        let (piece, next) = after.split_at_checked(usize::from(*length))?;
        text.extend_from_slice(piece);
        rest = next;
    }
    let text = String::from_utf8(text).ok()?;
    let text = text.trim_matches(|char: char| char == '\0' || char.is_whitespace());
    (!text.is_empty()).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_option_is_put_together() {
        assert_eq!(words(&[224, 3, b'a', b'b', b'c', 224, 2, b'd', 0]).as_deref(), Some("abcd"));
        assert_eq!(words(&[224, 9, b'a']), None);
        assert_eq!(words(&[]), None);
    }
}
