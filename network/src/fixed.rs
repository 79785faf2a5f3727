//! A fixed address, as the answer says.

use std::{cmp::Reverse, net::IpAddr, net::Ipv4Addr, time::Duration};

use anyhow::{Context as _, Result, bail};
use lodge_model::answer::{NetworkAnswer, parse_cidr};

use crate::{
    On, Uplink,
    netlink::{Link, Netlink},
};

/// How long one try waits for a carrier. Switches with spanning tree take up to 30 s, and the caller tries again.
const CARRIER: Duration = Duration::from_secs(40);

pub async fn set_up(netlink: &mut Netlink, config: &NetworkAnswer, on: On, log: &mut dyn FnMut(&str)) -> Result<Uplink> {
    let (address, prefix) = parse_cidr(&config.address)
        .with_context(|| format!("reading network.address {:?}: expected ADDRESS/PREFIX", config.address))?;
    let IpAddr::V4(address) = address else {
        bail!("network.address {:?} is not an IPv4 address; this version sets up IPv4 only", config.address)
    };
    let link = tokio::time::timeout(CARRIER, link(netlink, config.mac.as_deref(), log)).await;
    let link = match link {
        Ok(link) => link?,
        Err(_) => bail!("{}", no_carrier(netlink, config.mac.as_deref()).await?),
    };
    let link = match on {
        On::Link => link,
        On::Bridge => netlink.bridge_uplink(&link).await?,
    };
    netlink.set_address(link.index, address, prefix).await.with_context(|| format!("setting up {}", link.name))?;
    if let Some(IpAddr::V4(gateway)) = config.gateway {
        netlink.set_route(link.index, Ipv4Addr::UNSPECIFIED, 0, Some(gateway)).await?;
    }
    log(&format!("{} has the fixed address {}", link.name, config.address));
    Ok(Uplink {
        interface: link.name,
        mac: link.mac,
        address: config.address.clone(),
        gateway: config.gateway,
        dns: config.dns.clone(),
        dhcp_words: None,
    })
}

/// The link that is meant, as soon as it has a carrier.
async fn link(netlink: &mut Netlink, mac: Option<&str>, log: &mut dyn FnMut(&str)) -> Result<Link> {
    let mut told = false;
    loop {
        netlink.raise_all().await?;
        let links = netlink.links().await?.into_iter().filter(|link| is_meant(link, mac) && link.carrier);
        // The uplink of a bridge that is there already stays it, where nothing else is said.
        if let Some(link) = links.max_by_key(|link| (link.controller.is_some(), Reverse(link.index))) {
            return Ok(link);
        }
        if !std::mem::replace(&mut told, true) {
            log("waiting for a carrier");
        }
        netlink.changed().await;
    }
}

fn is_meant(link: &Link, mac: Option<&str>) -> bool {
    mac.is_none_or(|mac| mac.eq_ignore_ascii_case(&link.mac))
}

async fn no_carrier(netlink: &Netlink, mac: Option<&str>) -> Result<String> {
    let links = netlink.links().await?;
    let names = links.iter().map(|link| format!("{} {}", link.name, link.mac)).collect::<Vec<_>>().join(", ");
    Ok(match mac {
        _ if links.is_empty() => "this machine has no network interface that its kernel knows".to_owned(),
        Some(mac) if !links.iter().any(|link| is_meant(link, Some(mac))) => {
            format!("no network interface has the address {mac} that network.mac names; there are: {names}")
        }
        _ => format!("no link within {} s; plug a cable in, or name another interface; there are: {names}", CARRIER.as_secs()),
    })
}
