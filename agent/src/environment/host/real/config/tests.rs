//! The file is compared with a golden one, which is read in reviews, and with the types of the runtime specification.

use std::collections::BTreeSet;
use std::net::IpAddr;

use lodge_model::environment::order::{Address, TemplateMeta, TemplateRef, Want};
use lodge_model::environment::spec::Restart;
use lodge_model::ids::{BootId, Digest, EnvironmentId};
use oci_spec::runtime::Spec;
use uuid::Uuid;

use super::*;

const GOLDEN: &str = include_str!("golden.json");

fn order() -> Assignment {
    Assignment {
        id: EnvironmentId(Uuid::from_u128(7)),
        name: "web1".into(),
        epoch: 1,
        boot: BootId(Uuid::from_u128(1)),
        want: Want::Running,
        template: TemplateRef {
            digest: Digest::from_digest([1; 32]),
            size: 1,
            meta: TemplateMeta { environment: vec!["LANG=C.UTF-8".into()], ..TemplateMeta::default() },
        },
        disk: 1 << 30,
        memory: 256 << 20,
        cpu_millis: 1500,
        tasks_max: 500,
        id_base: IDS * 3,
        mac: "02:00:00:00:00:07".into(),
        addresses: vec![Address { ip: IpAddr::from([10, 0, 0, 7]), prefix: 24, gateway: None }],
        dns: Vec::new(),
        ssh_keys: Vec::new(),
        restart: Restart::default(),
        restarts_asked: 0,
        resume: None,
        beside: None,
    }
}

fn made() -> Value {
    let node = Node {
        root: Path::new("/run/lodge/environments/7/root"),
        lxcfs: Path::new("/var/lib/lxcfs"),
        lxcfs_files: vec!["meminfo"],
        devices: DEVICES.to_vec(),
        beside: None,
        open_files: 524_288,
    };
    config(&order(), &node)
}

#[test]
fn it_is_the_golden_file() {
    let made = made();
    assert_eq!(serde_json::from_str::<Value>(GOLDEN).unwrap(), made, "{made:#}");
}

/// Whatever the types do not know would be dropped on the way through them.
#[test]
fn the_runtime_specification_knows_every_word_of_it() {
    let made = made();
    let spec: Spec = serde_json::from_value(made.clone()).unwrap();
    let through = serde_json::to_value(spec).unwrap();
    missing("", &made, &through);
}

fn missing(path: &str, made: &Value, through: &Value) {
    match (made, through) {
        (Value::Object(made), Value::Object(through)) => {
            for (key, value) in made {
                let path = format!("{path}/{key}");
                let is_empty = matches!(value, Value::Array(all) if all.is_empty());
                let other = through.get(key);
                assert!(other.is_some() || is_empty, "{path} is not known");
                missing(&path, value, other.unwrap_or(value));
            }
        }
        (Value::Array(made), Value::Array(through)) if path.contains("/capabilities/") => {
            let set = |all: &[Value]| all.iter().map(Value::to_string).collect::<BTreeSet<_>>();
            assert_eq!(set(made), set(through), "{path}");
        }
        (Value::Array(made), Value::Array(through)) => {
            assert_eq!(made.len(), through.len(), "{path}");
            made.iter().zip(through).for_each(|(made, through)| missing(path, made, through));
        }
        (made, through) => assert_eq!(made, through, "{path}"),
    }
}

#[test]
fn processor_time_is_measured_in_thousandths() {
    assert_eq!((cpu_quota(50), cpu_quota(1000), cpu_quota(2500)), (5_000, 100_000, 250_000));
    // As crun turns shares into weights: 1024 is 39.
    assert_eq!((cpu_shares(1000), cpu_weight(1000)), (1024, 39));
    assert_eq!((cpu_shares(1), cpu_weight(1)), (2, 1));
    assert_eq!((cpu_shares(1_024_000), cpu_weight(1_024_000)), (262_144, 10_000));
}

/// What a personal server needs is left to it, and what concerns the machine is not.
#[test]
fn the_profile_refuses_the_machine_and_leaves_the_server() {
    let refused: BTreeSet<String> = made()["linux"]["seccomp"]["syscalls"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|rule| rule["names"].as_array().unwrap())
        .map(|name| name.as_str().unwrap().to_owned())
        .collect();
    for machine in
        ["init_module", "finit_module", "kexec_load", "open_by_handle_at", "clock_settime", "bpf", "keyctl", "syslog"]
    {
        assert!(refused.contains(machine), "{machine}");
    }
    for server in
        ["mount", "umount2", "unshare", "setns", "clone", "clone3", "reboot", "ptrace", "name_to_handle_at", "adjtimex"]
    {
        assert!(!refused.contains(server), "{server}");
    }
}
