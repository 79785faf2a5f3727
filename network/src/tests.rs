use super::*;

pub mod spaces;

#[test]
fn an_uplink_survives_its_file_and_unknown_keys_do_not() {
    let uplink = Uplink {
        interface: "eth0".into(),
        mac: "52:54:00:00:00:01".into(),
        address: "10.0.0.5/24".into(),
        gateway: Some("10.0.0.1".parse().unwrap()),
        dns: vec!["10.0.0.1".parse().unwrap()],
        dhcp_words: None,
    };
    assert_eq!(uplink.ip(), "10.0.0.5");
    let text = serde_json::to_string(&uplink).unwrap();
    assert_eq!(serde_json::from_str::<Uplink>(&text).unwrap(), uplink);
    assert!(serde_json::from_str::<Uplink>(&text.replace("gateway", "gatewya")).is_err());
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("etc/resolv.conf");
    write_resolv_conf(&uplink, &path).unwrap();
    assert_eq!(std::fs::read_to_string(path).unwrap(), "nameserver 10.0.0.1\n");
}

/// A machine with one link, and beside it a site's DHCP server, in network namespaces of their own.
mod site {
    use std::{
        net::{Ipv4Addr, SocketAddr, UdpSocket},
        process::Command,
        sync::mpsc::{Receiver, Sender, channel},
        thread,
    };

    use dhcproto::{
        Decodable as _, Decoder, Encodable as _,
        v4::{DhcpOption, Message, MessageType, Opcode, OptionCode, UnknownOption},
    };
    use lodge_model::keywords::{DHCP_OPTION, DHCP_VENDOR_CLASS};
    use nix::{
        sched::{CloneFlags, unshare},
        sys::socket::{setsockopt, sockopt},
        unistd::{geteuid, gettid},
    };

    const SERVER: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 1);
    const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 50);

    /// What the server was asked.
    #[derive(Debug, PartialEq, Eq)]
    pub enum Asked {
        Discover,
        Request,
        Renew,
        Inform,
    }

    /// Run `machine` in a namespace with link `uplink0`; the server's questions come over the channel. `false` without root.
    pub fn with(words_in_lease: Option<&'static str>, machine: impl FnOnce(Receiver<Asked>) + Send + 'static) -> bool {
        if !geteuid().is_root() {
            println!("skipped: network namespaces need root");
            return false;
        }
        let (ready, is_ready) = channel();
        let (moved, in_place) = channel();
        let (asked, questions) = channel();
        thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            ip("link add site0 type veth peer name uplink0");
            ip(&format!("addr add {SERVER}/24 dev site0"));
            ip("link set site0 up");
            // Until the other end is up there is no carrier; the socket does not care.
            let socket = UdpSocket::bind(("0.0.0.0", 67)).unwrap();
            socket.set_broadcast(true).unwrap();
            setsockopt(&socket, sockopt::BindToDevice, &"site0".into()).unwrap();
            let (taken, is_taken) = channel::<i32>();
            ready.send(taken).unwrap();
            ip(&format!("link set uplink0 netns {}", is_taken.recv().unwrap()));
            moved.send(()).unwrap();
            serve(&socket, &asked, words_in_lease);
        });
        let run = thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            let taken = is_ready.recv().unwrap();
            taken.send(gettid().as_raw()).unwrap();
            // The link is here once the other side has gone on to serve.
            in_place.recv().unwrap();
            machine(questions);
        });
        run.join().unwrap();
        true
    }

    fn ip(arguments: &str) {
        let output = Command::new("ip").args(arguments.split(' ')).output().unwrap();
        assert!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
    }

    fn serve(socket: &UdpSocket, asked: &Sender<Asked>, words: Option<&str>) {
        let mut packet = [0; 1500];
        while let Ok(length) = socket.recv(&mut packet) {
            let question = Message::decode(&mut Decoder::new(&packet[..length])).unwrap();
            let kind = question.opts().msg_type().unwrap();
            let is_renewal = !question.ciaddr().is_unspecified();
            let (said, reply, words) = match kind {
                MessageType::Discover => (Asked::Discover, MessageType::Offer, words),
                MessageType::Request if is_renewal => (Asked::Renew, MessageType::Ack, words),
                MessageType::Request => (Asked::Request, MessageType::Ack, words),
                MessageType::Inform => {
                    let class = DhcpOption::ClassIdentifier(DHCP_VENDOR_CLASS.as_bytes().to_vec());
                    assert_eq!(question.opts().get(OptionCode::ClassIdentifier), Some(&class));
                    (Asked::Inform, MessageType::Ack, Some("lodge.name=informed"))
                }
                _ => continue,
            };
            let mut answer = Message::default();
            answer.set_opcode(Opcode::BootReply).set_xid(question.xid()).set_chaddr(question.chaddr()).set_yiaddr(CLIENT);
            let options = answer.opts_mut();
            options.insert(DhcpOption::MessageType(reply));
            options.insert(DhcpOption::ServerIdentifier(SERVER));
            options.insert(DhcpOption::SubnetMask(Ipv4Addr::new(255, 255, 255, 0)));
            options.insert(DhcpOption::Router(vec![SERVER]));
            options.insert(DhcpOption::DomainNameServer(vec![SERVER]));
            options.insert(DhcpOption::AddressLeaseTime(4));
            if let Some(words) = words {
                let option = UnknownOption::new(OptionCode::Unknown(DHCP_OPTION), words.as_bytes().to_vec());
                options.insert(DhcpOption::Unknown(option));
            }
            let to = if is_renewal || kind == MessageType::Inform { question.ciaddr() } else { Ipv4Addr::BROADCAST };
            socket.send_to(&answer.to_vec().unwrap(), SocketAddr::from((to, 68))).unwrap();
            if asked.send(said).is_err() {
                return;
            }
        }
    }
}

