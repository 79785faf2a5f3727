//! The frames of probing and announcing an address: ARP (RFC 826, RFC 5227) and neighbour discovery (RFC 4861). Pure.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::{Context as _, Result};
use etherparse::{
    ArpEthIpv4Packet, ArpOperation, EtherType, Icmpv6Type, NetSlice, PacketBuilder, SlicedPacket, TransportSlice,
    icmpv6::NeighborAdvertisementHeader,
};

use crate::address::{Mac, solicited_node};

/// Type of ARP frames.
pub const ARP: u16 = EtherType::ARP.0;
/// Type of IPv6 frames.
pub const IPV6: u16 = EtherType::IPV6.0;
/// Of neighbour discovery; what comes with another one has crossed a router (RFC 4861, 7.1).
const HOP_LIMIT: u8 = 255;
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// Asks who has an address without saying that the asker has one.
pub fn probe(from: Mac, address: IpAddr) -> Result<Vec<u8>> {
    match address {
        IpAddr::V4(address) => arp(from, Ipv4Addr::UNSPECIFIED, address),
        IpAddr::V6(address) => {
            let group = solicited_node(address);
            ndp(from, Ipv6Addr::UNSPECIFIED, group, Icmpv6Type::NeighborSolicitation, &address.octets())
        }
    }
}

/// Tells everybody where an address is.
pub fn announcement(from: Mac, address: IpAddr) -> Result<Vec<u8>> {
    match address {
        IpAddr::V4(address) => arp(from, address, address),
        IpAddr::V6(address) => {
            let flags = NeighborAdvertisementHeader { router: false, solicited: false, r#override: true };
            // Target link-layer address: type 2, length in units of 8 bytes (RFC 4861, 4.6.1).
            let body = [&address.octets()[..], &[2, 1], &from.0].concat();
            ndp(from, address, ALL_NODES, Icmpv6Type::NeighborAdvertisement(flags), &body)
        }
    }
}

/// Who says in this frame that an address is its own.
pub fn claim(frame: &[u8]) -> Option<(IpAddr, Mac)> {
    let packet = SlicedPacket::from_ethernet(frame).ok()?;
    match (packet.net?, packet.transport) {
        (NetSlice::Arp(arp), _) => {
            let arp: ArpEthIpv4Packet = arp.to_packet().try_into().ok()?;
            let sender = arp.sender_ipv4_addr();
            (!sender.is_unspecified()).then_some((IpAddr::V4(sender), Mac(arp.sender_mac)))
        }
        (NetSlice::Ipv6(ip), Some(TransportSlice::Icmpv6(icmp))) => {
            let Icmpv6Type::NeighborAdvertisement(_) = icmp.icmp_type() else { return None };
            let target: [u8; 16] = icmp.payload().get(..16)?.try_into().ok()?;
            let from: [u8; 6] = frame.get(6..12)?.try_into().ok()?;
            (ip.header().hop_limit() == HOP_LIMIT).then_some((IpAddr::V6(target.into()), Mac(from)))
        }
        _ => None,
    }
}

fn arp(from: Mac, sender: Ipv4Addr, target: Ipv4Addr) -> Result<Vec<u8>> {
    let packet = ArpEthIpv4Packet {
        operation: ArpOperation::REQUEST,
        sender_mac: from.0,
        sender_ipv4: sender.octets(),
        target_mac: [0; 6],
        target_ipv4: target.octets(),
    };
    let mut frame = Vec::new();
    let builder = PacketBuilder::ethernet2(from.0, Mac::BROADCAST.0).arp(packet.into());
    builder.write(&mut frame).context("building an ARP frame")?;
    Ok(frame)
}

fn ndp(from: Mac, sender: Ipv6Addr, group: Ipv6Addr, kind: Icmpv6Type, body: &[u8]) -> Result<Vec<u8>> {
    let builder = PacketBuilder::ethernet2(from.0, Mac::of_multicast(group).0);
    let builder = builder.ipv6(sender.octets(), group.octets(), HOP_LIMIT).icmpv6(kind);
    let mut frame = Vec::new();
    builder.write(&mut frame, body).context("building a neighbour discovery frame")?;
    Ok(frame)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MAC: Mac = Mac([2, 0, 0, 0, 0, 9]);

    #[test]
    fn an_announcement_claims_and_a_probe_does_not() {
        for address in ["10.0.0.9", "2001:db8::9"] {
            let address: IpAddr = address.parse().unwrap();
            assert_eq!(claim(&announcement(MAC, address).unwrap()), Some((address, MAC)));
            assert_eq!(claim(&probe(MAC, address).unwrap()), None);
        }
    }

    #[test]
    fn what_crossed_a_router_claims_nothing() {
        let mut frame = announcement(MAC, "2001:db8::9".parse().unwrap()).unwrap();
        frame[14 + 7] = 254;
        assert_eq!(claim(&frame), None);
    }

    proptest! {
        #[test]
        fn no_frame_makes_it_panic(frame in prop::collection::vec(any::<u8>(), 0..120), kind in prop::sample::select(vec![ARP, IPV6])) {
            let _ = claim(&frame);
            let mut frame = frame;
            if let Some(field) = frame.get_mut(12..14) {
                field.copy_from_slice(&kind.to_be_bytes());
            }
            let _ = claim(&frame);
        }
    }
}
