//! Incidents and capacity.

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