#[test]
fn a_lease_is_taken_applied_and_renewed() {
    site::with(Some("lodge.name=leased"), |asked| {
        let mut said = Vec::new();
        let lease = bring_up(None, On::Link, &mut |line| said.push(line.to_owned())).unwrap();
        let uplink = lease.uplink().clone();
        assert_eq!((uplink.interface.as_str(), uplink.address.as_str()), ("uplink0", "10.99.0.50/24"));
        assert_eq!(uplink.gateway, Some("10.99.0.1".parse().unwrap()));
        assert_eq!(uplink.dhcp_words.as_deref(), Some("lodge.name=leased"));
        assert!(said.iter().any(|line| line.contains("uplink0")), "{said:?}");
        let routes = std::process::Command::new("ip").args(["-4", "route"]).output().unwrap();
        let routes = String::from_utf8(routes.stdout).unwrap();
        assert!(routes.contains("default via 10.99.0.1 dev uplink0"), "{routes}");
        assert_eq!(inform(&uplink).unwrap().as_deref(), Some("lodge.name=informed"));
        std::thread::spawn(move || lease.maintain(&mut |_| {}, &mut |_| {}));
        let all: Vec<site::Asked> =
            std::iter::from_fn(|| asked.recv_timeout(std::time::Duration::from_secs(20)).ok()).take(5).collect();
        use site::Asked::*;
        assert_eq!(all, [Discover, Request, Inform, Renew, Renew]);
    });
}

#[test]
fn a_fixed_address_is_set_once_and_again() {
    site::with(None, |_| {
        let config = NetworkAnswer {
            mac: None,
            address: "10.99.0.7/24".into(),
            gateway: Some("10.99.0.1".parse().unwrap()),
            dns: vec![],
        };
        for _ in 0..2 {
            let lease = bring_up(Some(&config), On::Link, &mut |_| {}).unwrap();
            assert_eq!(lease.uplink().address, "10.99.0.7/24");
        }
        let other = NetworkAnswer { address: "10.99.0.8/24".into(), ..config.clone() };
        bring_up(Some(&other), On::Link, &mut |_| {}).unwrap();
        let addresses = std::process::Command::new("ip").args(["-4", "addr", "show", "uplink0"]).output().unwrap();
        let addresses = String::from_utf8(addresses.stdout).unwrap();
        assert!(addresses.contains("10.99.0.8/24") && !addresses.contains("10.99.0.7"), "{addresses}");
        let link = &links().unwrap()[0];
        assert!(link.up && link.carrier && link.name == "uplink0", "{link:?}");
    });
}

#[test]
fn a_lease_goes_over_to_the_bridge_and_is_renewed_there() {
    use site::Asked::*;
    site::with(Some("lodge.name=leased"), |asked| {
        let first = bring_up(None, On::Bridge, &mut |_| {}).unwrap();
        assert_eq!((first.uplink().interface.as_str(), first.uplink().address.as_str()), (BRIDGE, "10.99.0.50/24"));
        assert_eq!(links().unwrap()[0].mac, first.uplink().mac);
        let shown = |arguments: &str| spaces::tool("ip", arguments);
        assert!(shown("-4 route").contains("default via 10.99.0.1 dev br0"), "{}", shown("-4 route"));
        assert!(!shown("-4 addr show uplink0").contains("inet"), "{}", shown("-4 addr show uplink0"));
        let before = shown("-o link show br0");
        drop(first);
        // As after a crash of the service: the bridge is there, and is asked on.
        let again = bring_up(None, On::Bridge, &mut |_| {}).unwrap();
        assert_eq!(shown("-o link show br0").split(':').next(), before.split(':').next());
        assert_eq!(inform(again.uplink()).unwrap().as_deref(), Some("lodge.name=informed"));
        std::thread::spawn(move || again.maintain(&mut |_| {}, &mut |_| {}));
        let all: Vec<site::Asked> =
            std::iter::from_fn(|| asked.recv_timeout(std::time::Duration::from_secs(20)).ok()).take(7).collect();
        assert_eq!(all, [Discover, Request, Discover, Request, Inform, Renew, Renew]);
    });
}

#[test]
fn a_lease_that_went_over_is_renewed_without_asking_anew() {
    use site::Asked::*;
    site::with(None, |asked| {
        let lease = bring_up(None, On::Bridge, &mut |_| {}).unwrap();
        std::thread::spawn(move || lease.maintain(&mut |_| {}, &mut |_| {}));
        let all: Vec<site::Asked> =
            std::iter::from_fn(|| asked.recv_timeout(std::time::Duration::from_secs(20)).ok()).take(4).collect();
        assert_eq!(all, [Discover, Request, Renew, Renew]);
    });
}
