use std::{io::Read as _, time::Duration};

use super::*;

struct Plugged(UnixStream);

impl Plugged {
    fn new(switch: &Switch, dir: &Path, name: &str) -> Self {
        let socket = format!("{name}.sock");
        switch.add_port(name, crate::sockets::listen(dir, &socket).unwrap()).unwrap();
        let stream = crate::sockets::connect(dir, &socket).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        Self(stream)
    }

    fn send(&mut self, target: u8, source: u8, text: &[u8]) {
        let mut frame = vec![0; 14];
        (frame[5], frame[11]) = (target, source);
        if target == 0xff {
            frame[..6].fill(0xff);
        }
        frame.extend_from_slice(text);
        self.0.write_all(&(frame.len() as u32).to_be_bytes()).unwrap();
        self.0.write_all(&frame).unwrap();
    }

    fn receive(&mut self) -> Vec<u8> {
        let mut head = [0; 4];
        self.0.read_exact(&mut head).unwrap();
        let mut frame = vec![0; u32::from_be_bytes(head) as usize];
        self.0.read_exact(&mut frame).unwrap();
        frame.split_off(14)
    }
}

#[test]
fn frames_go_where_they_belong_and_nowhere_else() {
    let dir = tempfile::tempdir().unwrap();
    let capture = dir.path().join("rack.pcap");
    let switch = Switch::start(Some(&capture)).unwrap();
    let [mut one, mut two, mut three] = ["one", "two", "three"].map(|name| Plugged::new(&switch, dir.path(), name));
    // The last one first: when it is heard, all before it are plugged in.
    three.send(0xff, 3, b"here");
    assert_eq!(one.receive(), b"here");
    assert_eq!(two.receive(), b"here");
    two.send(0xff, 2, b"here");
    assert_eq!(one.receive(), b"here");
    assert_eq!(three.receive(), b"here");
    one.send(2, 1, b"for two");
    assert_eq!(two.receive(), b"for two");
    one.send(3, 1, b"for three");
    assert_eq!(three.receive(), b"for three");
    drop(switch);
    assert!(std::fs::metadata(capture).unwrap().len() > 24);
}

#[test]
fn a_cut_cable_carries_nothing_until_it_is_mended() {
    let dir = tempfile::tempdir().unwrap();
    let switch = Switch::start(None).unwrap();
    let [mut one, mut two] = ["one", "two"].map(|name| Plugged::new(&switch, dir.path(), name));
    two.send(0xff, 2, b"here");
    assert_eq!(one.receive(), b"here");
    switch.cut("two", Cut::ToMachine).unwrap();
    one.send(2, 1, b"lost");
    two.send(1, 2, b"still heard");
    assert_eq!(one.receive(), b"still heard");
    switch.heal("two").unwrap();
    one.send(2, 1, b"kept");
    assert_eq!(two.receive(), b"kept");
}

#[test]
fn what_was_behind_an_unplugged_port_is_looked_for_everywhere() {
    let dir = tempfile::tempdir().unwrap();
    let switch = Switch::start(None).unwrap();
    let [mut one, mut two, mut three] = ["one", "two", "three"].map(|name| Plugged::new(&switch, dir.path(), name));
    three.send(0xff, 3, b"here");
    assert_eq!((one.receive(), two.receive()), (b"here".to_vec(), b"here".to_vec()));
    one.send(0xff, 1, b"here");
    assert_eq!((two.receive(), three.receive()), (b"here".to_vec(), b"here".to_vec()));
    drop(one);
    // Nobody is told when the switch sees that the plug is out: ask until it has.
    three.0.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    let heard = (0..100).any(|_| {
        two.send(1, 2, b"who is there");
        three.0.read_exact(&mut [0; 4]).is_ok()
    });
    assert!(heard);
}
