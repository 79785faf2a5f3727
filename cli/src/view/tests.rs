//! Golden texts in `golden/`: what people see of fixed values. `UPDATE_GOLDEN=1 cargo test -p lodge-cli` writes them anew; read the
//! difference before it is committed.

mod environments;
mod failover;

use std::collections::BTreeMap;

use super::*;
use lodge_model::api::{NodeDetail, Phase, ShareHealth, StepTime};
use lodge_model::facts::{Disk, Facts, Firmware, Nic, Transport};
use lodge_model::ids::Fingerprint;
use lodge_model::layout::Slot;

const MACHINE: &str = "4c4c4544-0042-3510-8052-b9c04f4e3132";

fn setting() -> Setting {
    Setting { now: at("2026-11-22T10:00:00Z"), zone: TimeZone::UTC, width: None }
}

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn golden(name: &str, text: &str) {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/view/golden").join(name);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, text).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(text == expected, "{name} differs; it is now:\n{text}\nand should be:\n{expected}");
}

fn node(name: &str, state: NodeState) -> NodeView {
    NodeView {
        name: name.into(),
        node: None,
        machine: MACHINE.parse().unwrap(),
        state,
        reason: String::new(),
        roles: vec![Role::Worker],
        address: None,
        version: None,
        step: None,
        drain: String::new(),
        seen: None,
    }
}

fn ready() -> NodeView {
    NodeView {
        node: Some("0e3b6c1e-7c3f-4a0d-9a43-3f1d0f3c7a11".parse().unwrap()),
        address: Some("10.77.0.51".into()),
        version: Some("0.1.0-3cc0593".into()),
        seen: Some(at("2026-11-22T09:59:59Z")),
        ..node("node1", NodeState::Ready)
    }
}

fn list() -> Vec<NodeView> {
    vec![
        NodeView { roles: vec![Role::Center, Role::Share], ..ready() },
        ready(),
        NodeView {
            step: Some(("write-root".into(), 40)),
            seen: Some(at("2026-11-22T09:57:00Z")),
            ..node("node2", NodeState::Installing)
        },
        NodeView {
            reason: "two disks match the rule: vda and vdb;\u{1b}[2J name one with `lodge node approve --disk`".into(),
            roles: Vec::new(),
            seen: Some(at("2026-11-22T10:00:03Z")),
            ..node(MACHINE, NodeState::Waiting)
        },
        NodeView {
            reason: "no word for 3 hours".into(),
            seen: Some(at("2026-11-22T06:30:00Z")),
            ..node("node3", NodeState::Silent)
        },
    ]
}

fn detail() -> NodeDetail {
    let disk = |name: &str, serial: &str, removable| Disk {
        name: name.into(),
        serial: serial.into(),
        model: "QEMU NVMe Ctrl".into(),
        transport: Transport::Nvme,
        size: 8 << 30,
        block_size: 512,
        rotational: false,
        removable,
        read_only: removable,
        signatures: Vec::new(),
    };
    let nic = |name: &str, link, speed, addresses: &[&str]| Nic {
        name: name.into(),
        mac: "52:54:00:12:34:56".into(),
        driver: "virtio_net".into(),
        link,
        speed,
        addresses: addresses.iter().map(|address| (*address).to_owned()).collect(),
    };
    let step = |step: &str, seconds| StepTime { step: step.into(), at: at("2026-11-22T09:30:00Z"), seconds };
    let phase = |name: &str, at| Phase { name: name.into(), at };
    NodeDetail {
        node: ready(),
        facts: Some(Facts {
            machine: MACHINE.parse().unwrap(),
            firmware: Firmware::Uefi,
            product: "QEMU Standard PC (Q35 + ICH9, 2009)".into(),
            cpus: 2,
            cpu_model: "QEMU Virtual CPU".into(),
            memory: 1 << 30,
            disks: vec![disk("nvme0n1", "NODE1-DISK", false), disk("sda", "", true)],
            nics: vec![nic("eth0", true, Some(1000), &["10.77.0.51/24"]), nic("eth1", false, None, &[])],
        }),
        boot: Some("5d3a0a2e-35c5-4ed0-8a8d-64f3f3f21e55".parse().unwrap()),
        kernel: Some("6.12.117+deb13-amd64".into()),
        slot: Some(Slot::A),
        disk_serial: Some("NODE1-DISK".into()),
        share: ShareHealth::Mounted { probe_ms: 7 },
        install: vec![step("partition", 0.31), step("write-root", 12.04), step("boot-entry", 0.2)],
        phases: vec![phase("init", 2.1), phase("switch-root", 4.3), phase("network", 6.0), phase("registered", 7.25)],
        labels: BTreeMap::new(),
    }
}

