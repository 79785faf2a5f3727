//! Which kernel modules go where, as tables. The root keeps everything but hardware no server has; the initrd takes what is needed to
//! reach a disk, a network and the share. Dependencies are followed, so a table names only what is wanted for its own sake.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

use super::{Builder, tree};
use crate::progress::output;

/// Dropped from the root, each with what it is. Paths below `kernel/`; a directory means all below it.
const DROPPED: [(&str, &str); 31] = [
    ("drivers/accel/", "AI accelerators"),
    ("drivers/atm/", "ATM networks"),
    ("drivers/auxdisplay/", "little LCDs"),
    ("drivers/bluetooth/", "Bluetooth"),
    ("drivers/comedi/", "laboratory boards"),
    ("drivers/extcon/", "phone connectors"),
    ("drivers/gpu/", "graphics: the firmware's frame buffer and VGA text are built in"),
    ("drivers/iio/", "sensors of tablets"),
    ("drivers/input/gameport/", "game ports"),
    ("drivers/input/joystick/", "joysticks"),
    ("drivers/input/tablet/", "drawing tablets"),
    ("drivers/input/touchscreen/", "touch screens"),
    ("drivers/isdn/", "ISDN"),
    ("drivers/media/", "cameras and television"),
    ("drivers/net/arcnet/", "ARCnet"),
    ("drivers/net/can/", "vehicle buses"),
    ("drivers/net/fddi/", "FDDI"),
    ("drivers/net/hamradio/", "packet radio"),
    ("drivers/net/ieee802154/", "sensor radio"),
    ("drivers/net/wireless/", "wireless networks"),
    ("drivers/net/wwan/", "mobile networks"),
    ("drivers/nfc/", "NFC"),
    ("drivers/platform/", "laptops' buttons"),
    ("drivers/soundwire/", "sound"),
    ("drivers/staging/", "drivers not ready"),
    ("drivers/usb/gadget/", "being a USB device"),
    ("net/bluetooth/", "Bluetooth"),
    ("net/can/", "vehicle buses"),
    ("net/mac80211/", "wireless networks"),
    ("net/nfc/", "NFC"),
    ("sound/", "sound"),
];

/// Goes into the key of the tree: says that the tables above are another edition.
pub const DROPPED_KEY: &str = "modules 1";

/// Firmware kept whatever no module names: DPAA and the like load it by a composed name.
const FIRMWARE_ALWAYS: [&str; 2] = ["intel/ice", "regulatory.db"];

/// In the initrd, each with what it is for.
const INITRD: [(&str, &str); 55] = [
    ("arch/x86/crypto/", "checksums at the processor's speed"),
    ("crypto/crc32c_generic", "ext4 and others"),
    ("drivers/acpi/button", "power button"),
    ("drivers/ata/", "disks: SATA, IDE"),
    ("drivers/block/loop", "bundle on a medium"),
    ("drivers/block/virtio_blk", "disks: virtual"),
    ("drivers/block/xen-blkfront", "disks: Xen"),
    ("drivers/cdrom/", "medium: CD"),
    ("drivers/char/hw_random/", "random numbers early"),
    ("drivers/char/ipmi/ipmi_watchdog", "watchdog: BMC"),
    ("drivers/char/ipmi/ipmi_si", "watchdog: BMC"),
    ("drivers/firmware/qemu_fw_cfg", "answers from a virtual machine's host"),
    ("drivers/firmware/dmi-sysfs", "answers from SMBIOS"),
    ("drivers/hid/hid-generic", "keyboard: USB"),
    ("drivers/hid/usbhid/", "keyboard: USB"),
    ("drivers/hid/hid-hyperv", "keyboard: Hyper-V"),
    ("drivers/hv/", "Hyper-V"),
    ("drivers/i2c/busses/i2c-i801", "watchdog: Intel chip sets need it"),
    ("drivers/input/evdev", "power button"),
    ("drivers/input/serio/", "keyboard: Hyper-V"),
    ("drivers/md/dm-mod", "verified root"),
    ("drivers/md/dm-verity", "verified root"),
    ("drivers/message/fusion/", "disks: older SAS"),
    ("drivers/mfd/lpc_ich", "watchdog: Intel chip sets"),
    ("drivers/mmc/", "disks: eMMC"),
    ("drivers/net/bonding/", "network: bonds"),
    ("drivers/net/ethernet/", "network: cards"),
    ("drivers/net/hyperv/", "network: Hyper-V"),
    ("drivers/net/mdio/", "network: cards"),
    ("drivers/net/phy/", "network: cards"),
    ("drivers/net/usb/", "network: USB"),
    ("drivers/net/virtio_net", "network: virtual"),
    ("drivers/net/vmxnet3/", "network: VMware"),
    ("drivers/net/xen-netfront", "network: Xen"),
    ("drivers/nvme/host/", "disks: NVMe"),
    ("drivers/pci/controller/", "disks behind Intel VMD"),
    ("drivers/scsi/", "disks: SAS, RAID, Fibre Channel, virtual"),
    ("drivers/ufs/", "disks: UFS"),
    ("drivers/usb/host/", "USB"),
    ("drivers/usb/storage/", "medium: USB stick"),
    ("drivers/virtio/", "virtual machines"),
    ("drivers/watchdog/", "watchdog"),
    ("fs/efivarfs/", "boot entries"),
    ("fs/erofs/", "root"),
    ("fs/ext4/", "state partition"),
    ("fs/fat/", "EFI system partition"),
    ("fs/isofs/", "medium: CD"),
    ("fs/lockd/", "share"),
    ("fs/nfs/", "share"),
    ("fs/nls/nls_ascii", "EFI system partition"),
    ("fs/nls/nls_cp437", "EFI system partition"),
    ("fs/nls/nls_iso8859-1", "EFI system partition"),
    ("fs/overlayfs/", "writable /etc over a read-only root"),
    ("net/8021q/", "network: VLANs"),
    ("net/sunrpc/", "share"),
];

