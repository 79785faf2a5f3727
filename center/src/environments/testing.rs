//! Environments and rooms for unit tests, made from plain values.

use std::collections::{BTreeMap, BTreeSet};

use lodge_model::environment::order::{Report, State, TemplateMeta, TemplateRef, Want};
use lodge_model::environment::spec::{Restart, Spec};
use lodge_model::environment::view::Phase;
use lodge_model::ids::{BootId, Digest, EnvironmentId, NodeId};
use lodge_model::layout::{GIB, MIB};
use lodge_model::live::MoveBy;
use uuid::Uuid;

use super::place::{Held, Room};
use super::records::{Disk, Environment, Goal, Place};
use super::repair::Repair;
use crate::testing::at;

pub fn environment_id(number: u128) -> EnvironmentId {
    EnvironmentId(Uuid::from_u128(number))
}

pub fn node_id(number: u128) -> NodeId {
    NodeId(Uuid::from_u128(1000 + number))
}

pub fn boot_id(number: u128) -> BootId {
    BootId(Uuid::from_u128(9000 + number))
}

pub fn spec(name: &str) -> Spec {
    Spec {
        name: name.into(),
        template: "tiny".into(),
        disk: GIB,
        memory: 128 * MIB,
        cpu_millis: 500,
        ssh_keys: vec![],
        addresses: vec![],
        priority: 100,
        anti_affinity: None,
        node: None,
        node_labels: BTreeMap::new(),
        restart: Restart::OnFailure,
        move_by: MoveBy::Cluster,
    }
}

pub fn template() -> TemplateRef {
    let meta = TemplateMeta { movable: true, ..TemplateMeta::default() };
    TemplateRef { digest: Digest::from_digest([7; 32]), size: 1 << 20, meta }
}

pub fn environment(name: &str, number: u32) -> Environment {
    Environment {
        id: environment_id(number.into()),
        spec: spec(name),
        template: template(),
        owner: None,
        created: at(number.into()),
        id_range: number,
        mac: format!("02:00:00:00:00:{number:02x}"),
        addresses: vec![],
        dns: vec![],
        goal: Goal::Running,
        disk: Disk::Own,
        epoch: 0,
        place: None,
        last: None,
        given_back: None,
        report: None,
        last_exit: String::new(),
        restarts_asked: 0,
        snapshots: vec![],
        failed: vec![],
        phase: Phase::Waiting,
        reason: String::new(),
        waits: String::new(),
        moving: None,
        moves: vec![],
        check: None,
        old: None,
        reinstalls: 0,
        disk_check: None,
        repair: None,
        counts_from: None,
        version: 0,
    }
}

pub fn place(node: u128, want: Want) -> Place {
    Place { node: node_id(node), name: format!("node{node}"), boot: boot_id(node), want, to_remove: false }
}

pub fn report(environment: &Environment, state: State) -> Report {
    Report {
        id: environment.id,
        epoch: environment.epoch,
        state,
        problem: String::new(),
        usage: None,
        starts: 0,
        last_exit: String::new(),
        restarts_done: environment.restarts_asked,
        checkpoint: None,
        mended: String::new(),
        probe: None,
    }
}

pub fn room(number: u128, mib: u64) -> Room {
    Room {
        node: node_id(number),
        name: format!("node{number}"),
        boot: Some(boot_id(number)),
        confirmed_off: None,
        said_farewell: None,
        fenced: None,
        is_worker: true,
        unready: String::new(),
        cordoned: String::new(),
        leaves_soon: false,
        warm: BTreeSet::new(),
        criu: None,
        probes: BTreeMap::new(),
        silent: String::new(),
        memory: mib * MIB,
        cpu_millis: 2000,
        labels: BTreeMap::new(),
        held: Held::default(),
    }
}

pub fn repair(environment: &Environment) -> Repair {
    Repair {
        template: template(),
        template_name: "tiny".into(),
        node: None,
        addresses: None,
        ssh_keys: vec![],
        snapshot: None,
        since: at(1),
        after: environment.epoch,
        was: Goal::Running,
        ends: false,
        mended: String::new(),
    }
}
