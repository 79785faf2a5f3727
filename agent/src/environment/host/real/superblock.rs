//! What a disk claims to be, read before e2fsck and the kernel act on it: only what Lodge makes and grows goes on. Pure, but for the reading.
//!
//! Offsets and bits are ext4's on-disk format (kernel, Documentation/filesystems/ext4/super.rst). Checksums but for this one and the rest of
//! the metadata are left to e2fsck and the kernel: what counts here is which of their code a disk can reach.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use anyhow::{Context as _, Result};
use crc::{CRC_32_ISCSI, Crc};

/// Where it is on the device, and how long it is.
const OFFSET: u64 = 1024;
const LENGTH: usize = 1024;
const MAGIC: u16 = 0xEF53;
/// The inode that an inner journal has.
const JOURNAL_INODE: u32 = 8;

/// Features, each with its offset and the bits that may be there: what mkfs.ext4 makes, what a mounted one shows (`needs_recovery`,
/// `orphan_present`), and what growing it a thousandfold adds (`meta_bg`).
const FEATURES: [(&str, usize, u32); 3] = [
    // has_journal, ext_attr, resize_inode, dir_index, orphan_file
    ("compatible", 0x5C, 0x4 | 0x8 | 0x10 | 0x20 | 0x1000),
    // filetype, needs_recovery, meta_bg, extents, 64bit, flex_bg, metadata_csum_seed
    ("incompatible", 0x60, 0x2 | 0x4 | 0x10 | 0x40 | 0x80 | 0x200 | 0x2000),
    // sparse_super, large_file, huge_file, dir_nlink, extra_isize, metadata_csum, orphan_present
    ("read-only", 0x64, 0x1 | 0x2 | 0x8 | 0x20 | 0x40 | 0x400 | 0x1_0000),
];
/// The checksum, of all that is before it, and the read-only feature that it is there by (`metadata_csum`).
const CHECKSUM: usize = 0x3FC;
const HAS_CHECKSUM: u32 = 0x400;
/// Bits without which it is not what Lodge makes.
const HAS_JOURNAL: u32 = 0x4;

/// The superblock of an ext4 file system.
#[derive(Debug)]
pub(super) struct Superblock([u8; LENGTH]);

impl Superblock {
    /// The one on a device; `None` where there is none.
    pub(super) fn read(device: &Path) -> Result<Option<Self>> {
        let mut bytes = [0; LENGTH];
        let read = File::open(device).and_then(|file| file.read_exact_at(&mut bytes, OFFSET));
        read.with_context(|| format!("reading the superblock of {}", device.display()))?;
        let found = Self(bytes);
        Ok((found.u16(0x38) == MAGIC).then_some(found))
    }

    /// Whose disk it is, as `mkfs` was told: a UUID.
    pub(super) fn uuid(&self) -> u128 {
        self.array(0x68).map_or(0, u128::from_be_bytes)
    }

    /// Whether bytes of it were overwritten: it is not what its checksum is of. A copy of it may still be good.
    pub(super) fn is_torn(&self) -> bool {
        let (covered, _) = self.0.split_at(CHECKSUM);
        // ext4 leaves out the last step of the algorithm, which turns all bits.
        let checksum = !Crc::<u32>::new(&CRC_32_ISCSI).checksum(covered);
        self.u32(0x64) & HAS_CHECKSUM != 0 && self.u32(CHECKSUM) != checksum
    }

    /// Whether its journal holds what is not in its place yet (`needs_recovery`): it was not unmounted.
    pub(super) fn has_journal(&self) -> bool {
        self.u32(0x60) & 0x4 != 0
    }

    /// Whether it is such as Lodge makes, on a device of so many bytes; if not, why.
    pub(super) fn is_ours(&self, device: u64) -> Result<(), String> {
        for (kind, offset, allowed) in FEATURES {
            let foreign = self.u32(offset) & !allowed;
            if foreign != 0 {
                return Err(format!("it has {kind} features that Lodge does not use ({foreign:#x})"));
            }
        }
        let [(_, compatible, _), ..] = FEATURES;
        let has_journal = self.u32(compatible) & HAS_JOURNAL != 0;
        if !has_journal || self.u32(0xE0) != JOURNAL_INODE || self.u32(0xE4) != 0 {
            return Err("its journal is not inside it".into());
        }
        if self.0.iter().skip(0x200).take(64).any(|byte| *byte != 0) {
            return Err("it brings mount options of its own".into());
        }
        // 1, 2 and 4 KiB.
        let block = match self.u32(0x18) {
            exponent @ 0..=2 => 1024_u64 << exponent,
            exponent => return Err(format!("its blocks have 2^{} bytes", u64::from(exponent) + 10)),
        };
        let blocks = u64::from(self.u32(0x04)) | u64::from(self.u32(0x150)) << 32;
        match blocks.checked_mul(block) {
            Some(size) if size <= device => Ok(()),
            _ => Err(format!("it claims {blocks} blocks of {block} bytes on a disk of {device} bytes")),
        }
    }

