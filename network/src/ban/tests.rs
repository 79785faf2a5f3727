use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    time::Duration,
};

use super::*;
use crate::tests::spaces::{Lab, NODE, WORLD};

fn set(addresses: &[&str]) -> BTreeSet<IpAddr> {
    addresses.iter().map(|address| address.parse().unwrap()).collect()
}

#[test]
fn the_transaction_replaces_the_whole_set() {
    let expected = "\
add table inet lodge-fence
add set inet lodge-fence banned4 { type ipv4_addr; }
flush set inet lodge-fence banned4
add set inet lodge-fence banned6 { type ipv6_addr; }
flush set inet lodge-fence banned6
add chain inet lodge-fence input { type filter hook input priority -310; policy accept; }
flush chain inet lodge-fence input
add rule inet lodge-fence input tcp dport 2049 ip saddr @banned4 counter drop
add rule inet lodge-fence input tcp dport 2049 ip6 saddr @banned6 counter drop
add element inet lodge-fence banned4 { 10.77.0.101 }
add element inet lodge-fence banned6 { fd00::1 }
";
    assert_eq!(rules(&set(&["fd00::1", "10.77.0.101"])), expected);
}

#[test]
fn a_set_without_its_rule_bans_nobody() {
    let set = r#"{"set": {"family": "inet", "name": "banned4", "table": "lodge-fence", "elem": ["10.0.0.1"]}}"#;
    let rule = |verdict: &str| {
        format!(
            r#"{{"rule": {{"table": "lodge-fence", "chain": "input", "expr":
               [{{"match": {{"op": "==", "left": {{}}, "right": "@banned4"}}}}, {verdict}]}}}}"#
        )
    };
    let listed = |objects: &[&str]| read(&format!(r#"{{"nftables": [{}]}}"#, objects.join(","))).unwrap();
    assert_eq!(listed(&[set]), BTreeSet::new());
    assert_eq!(listed(&[set, &rule(r#"{"accept": null}"#)]), BTreeSet::new());
    assert_eq!(listed(&[set, &rule(r#"{"drop": null}"#)]), super::tests::set(&["10.0.0.1"]));
    assert_eq!(listed(&[&set.replace("lodge-fence", "other"), &rule(r#"{"drop": null}"#)]), BTreeSet::new());
    assert!(read("{}").is_err() && read("no JSON").is_err());
}

/// One connection each from two addresses of the world to the node's port 2049, and one to another port.
struct Talks {
    server: Vec<TcpStream>,
    client: Vec<TcpStream>,
}

const OTHER: std::net::Ipv4Addr = std::net::Ipv4Addr::new(10, 99, 0, 7);

fn connect(lab: &Lab, from: std::net::Ipv4Addr, port: u16) -> std::io::Result<TcpStream> {
    lab.world.run(move || {
        use nix::sys::socket::{
            AddressFamily, SockFlag, SockType, SockaddrIn, bind, connect, setsockopt, socket, sockopt::SendTimeout,
        };
        use std::os::fd::AsRawFd as _;
        let fd = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
        bind(fd.as_raw_fd(), &SockaddrIn::from(std::net::SocketAddrV4::new(from, 0)))?;
        // A connect(2) that gets no answer ends after this.
        setsockopt(&fd, SendTimeout, &nix::sys::time::TimeVal::new(1, 0))?;
        connect(fd.as_raw_fd(), &SockaddrIn::from(std::net::SocketAddrV4::new(NODE, port)))?;
        Ok(TcpStream::from(fd))
    })
}

/// Whether what the client says now arrives.
fn arrives(talks: &mut Talks, which: usize) -> bool {
    talks.client[which].write_all(b"x").unwrap();
    talks.server[which].set_read_timeout(Some(Duration::from_millis(700))).unwrap();
    match talks.server[which].read(&mut [0; 8]) {
        Ok(read) => read > 0,
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => false,
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn a_banned_address_is_cut_from_the_server_in_the_middle_of_a_connection_and_others_are_not() {
    let Some(lab) = Lab::bridged() else { return };
    lab.world.ip(&format!("addr add {OTHER}/24 dev site0"));
    let listen = |port| lab.node.run(move || TcpListener::bind(SocketAddr::from((NODE, port))).unwrap());
    let (nfs, center) = (listen(2049), listen(8443));
    let mut talks = Talks { server: Vec::new(), client: Vec::new() };
    for (from, port, listener) in [(WORLD, 2049, &nfs), (OTHER, 2049, &nfs), (WORLD, 8443, &center)] {
        talks.client.push(connect(&lab, from, port).unwrap());
        talks.server.push(listener.accept().unwrap().0);
    }
    assert_eq!([0, 1, 2].map(|which| arrives(&mut talks, which)), [true, true, true]);
    assert_eq!(lab.node.run(|| banned().unwrap()), BTreeSet::new());

    let ban = set(&[&WORLD.to_string(), "2001:db8::1"]);
    for _ in 0..2 {
        let ban = ban.clone();
        lab.node.run(move || set_banned(&ban).unwrap());
    }
    assert_eq!(lab.node.run(|| banned().unwrap()), ban);
    assert_eq!([0, 1, 2].map(|which| arrives(&mut talks, which)), [false, true, true]);
    assert!(connect(&lab, WORLD, 2049).is_err() && connect(&lab, OTHER, 2049).is_ok());

    lab.node.run(|| set_banned(&BTreeSet::new()).unwrap());
    assert_eq!(lab.node.run(|| banned().unwrap()), BTreeSet::new());
    assert!(connect(&lab, WORLD, 2049).is_ok());
}
