//! Records for unit tests, made from plain values.

use jiff::Timestamp;
use lodge_model::answer::CenterAnswer;
use lodge_model::api::ShareHealth;
use lodge_model::facts::{Disk, Facts, Firmware, Nic, Signature, Transport};
use lodge_model::ids::{BootId, Fingerprint, MachineId, NodeId, TicketId};
use lodge_model::layout::{GIB, Slot};
use lodge_model::node::Role;
use lodge_model::ticket::{SignedTicket, Ticket};
use uuid::Uuid;

use crate::orders::Topology;
use crate::records::{Installed, Machine, Node, Registered, TicketRecord, TicketState};

pub fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

pub fn machine_id(number: u128) -> MachineId {
    MachineId(Uuid::from_u128(number))
}

pub fn disk(serial: &str, holds: Option<&str>) -> Disk {
    let signature = |kind: &str| Signature { device: "vda".into(), kind: kind.into(), label: String::new() };
    Disk {
        name: "vda".into(),
        serial: serial.into(),
        model: String::new(),
        transport: Transport::Virtio,
        size: 20 * GIB,
        block_size: 512,
        rotational: false,
        removable: false,
        read_only: false,
        signatures: holds.map(signature).into_iter().collect(),
    }
}

pub fn facts(number: u128, disks: Vec<Disk>) -> Facts {
    let nic = Nic {
        name: "eth0".into(),
        mac: format!("52:54:00:00:00:{number:02x}"),
        driver: "virtio_net".into(),
        link: true,
        speed: None,
        addresses: vec![],
    };
    Facts {
        machine: machine_id(number),
        firmware: Firmware::Uefi,
        product: "QEMU".into(),
        cpus: 1,
        cpu_model: "TCG".into(),
        memory: GIB,
        disks,
        nics: vec![nic],
    }
}

pub fn machine(number: u128) -> Machine {
    Machine {
        id: machine_id(number),
        facts: Some(facts(number, vec![disk("S1", None)])),
        asked_name: None,
        order: None,
        node: None,
        ticket: None,
        reason: String::new(),
        step: None,
        install: vec![],
        seen: at(0),
    }
}

pub fn admitted(name: &str, number: u128) -> Node {
    Node::new(NodeId(Uuid::from_u128(number + 1000)), machine_id(number), name, vec![Role::Worker], at(0))
}

pub fn registered(name: &str, number: u128, address: &str) -> Node {
    let registered = Registered {
        at: at(100),
        boot: BootId(Uuid::from_u128(77)),
        version: "0.1.0".into(),
        kernel: "6.12".into(),
        slot: Slot::A,
        disk_serial: "S1".into(),
        phases: vec![],
    };
    Node {
        address: Some(address.into()),
        registered: Some(registered),
        certificate: Some("00".into()),
        share: ShareHealth::Unknown,
        ..admitted(name, number)
    }
}

pub fn installed(second: i64) -> Installed {
    Installed { at: at(second), version: "0.1.0".into(), slot: Slot::A, disk_serial: "S1".into() }
}

pub fn ticket(number: u128, serial: &str, second: i64) -> TicketRecord {
    let ticket = Ticket {
        id: TicketId(Uuid::from_u128(500)),
        machine: machine_id(number),
        node: NodeId(Uuid::from_u128(number + 1000)),
        name: "node1".into(),
        roles: vec![Role::Worker],
        disk_serial: serial.into(),
        wipe: false,
        bundle: "http://10.0.0.1/boot/lodge-os.tar.gz".into(),
        expires: second + 3600,
    };
    let signed = SignedTicket { payload: String::new(), signature: String::new() };
    TicketRecord { ticket, signed, state: TicketState::Open, created: at(second) }
}

pub fn center_answer() -> CenterAnswer {
    CenterAnswer { url: "https://10.0.0.1:8443".into(), ca: Fingerprint::from_digest([1; 32]), token: "t".into() }
}

pub fn topology() -> Topology {
    Topology { share: Some((NodeId(Uuid::from_u128(9)), "10.0.0.9".into())), clients: vec![] }
}
