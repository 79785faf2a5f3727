use std::{
    io::Read as _,
    net::{SocketAddr, TcpListener, TcpStream},
    os::fd::AsFd as _,
    process::{Child, Command, Stdio},
    thread,
};

use lodge_sys::packet::PacketSocket;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::*;
use crate::{
    frames, probe,
    tests::spaces::{Lab, Space, WORLD, spec},
};

/// The next `count` claims that come in by a socket.
fn claims(socket: &PacketSocket, count: usize) -> BTreeSet<(IpAddr, String)> {
    let mut claims = BTreeSet::new();
    let mut buffer = [0; 2048];
    while claims.len() < count {
        let ready = poll(&mut [PollFd::new(socket.as_fd(), PollFlags::POLLIN)], PollTimeout::from(10_000_u16)).unwrap();
        assert!(ready > 0, "only {claims:?}");
        while let Some(frame) = socket.receive(&mut buffer).unwrap() {
            claims.extend(frames::claim(frame).map(|(address, mac)| (address, mac.to_string())));
        }
    }
    claims
}

fn attach_on(lab: &Lab, environment: &Space, number: u8) {
    let tid = environment.tid;
    lab.node.run(move || attach(tid, &spec(number), None).unwrap());
}

/// A connection from one space to an address in another one.
fn connects(from: &Space, to: &Space, address: &str) -> bool {
    // Any port: what another test is just starting may hold a copy of the last listener until its exec.
    let address = SocketAddr::new(address.parse().unwrap(), 0);
    let listener = to.run(move || TcpListener::bind(address).unwrap());
    let address = listener.local_addr().unwrap();
    let stream = from.run(move || TcpStream::connect_timeout(&address, Duration::from_secs(5)));
    stream.is_ok_and(|stream| listener.accept().unwrap().1 == stream.local_addr().unwrap())
}

#[test]
fn an_environment_is_connected_announced_counted_and_disconnected() {
    let Some(lab) = Lab::bridged() else { return };
    let (one, other) = (Space::new(), Space::new());
    let index = lab.world.index("site0");
    let sniffers = lab.world.run(move || [frames::ARP, frames::IPV6].map(|kind| PacketSocket::open(index, kind).unwrap()));
    assert_eq!(lab.node.run(|| look(spec(5).id).unwrap()), Presence::No);
    attach_on(&lab, &one, 5);
    let mac = || spec(5).mac;
    assert_eq!(claims(&sniffers[0], 1), [("10.99.0.5".parse().unwrap(), mac())].into());
    assert!(claims(&sniffers[1], 1).contains(&("2001:db8::5".parse().unwrap(), mac())));
    attach_on(&lab, &other, 6);
    assert_eq!(one.mac("eth0"), mac());
    let queues = "numtxqueues 1 numrxqueues 1 ";
    let host_end = lab.node.ip(&format!("-d link show {}", port_name(spec(5).id)));
    assert!(one.ip("-d link show eth0").contains(queues) && host_end.contains(queues), "{host_end}");
    for address in ["10.99.0.5", "2001:db8::5"] {
        assert!(connects(&lab.world, &one, address), "{address} from outside");
        assert!(connects(&other, &one, address), "{address} from a neighbour");
    }
    assert!(connects(&lab.node, &one, "10.99.0.5"));
    assert!(connects(&one, &lab.world, &WORLD.to_string()));
    assert!(one.ip("route").contains("default via 10.99.0.1"));
    assert!(one.ip("-6 route").contains("default via 2001:db8::1"));
    let traffic = lab.node.run(|| traffic(spec(5).id).unwrap().unwrap());
    assert!(traffic.rx > 500 && traffic.tx > 500, "{traffic:?}");

    assert_eq!(
        lab.node.run(|| (list().unwrap(), look(spec(5).id).unwrap())),
        ([spec(5).id, spec(6).id].into(), Presence::Whole)
    );
    for _ in 0..2 {
        lab.node.run(|| detach(spec(5).id).unwrap());
        assert_eq!(lab.node.run(|| (list().unwrap(), look(spec(5).id).unwrap())), ([spec(6).id].into(), Presence::No));
    }
    assert!(!one.ip("link").contains("eth0"));
    assert!(connects(&lab.world, &other, "10.99.0.6"));
}

#[test]
fn connecting_twice_changes_nothing_and_elsewhere_moves_it() {
    let Some(lab) = Lab::bridged() else { return };
    let (old, new) = (Space::new(), Space::new());
    attach_on(&lab, &old, 5);
    let before = old.ip("-o link show eth0");
    attach_on(&lab, &old, 5);
    assert_eq!(old.ip("-o link show eth0"), before);
    attach_on(&lab, &new, 5);
    assert!(!old.ip("link").contains("eth0"));
    assert!(connects(&lab.world, &new, "10.99.0.5"));
}

