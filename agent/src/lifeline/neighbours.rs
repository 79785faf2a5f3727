//! Whether anybody is there: the gateway and the machines of center and share, asked by ARP or neighbour discovery, as far as they are on
//! this node's own network.

use std::collections::BTreeSet;
use std::net::IpAddr;

use anyhow::Result;
use lodge_model::answer::parse_cidr;
use lodge_model::api::{Orders, ShareMount};

use super::stand::Neighbours;
use crate::uplink;

/// Ask them all. Takes `lodge_network::LISTEN` where nobody answers.
pub fn ask(known: &BTreeSet<IpAddr>) -> Result<Neighbours> {
    let uplink = uplink::read()?;
    let mut all = known.clone();
    all.extend(uplink.gateway);
    let Some(own) = parse_cidr(&uplink.address) else { return Ok(Neighbours::Unknown) };
    let near: Vec<IpAddr> = all.into_iter().filter(|address| is_near(*address, own)).collect();
    if near.is_empty() {
        return Ok(Neighbours::Unknown);
    }
    let found = lodge_network::probe(&near)?;
    Ok(if found.is_empty() { Neighbours::Silent } else { Neighbours::Answer })
}

/// Those that are known besides the gateway.
pub fn known(center: &str, orders: Option<&Orders>) -> BTreeSet<IpAddr> {
    let share = orders.and_then(|orders| orders.share.as_ref()).map(|ShareMount::Nfs { server }| server.as_str());
    [host(center), share].into_iter().flatten().filter_map(|text| text.parse().ok()).collect()
}

/// `10.77.0.10` of `https://10.77.0.10:8443`.
fn host(url: &str) -> Option<&str> {
    let (_, rest) = url.split_once("://")?;
    let authority = rest.split('/').next()?;
    let (host, _) = authority.rsplit_once(':').unwrap_or((authority, ""));
    Some(host.trim_start_matches('[').trim_end_matches(']'))
}

/// On the same network, and not this node itself.
fn is_near(address: IpAddr, (own, prefix): (IpAddr, u8)) -> bool {
    let bits = |address: IpAddr| match address {
        IpAddr::V4(address) => (u128::from(u32::from(address)), 32),
        IpAddr::V6(address) => (u128::from(address), 128),
    };
    let ((one, length), (other, _)) = (bits(address), bits(own));
    let host = length - u32::from(prefix).min(length);
    address != own && address.is_ipv4() == own.is_ipv4() && one.checked_shr(host) == other.checked_shr(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_others_on_the_same_network_are_near() {
        let own = ("10.77.0.101".parse().unwrap(), 24);
        let near = |address: &str| is_near(address.parse().unwrap(), own);
        assert!(near("10.77.0.1") && near("10.77.0.255"));
        assert!(!near("10.77.0.101") && !near("10.77.1.1") && !near("fd00::1"));
        assert!(is_near("fd00::1".parse().unwrap(), ("fd00::2".parse().unwrap(), 64)));
        assert!(is_near("1.2.3.4".parse().unwrap(), ("10.0.0.1".parse().unwrap(), 0)));
    }

    #[test]
    fn center_and_share_are_known() {
        let orders = Orders { share: Some(ShareMount::Nfs { server: "10.77.0.11".into() }), ..Orders::none("n") };
        let known = |center| known(center, Some(&orders)).iter().map(IpAddr::to_string).collect::<Vec<_>>().join(" ");
        assert_eq!(known("https://10.77.0.10:8443"), "10.77.0.10 10.77.0.11");
        assert_eq!(known("https://[fd00::1]:8443/"), "10.77.0.11 fd00::1");
        assert_eq!(known("https://center.example"), "10.77.0.11");
    }
}
