//! Whole installations onto loop devices, and refusals that must leave a disk as it is. They need root; without it they say so.

use std::{
    fs::{self, File},
    io::{Read as _, Seek as _, SeekFrom},
    os::unix::fs::{FileExt as _, PermissionsExt as _},
    path::Path,
    process::Command,
    sync::{Mutex, MutexGuard, PoisonError},
};

use lodge_model::{
    disk::DiskRule,
    facts::Disk,
    layout::{self, MIB, Slot, uki_name},
    node::{NodeFile, Role},
    paths::{CENTER_BUNDLES, ESP_ANSWER},
};
use lodge_sys::{gpt, partitions};
use nix::unistd::{Whence, geteuid, lseek};
use ring::digest::{Context as Digest, SHA256};

use super::*;
use crate::{
    bundle::{
        self,
        tests::{ROOTHASH, Sample, Wrong, on_disk, sample},
    },
    console::Consoles,
    installed::{self, Found},
    plan::{self, Goal, Permission, tests::facts},
};

/// The installer's mount points have fixed names.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// A disk in a sparse file.
struct Loop {
    name: String,
    dir: tempfile::TempDir,
    _alone: MutexGuard<'static, ()>,
}

impl Loop {
    /// `None` without root, which is said.
    fn blank() -> Option<Self> {
        Self::sized(layout::min_disk_size() + 100 * MIB)
    }

    fn sized(size: u64) -> Option<Self> {
        if !geteuid().is_root() {
            println!("skipped: loop devices need root");
            return None;
        }
        let alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk.img");
        File::create(&path).unwrap().set_len(size).unwrap();
        let output = Command::new("losetup").args(["-P", "-f", "--show"]).arg(&path).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let name = String::from_utf8(output.stdout).unwrap().trim().strip_prefix("/dev/").unwrap().to_owned();
        Some(Self { name, dir, _alone: alone })
    }

    fn device(&self) -> std::path::PathBuf {
        Path::new("/dev").join(&self.name)
    }

    fn disk(&self) -> Disk {
        look(&self.name).unwrap()
    }

    /// SHA-256 of all that was ever written, with its places.
    fn digest(&self) -> String {
        nix::unistd::sync();
        let mut file = File::open(self.dir.path().join("disk.img")).unwrap();
        let mut digest = Digest::new(&SHA256);
        let mut at = 0;
        while let Ok(start) = lseek(&file, at, Whence::SeekData) {
            let end = lseek(&file, start, Whence::SeekHole).unwrap();
            file.seek(SeekFrom::Start(u64::try_from(start).unwrap())).unwrap();
            let mut bytes = Vec::new();
            (&file).take(u64::try_from(end - start).unwrap()).read_to_end(&mut bytes).unwrap();
            // A hole that has been filled with zeros reads the same.
            for (number, block) in bytes.chunks(4096).enumerate() {
                if block.iter().any(|byte| *byte != 0) {
                    digest.update(&(u64::try_from(start).unwrap() + number as u64 * 4096).to_le_bytes());
                    digest.update(block);
                }
            }
            at = end;
        }
        lodge_model::ids::hex(digest.finish().as_ref())
    }

    fn write(&self, at: u64, bytes: &[u8]) {
        let file = fs::OpenOptions::new().write(true).open(self.device()).unwrap();
        file.write_all_at(bytes, at).unwrap();
        file.sync_all().unwrap();
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let file = File::open(self.device()).unwrap();
        let _ = partitions::announce(&file, &self.name, &[]);
        let _ = Command::new("losetup").arg("-d").arg(self.device()).status();
    }
}

/// A loop device has no serial number, and only a disk with one is ever taken.
fn look(name: &str) -> Result<Disk> {
    Ok(Disk { serial: "TEST".into(), model: "loop".into(), ..lodge_sys::facts::disks::disk(name)? })
}

fn goal(wipe: bool) -> Goal {
    let rule = DiskRule { wipe, ..DiskRule::by_serial("TEST") };
    let permission = Permission::InHand { rule, place: "a test".into() };
    Goal { name: "center1".into(), roles: vec![Role::Center, Role::Share], permission }
}

fn host(dir: &Path) -> Host {
    let boot_loader = dir.join("systemd-bootx64.efi");
    fs::write(&boot_loader, b"a boot loader").unwrap();
    let has_fat = fs::read_to_string("/proc/filesystems").unwrap().contains("vfat");
    if !has_fat {
        println!("this kernel has no FAT: the EFI system partition is tested with ext4");
    }
    Host { boot_loader, esp_fstype: if has_fat { "vfat" } else { "ext4" }, look, firmware: false }
}

