//! Values for tests.

use lodge_model::environment::order::{Address, Usage};
use lodge_model::environment::view::{EnvironmentView, Phase};
use lodge_model::layout::MIB;

/// A running one.
pub fn environment(name: &str) -> EnvironmentView {
    EnvironmentView {
        id: "0d9a5d38-2d5e-4c5c-8a5a-0f4d4c1f6a01".parse().unwrap(),
        spec: serde_json::from_value(serde_json::json!({
            "name": name, "template": "debian-13", "disk": 10_u64 << 30, "memory": 1 << 30, "cpu-millis": 1500
        }))
        .unwrap(),
        owner: None,
        phase: Phase::Running,
        reason: String::new(),
        node: Some("node1".into()),
        epoch: 3,
        addresses: vec![Address { ip: "192.0.2.50".parse().unwrap(), prefix: 24, gateway: Some("192.0.2.1".parse().unwrap()) }],
        mac: "02:00:00:00:00:01".into(),
        usage: Some(Usage { memory: 96 * MIB, cpu_usec: 12_345_678, tasks: 21, disk: 734 * MIB, rx: 5 * MIB, tx: 1023 }),
        last_exit: String::new(),
        created: "2026-11-22T08:00:00Z".parse().unwrap(),
        started: Some("2026-11-22T09:00:00Z".parse().unwrap()),
        tasks: Vec::new(),
        old: None,
        disk_check: None,
        repair: None,
        moving: None,
        moves: Vec::new(),
        way: None,
        version: 7,
    }
}