#[test]
fn the_list_of_nodes() {
    golden("nodes.txt", &nodes(&list(), &setting()));
    golden("nodes-80-columns.txt", &nodes(&list(), &Setting { width: Some(80), ..setting() }));
    golden("nodes-none.txt", &nodes(&[], &setting()));
}

#[test]
fn everything_about_a_node() {
    golden("node.txt", &node_page(&detail(), &setting()));
    let waiting = NodeDetail {
        node: list().remove(3),
        facts: None,
        boot: None,
        kernel: None,
        slot: None,
        disk_serial: None,
        share: ShareHealth::Failed { error: "mounting 10.77.0.10:/ on /share: Connection refused (ECONNREFUSED)".into() },
        install: Vec::new(),
        phases: Vec::new(),
        labels: BTreeMap::new(),
    };
    golden("node-waiting.txt", &node_page(&waiting, &setting()));
}

#[test]
fn tickets_events_token_and_cluster() {
    let ticket = |state: &str, wipe| TicketView {
        id: "7a1c7f0e-2c58-4cf5-9d0c-0f4d4c1f6a01".parse().unwrap(),
        machine: MACHINE.parse().unwrap(),
        node: "node1".into(),
        disk_serial: "NODE1-DISK".into(),
        wipe,
        state: state.into(),
        created: at("2026-11-22T09:00:00Z"),
        expires: at("2026-11-22T10:00:00Z"),
    };
    golden("tickets.txt", &tickets(&[ticket("done", false), ticket("open", true)], &setting()));
    let view = |id, node: Option<&str>, text: &str| EventView {
        id,
        at: at("2026-11-22T09:30:00.25Z"),
        machine: Some(MACHINE.parse().unwrap()),
        node: node.map(str::to_owned),
        kind: "step-done".into(),
        text: text.into(),
        detail: None,
    };
    let lines = [view(7, Some("node1"), "write-root done in 12.0 s"), view(1234, None, "asks\nto be installed")];
    golden("events.txt", &lines.iter().map(|view| event(view, &setting())).collect::<String>());
    let minted = TokenView {
        token: "join-abc".into(),
        expires: at("2026-11-22T11:00:00Z"),
        words: "lodge.center=https://10.77.0.10:8443 lodge.ca=sha256:01 lodge.token=join-abc".into(),
    };
    golden("token.txt", &token(&minted, &setting()));
    let shown = ClusterView {
        version: "0.1.0".into(),
        now: at("2026-11-22T10:00:00Z"),
        ca: Fingerprint::from_digest([0xab; 32]),
        bundle: None,
        nodes: 3,
        ready: 2,
    };
    golden("cluster.txt", &cluster(&shown, &setting()));
}

#[test]
fn time_is_told_as_coarsely_as_it_is_long_ago() {
    let now = at("2026-11-22T10:00:00Z");
    let told = [
        "2026-11-22T10:00:05Z",
        "2026-11-22T09:58:01Z",
        "2026-11-22T09:00:00Z",
        "2026-11-21T10:00:00Z",
        "2026-11-01T10:00:00Z",
    ];
    let told = told.map(|then| ago(at(then), now));
    assert_eq!(told, ["now", "119 s ago", "60 min ago", "24 h ago", "21 days ago"]);
}

#[test]
fn nothing_from_a_machine_steers_the_terminal() {
    assert_eq!(plain("a\u{1b}[2Jb\u{9b}c\n"), "a [2Jb c ");
    assert_eq!(plain_lines("a\u{1b}[2J\r\n\tb"), "a[2J\n\tb");
}
