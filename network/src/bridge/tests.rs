use std::net::{TcpListener, TcpStream};

use super::*;
use crate::tests::spaces::{Lab, NODE};

#[test]
fn the_node_is_reached_on_the_bridge_and_stays_so_when_it_is_set_up_again() {
    let Some(lab) = Lab::new() else { return };
    let mac = lab.node.mac("uplink0");
    let uplink = lab.bring_up();
    assert_eq!((uplink.interface.as_str(), uplink.mac.as_str()), (BRIDGE, mac.as_str()));
    let index = lab.node.index("br0");
    let listener = lab.node.run(|| TcpListener::bind((NODE, 80)).unwrap());
    let stream = lab.world.run(|| TcpStream::connect((NODE, 80)).unwrap());
    assert_eq!(listener.accept().unwrap().1, stream.local_addr().unwrap());

    assert_eq!(lab.bring_up(), uplink);
    assert_eq!(lab.node.index("br0"), index);
    let shown = lab.node.ip("addr show br0");
    assert!(shown.contains("10.99.0.2/24") && shown.contains("inet6 fe80::"), "{shown}");
    let port = lab.node.ip("-d addr show uplink0");
    assert!(port.contains("state forwarding") && !port.contains("inet"), "{port}");
}

#[test]
fn an_uplink_with_addresses_of_before_loses_them_to_the_bridge() {
    let Some(lab) = Lab::new() else { return };
    lab.node.ip("link set uplink0 up");
    lab.node.ip("addr add 10.99.0.77/24 dev uplink0");
    lab.bring_up();
    let shown = lab.node.ip("addr show");
    assert!(!shown.contains("10.99.0.77") && shown.contains("10.99.0.2/24"), "{shown}");
}

#[test]
fn another_uplink_takes_the_place_of_the_first() {
    let Some(lab) = Lab::bridged() else { return };
    lab.world.ip("link add site1 type veth peer name uplink1");
    lab.world.ip("link set site1 up");
    lab.world.ip(&format!("link set uplink1 netns {}", lab.node.tid));
    lab.world.ip("link set site0 down");
    let uplink = lab.bring_up();
    assert_eq!(uplink.mac, lab.node.mac("uplink1"));
    assert!(!lab.node.ip("-o link show uplink0").contains("master"));
    assert!(lab.node.ip("-o link show uplink1").contains("master br0"));
}

fn link(index: u32, carrier: bool, controller: Option<u32>) -> Link {
    let mac = format!("02:00:00:00:00:{index:02x}");
    Link { index, name: format!("eth{index}"), mac, up: true, carrier, hardware: true, controller }
}

#[test]
fn a_bridge_that_carries_is_the_only_candidate() {
    let indices = |links: Vec<Link>| links.iter().map(|link| link.index).collect::<Vec<_>>();
    let links = |carrier| vec![link(1, carrier, Some(9)), link(2, true, None)];
    assert_eq!(indices(candidates(vec![link(1, true, None), link(2, true, None)], None)), [1, 2]);
    assert_eq!(indices(candidates(links(true), Some(link(9, true, None)))), [9]);
    assert_eq!(indices(candidates(links(false), Some(link(9, false, None)))), [2]);
    assert_eq!(indices(candidates(vec![link(2, true, None)], Some(link(9, true, None)))), [2]);
}