#[test]
fn the_link_goes_with_the_namespace_and_the_guard_is_told_of() {
    let Some(lab) = Lab::bridged() else { return };
    let environment = Space::new();
    attach_on(&lab, &environment, 5);
    // As when its init ends; netlink tells when the kernel is through with it.
    lab.node.run(move || {
        runtime().unwrap().block_on(async move {
            let mut netlink = Netlink::listen().unwrap();
            drop(environment);
            while netlink.find(&port_name(spec(5).id)).await.unwrap().is_some() {
                netlink.changed().await;
            }
        });
    });
    assert_eq!(lab.node.run(|| (list().unwrap(), look(spec(5).id).unwrap())), ([spec(5).id].into(), Presence::Guarded));
    lab.node.run(|| detach(spec(5).id).unwrap());
    assert!(lab.node.run(|| list().unwrap()).is_empty());
}

#[test]
fn who_has_an_address_is_found_out() {
    let Some(lab) = Lab::bridged() else { return };
    let environment = Space::new();
    attach_on(&lab, &environment, 5);
    let world = lab.world.mac("site0");
    let node = lab.node.mac("br0");
    let asked = |addresses: &[&str]| {
        let addresses: Vec<IpAddr> = addresses.iter().map(|address| address.parse().unwrap()).collect();
        let taken = lab.node.run(move || probe::probe(&addresses).unwrap());
        taken.into_iter().map(|taken| (taken.address.to_string(), taken.mac)).collect::<BTreeSet<_>>()
    };
    let pair = |address: &str, mac: &str| (address.to_owned(), mac.to_owned());
    assert_eq!(asked(&["10.99.0.9", "2001:db8::9"]), [].into());
    assert_eq!(
        asked(&["10.99.0.1", "2001:db8::1", "10.99.0.9"]),
        [pair("10.99.0.1", &world), pair("2001:db8::1", &world)].into()
    );
    let mac = spec(5).mac;
    assert_eq!(asked(&["10.99.0.5", "2001:db8::5"]), [pair("10.99.0.5", &mac), pair("2001:db8::5", &mac)].into());
    assert_eq!(asked(&["10.99.0.2"]), [pair("10.99.0.2", &node)].into());
    assert_eq!(asked(&[]), [].into());
}

#[test]
fn what_cannot_be_is_refused_by_name() {
    let refused = |change: fn(&mut LinkSpec)| {
        let mut spec = spec(5);
        change(&mut spec);
        format!("{:#}", attach(std::process::id(), &spec, None).unwrap_err())
    };
    assert!(refused(|spec| spec.mac = "x".into()).contains("\"x\" is not a hardware address"));
    assert!(refused(|spec| spec.addresses[0].prefix = 33).contains("10.99.0.5/33"));
    assert!(refused(|spec| spec.addresses[0].gateway = spec.addresses[1].gateway).contains("gateway of 10.99.0.5"));
    let nobody = format!("{:#}", attach(u32::MAX, &spec(5), None).unwrap_err());
    assert!(nobody.contains(&spec(5).id.to_string()) && nobody.contains("/proc/4294967295/ns/net"), "{nobody}");
}

#[test]
fn without_a_bridge_the_error_says_who_makes_it() {
    let Some(lab) = Lab::new() else { return };
    let environment = Space::new();
    let tid = environment.tid;
    let error = lab.node.run(move || format!("{:#}", attach(tid, &spec(5), None).unwrap_err()));
    assert!(error.contains("there is no bridge br0: `agent network` makes it"), "{error}");
}

#[test]
fn many_are_connected_and_disconnected_at_once() {
    let Some(lab) = Lab::bridged() else { return };
    let environments: Vec<Space> = (0..8).map(|_| Space::new()).collect();
    let numbered: Vec<(u32, u8)> = environments.iter().map(|space| space.tid).zip(20..).collect();
    // Threads are in the namespace of the one that starts them.
    let at_once = |work: fn(u32, u8)| {
        let numbered = numbered.clone();
        lab.node.run(move || {
            thread::scope(|scope| numbered.iter().for_each(|(tid, number)| drop(scope.spawn(move || work(*tid, *number)))));
        });
    };
    at_once(|tid, number| attach(tid, &spec(number), None).unwrap());
    assert_eq!(lab.node.run(|| list().unwrap().len()), 8);
    for (space, number) in environments.iter().zip(20..) {
        assert!(connects(&lab.world, space, &format!("10.99.0.{number}")), "{number}");
    }
    at_once(|_, number| detach(spec(number).id).unwrap());
    assert_eq!(lab.node.run(|| list().unwrap()), BTreeSet::new());
}

