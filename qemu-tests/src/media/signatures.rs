//! What may already be on a disk, as little of it as makes libblkid certain. Each layout names where it comes from; a test asks the
//! host's own `blkid`.

use std::{fs::File, path::Path};

use anyhow::{Context, Result};

use super::write_at;

/// Something a disk may already hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signature {
    /// A GPT partition table.
    Gpt,
    /// A DOS partition table with one partition.
    Dos,
    /// A file system.
    Ext4,
    /// An LVM physical volume.
    Lvm,
    /// A member of an md array.
    Md,
    /// An encrypted volume.
    Luks,
}

impl Signature {
    /// All of them.
    pub const ALL: [Self; 6] = [Self::Gpt, Self::Dos, Self::Ext4, Self::Lvm, Self::Md, Self::Luks];

    /// libblkid's name of it.
    pub fn kind(self) -> &'static str {
        match self {
            Self::Gpt => "gpt",
            Self::Dos => "dos",
            Self::Ext4 => "ext4",
            Self::Lvm => "LVM2_member",
            Self::Md => "linux_raid_member",
            Self::Luks => "crypto_LUKS",
        }
    }

    /// Put it on a disk.
    pub fn put(self, disk: &Path) -> Result<()> {
        match self {
            Self::Gpt => gpt(disk),
            Self::Dos => write_at(disk, 446, &dos()),
            Self::Ext4 => write_at(disk, 1024, &ext4()),
            Self::Lvm => write_at(disk, 512, &lvm()),
            Self::Md => write_at(disk, 4096, &md()),
            Self::Luks => write_at(disk, 0, &luks()),
        }
    }
}

fn gpt(disk: &Path) -> Result<()> {
    let mut file = File::options().read(true).write(true).open(disk).with_context(|| format!("opening {}", disk.display()))?;
    let mut table = gptman::GPT::new_from(&mut file, 512, [7; 16]).context("making a partition table")?;
    table.write_into(&mut file).with_context(|| format!("writing a partition table on {}", disk.display()))?;
    gptman::GPT::write_protective_mbr_into(&mut file, 512).context("writing a protective MBR").map(drop)
}

/// The four entries and the mark at the end of the first sector (UEFI specification, "Legacy MBR").
fn dos() -> Vec<u8> {
    let mut bytes = vec![0; 66];
    bytes[4] = 0x83;
    bytes[8..12].copy_from_slice(&2048_u32.to_le_bytes());
    bytes[12..16].copy_from_slice(&4096_u32.to_le_bytes());
    bytes[64..].copy_from_slice(&[0x55, 0xaa]);
    bytes
}

/// A superblock (linux, Documentation/filesystems/ext4/super.rst) with a journal and extents.
fn ext4() -> Vec<u8> {
    let mut block = vec![0; 1024];
    let mut put = |at: usize, value: u32| block[at..at + 4].copy_from_slice(&value.to_le_bytes());
    put(0x00, 8192); // inodes
    put(0x04, 65536); // blocks
    put(0x14, 0); // first block
    put(0x18, 2); // block size 4096
    put(0x20, 32768); // blocks in a group
    put(0x28, 8192); // inodes in a group
    put(0x38, 0xef53); // magic
    put(0x4c, 1); // revision
    put(0x5c, 0x4); // has a journal
    put(0x60, 0x40); // extents
    block
}

/// A label in the second sector (lvm2, lib/format_text/layout.h), whose checksum is a CRC-32 with a start value of its own.
fn lvm() -> Vec<u8> {
    let mut label = vec![0; 512];
    label[..8].copy_from_slice(b"LABELONE");
    label[8..16].copy_from_slice(&1_u64.to_le_bytes());
    label[20..24].copy_from_slice(&32_u32.to_le_bytes());
    label[24..32].copy_from_slice(b"LVM2 001");
    label[32..64].copy_from_slice(b"abcdefghijklmnopqrstuvwxyz012345");
    let crc = label[20..].iter().fold(0xf597_a6cf_u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| if crc & 1 == 1 { (crc >> 1) ^ 0xedb8_8320 } else { crc >> 1 })
    });
    label[16..20].copy_from_slice(&crc.to_le_bytes());
    label
}

/// A version 1.2 superblock (linux, include/uapi/linux/raid/md_p.h).
fn md() -> Vec<u8> {
    let mut block = vec![0; 256];
    let mut put = |at: usize, value: u32| block[at..at + 4].copy_from_slice(&value.to_le_bytes());
    put(0, 0xa92b_4efc); // magic
    put(4, 1); // major version
    put(72, 1); // level 1
    put(80, 8192); // sectors of each member
    put(92, 2); // members
    put(128, 2048); // first sector of data
    put(136, 8192); // sectors of data
    put(144, 8); // sector of this block
    block[16..32].fill(9); // array
    let words = block.chunks(4).map(|word| u64::from(u32::from_le_bytes([word[0], word[1], word[2], word[3]])));
    let sum: u64 = words.sum();
    let folded = (sum & 0xffff_ffff) as u32;
    block[216..220].copy_from_slice(&folded.wrapping_add((sum >> 32) as u32).to_le_bytes());
    block
}

/// A version 1 header (LUKS On-Disk Format Specification 1.2.3).
fn luks() -> Vec<u8> {
    let mut header = vec![0; 592];
    header[..8].copy_from_slice(b"LUKS\xba\xbe\x00\x01");
    header[8..11].copy_from_slice(b"aes");
    header[40..51].copy_from_slice(b"xts-plain64");
    header[72..78].copy_from_slice(b"sha256");
    header[104..108].copy_from_slice(&4096_u32.to_be_bytes());
    header[108..112].copy_from_slice(&64_u32.to_be_bytes());
    header[168..204].copy_from_slice(b"0f0e0d0c-0b0a-0908-0706-050403020100");
    header
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hosts_own_blkid_recognises_each() {
        let dir = tempfile::tempdir().unwrap();
        for signature in Signature::ALL {
            let disk = dir.path().join(signature.kind());
            crate::media::blank_disk(&disk, 64 << 20).unwrap();
            signature.put(&disk).unwrap();
            let output = std::process::Command::new("blkid").args(["-p", "-o", "export"]).arg(&disk).output().unwrap();
            let said = String::from_utf8_lossy(&output.stdout).into_owned();
            let kind = signature.kind();
            assert!(said.contains(&format!("TYPE={kind}\n")), "{kind}: {said}");
        }
    }
}
