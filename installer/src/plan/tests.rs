use lodge_model::{
    answer::Answer,
    bundle::{MEMBERS, Part, SCHEMA},
    facts::{Signature, Transport},
    ids::{MachineId, TicketId},
    layout::GIB,
};
use lodge_sys::gpt::{self, Entry};
use proptest::prelude::*;
use uuid::Uuid;

use super::*;

pub fn disk(name: &str, serial: &str) -> Disk {
    Disk {
        name: name.into(),
        serial: serial.into(),
        model: "QEMU".into(),
        transport: Transport::Virtio,
        size: 20 * GIB,
        block_size: 512,
        rotational: false,
        removable: false,
        read_only: false,
        signatures: vec![],
    }
}

pub fn facts(disks: Vec<Disk>) -> Facts {
    Facts {
        machine: MachineId(Uuid::from_u128(1)),
        firmware: Firmware::Uefi,
        product: "QEMU Standard PC".into(),
        cpus: 2,
        cpu_model: "test".into(),
        memory: GIB,
        disks,
        nics: vec![],
    }
}

pub fn ticket(wipe: bool) -> Ticket {
    Ticket {
        id: TicketId(Uuid::from_u128(3)),
        machine: MachineId(Uuid::from_u128(1)),
        node: NodeId(Uuid::from_u128(2)),
        name: "node1".into(),
        roles: vec![Role::Worker],
        disk_serial: "S1".into(),
        wipe,
        bundle: "http://10.0.0.1/boot/lodge-os.tar.gz".into(),
        expires: 1000,
    }
}

fn by_ticket(wipe: bool) -> Goal {
    let ticket = ticket(wipe);
    Goal { name: ticket.name.clone(), roles: ticket.roles.clone(), permission: Permission::Ticket(Box::new(ticket)) }
}

fn by_answer(text: &str) -> Goal {
    let answer = Answer::parse(text, "lodge.toml on sr0").unwrap();
    let permission = Permission::InHand { rule: answer.disk.unwrap(), place: "lodge.toml on sr0".into() };
    Goal { name: answer.node.name.unwrap(), roles: answer.node.roles, permission }
}

fn manifest() -> Manifest {
    let part = |name: &str| Part { name: name.into(), size: 4096, sha256: "00".repeat(32) };
    Manifest {
        schema: SCHEMA,
        version: "1.2.3".into(),
        roothash: "0123456789abcdef".repeat(4),
        parts: MEMBERS[2..].iter().map(|name| part(name)).collect(),
    }
}

fn lodge_disk(root_b: Option<Uuid>) -> Found {
    let places = gpt::places(20 * GIB).unwrap();
    let entries = (1..).zip(places).map(|(number, (label, start, size))| {
        let uuid = if label == "root-b" { root_b.unwrap_or(Uuid::from_u128(8)) } else { Uuid::from_u128(number.into()) };
        Entry { number, label: label.into(), type_guid: Uuid::nil(), uuid, start, size, attributes: 0 }
    });
    Found { entries: Some(entries.collect()), bootable: true }
}

fn gpt_on(name: &str) -> Vec<Signature> {
    let signature =
        |device: &str, kind: &str, label: &str| Signature { device: device.into(), kind: kind.into(), label: label.into() };
    vec![signature(name, "gpt", ""), signature(&format!("{name}1"), "vfat", "ESP")]
}

const CENTER: &str = "[node]\nname = \"center1\"\nroles = [\"center\", \"share\"]\n[disk]\nserial = \"S1\"";