/// From the facts on, as the flow does it, with what was found forced where the kernel cannot see it.
fn install(disk: &Loop, sample: &Sample, goal: &Goal, found: Option<Found>, change: impl FnOnce(&mut Host)) -> Result<()> {
    let mut facts = facts(vec![disk.disk()]);
    let seen = facts.disks[0].signatures.clone();
    installed::forgive_unfinished(&mut facts)?;
    let source = on_disk(sample, disk.dir.path());
    let manifest = bundle::manifest(&source, &sample.key)?;
    let chosen = plan::choose(&facts, goal, 0)?;
    let found = match found {
        Some(found) => found,
        None => installed::look(chosen)?,
    };
    let plan = plan::make(chosen, goal, &found, &manifest)?;
    let mut host = host(disk.dir.path());
    change(&mut host);
    let mut report = Report::new(Consoles::to_file(File::create(disk.dir.path().join("console")).unwrap()));
    run(Apply {
        plan: &plan,
        machine: facts.machine,
        seen,
        report: &mut report,
        source,
        manifest,
        key: sample.key.clone(),
        answer: Answer::default(),
        network: None,
        site: None,
        enrolment: None,
        host,
    })
}

/// Everything that an installation must leave.
fn check(disk: &Loop, sample: &Sample) {
    let mut file = File::open(disk.device()).unwrap();
    let entries = gpt::read(&mut file, 512).unwrap().unwrap();
    assert!(gpt::is_lodge(&entries, disk.disk().size) && !gpt::is_unfinished(&entries));
    let (root, verity) = layout::slot_uuids(ROOTHASH).unwrap();
    let holders =
        |uuid| entries.iter().filter(|entry| entry.uuid == uuid).map(|entry| entry.label.as_str()).collect::<Vec<_>>();
    assert_eq!((holders(root), holders(verity)), (vec!["root-a"], vec!["root-a-verity"]));
    for (label, wanted) in [(Slot::A.root_label(), &sample.root), (Slot::A.verity_label(), &sample.verity)] {
        let entry = entries.iter().find(|entry| entry.label == label).unwrap();
        let mut bytes = vec![0; wanted.len()];
        file.read_exact_at(&mut bytes, entry.start).unwrap();
        assert!(bytes == *wanted, "{label}");
    }
    let state = Mounted::look(&partitions::node(&disk.name, 7), "look-state", "ext4").unwrap();
    let path = state.dir().join("node/node.json");
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let node: NodeFile = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    assert_eq!((node.name.as_str(), node.disk_serial.as_str()), ("center1", "TEST"));
    assert!(node.site.is_some() && node.node.is_none() && node.center.is_none());
    let bundles = state.dir().join(Path::new(CENTER_BUNDLES).strip_prefix("/state").unwrap());
    assert_eq!(fs::read(bundles.join("lodge-os-1.2.3.tar.gz")).unwrap(), sample.bytes);
    assert_eq!(names(state.dir()), ["center", "lost+found", "node"]);
    let esp = esp(disk);
    assert_eq!(fs::read(esp.dir().join("EFI/Linux").join(uki_name("1.2.3", Some(3)))).unwrap(), sample.uki);
    assert_eq!(fs::read(esp.dir().join("EFI/BOOT/BOOTX64.EFI")).unwrap(), b"a boot loader");
    assert_eq!(names(&esp.dir().join("EFI/Linux")), [uki_name("1.2.3", Some(3))]);
    assert!(!esp.dir().join(ESP_ANSWER).exists());
}

