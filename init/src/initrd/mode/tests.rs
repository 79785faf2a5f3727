use super::*;
use proptest::prelude::*;

const HASH: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";
const ESP: Uuid = Uuid::from_u128(0xe5b);

fn disk(name: &str, slot: Slot, esp: Uuid) -> Disk {
    let (root, verity) = layout::slot_uuids(HASH).unwrap();
    let part = |number: u32, label: &str, uuid: Uuid| Part {
        name: format!("{name}{number}"),
        device_number: format!("8:{number}"),
        label: label.into(),
        uuid,
    };
    let partitions = vec![
        part(1, layout::ESP, esp),
        part(3, Slot::A.root_label(), if slot == Slot::A { root } else { Uuid::from_u128(3) }),
        part(4, Slot::A.verity_label(), if slot == Slot::A { verity } else { Uuid::from_u128(4) }),
        part(5, Slot::B.root_label(), if slot == Slot::B { root } else { Uuid::from_u128(5) }),
        part(6, Slot::B.verity_label(), if slot == Slot::B { verity } else { Uuid::from_u128(6) }),
    ];
    Disk { name: name.into(), is_unfinished: false, partitions }
}

fn facts(words: &str) -> Facts {
    let words = Keywords::parse(&format!("quiet {words}"), "a test").map_err(|error| error.to_string());
    let disks = vec![disk("sdb", Slot::B, Uuid::from_u128(99)), disk("sda", Slot::A, ESP)];
    Facts { words, loaded_from: Some(ESP), disks, has_answer: false, is_last_look: false }
}

fn uki() -> Facts {
    facts(&format!("lodge.version=1.0 lodge.roothash={HASH} lodge.rootsize=4096"))
}

fn chosen(facts: &Facts) -> String {
    match decide(facts) {
        Decision::Wait { .. } => "wait".into(),
        Decision::Install { why } => format!("install: {why}"),
        Decision::Node { slot, root, verity, .. } => format!("node {slot:?} {} {}", root.name, verity.name),
        Decision::Rescue { what, why, .. } => format!("rescue: {what}: {why}"),
    }
}

#[test]
fn an_installed_disk_starts_its_own_system_even_when_another_disk_has_it_too() {
    assert_eq!(chosen(&uki()), "node A sda3 sda4");
    assert_eq!(chosen(&Facts { loaded_from: Some(Uuid::from_u128(99)), ..uki() }), "node B sdb5 sdb6");
}

#[test]
fn a_network_boot_and_a_stick_install() {
    assert!(chosen(&Facts { loaded_from: None, ..uki() }).starts_with("install: it was not booted from a disk"));
    let mut stick = uki();
    let esp_alone = Disk {
        name: "sdc".into(),
        is_unfinished: false,
        partitions: vec![Part { name: "sdc2".into(), device_number: "8:34".into(), label: "Appended2".into(), uuid: ESP }],
    };
    stick.disks = vec![esp_alone, disk("sda", Slot::A, Uuid::from_u128(1))];
    assert!(chosen(&stick).contains("no root file system of this version"));
}

#[test]
fn an_answer_or_an_unfinished_installation_installs() {
    assert!(chosen(&Facts { has_answer: true, ..uki() }).contains("answer"));
    let mut unfinished = uki();
    unfinished.disks[1].is_unfinished = true;
    assert!(chosen(&unfinished).contains("not completed"));
}

#[test]
fn a_late_disk_is_waited_for_and_then_not() {
    let mut late = Facts { disks: Vec::new(), ..uki() };
    assert_eq!(chosen(&late), "wait");
    late.is_last_look = true;
    assert!(chosen(&late).contains("cannot be found"));
}

#[test]
fn the_command_line_rules() {
    assert!(chosen(&facts("lodge.mode=install")).starts_with("install"));
    assert!(chosen(&facts("lodge.mode=rescue")).starts_with("rescue: nothing"));
    assert!(chosen(&facts("lodge.colour=red")).contains("lodge.colour"));
    let mut forced = facts(&format!("lodge.mode=node lodge.roothash={HASH}"));
    assert_eq!(chosen(&forced), "node A sda3 sda4");
    // A BIOS loader does not say where it loaded from.
    forced.loaded_from = None;
    assert!(chosen(&forced).contains("2 disks have"));
    forced.disks.pop();
    assert_eq!(chosen(&forced), "node B sdb5 sdb6");
    forced.disks.clear();
    assert_eq!(chosen(&forced), "wait");
    forced.is_last_look = true;
    assert!(chosen(&forced).starts_with("rescue: finding the root file system: no disk has"));
    assert!(chosen(&facts("lodge.mode=node")).contains("no lodge.roothash"));
}

proptest! {
    #[test]
    fn the_last_look_always_decides_and_a_node_is_always_verified(
        mode in prop_oneof![Just(""), Just("lodge.mode=node"), Just("lodge.mode=install"), Just("lodge.mode=rescue")],
        roothash in prop_oneof![Just(HASH), Just(""), Just("00")],
        loaded_from in prop_oneof![Just(None), Just(Some(ESP)), Just(Some(Uuid::from_u128(99))), Just(Some(Uuid::from_u128(7)))],
        disks in 0usize..3,
        has_answer in any::<bool>(),
        unfinished in any::<bool>(),
    ) {
        let words = format!("{mode} {}", if roothash.is_empty() { String::new() } else { format!("lodge.roothash={roothash}") });
        let mut facts = Facts { loaded_from, has_answer, is_last_look: true, ..facts(&words) };
        facts.disks.truncate(disks);
        facts.disks.iter_mut().for_each(|disk| disk.is_unfinished = unfinished);
        match decide(&facts) {
            Decision::Wait { .. } => prop_assert!(false, "waiting for ever"),
            Decision::Node { root, verity, roothash, .. } => {
                prop_assert_eq!(&root.disk, &verity.disk);
                prop_assert_eq!(roothash, HASH);
                prop_assert!(mode == "lodge.mode=node" || (!has_answer && !unfinished && loaded_from.is_some()));
            }
            Decision::Install { .. } | Decision::Rescue { .. } => {}
        }
    }
}
