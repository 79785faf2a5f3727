use std::os::unix::fs::symlink;

use super::*;

type Files<'a> = &'a [(&'a str, &'a str)];

/// A sysfs of files: `/sys/block/NAME` is a link into `devices`.
fn machine(disks: &[(&str, &str, Files)]) -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    let block = root.path().join("block");
    fs::create_dir(&block).unwrap();
    for (name, device, files) in disks {
        let real = root.path().join("devices").join(device).join("block").join(name);
        fs::create_dir_all(&real).unwrap();
        symlink(root.path().join("devices").join(device), real.join("device")).unwrap();
        for (file, text) in *files {
            let file = real.join(file);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, format!("{text}\n")).unwrap();
        }
        symlink(&real, block.join(name)).unwrap();
    }
    root
}

#[test]
fn every_kind_of_disk_is_recognised() {
    let size = ("size", "2048");
    let root = machine(&[
        ("vda", "pci0/virtio1", &[size, ("serial", "CENTER0"), ("queue/logical_block_size", "4096")]),
        ("nvme0n1", "pci0/nvme/nvme0", &[size, ("device/serial", "NV1   "), ("device/model", "Fast one")]),
        (
            "sda",
            "pci0/ata1/host0/target0:0:0/0:0:0:0",
            &[size, ("device/vpd_pg80", "\0\u{1}\0\u{8}  ATA-7 "), ("queue/rotational", "1")],
        ),
        ("sdb", "pci0/host1/target1:0:0/1:0:0:0", &[size, ("ro", "1")]),
        ("mmcblk0", "platform/mmc0", &[size, ("device/serial", "0x1234"), ("device/name", "EMMC")]),
    ]);
    let block = root.path().join("block");
    let read = |name: &str| read(&block, name).unwrap();
    let vda = read("vda");
    assert_eq!((vda.serial.as_str(), vda.transport, vda.size, vda.block_size), ("CENTER0", Transport::Virtio, 1 << 20, 4096));
    let nvme = read("nvme0n1");
    assert_eq!((nvme.serial.as_str(), nvme.model.as_str(), nvme.transport), ("NV1", "Fast one", Transport::Nvme));
    let ata = read("sda");
    assert_eq!((ata.serial.as_str(), ata.transport, ata.rotational), ("ATA-7", Transport::Ata, true));
    let scsi = read("sdb");
    assert_eq!((scsi.serial.as_str(), scsi.transport, scsi.read_only), ("", Transport::Scsi, true));
    assert_eq!(read("mmcblk0").transport, Transport::Mmc);
}

#[test]
fn a_usb_disk_has_the_usb_devices_serial() {
    let root = machine(&[("sda", "pci0/usb1/1-1/1-1:1.0/host2/target2:0:0/2:0:0:0", &[("size", "8"), ("removable", "1")])]);
    let usb = root.path().join("devices/pci0/usb1/1-1");
    fs::write(usb.join("idVendor"), "1234\n").unwrap();
    fs::write(usb.join("serial"), "STICK1\n").unwrap();
    let disk = read(&root.path().join("block"), "sda").unwrap();
    assert_eq!((disk.serial.as_str(), disk.transport, disk.removable), ("STICK1", Transport::Usb, true));
}

#[test]
fn what_is_not_a_disk_is_left_out() {
    let root = machine(&[
        ("vda", "pci0/virtio1", &[]),
        ("sr0", "pci0/ata2", &[]),
        ("loop0", "virtual", &[]),
        ("dm-0", "virtual", &[]),
        ("mmcblk0boot0", "platform/mmc0", &[]),
        ("nvme0c0n1", "pci0/nvme/nvme0", &[("hidden", "1")]),
    ]);
    assert_eq!(names(&root.path().join("block")).unwrap(), ["sr0", "vda"]);
}