/// What a table takes from the directories above that the initrd does without: big, and only for what Lodge never boots from.
const NOT_INITRD: [(&str, &str); 9] = [
    ("arch/x86/crypto/aria", "ciphers nobody asked for"),
    ("arch/x86/crypto/camellia", "ciphers nobody asked for"),
    ("arch/x86/crypto/serpent", "ciphers nobody asked for"),
    ("arch/x86/crypto/twofish", "ciphers nobody asked for"),
    ("arch/x86/crypto/cast", "ciphers nobody asked for"),
    ("drivers/scsi/cxgbi/", "iSCSI offload"),
    ("drivers/scsi/bnx2i/", "iSCSI offload"),
    ("drivers/scsi/qla4xxx/", "iSCSI offload"),
    ("fs/nfs/blocklayout/", "pNFS block layouts"),
];

/// The release of the one kernel in a tree.
pub fn kernel_release(tree: &Path) -> Result<String> {
    let dir = tree.join("usr/lib/modules");
    let mut list = fs::read_dir(&dir).with_context(|| format!("listing {}", dir.display()))?;
    let first = list.next().with_context(|| format!("looking for a kernel in {}", dir.display()))??;
    Ok(first.file_name().to_string_lossy().into_owned())
}

/// A kernel's modules: what there is, and what each needs.
pub struct Modules {
    /// `usr/lib/modules/<release>` in the tree.
    pub dir: PathBuf,
    needs: BTreeMap<String, Vec<String>>,
}

impl Modules {
    /// Read `modules.dep` (kmod, modules.dep(5)) and `modules.softdep`.
    pub fn read(tree: &Path, release: &str) -> Result<Self> {
        let dir = tree.join("usr/lib/modules").join(release);
        let read =
            |name: &str| fs::read_to_string(dir.join(name)).with_context(|| format!("reading {}", dir.join(name).display()));
        let needs = parse(&read("modules.dep")?, &read("modules.softdep")?);
        Ok(Self { dir, needs })
    }

    fn closure(&self, wanted: impl Fn(&str) -> bool) -> BTreeSet<String> {
        closure(&self.needs, wanted)
    }

    /// Modules of the initrd with everything they need, as paths below `dir`.
    pub fn for_initrd(&self) -> BTreeSet<String> {
        let below = |path: &str, table: &[(&str, &str)]| {
            let path = path.strip_prefix("kernel/").unwrap_or(path);
            table.iter().any(|(entry, _)| matches_entry(path, entry))
        };
        self.closure(|path| below(path, &INITRD) && !below(path, &NOT_INITRD))
    }

    fn for_root(&self) -> BTreeSet<String> {
        self.closure(|path| {
            let path = path.strip_prefix("kernel/").unwrap_or(path);
            !DROPPED.iter().any(|(entry, _)| matches_entry(path, entry))
        })
    }
}

/// A directory of a table ends in a slash; a driver is named without `.ko`; a prefix of a name ends as it likes.
fn matches_entry(path: &str, entry: &str) -> bool {
    path.starts_with(entry)
        && (entry.ends_with('/')
            || path.get(entry.len()..).is_some_and(|rest| rest.starts_with('.') || rest.starts_with(['-', '_', '6', '5'])))
}

