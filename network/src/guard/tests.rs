use std::{os::fd::AsFd as _, time::Instant};

use etherparse::{
    ArpEthIpv4Packet, ArpOperation, EtherType, Icmpv6Type, PacketBuilder, VlanId,
    icmpv6::{NeighborAdvertisementHeader, RouterAdvertisementHeader},
};
use lodge_sys::packet::PacketSocket;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::*;
use crate::{
    attach,
    tests::spaces::{Lab, Space, spec, tool},
    veth::port_name,
};

const OWN: Mac = Mac([2, 0, 0, 0, 0, 5]);
const OTHER: Mac = Mac([2, 0, 0, 0, 0, 0x66]);
const OWN4: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 5);
const OTHER4: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 66);
const OWN6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 5);
const OTHER6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x66);
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
/// Any kind of frame (ETH_P_ALL in the kernel's include/uapi/linux/if_ether.h).
const ALL: u16 = 3;
/// Begins what tells one frame of the test from another.
const MARK: &[u8] = b"lodge forging test ";

type Frame = Box<dyn Fn(&[u8]) -> Vec<u8>>;

/// A frame that an environment sends, and whether it is to pass.
struct Sent {
    what: &'static str,
    /// The frame with this mark in it.
    frame: Frame,
    passes: bool,
}