#[test]
fn what_is_sent_to_others_is_not_overheard() {
    let Some(lab) = Lab::bridged() else { return };
    let (one, listener) = (Space::new(), Space::new());
    attach_on(&lab, &one, 5);
    attach_on(&lab, &listener, 6);
    let index = listener.index("eth0");
    let heard = listener.run(move || PacketSocket::open(index, frames::ARP).unwrap());
    let index = lab.world.index("site0");
    lab.world.run(move || {
        let socket = PacketSocket::open(index, frames::ARP).unwrap();
        let world = Mac([2, 0, 0, 0, 0, 0xee]);
        // To the other environment, to nobody that the bridge knows, and to all.
        for (number, to) in [Mac([2, 0, 0, 0, 0, 5]), Mac([2, 0, 0, 0, 0, 0x77]), Mac::BROADCAST].into_iter().enumerate() {
            let number = u8::try_from(number).unwrap();
            let mut frame = frames::announcement(world, IpAddr::from([10, 99, 0, 200 + number])).unwrap();
            frame[..6].copy_from_slice(&to.0);
            socket.send(&frame).unwrap();
        }
    });
    let claims = claims(&heard, 1);
    assert_eq!(claims.first().map(|(address, _)| address.to_string()).as_deref(), Some("10.99.0.202"));
}

#[test]
fn an_environment_moves_to_another_node_with_its_address() {
    let Some(lab) = Lab::bridged() else { return };
    let other = lab.second_node();
    let (before, after, neighbour) = (Space::new(), Space::new(), Space::new());
    attach_on(&lab, &before, 5);
    attach_on(&lab, &neighbour, 6);
    for address in ["10.99.0.5", "2001:db8::5"] {
        assert!(connects(&lab.world, &before, address) && connects(&neighbour, &before, address), "{address} before");
    }
    lab.node.run(|| detach(spec(5).id).unwrap());
    let tid = after.tid;
    other.run(move || attach(tid, &spec(5), None).unwrap());
    // Whoever has spoken with it goes on at once, also who was on the same node.
    for address in ["10.99.0.5", "2001:db8::5"] {
        assert!(connects(&lab.world, &after, address) && connects(&neighbour, &after, address), "{address} after");
        let address: IpAddr = address.parse().unwrap();
        let taken = lab.node.run(move || probe::probe(&[address]).unwrap());
        assert_eq!(taken, [probe::Taken { address, mac: spec(5).mac }]);
    }
}

#[test]
fn what_was_cut_short_is_completed_or_cleared_away() {
    let Some(lab) = Lab::bridged() else { return };
    let make = |cut: usize, tid: u32| {
        lab.node.run(move || {
            let plan = spec(5).plan().unwrap();
            if cut != 1 {
                guard::set(&Guard { id: spec(5).id, mac: plan.mac, addresses: vec![] }).unwrap();
            }
            let namespace = namespace(tid).unwrap();
            runtime().unwrap().block_on(async {
                if cut >= 1 {
                    let (netlink, inside) = (Netlink::connect().unwrap(), Inside::open(&namespace).unwrap());
                    let pair = ensure_pair(&netlink, &inside, spec(5).id, &plan, &namespace).await.unwrap();
                    if cut >= 3 {
                        ensure_port(&netlink, pair.port, &port_name(spec(5).id), &plan).await.unwrap();
                    }
                    if cut == 4 {
                        inside::prepare(&namespace).unwrap();
                        inside.set_up(pair.inside, &plan).await.unwrap();
                    }
                }
            });
        });
    };
    for cut in 0..=4 {
        let environment = Space::new();
        make(cut, environment.tid);
        let expected = if cut == 0 { Presence::Guarded } else { Presence::Partly };
        assert_eq!(lab.node.run(|| look(spec(5).id).unwrap()), expected, "cut {cut}");
        attach_on(&lab, &environment, 5);
        assert_eq!(lab.node.run(|| look(spec(5).id).unwrap()), Presence::Whole, "cut {cut}");
        assert!(connects(&lab.world, &environment, "10.99.0.5"), "cut {cut}");
        lab.node.run(|| detach(spec(5).id).unwrap());
        make(cut, environment.tid);
        lab.node.run(|| detach(spec(5).id).unwrap());
        assert_eq!(lab.node.run(|| (list().unwrap(), look(spec(5).id).unwrap())), ([].into(), Presence::No), "cut {cut}");
    }
}

/// As a container's: a process in a network namespace that belongs to a user namespace of its own.
struct Container(Child);

impl Container {
    fn new(node: &Space) -> Self {
        node.run(|| {
            let mut command = Command::new("unshare");
            command.args(["--user", "--map-root-user", "--net", "sh", "-c", "echo ready; exec sleep 1000"]);
            let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
            let mut line = [0; 6];
            child.stdout.as_mut().unwrap().read_exact(&mut line).unwrap();
            assert_eq!(&line, b"ready\n");
            Self(child)
        })
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

#[test]
fn the_namespace_may_belong_to_a_user_namespace() {
    let Some(lab) = Lab::bridged() else { return };
    let container = Container::new(&lab.node);
    let pid = container.0.id();
    lab.node.run(move || attach(pid, &spec(5), None).unwrap());
    for address in ["10.99.0.5:80", "[2001:db8::5]:80"] {
        let address: SocketAddr = address.parse().unwrap();
        let error = lab.world.run(move || TcpStream::connect_timeout(&address, Duration::from_secs(5)).unwrap_err());
        // It is there, and nothing of it listens.
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused, "{address}");
    }
}