fn esp(disk: &Loop) -> Mounted {
    let fstype = host(disk.dir.path()).esp_fstype;
    Mounted::mount(&partitions::node(&disk.name, 1), "look-esp", fstype, lodge_sys::mount::MsFlags::empty(), "").unwrap()
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

#[test]
fn a_blank_disk_becomes_a_node_and_once_more() {
    let Some(disk) = Loop::blank() else { return };
    let sample = sample(Wrong::default());
    install(&disk, &sample, &goal(false), None, |_| {}).unwrap();
    check(&disk, &sample);
    let console = fs::read_to_string(disk.dir.path().join("console")).unwrap();
    for step in
        ["verify-bundle", "partition", "format-state", "write-verity", "write-root", "read-back", "node-files", "boot-entry"]
    {
        assert!(console.contains(&format!("lodge: {step} done in ")), "{step}: {console}");
    }
    // Nobody said that it may be overwritten now.
    let before = disk.digest();
    let error = install(&disk, &sample, &goal(false), None, |_| {}).unwrap_err().to_string();
    assert!(error.contains("already holds gpt"), "{error}");
    assert_eq!(disk.digest(), before);
    // Now somebody does: a reinstall, with an old UKI there.
    let table = gpt::read(&mut File::open(disk.device()).unwrap(), 512).unwrap();
    let old = esp(&disk);
    fs::write(old.dir().join("EFI/Linux/lodge_0.9.efi"), b"old").unwrap();
    old.unmount().unwrap();
    let found = Found { entries: table.clone(), bootable: true };
    install(&disk, &sample, &goal(true), Some(found), |_| {}).unwrap();
    check(&disk, &sample);
    assert_eq!(gpt::read(&mut File::open(disk.device()).unwrap(), 512).unwrap(), table);
}

#[test]
fn an_installation_that_was_cut_short_is_begun_anew_and_a_complete_one_is_not() {
    let Some(disk) = Loop::blank() else { return };
    let sample = sample(Wrong::default());
    // The last step fails, as if the power had gone: everything else is written.
    let no_loader = |host: &mut Host| host.boot_loader = "/nowhere/loader.efi".into();
    let error = format!("{:#}", install(&disk, &sample, &goal(false), None, no_loader).unwrap_err());
    assert!(error.contains("/nowhere/loader.efi"), "{error}");
    let mut facts = facts(vec![disk.disk()]);
    assert!(!facts.disks[0].signatures.is_empty());
    assert_eq!(installed::forgive_unfinished(&mut facts).unwrap(), [disk.name.as_str()]);
    assert!(facts.disks[0].signatures.is_empty());
    install(&disk, &sample, &goal(false), None, |_| {}).unwrap();
    check(&disk, &sample);
    let mut facts = plan::tests::facts(vec![disk.disk()]);
    assert!(installed::forgive_unfinished(&mut facts).unwrap().is_empty());
}

#[test]
fn a_bad_bundle_changes_no_byte() {
    let Some(disk) = Loop::blank() else { return };
    let before = disk.digest();
    let wrong_key = sample(Wrong { key: true, ..Wrong::default() });
    let error = format!("{:#}", install(&disk, &wrong_key, &goal(false), None, |_| {}).unwrap_err());
    assert!(error.contains("not signed by the release key"), "{error}");
    assert_eq!(disk.digest(), before);
    let flipped = sample(Wrong { bit: true, ..Wrong::default() });
    let error = format!("{:#}", install(&disk, &flipped, &goal(false), None, |_| {}).unwrap_err());
    assert!(error.contains("root.erofs is damaged"), "{error}");
    assert_eq!(disk.digest(), before);
}

#[test]
fn what_a_disk_holds_is_named_and_not_changed() {
    type Put = (&'static str, fn(&Loop));
    let puts: [Put; 7] = [
        ("gpt", |disk| {
            let mut file = write_gpt(disk);
            gptman::GPT::write_protective_mbr_into(&mut file, 512).unwrap();
        }),
        // libblkid believes a GPT only where the protective MBR is in order.
        ("gpt", |disk| drop(write_gpt(disk))),
        ("dos", |disk| {
            let mut sector = [0; 512];
            sector[446..462].copy_from_slice(&[0, 0, 2, 0, 0x83, 0, 0, 0, 0, 8, 0, 0, 0, 8, 0, 0]);
            sector[510..].copy_from_slice(&[0x55, 0xaa]);
            disk.write(0, &sector);
        }),
        ("ext4", |disk| {
            let made = Command::new("mkfs.ext4").args(["-q", "-F"]).arg(disk.device()).status().unwrap();
            assert!(made.success());
        }),
        ("LVM2_member", |disk| disk.write(512, &lvm_label())),
        ("linux_raid_member", |disk| disk.write(4096, &md_superblock())),
        ("crypto_LUKS", |disk| disk.write(0, &luks_header())),
    ];
    let sample = sample(Wrong::default());
    for (kind, put) in puts {
        let Some(disk) = Loop::blank() else { return };
        put(&disk);
        let before = disk.digest();
        let error = format!("{:#}", install(&disk, &sample, &goal(false), None, |_| {}).unwrap_err());
        assert!(error.contains(kind) && error.contains("TEST") && error.contains("nothing was written"), "{kind}: {error}");
        assert_eq!(disk.digest(), before, "{kind}");
    }
}

#[test]
fn a_small_disk_and_a_changed_one_are_left_alone() {
    let sample = sample(Wrong::default());
    if let Some(small) = Loop::sized(layout::min_disk_size() - MIB) {
        let before = small.digest();
        let error = format!("{:#}", install(&small, &sample, &goal(true), None, |_| {}).unwrap_err());
        assert!(error.contains("too small"), "{error}");
        assert_eq!(small.digest(), before);
    }
    let Some(disk) = Loop::blank() else { return };
    let change = |host: &mut Host| {
        host.look = |name| {
            let signature = Signature { device: name.into(), kind: "ext4".into(), label: String::new() };
            Ok(Disk { signatures: vec![signature], ..look(name)? })
        };
    };
    let before = disk.digest();
    let error = format!("{:#}", install(&disk, &sample, &goal(false), None, change).unwrap_err());
    assert!(error.contains("has changed since the plan was made"), "{error}");
    assert_eq!(disk.digest(), before);
}

#[test]
fn a_disk_in_use_is_left_alone() {
    let Some(disk) = Loop::blank() else { return };
    assert!(Command::new("mkfs.ext4").args(["-q", "-F"]).arg(disk.device()).status().unwrap().success());
    let mounted = Mounted::look(&disk.device(), "in-use", "ext4").unwrap();
    let before = disk.digest();
    let error = format!("{:#}", install(&disk, &sample(Wrong::default()), &goal(true), None, |_| {}).unwrap_err());
    assert!(error.contains("in use"), "{error}");
    assert_eq!(disk.digest(), before);
    drop(mounted);
}

#[test]
fn a_foreign_boot_loader_does_not_shine_through_a_new_table() {
    let Some(disk) = Loop::blank() else { return };
    // Where the new EFI system partition starts, and where old RAID metadata may be.
    let size = disk.disk().size;
    disk.write(MIB, &[0xee; 8192]);
    disk.write(size - 65536, &[0xee; 4096]);
    let no_loader = |host: &mut Host| host.boot_loader = "/nowhere/loader.efi".into();
    assert!(install(&disk, &sample(Wrong::default()), &goal(true), None, no_loader).is_err());
    let file = File::open(disk.device()).unwrap();
    for at in [MIB, size - 65536] {
        let mut bytes = [0; 4096];
        file.read_exact_at(&mut bytes, at).unwrap();
        // A new file system may hold the byte by chance, but not in a row.
        assert!(!bytes.windows(8).any(|window| window == [0xee; 8]), "byte {at}");
    }
}

fn write_gpt(disk: &Loop) -> File {
    let mut file = fs::OpenOptions::new().read(true).write(true).open(disk.device()).unwrap();
    gptman::GPT::new_from(&mut file, 512, [7; 16]).unwrap().write_into(&mut file).unwrap();
    file
}

/// A label as pvcreate writes it: LVM2's own CRC over all after it.
fn lvm_label() -> Vec<u8> {
    let mut sector = vec![0; 512];
    sector[..8].copy_from_slice(b"LABELONE");
    sector[8..16].copy_from_slice(&1u64.to_le_bytes());
    sector[20..24].copy_from_slice(&32u32.to_le_bytes());
    sector[24..32].copy_from_slice(b"LVM2 001");
    sector[32..64].copy_from_slice(&[b'a'; 32]);
    let crc = sector[20..].iter().fold(0xf597_a6cf_u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 })
    });
    sector[16..20].copy_from_slice(&crc.to_le_bytes());
    sector
}

/// A superblock of version 1.2 as mdadm writes it.
fn md_superblock() -> Vec<u8> {
    let mut block = vec![0; 256];
    block[..4].copy_from_slice(&0xa92b_4efc_u32.to_le_bytes());
    block[4..8].copy_from_slice(&1u32.to_le_bytes());
    block[16..32].copy_from_slice(&[7; 16]);
    block[144..152].copy_from_slice(&8u64.to_le_bytes());
    let sum: u64 = block.chunks(4).map(|word| u64::from(u32::from_le_bytes(word.try_into().unwrap()))).sum();
    let sum = u32::try_from((sum & 0xffff_ffff) + (sum >> 32)).unwrap();
    block[216..220].copy_from_slice(&sum.to_le_bytes());
    block
}

/// The start of a LUKS1 header.
fn luks_header() -> Vec<u8> {
    let mut header = vec![0; 592];
    header[..6].copy_from_slice(b"LUKS\xba\xbe");
    header[6..8].copy_from_slice(&1u16.to_be_bytes());
    header[168..204].copy_from_slice(b"00112233-4455-6677-8899-aabbccddeeff");
    header
}
