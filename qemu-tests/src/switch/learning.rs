//! Where a frame goes: the switch's only decision, as a pure value.

use std::collections::HashMap;

/// A port's number.
pub type PortId = usize;

/// Where a frame goes.
#[derive(Debug, PartialEq, Eq)]
pub enum Route {
    /// To every other port.
    Flood,
    /// To this port.
    To(PortId),
    /// Nowhere: it is no frame, or its target is on the port it came from.
    Drop,
}

/// What the switch has learnt: which address is behind which port.
#[derive(Debug, Default)]
pub struct Table {
    ports: HashMap<[u8; 6], PortId>,
}

/// Target, source and type.
const HEADER: usize = 14;

impl Table {
    /// Nothing is behind this port any more: its machine went off. (A switch does so when a port loses its link.)
    pub fn forget(&mut self, port: PortId) {
        self.ports.retain(|_, behind| *behind != port);
    }

    /// Learn from a frame that came in at a port, and say where it goes.
    pub fn route(&mut self, from: PortId, frame: &[u8]) -> Route {
        if frame.len() < HEADER {
            return Route::Drop;
        }
        let (Some(target), Some(source)) = (address(frame, 0), address(frame, 6)) else { return Route::Drop };
        if !is_group(&source) {
            self.ports.insert(source, from);
        }
        if is_group(&target) {
            return Route::Flood;
        }
        match self.ports.get(&target) {
            None => Route::Flood,
            Some(port) if *port == from => Route::Drop,
            Some(port) => Route::To(*port),
        }
    }
}

fn address(frame: &[u8], at: usize) -> Option<[u8; 6]> {
    frame.get(at..at + 6)?.try_into().ok()
}

/// Multicast and broadcast addresses have the first byte's lowest bit set (IEEE 802.3).
fn is_group(address: &[u8; 6]) -> bool {
    address[0] & 1 == 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn frame(target: u8, source: u8) -> Vec<u8> {
        let mut frame = vec![0; 60];
        (frame[5], frame[11]) = (target, source);
        frame
    }

    #[test]
    fn it_floods_until_it_has_learnt() {
        let mut table = Table::default();
        assert_eq!(table.route(0, &frame(2, 1)), Route::Flood);
        assert_eq!(table.route(1, &frame(1, 2)), Route::To(0));
        assert_eq!(table.route(0, &frame(2, 1)), Route::To(1));
        assert_eq!(table.route(1, &frame(2, 3)), Route::Drop);
        let mut broadcast = frame(2, 1);
        broadcast[..6].fill(0xff);
        assert_eq!(table.route(0, &broadcast), Route::Flood);
    }

    /// A gratuitous ARP of `source`, as an environment sends one where it has just been connected.
    fn announcement(source: u8) -> Vec<u8> {
        let mut frame = frame(0, source);
        frame[..6].fill(0xff);
        frame[12..14].copy_from_slice(&[8, 6]);
        frame
    }

    #[test]
    fn many_addresses_are_behind_a_port_and_each_moves_with_its_announcement() {
        let mut table = Table::default();
        for source in 1..=20 {
            assert_eq!(table.route(0, &announcement(source)), Route::Flood);
        }
        table.route(1, &announcement(50));
        assert!((1..=20).all(|address| table.route(1, &frame(address, 50)) == Route::To(0)));
        assert_eq!(table.route(0, &frame(2, 1)), Route::Drop);
        table.route(1, &announcement(7));
        assert_eq!(table.route(2, &frame(7, 60)), Route::To(1));
        assert_eq!(table.route(2, &frame(8, 60)), Route::To(0));
        assert_eq!(table.route(0, &frame(7, 8)), Route::To(1));
    }

    #[test]
    fn what_was_behind_a_port_that_went_off_is_looked_for_everywhere() {
        let mut table = Table::default();
        table.route(0, &announcement(1));
        table.route(1, &announcement(2));
        table.forget(0);
        assert_eq!(table.route(2, &frame(1, 3)), Route::Flood);
        assert_eq!(table.route(2, &frame(2, 3)), Route::To(1));
    }

    proptest! {
        #[test]
        fn no_frame_makes_it_panic(frame in prop::collection::vec(any::<u8>(), 0..80)) {
            Table::default().route(0, &frame);
        }
    }
}