fn frames() -> Vec<Sent> {
    let passing = |what, frame| Sent { what, frame, passes: true };
    let forged = |what, frame| Sent { what, frame, passes: false };
    let fe80 = |mac: Mac| mac.link_local();
    let advert =
        || Icmpv6Type::NeighborAdvertisement(NeighborAdvertisementHeader { router: false, solicited: false, r#override: true });
    let router = || {
        Icmpv6Type::RouterAdvertisement(RouterAdvertisementHeader {
            cur_hop_limit: 64,
            managed_address_config: false,
            other_config: false,
            router_lifetime: 1800,
        })
    };
    let redirect = || Icmpv6Type::Unknown { type_u8: 137, code_u8: 0, bytes5to8: [0; 4] };
    let query = || Icmpv6Type::Unknown { type_u8: 143, code_u8: 0, bytes5to8: [0; 4] };
    let solicit = || Icmpv6Type::NeighborSolicitation;
    let any6 = Ipv6Addr::UNSPECIFIED;
    vec![
        passing("own ARP request", arp(OWN, OWN, OWN4, ArpOperation::REQUEST)),
        passing("own ARP reply", arp(OWN, OWN, OWN4, ArpOperation::REPLY)),
        passing("own ARP probe", arp(OWN, OWN, Ipv4Addr::UNSPECIFIED, ArpOperation::REQUEST)),
        passing("own IPv4", udp4(OWN, OWN4, 1000)),
        passing("own IPv6", udp6(OWN, OWN6, 1000)),
        passing("own link-local IPv6", udp6(OWN, fe80(OWN), 1000)),
        passing("own advertisement", icmp6(OWN, OWN6, advert(), OWN6)),
        passing("own link-local advertisement", icmp6(OWN, fe80(OWN), advert(), fe80(OWN))),
        passing("own duplicate detection", icmp6(OWN, any6, solicit(), OWN6)),
        passing("asking for another", icmp6(OWN, OWN6, solicit(), OTHER6)),
        passing("group membership", icmp6(OWN, any6, query(), any6)),
        forged("ARP from another hardware address", arp(OTHER, OTHER, OWN4, ArpOperation::REQUEST)),
        forged("ARP that names another hardware address", arp(OWN, OTHER, OWN4, ArpOperation::REPLY)),
        forged("ARP request of another's address", arp(OWN, OWN, OTHER4, ArpOperation::REQUEST)),
        forged("ARP reply of another's address", arp(OWN, OWN, OTHER4, ArpOperation::REPLY)),
        forged("IPv4 from another hardware address", udp4(OTHER, OWN4, 1000)),
        forged("IPv4 from another's address", udp4(OWN, OTHER4, 1000)),
        forged("IPv4 from nobody", udp4(OWN, Ipv4Addr::UNSPECIFIED, 68)),
        forged("a DHCP server's answer", udp4(OWN, OWN4, 67)),
        forged("IPv6 from another hardware address", udp6(OTHER, OWN6, 1000)),
        forged("IPv6 from another's address", udp6(OWN, OTHER6, 1000)),
        forged("IPv6 from another's link-local address", udp6(OWN, fe80(OTHER), 1000)),
        forged("IPv6 from nobody", udp6(OWN, any6, 1000)),
        forged("a DHCPv6 server's answer", udp6(OWN, fe80(OWN), 547)),
        forged("advertisement of another's address", icmp6(OWN, OWN6, advert(), OTHER6)),
        forged("advertisement from another's address", icmp6(OWN, OTHER6, advert(), OTHER6)),
        forged("advertisement behind an extension header", hidden(OWN, OWN6, advert(), OTHER6)),
        forged("duplicate detection of another's address", icmp6(OWN, any6, solicit(), OTHER6)),
        forged("router advertisement", icmp6(OWN, fe80(OWN), router(), any6)),
        forged("router advertisement behind an extension header", hidden(OWN, fe80(OWN), router(), any6)),
        forged("redirect", icmp6(OWN, fe80(OWN), redirect(), any6)),
        forged("own IPv4 with a tag", tagged4(OWN4)),
        forged("another's IPv4 with a tag", tagged4(OTHER4)),
        forged("another protocol", other(OWN, EtherType(0x88b5))),
        forged("a link-layer discovery frame", other(OWN, EtherType(0x88cc))),
        forged("a frame of IEEE 802.2", other(OWN, EtherType(40))),
    ]
}

fn arp(ether: Mac, sender: Mac, address: Ipv4Addr, operation: ArpOperation) -> Frame {
    let packet = ArpEthIpv4Packet {
        operation,
        sender_mac: sender.0,
        sender_ipv4: address.octets(),
        target_mac: [0; 6],
        target_ipv4: [10, 99, 0, 1],
    };
    Box::new(move |mark| {
        let mut frame = Vec::new();
        PacketBuilder::ethernet2(ether.0, Mac::BROADCAST.0).arp(packet.clone().into()).write(&mut frame).unwrap();
        [&frame, mark].concat()
    })
}

fn udp4(ether: Mac, from: Ipv4Addr, port: u16) -> Frame {
    Box::new(move |mark| {
        let mut frame = Vec::new();
        let builder = PacketBuilder::ethernet2(ether.0, Mac::BROADCAST.0);
        builder.ipv4(from.octets(), [10, 99, 0, 1], 64).udp(port, 9).write(&mut frame, mark).unwrap();
        frame
    })
}

fn tagged4(from: Ipv4Addr) -> Frame {
    Box::new(move |mark| {
        let mut frame = Vec::new();
        let builder = PacketBuilder::ethernet2(OWN.0, Mac::BROADCAST.0).single_vlan(VlanId::try_new(7).unwrap());
        builder.ipv4(from.octets(), [10, 99, 0, 1], 64).udp(1000, 9).write(&mut frame, mark).unwrap();
        frame
    })
}

fn udp6(ether: Mac, from: Ipv6Addr, port: u16) -> Frame {
    Box::new(move |mark| {
        let mut frame = Vec::new();
        let builder = PacketBuilder::ethernet2(ether.0, Mac::of_multicast(ALL_NODES).0);
        builder.ipv6(from.octets(), ALL_NODES.octets(), 64).udp(port, 9).write(&mut frame, mark).unwrap();
        frame
    })
}

fn icmp6(ether: Mac, from: Ipv6Addr, kind: Icmpv6Type, target: Ipv6Addr) -> Frame {
    Box::new(move |mark| {
        let mut frame = Vec::new();
        let builder = PacketBuilder::ethernet2(ether.0, Mac::of_multicast(ALL_NODES).0);
        let builder = builder.ipv6(from.octets(), ALL_NODES.octets(), 255).icmpv6(kind);
        builder.write(&mut frame, &[&target.octets(), mark].concat()).unwrap();
        frame
    })
}

/// The same behind an empty destination options header (RFC 8200, 4.6).
fn hidden(ether: Mac, from: Ipv6Addr, kind: Icmpv6Type, target: Ipv6Addr) -> Frame {
    let plain = icmp6(ether, from, kind, target);
    Box::new(move |mark| {
        let mut frame = plain(mark);
        let (length, next) = (14 + 4, 14 + 6);
        let body = u16::from_be_bytes([frame[length], frame[length + 1]]) + 8;
        frame[length..length + 2].copy_from_slice(&body.to_be_bytes());
        let icmp = std::mem::replace(&mut frame[next], 60);
        frame.splice(14 + 40..14 + 40, [icmp, 0, 1, 4, 0, 0, 0, 0]);
        frame
    })
}

fn other(ether: Mac, kind: EtherType) -> Frame {
    Box::new(move |mark| [&Mac::BROADCAST.0[..], &ether.0, &kind.0.to_be_bytes(), &[0; 46], mark].concat())
}

/// Send every frame from the environment, and say which arrive outside. Each carries a mark; an ARP request of the environment's own is
/// the last one, and nothing overtakes on the way.
fn arrive(lab: &Lab, environment: &Space, frames: &[Sent]) -> Vec<bool> {
    let index = lab.world.index("site0");
    let socket = lab.world.run(move || PacketSocket::open(index, ALL).unwrap());
    let mark = |number: usize| [MARK, number.to_string().as_bytes(), b"."].concat();
    let mut sent: Vec<Vec<u8>> = frames.iter().enumerate().map(|(number, sent)| (sent.frame)(&mark(number))).collect();
    sent.push(arp(OWN, OWN, OWN4, ArpOperation::REQUEST)(&mark(frames.len())));
    let index = environment.index("eth0");
    environment.run(move || {
        let socket = PacketSocket::open(index, 0x0806).unwrap();
        sent.iter().for_each(|frame| socket.send(frame).unwrap());
    });
    let mut arrived = vec![false; frames.len() + 1];
    let mut buffer = [0; 2048];
    while arrived.last() == Some(&false) {
        let ready = poll(&mut [PollFd::new(socket.as_fd(), PollFlags::POLLIN)], PollTimeout::from(10_000_u16)).unwrap();
        assert!(ready > 0, "the last frame has not come");
        while let Some(frame) = socket.receive(&mut buffer).unwrap() {
            let Some(at) = frame.windows(MARK.len()).position(|window| window == MARK) else { continue };
            let digits = frame[at + MARK.len()..].split(|byte| *byte == b'.').next().unwrap();
            arrived[std::str::from_utf8(digits).unwrap().parse::<usize>().unwrap()] = true;
        }
    }
    arrived.pop();
    arrived
}

#[test]
fn what_is_forged_does_not_pass_and_what_is_own_does() {
    let Some(lab) = Lab::bridged() else { return };
    let environment = Space::new();
    let tid = environment.tid;
    lab.node.run(move || attach(tid, &spec(5), None).unwrap());
    let frames = frames();
    for (sent, arrived) in frames.iter().zip(arrive(&lab, &environment, &frames)) {
        assert_eq!(arrived, sent.passes, "{}", sent.what);
    }
    // The forger may call her link anything.
    environment.ip(&format!("link set eth0 address {OTHER}"));
    for (sent, arrived) in frames.iter().zip(arrive(&lab, &environment, &frames)) {
        assert_eq!(arrived, sent.passes, "{} from a renamed link", sent.what);
    }
    // That this test can fail: without the guard all of them arrive.
    lab.node.run(|| tool("nft", "delete table bridge lodge"));
    for (sent, arrived) in frames.iter().zip(arrive(&lab, &environment, &frames)) {
        assert!(arrived, "{} without a guard", sent.what);
    }
}

#[test]
fn a_guard_follows_a_change_and_without_one_a_port_passes_nothing() {
    let Some(lab) = Lab::bridged() else { return };
    let environment = Space::new();
    let tid = environment.tid;
    lab.node.run(move || attach(tid, &spec(5), None).unwrap());
    let two =
        || [("first", OWN4), ("second", OTHER4)].map(|(what, from)| Sent { what, frame: udp4(OWN, from, 1000), passes: true });
    let allow = |addresses: &'static [Ipv4Addr]| {
        let addresses = addresses.iter().map(|address| IpAddr::V4(*address)).collect();
        lab.node.run(move || set(&Guard { id: spec(5).id, mac: OWN, addresses }).unwrap());
    };
    allow(&[OWN4, OTHER4]);
    assert_eq!(arrive(&lab, &environment, &two()), [true, true]);
    allow(&[OWN4]);
    assert_eq!(arrive(&lab, &environment, &two()), [true, false]);

    lab.node.run(|| remove(spec(5).id).unwrap());
    assert_eq!(lab.node.run(|| list().unwrap()), [].into());
    let index = environment.index("eth0");
    environment.run(move || PacketSocket::open(index, ALL).unwrap().send(&udp4(OWN, OWN4, 1000)(b"")).unwrap());
    // Nothing tells of a dropped frame but the counter; the kernel is through with it at once or as soon as it comes to it.
    let end = Instant::now() + Duration::from_secs(10);
    while lab.node.run(dropped_without_guard) == 0 {
        assert!(Instant::now() < end, "the frame was not dropped for want of a guard");
    }
}

/// Frames that came by the port of an environment without a guard.
fn dropped_without_guard() -> u64 {
    let rules = tool("nft", "list chain bridge lodge ports");
    let packets = rules.split("packets ").nth(1).unwrap().split(' ').next().unwrap();
    packets.parse().unwrap()
}

#[test]
fn the_transaction_says_what_is_allowed() {
    let guard = Guard { id: spec(5).id, mac: OWN, addresses: vec![OWN4.into(), OWN6.into()] };
    let script = rules(&guard);
    let port = port_name(spec(5).id);
    assert_eq!(port, "env050000000000");
    for line in [
        format!("add element bridge lodge guards {{ \"{port}\" : goto environment-{} }}", spec(5).id),
        format!("add rule bridge lodge environment-{} ether saddr != 02:00:00:00:00:05 counter drop", spec(5).id),
        format!("add rule bridge lodge environment-{} ether type ip ip saddr {{ 10.99.0.5 }} accept", spec(5).id),
        format!("add rule bridge lodge environment-{} counter drop", spec(5).id),
    ] {
        assert!(script.lines().any(|found| found == line), "{line} is not in\n{script}");
    }
    assert!(script.ends_with("counter drop\n"));
    assert!(!rules(&Guard { addresses: vec![OWN6.into()], ..guard }).contains("ether type arp"));
}

#[test]
fn only_our_chains_are_listed() {
    let id = spec(5).id;
    let listing = format!(
        r#"{{"nftables": [{{"metainfo": {{}}}}, {{"chain": {{"table": "lodge", "name": "ports"}}}},
            {{"chain": {{"table": "other", "name": "environment-{id}"}}}}, {{"chain": {{"table": "lodge", "name": "environment-{id}"}}}}]}}"#
    );
    assert_eq!(guarded(&listing).unwrap(), [id].into());
    assert!(guarded("{}").is_err() && guarded("").is_err());
}