fn parse(dep: &str, softdep: &str) -> BTreeMap<String, Vec<String>> {
    let mut needs = BTreeMap::new();
    for line in dep.lines() {
        if let Some((module, list)) = line.split_once(':') {
            needs.insert(module.to_owned(), list.split_whitespace().map(str::to_owned).collect::<Vec<_>>());
        }
    }
    let by_name: BTreeMap<String, String> = needs.keys().map(|path| (name(path), path.clone())).collect();
    for line in softdep.lines() {
        let mut words = line.split_whitespace();
        let (Some("softdep"), Some(module)) = (words.next(), words.next()) else { continue };
        let Some(path) = by_name.get(&module.replace('-', "_")) else { continue };
        let soft = words.filter(|word| !word.ends_with(':')).filter_map(|word| by_name.get(&word.replace('-', "_")).cloned());
        let soft: Vec<String> = soft.collect();
        needs.entry(path.clone()).or_default().extend(soft);
    }
    needs
}

fn name(path: &str) -> String {
    let file = path.rsplit('/').next().unwrap_or(path);
    file.split('.').next().unwrap_or(file).replace('-', "_")
}

fn closure(needs: &BTreeMap<String, Vec<String>>, wanted: impl Fn(&str) -> bool) -> BTreeSet<String> {
    let mut kept = BTreeSet::new();
    let mut open: Vec<&String> = needs.keys().filter(|path| wanted(path)).collect();
    while let Some(path) = open.pop() {
        if kept.insert(path.clone()) {
            open.extend(needs.get(path).into_iter().flatten());
        }
    }
    kept
}

/// Remove from a tree the modules of the table and all firmware that none of the others names.
pub fn trim(builder: &Builder, tree: &Path) -> Result<()> {
    builder.progress.detail("trimming modules and firmware");
    let release = kernel_release(tree)?;
    let modules = Modules::read(tree, &release)?;
    let kept = modules.for_root();
    for path in modules.needs.keys().filter(|path| !kept.contains(*path)) {
        let path = modules.dir.join(path);
        fs::remove_file(&path).with_context(|| format!("removing {}", path.display()))?;
    }
    depmod(tree, tree, &release)?;
    let wanted = firmware(tree, kept.iter().map(|path| modules.dir.join(path)))?;
    let all = tree.join("usr/lib/firmware");
    remove_except(&all, &wanted.iter().map(|path| tree.join(path)).collect())?;
    Ok(())
}

/// Write the indexes of the modules below `base`.
pub fn depmod(tree: &Path, base: &Path, release: &str) -> Result<()> {
    let mut command = tree::tool(tree, "usr/sbin/depmod");
    output(command.arg("-b").arg(base).arg(release)).context("indexing the kernel's modules")?;
    Ok(())
}

/// Firmware files (and the links that lead to them) that modules name and the tree has, as paths in the tree.
pub fn firmware(tree: &Path, modules: impl Iterator<Item = PathBuf>) -> Result<BTreeSet<PathBuf>> {
    let modules: Vec<PathBuf> = modules.collect();
    let mut found = BTreeSet::new();
    for chunk in modules.chunks(500) {
        let mut command = tree::tool(tree, "usr/sbin/modinfo");
        let names = output(command.args(["-F", "firmware"]).args(chunk)).context("asking modules for their firmware")?;
        for name in String::from_utf8_lossy(&names).lines() {
            expand(tree, Path::new("usr/lib/firmware"), name, &mut found)?;
        }
    }
    for name in FIRMWARE_ALWAYS {
        expand(tree, Path::new("usr/lib/firmware"), name, &mut found)?;
    }
    Ok(found)
}

/// A module may name a pattern (`*`), a link, or (from our own table) a directory.
fn expand(tree: &Path, dir: &Path, name: &str, found: &mut BTreeSet<PathBuf>) -> Result<()> {
    let (first, rest) = name.split_once('/').map_or((name, None), |(first, rest)| (first, Some(rest)));
    let names: Vec<String> = match first.split_once('*') {
        None => vec![first.to_owned()],
        Some((before, after)) => match fs::read_dir(tree.join(dir)) {
            Err(_) => Vec::new(),
            Ok(list) => list
                .filter_map(|entry| Some(entry.ok()?.file_name().to_string_lossy().into_owned()))
                .filter(|name| name.len() >= before.len() + after.len() && name.starts_with(before) && name.ends_with(after))
                .collect(),
        },
    };
    for name in names {
        let path = dir.join(&name);
        match rest {
            Some(rest) => expand(tree, &path, rest, found)?,
            None => add(tree, &path, found)?,
        }
    }
    Ok(())
}

