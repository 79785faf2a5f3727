//! Disks, from sysfs (kernel, Documentation/ABI/stable/sysfs-block), and what libblkid finds on them.

use std::{
    fs::{self, File},
    path::Path,
};

use anyhow::{Context as _, Result};
use lodge_model::facts::{Disk, Signature, Transport};

use crate::{blkid, gpt};

const DIR: &str = "/sys/block";
/// Block devices that are made of others or of memory, floppies, and the boot and RPMB areas of an eMMC.
const NOT_DISKS: [&str; 9] = ["loop", "ram", "zram", "dm-", "md", "nbd", "fd", "drbd", "zd"];
/// SCSI's unit serial number page: four bytes of header before the text (SPC-4, 7.8.15).
const VPD_HEADER: usize = 4;

/// The disks of this machine with what is on them, in the kernel's order.
pub fn disks() -> Result<Vec<Disk>> {
    let mut disks = Vec::new();
    for name in names(Path::new(DIR))? {
        disks.push(with_signatures(read(Path::new(DIR), &name)?)?);
    }
    Ok(disks)
}

/// One block device, whatever it is, with what is on it now.
pub fn disk(name: &str) -> Result<Disk> {
    with_signatures(read(Path::new(DIR), name)?)
}

fn with_signatures(mut disk: Disk) -> Result<Disk> {
    // A drive without a medium has size 0 and cannot be opened.
    if disk.size > 0 {
        disk.signatures = blkid::signatures(&disk.name)?;
        add_gpt(&mut disk);
    }
    Ok(disk)
}

/// libblkid believes a GPT only where its protective MBR is in order; for one that somebody may still need, either copy is enough.
fn add_gpt(disk: &mut Disk) {
    let has_table = disk.signatures.iter().any(|signature| signature.device == disk.name && signature.kind == "gpt");
    let found = || gpt::read(&mut File::open(Path::new("/dev").join(&disk.name)).ok()?, disk.block_size).ok()?;
    if !has_table && found().is_some() {
        disk.signatures.insert(0, Signature { device: disk.name.clone(), kind: "gpt".to_owned(), label: String::new() });
    }
}

fn names(dir: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir).with_context(|| format!("reading {}", dir.display()))? {
        let entry = entry.with_context(|| format!("reading {}", dir.display()))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let part_of_mmc = name.starts_with("mmcblk") && (name.contains("boot") || name.contains("rpmb"));
        // One path of an NVMe multipath device.
        let hidden = text(&entry.path().join("hidden")) == "1";
        if !NOT_DISKS.iter().any(|prefix| name.starts_with(prefix)) && !part_of_mmc && !hidden {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

fn read(dir: &Path, name: &str) -> Result<Disk> {
    let path = dir.join(name);
    // /sys/block/sda is a link to ../devices/pci…/usb1/…: the path tells the attachment.
    let real = fs::canonicalize(&path).with_context(|| format!("finding disk {name}"))?;
    let value = |file: &str| text(&path.join(file));
    let sectors: u64 = value("size").parse().with_context(|| format!("reading the size of {name}"))?;
    Ok(Disk {
        name: name.to_owned(),
        serial: serial(&path, &real),
        model: first([value("device/model"), value("device/name")]),
        transport: transport(name, &real.to_string_lossy()),
        size: sectors * 512,
        block_size: value("queue/logical_block_size").parse().unwrap_or(512),
        rotational: value("queue/rotational") == "1",
        removable: value("removable") == "1",
        read_only: value("ro") == "1",
        signatures: Vec::new(),
    })
}

fn transport(name: &str, real: &str) -> Transport {
    match real {
        _ if name.starts_with("nvme") => Transport::Nvme,
        _ if name.starts_with("mmcblk") => Transport::Mmc,
        _ if real.contains("/usb") => Transport::Usb,
        _ if real.contains("/virtio") => Transport::Virtio,
        _ if real.contains("/ata") => Transport::Ata,
        _ if real.contains("/host") && real.contains("/target") => Transport::Scsi,
        _ => Transport::Other,
    }
}

/// virtio-blk says it at the disk, NVMe and MMC at the device, SCSI and ATA in a page of inquiry data, USB at the USB device.
fn serial(path: &Path, real: &Path) -> String {
    let page = fs::read(path.join("device/vpd_pg80")).unwrap_or_default();
    let page = String::from_utf8_lossy(page.get(VPD_HEADER..).unwrap_or_default());
    let page = page.trim_matches(|char: char| char.is_whitespace() || char == '\0').to_owned();
    let own = first([text(&path.join("serial")), text(&path.join("device/serial")), page]);
    if !own.is_empty() || !real.to_string_lossy().contains("/usb") {
        return own;
    }
    let usb_device = real.ancestors().find(|dir| dir.join("idVendor").exists());
    usb_device.map(|dir| text(&dir.join("serial"))).unwrap_or_default()
}

fn first<const N: usize>(texts: [String; N]) -> String {
    texts.into_iter().find(|text| !text.is_empty()).unwrap_or_default()
}

fn text(path: &Path) -> String {
    let bytes = fs::read(path).unwrap_or_default();
    String::from_utf8_lossy(&bytes).trim_matches(|char: char| char.is_whitespace() || char == '\0').to_owned()
}

#[cfg(test)]
mod tests;