/// Facts and answer or ticket in, plan or refusal out: one text file each. `UPDATE_GOLDEN=1` writes them.
#[test]
fn plans_are_as_written_down() {
    let holding = |kind: &str| Disk {
        signatures: vec![Signature { device: "vda".into(), kind: kind.into(), label: "data".into() }],
        ..disk("vda", "S1")
    };
    let ours = || Disk { signatures: gpt_on("vda"), ..disk("vda", "S1") };
    let empty = Found::default;
    let cases: Vec<(&str, Facts, Goal, Found)> = vec![
        ("worker-blank", facts(vec![disk("vda", "S1")]), by_ticket(false), empty()),
        ("worker-two-disks", facts(vec![disk("nvme0n1", "S0"), disk("vda", "S1")]), by_ticket(false), empty()),
        ("worker-reinstall", facts(vec![ours()]), by_ticket(true), lodge_disk(None)),
        ("worker-reinstall-same-version-in-b", facts(vec![ours()]), by_ticket(true), lodge_disk(slot_b_root())),
        ("center-from-medium", facts(vec![disk("vda", "S1")]), by_answer(CENTER), empty()),
        ("refused-holds-lvm", facts(vec![holding("LVM2_member")]), by_ticket(false), empty()),
        ("refused-holds-gpt", facts(vec![ours()]), by_answer(CENTER), empty()),
        ("refused-small", facts(vec![Disk { size: 4 * GIB, ..disk("vda", "S1") }]), by_ticket(true), empty()),
        ("refused-no-disk", facts(vec![]), by_ticket(false), empty()),
        (
            "refused-other-machine",
            Facts { machine: MachineId(Uuid::nil()), ..facts(vec![disk("vda", "S1")]) },
            by_ticket(false),
            empty(),
        ),
        ("refused-bios", Facts { firmware: Firmware::Bios, ..facts(vec![disk("vda", "S1")]) }, by_ticket(false), empty()),
        (
            "refused-two-match",
            facts(vec![disk("vda", "S1"), disk("vdb", "S2")]),
            by_answer(&CENTER.replace("serial = \"S1\"", "min-gib = 8")),
            empty(),
        ),
    ];
    let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/plan/golden");
    for (name, facts, goal, found) in cases {
        let plan = choose(&facts, &goal, 999).and_then(|disk| make(disk, &goal, &found, &manifest()));
        let text = match plan {
            Ok(plan) => format!("{plan}\n"),
            Err(error) => format!("refused: {error}\n"),
        };
        let path = dir.join(format!("{name}.txt"));
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::create_dir_all(&dir).unwrap();
            std::fs::write(&path, &text).unwrap();
        }
        assert_eq!(text, std::fs::read_to_string(&path).unwrap_or_default(), "{}", path.display());
    }
}

fn slot_b_root() -> Option<Uuid> {
    layout::slot_uuids(&manifest().roothash).map(|(root, _)| root)
}

#[test]
fn an_expired_ticket_is_none() {
    let facts = facts(vec![disk("vda", "S1")]);
    assert_eq!(choose(&facts, &by_ticket(false), 1001), Err(PlanError::Ticket(TicketError::Expired)));
}

fn position(plan: &Plan, step: Step) -> usize {
    plan.steps.iter().position(|found| *found == step).unwrap()
}

proptest! {
    #[test]
    fn the_order_that_power_cuts_need_always_holds(bootable: bool, center: bool, share: bool, by_hand: bool) {
        let mut goal = if by_hand { by_answer(CENTER) } else { by_ticket(true) };
        goal.roles = [(Role::Worker, true), (Role::Center, center), (Role::Share, share)]
            .into_iter().filter(|(_, has)| *has).map(|(role, _)| role).collect();
        let found = Found { bootable, ..lodge_disk(None) };
        let plan = make(&disk("vda", "S1"), &goal, &found, &manifest()).unwrap();
        let destroying = position(&plan, Step::Partition);
        prop_assert_eq!(plan.steps[0], Step::VerifyBundle);
        // Nothing after the boot entry but the end of the request.
        let after = &plan.steps[position(&plan, Step::BootEntry) + 1..];
        if bootable {
            prop_assert!(position(&plan, Step::Request) < destroying);
            prop_assert_eq!(after, &[Step::ClearRequest]);
        } else {
            prop_assert!(after.is_empty());
        }
        prop_assert!(position(&plan, Step::ReadBack(plan.slot)) > position(&plan, Step::WriteRoot(plan.slot)));
        prop_assert!(position(&plan, Step::NodeFiles) > position(&plan, Step::FormatState));
        prop_assert_eq!(plan.steps.contains(&Step::Enrol), !by_hand);
        prop_assert_eq!(plan.steps.contains(&Step::StoreBundle), center);
    }
}
