//! Incidents and capacity.

use lodge_model::bmc::{BmcTest, BmcView, Trust};
use lodge_model::guard::{FencingView, Guard, NodeFencing, Watchdog};
use lodge_model::incident::{CapacityView, Case, Entry, FailoverView, IncidentView, Method, NodeLoss, Step, Stranded};

use super::*;

fn incident() -> IncidentView {
    let entry = |second: u32, step: Step, what: &str| Entry {
        at: at(&format!("2026-11-22T09:59:{second:02}Z")),
        step,
        what: what.into(),
    };
    IncidentView {
        id: 7,
        node: "0e3b6c1e-7c3f-4a0d-9a43-3f1d0f3c7a11".parse().unwrap(),
        name: "node1".into(),
        boot: "5a3b6c1e-7c3f-4a0d-9a43-3f1d0f3c7a12".parse().unwrap(),
        case: Case::NodeSilent,
        opened: at("2026-11-22T09:59:17Z"),
        closed: None,
        method: Some(Method::Share),
        waits: "web2: not enough free memory on node2: it needs 512 MiB".into(),
        timeline: vec![
            entry(10, Step::LastSign, "the last that the center heard of node1"),
            entry(17, Step::Suspect, Case::NodeSilent.words()),
            entry(17, Step::FenceOrdered, "center1 is to cut 10.77.0.51 off the share"),
            entry(18, Step::Fenced, "cut from the share by center1, in 0.6 s: no client with \u{1b}[31m10.77.0.51"),
            entry(18, Step::Placed, "web1 goes to node2 (epoch 4)"),
            entry(20, Step::Started, "web1 runs on node2, 10.0 s after the last sign of node1"),
        ],
        version: 9,
    }
}

#[test]
fn an_incident_tells_its_story() {
    golden("incident.txt", &incident_page(&incident(), &setting()));
    let armed = FailoverView { armed: true, reason: String::new(), since: None, held: String::new() };
    golden("incidents.txt", &incidents(&[incident()], &armed, &setting()));
    let since = Some(at("2026-11-22T09:00:00Z"));
    let disarmed =
        FailoverView { armed: false, reason: "new switch".into(), since, held: "no share node is registered".into() };
    golden("incidents-none.txt", &incidents(&[], &disarmed, &setting()));
}

#[test]
fn what_a_death_would_cost_is_named() {
    let stranded =
        |name: &str, bound| Stranded { environment: name.into(), why: "not enough free memory on node2".into(), bound };
    let nodes = vec![
        NodeLoss { node: "node1".into(), fits: 3, stranded: vec![stranded("web1", false), stranded("disk1", true)] },
        NodeLoss { node: "node2".into(), fits: 2, stranded: vec![] },
    ];
    golden("capacity.txt", &capacity(&CapacityView { holds: false, nodes }, &setting()));
}

#[test]
fn a_bmc_is_shown_without_its_password() {
    let machine = Some(MACHINE.parse::<lodge_model::ids::MachineId>().unwrap().0);
    let shown = BmcView {
        url: "https://10.0.9.1".into(),
        user: "lodge".into(),
        system: None,
        trust: Trust::Fingerprint(Fingerprint::from_digest([7; 32])),
        stays_off: false,
        machine,
        set: at("2026-11-22T09:00:00Z"),
    };
    let told = BmcTest {
        power: "On".into(),
        system: "1".into(),
        model: "Contoso 3500".into(),
        machine,
        resets: vec!["On".into(), "ForceOff".into()],
        ms: 412,
    };
    golden("bmc.txt", &format!("{}\n{}", bmc(&shown, &setting()), bmc_test(&told)));
}

#[test]
fn the_ways_in_which_a_node_could_be_fenced_are_told() {
    let guard = |identity: &str, is_hardware, lease_ms| {
        let watchdog = Watchdog { identity: identity.into(), timeout: 60, is_hardware };
        Some(Guard { lease_ms, watchdog: Some(watchdog), is_virtual: false })
    };
    let node = |name: &str| NodeFencing {
        node: name.into(),
        share: String::new(),
        bmc: None,
        guard: None,
        bound: None,
        lease: "it has attested nothing".into(),
    };
    let nodes = vec![
        NodeFencing {
            bmc: Some("https://10.0.9.1".into()),
            guard: guard("iTCO_wdt", true, Some(20_000)),
            bound: Some(90),
            lease: String::new(),
            ..node("node1")
        },
        NodeFencing {
            guard: guard("Software Watchdog", false, Some(20_000)),
            lease: "its watchdog (Software Watchdog) is no device".into(),
            ..node("node2")
        },
        NodeFencing { share: "it serves the share itself".into(), ..node("node3") },
    ];
    golden("fencing.txt", &fencing(&FencingView { share: Some("center1".into()), lease_wait: 120, nodes }, &setting()));
}