    fn u16(&self, offset: usize) -> u16 {
        self.array(offset).map_or(0, u16::from_le_bytes)
    }

    fn u32(&self, offset: usize) -> u32 {
        self.array(offset).map_or(0, u32::from_le_bytes)
    }

    fn array<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        self.0.get(offset..)?.first_chunk().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    /// A disk made as Lodge does, with these features besides.
    fn made(features: &str) -> (tempfile::NamedTempFile, u64) {
        let disk = tempfile::NamedTempFile::new().unwrap();
        let size = 16 << 20;
        disk.as_file().set_len(size).unwrap();
        let mut command = Command::new("/usr/sbin/mkfs.ext4");
        let made = command.args(["-q", "-F", "-O", features, "-U", "00000000-0000-4000-8000-000000000007"]).arg(disk.path());
        assert!(made.status().unwrap().success());
        (disk, size)
    }

    fn with(change: impl FnOnce(&mut [u8; LENGTH])) -> String {
        let (disk, size) = made("64bit");
        let mut found = Superblock::read(disk.path()).unwrap().unwrap();
        assert_eq!(found.is_ours(size), Ok(()));
        change(&mut found.0);
        found.is_ours(size).unwrap_err()
    }

    #[test]
    fn what_mkfs_makes_is_ours() {
        for features in ["64bit", "metadata_csum_seed,orphan_file", "^resize_inode,meta_bg"] {
            let (disk, size) = made(features);
            let found = Superblock::read(disk.path()).unwrap().unwrap();
            assert_eq!(found.is_ours(size), Ok(()), "{features}");
            assert_eq!(found.uuid(), 0x4000_8000_0000_0000_0007);
            assert!(found.is_ours(size - 1).unwrap_err().contains("claims"));
        }
    }

    #[test]
    fn what_was_overwritten_is_no_other_file_system() {
        let (disk, _) = made("64bit");
        let mut found = Superblock::read(disk.path()).unwrap().unwrap();
        assert!(!found.is_torn());
        found.0[0x61] ^= 0xFF;
        assert!(found.is_torn());
        let (disk, _) = made("^metadata_csum,quota");
        assert!(!Superblock::read(disk.path()).unwrap().unwrap().is_torn(), "there is no checksum");
    }

    #[test]
    fn what_only_others_make_is_not() {
        for features in ["quota", "inline_data", "bigalloc", "mmp", "encrypt", "casefold", "verity", "ea_inode", "^has_journal"]
        {
            let (disk, size) = made(features);
            let why = Superblock::read(disk.path()).unwrap().unwrap().is_ours(size).unwrap_err();
            assert!(why.contains("features that Lodge does not use") || why.contains("journal"), "{features}: {why}");
        }
        assert!(with(|bytes| bytes[0xE4] = 8).contains("journal"));
        assert!(with(|bytes| bytes[0xE0] = 9).contains("journal"));
        assert!(with(|bytes| bytes[0x200] = b'e').contains("mount options"));
        assert!(with(|bytes| bytes[0x18] = 6).contains("2^16 bytes"));
        assert!(with(|bytes| bytes[0x18..0x1C].fill(0xFF)).contains("blocks have"));
        assert!(with(|bytes| bytes[0x150..0x154].fill(0xFF)).contains("claims"));
    }

    #[test]
    fn a_device_without_one_has_none() {
        let disk = tempfile::NamedTempFile::new().unwrap();
        disk.as_file().set_len(4096).unwrap();
        assert!(Superblock::read(disk.path()).unwrap().is_none());
        disk.as_file().set_len(100).unwrap();
        assert!(Superblock::read(disk.path()).is_err());
    }
}
