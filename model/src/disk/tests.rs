use super::*;
use crate::facts::Signature;
use proptest::prelude::*;

fn disk(name: &str, serial: &str) -> Disk {
    Disk {
        name: name.into(),
        serial: serial.into(),
        model: "QEMU".into(),
        transport: Transport::Virtio,
        size: 20 * layout::GIB,
        block_size: 512,
        rotational: false,
        removable: false,
        read_only: false,
        signatures: vec![],
    }
}

fn holding(kind: &str) -> Disk {
    let signature = Signature { device: "vda".into(), kind: kind.into(), label: String::new() };
    Disk { signatures: vec![signature], ..disk("vda", "S1") }
}

#[test]
fn the_only_blank_disk_is_chosen() {
    let disks = [disk("vda", "S1"), Disk { removable: true, ..disk("sr0", "CD") }];
    assert_eq!(DiskRule::default().choose(&disks).unwrap().serial, "S1");
}

#[test]
fn two_matches_are_refused_and_both_named() {
    let error = DiskRule::default().choose(&[disk("vda", "S1"), disk("vdb", "S2")]).unwrap_err();
    let text = error.to_string();
    assert!(text.contains("S1") && text.contains("S2") && text.contains("2 disks"), "{text}");
    assert_eq!(DiskRule::by_serial("S2").choose(&[disk("vda", "S1"), disk("vdb", "S2")]).unwrap().name, "vdb");
}

#[test]
fn what_a_disk_holds_is_named_and_wipe_allows_it() {
    for kind in ["gpt", "dos", "ext4", "LVM2_member", "linux_raid_member", "crypto_LUKS"] {
        let disks = [holding(kind)];
        let text = DiskRule::default().choose(&disks).unwrap_err().to_string();
        assert!(text.contains(kind) && text.contains("S1"), "{text}");
        let wipe = DiskRule { wipe: true, ..DiskRule::default() };
        assert!(wipe.choose(&disks).is_ok());
    }
}

#[test]
fn no_disk_small_disk_no_serial() {
    assert_eq!(DiskRule::default().choose(&[]), Err(Refusal::NoDisk));
    let small = Disk { size: layout::GIB, ..disk("vda", "S1") };
    assert!(matches!(DiskRule::default().choose(&[small]), Err(Refusal::TooSmall { .. })));
    assert!(matches!(DiskRule::default().choose(&[disk("vda", "")]), Err(Refusal::NoSerial { .. })));
    assert!(matches!(DiskRule::by_serial("X").choose(&[disk("vda", "S1")]), Err(Refusal::NoMatch { .. })));
}

proptest! {
    #[test]
    fn a_chosen_disk_is_blank_unless_wipe(
        held in proptest::collection::vec(any::<bool>(), 0..4),
        size in 0u64..64,
        wipe in any::<bool>(),
    ) {
        let disks: Vec<Disk> = held.iter().enumerate().map(|(at, held)| {
            let base = if *held { holding("ext4") } else { disk("vda", "S") };
            Disk { serial: format!("S{at}"), size: size * layout::GIB, ..base }
        }).collect();
        let rule = DiskRule { wipe, ..DiskRule::default() };
        if let Ok(chosen) = rule.choose(&disks) {
            prop_assert!(wipe || chosen.signatures.is_empty());
            prop_assert!(chosen.size >= layout::min_disk_size());
            prop_assert_eq!(disks.len(), 1);
        }
    }
}