fn add(tree: &Path, path: &Path, found: &mut BTreeSet<PathBuf>) -> Result<()> {
    let Ok(metadata) = fs::symlink_metadata(tree.join(path)) else { return Ok(()) };
    if metadata.is_dir() {
        for entry in fs::read_dir(tree.join(path)).with_context(|| format!("listing {}", path.display()))? {
            add(tree, &path.join(entry.context("listing firmware")?.file_name()), found)?;
        }
    } else if metadata.is_symlink() {
        let target = fs::read_link(tree.join(path)).with_context(|| format!("reading {}", path.display()))?;
        let inside = if target.is_absolute() {
            target.strip_prefix("/").unwrap_or(&target).to_path_buf()
        } else {
            normal(&path.parent().unwrap_or(path).join(target))
        };
        found.insert(path.to_path_buf());
        if inside != path {
            add(tree, &inside, found)?;
        }
    } else {
        found.insert(path.to_path_buf());
    }
    Ok(())
}

fn normal(path: &Path) -> PathBuf {
    path.components().fold(PathBuf::new(), |mut done, part| {
        if part == std::path::Component::ParentDir {
            done.pop();
        } else {
            done.push(part);
        }
        done
    })
}

/// Remove all files below a directory but these; directories that are empty then go too. Returns whether anything is left.
fn remove_except(dir: &Path, kept: &BTreeSet<PathBuf>) -> Result<bool> {
    let mut any = false;
    for entry in fs::read_dir(dir).with_context(|| format!("listing {}", dir.display()))? {
        let path = entry.with_context(|| format!("listing {}", dir.display()))?.path();
        if path.is_dir() && !path.is_symlink() {
            let left = remove_except(&path, kept)?;
            if !left {
                fs::remove_dir(&path).with_context(|| format!("removing {}", path.display()))?;
            }
            any |= left;
        } else if kept.contains(&path) {
            any = true;
        } else {
            fs::remove_file(&path).with_context(|| format!("removing {}", path.display()))?;
        }
    }
    Ok(any)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEP: &str = "kernel/fs/erofs/erofs.ko.xz: kernel/lib/lzma.ko.xz\nkernel/lib/lzma.ko.xz:\nkernel/crypto/crc32c_generic.ko.xz:\n\
                       kernel/sound/snd.ko.xz: kernel/lib/lzma.ko.xz\n";

    #[test]
    fn what_a_module_needs_comes_with_it() {
        let needs = parse(DEP, "# soft\nsoftdep erofs pre: crc32c-generic\n");
        let kept = closure(&needs, |path| path.contains("erofs"));
        let expected = ["kernel/crypto/crc32c_generic.ko.xz", "kernel/fs/erofs/erofs.ko.xz", "kernel/lib/lzma.ko.xz"];
        assert_eq!(kept.iter().map(String::as_str).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn a_driver_of_a_table_is_not_its_longer_named_neighbour() {
        assert!(matches_entry("drivers/md/dm-mod.ko.xz", "drivers/md/dm-mod"));
        assert!(!matches_entry("drivers/block/loopback.ko.xz", "drivers/block/loop"));
        assert!(matches_entry("drivers/scsi/sd_mod.ko.xz", "drivers/scsi/"));
        assert!(matches_entry("arch/x86/crypto/twofish-avx.ko.xz", "arch/x86/crypto/twofish"));
    }

    #[test]
    fn firmware_is_found_through_links_and_patterns() {
        let tree = tempfile::tempdir().unwrap();
        let dir = tree.path().join("usr/lib/firmware/vendor");
        fs::create_dir_all(&dir).unwrap();
        for name in ["card-1.bin", "card-2.bin", "other"] {
            fs::write(dir.join(name), "x").unwrap();
        }
        std::os::unix::fs::symlink("card-2.bin", dir.join("card.bin")).unwrap();
        let found = |name: &str| {
            let mut found = BTreeSet::new();
            expand(tree.path(), Path::new("usr/lib/firmware"), name, &mut found).unwrap();
            found.iter().map(|path| path.file_name().unwrap().to_string_lossy().into_owned()).collect::<Vec<_>>()
        };
        assert_eq!(found("vendor/card.bin"), ["card-2.bin", "card.bin"]);
        assert_eq!(found("vendor/card-*.bin"), ["card-1.bin", "card-2.bin"]);
        assert_eq!(found("vendor/none"), [""; 0]);
    }
}
