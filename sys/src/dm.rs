//! dm-verity by device-mapper's own ioctls (linux/dm-ioctl.h; kernel, Documentation/admin-guide/device-mapper/verity.rst), so that the
//! initrd needs no tool for it. The superblock in front of the hash tree is veritysetup's (cryptsetup wiki, "DMVerity").

use std::{
    fs::{File, OpenOptions},
    io::Read as _,
    os::fd::AsRawFd as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, anyhow, bail};
use lodge_model::ids::{hex, unhex};

const CONTROL: &str = "/dev/mapper/control";
const BLOCK: u32 = 4096;
const SECTOR: u64 = 512;

/// What the superblock of a verity partition says. Nothing of it is trusted: a wrong salt or size fails against the root hash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Superblock {
    /// Blocks of 4096 bytes that the tree covers.
    pub data_blocks: u64,
    /// Salt of every digest.
    pub salt: Vec<u8>,
}

impl Superblock {
    /// Read it from the start of a hash device.
    pub fn read(device: &Path) -> Result<Self> {
        let mut bytes = [0; 512];
        let mut file = File::open(device).with_context(|| format!("opening {}", device.display()))?;
        file.read_exact(&mut bytes).with_context(|| format!("reading {}", device.display()))?;
        Self::parse(&bytes).with_context(|| format!("reading the verity superblock of {}", device.display()))
    }

    fn parse(bytes: &[u8; 512]) -> Result<Self> {
        let field = |at: usize, length: usize| bytes.get(at..at + length).unwrap_or_default();
        let number =
            |at: usize, length: usize| field(at, length).iter().rev().fold(0u64, |number, byte| number << 8 | u64::from(*byte));
        if field(0, 8) != b"verity\0\0" {
            bail!("there is none");
        }
        if (number(8, 4), number(12, 4)) != (1, 1) {
            bail!("version {} and hash type {} are not 1 and 1", number(8, 4), number(12, 4));
        }
        let algorithm = String::from_utf8_lossy(field(32, 32)).trim_end_matches('\0').to_owned();
        if algorithm != "sha256" {
            bail!("the algorithm is {algorithm:?}, not sha256");
        }
        if (number(64, 4), number(68, 4)) != (u64::from(BLOCK), u64::from(BLOCK)) {
            bail!("blocks of {} and {} bytes, not {BLOCK}", number(64, 4), number(68, 4));
        }
        let salt_length = number(80, 2) as usize;
        if salt_length > 256 {
            bail!("a salt of {salt_length} bytes");
        }
        Ok(Self { data_blocks: number(72, 8), salt: field(88, salt_length).to_vec() })
    }
}

/// A verified device to make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verity<'a> {
    /// Name below `/dev/mapper`, for people.
    pub name: &'a str,
    /// `MAJOR:MINOR` of the data.
    pub data: &'a str,
    /// `MAJOR:MINOR` of the superblock and tree.
    pub hash: &'a str,
    /// The trusted root hash, 64 hexadecimal digits.
    pub roothash: &'a str,
}

impl Verity<'_> {
    /// Make the device, read-only. Returns its device file. A block that does not match reads as an error.
    pub fn create(&self, superblock: &Superblock) -> Result<PathBuf> {
        let table = self.table(superblock)?;
        let control = OpenOptions::new().read(true).write(true).open(CONTROL).with_context(|| format!("opening {CONTROL}"))?;
        let call = |command, flags, payload: &[u8]| ioctl::call(control.as_raw_fd(), command, self.name, flags, payload);
        let minor = call(ioctl::DEV_CREATE, 0, &[]).with_context(|| format!("making the device {}", self.name))?;
        let started = (|| {
            let target = ioctl::target(superblock.data_blocks * u64::from(BLOCK) / SECTOR, "verity", &table);
            call(ioctl::TABLE_LOAD, ioctl::READONLY, &target).with_context(|| format!("loading the verity table {table:?}"))?;
            call(ioctl::DEV_SUSPEND, 0, &[]).with_context(|| format!("starting the device {}", self.name))
        })();
        if started.is_err() {
            // Best effort: what matters is the error before.
            let _ = call(ioctl::DEV_REMOVE, 0, &[]);
        }
        started?;
        Ok(PathBuf::from(format!("/dev/dm-{minor}")))
    }

    fn table(&self, superblock: &Superblock) -> Result<String> {
        let digest = unhex(self.roothash).filter(|digest| digest.len() == 32);
        let digest = digest.ok_or_else(|| anyhow!("{:?} is not a root hash of 64 hexadecimal digits", self.roothash))?;
        let salt = if superblock.salt.is_empty() { "-".to_owned() } else { hex(&superblock.salt) };
        let Self { data, hash, .. } = self;
        let blocks = superblock.data_blocks;
        // The tree starts at block 1: block 0 is the superblock.
        Ok(format!("1 {data} {hash} {BLOCK} {BLOCK} {blocks} 1 sha256 {} {salt}", hex(&digest)))
    }
}

/// Take a device away.
pub fn remove(name: &str) -> Result<()> {
    let control = OpenOptions::new().read(true).write(true).open(CONTROL).with_context(|| format!("opening {CONTROL}"))?;
    ioctl::call(control.as_raw_fd(), ioctl::DEV_REMOVE, name, 0, &[]).with_context(|| format!("removing the device {name}"))?;
    Ok(())
}

mod ioctl {
    //! `struct dm_ioctl` and its calls.
    #![expect(unsafe_code, reason = "ioctl(2)")]
    use std::os::fd::RawFd;

    use nix::errno::Errno;

    pub const DEV_CREATE: u8 = 3;
    pub const DEV_REMOVE: u8 = 4;
    pub const DEV_SUSPEND: u8 = 6;
    pub const TABLE_LOAD: u8 = 9;
    /// DM_READONLY_FLAG.
    pub const READONLY: u32 = 1;

    const HEADER: usize = 312;
    const NAME: usize = 48;
    const NAME_LENGTH: usize = 128;
    const DEV: usize = 40;

    /// One `struct dm_target_spec` with its parameters.
    pub fn target(sectors: u64, kind: &str, parameters: &str) -> Vec<u8> {
        let length = (40 + parameters.len() + 1).next_multiple_of(8);
        let mut spec = Vec::with_capacity(length);
        spec.extend(0u64.to_ne_bytes()); // first sector
        spec.extend(sectors.to_ne_bytes());
        spec.extend(0i32.to_ne_bytes()); // status
        spec.extend((length as u32).to_ne_bytes()); // offset of the next one
        spec.extend(kind.bytes());
        spec.resize(40, 0);
        spec.extend(parameters.bytes());
        spec.resize(length, 0);
        spec
    }

    /// Make one call; the minor number of the device.
    pub fn call(control: RawFd, command: u8, name: &str, flags: u32, payload: &[u8]) -> nix::Result<u64> {
        let mut buffer = message(name, flags, payload).ok_or(Errno::ENAMETOOLONG)?;
        let request = nix::request_code_readwrite!(0xfd, command, HEADER);
        // SAFETY: the buffer starts with a header whose data_size is the buffer's own length, the kernel reads and writes within
        // that, and we own it for the call. It is a Vec of u64, so it is aligned for the header.
        Errno::result(unsafe { nix::libc::ioctl(control, request, buffer.as_mut_ptr()) })?;
        let dev = buffer.get(DEV / 8).copied().unwrap_or_default();
        // The kernel's "huge" encoding: minor bits 0–7 and 20–31, major bits 8–19.
        Ok((dev & 0xff) | ((dev >> 12) & 0xfff00))
    }

    fn message(name: &str, flags: u32, payload: &[u8]) -> Option<Vec<u64>> {
        if name.len() >= NAME_LENGTH {
            return None;
        }
        // The kernel may answer with as much again.
        let length = (HEADER + payload.len()).next_multiple_of(8) + 1024;
        let mut bytes = Vec::with_capacity(length);
        for number in [4, 0, 0, length as u32, HEADER as u32, u32::from(!payload.is_empty()), 0, flags, 0, 0] {
            bytes.extend(number.to_ne_bytes()); // version (3), data_size, data_start, target_count, open_count, flags, event, pad
        }
        bytes.resize(NAME, 0);
        bytes.extend(name.bytes());
        bytes.resize(HEADER, 0);
        bytes.extend(payload);
        bytes.resize(length, 0);
        Some(bytes.chunks_exact(8).map(|chunk| chunk.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte))).collect())
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn a_message_is_laid_out_as_the_header_says() {
            let payload = target(8, "verity", "1 a b");
            assert_eq!(payload.len(), 48);
            let words = message("root", READONLY, &payload).unwrap();
            let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
            assert_eq!(u32::from_le_bytes(bytes[0..4].try_into().unwrap()), 4);
            assert_eq!(u32::from_le_bytes(bytes[12..16].try_into().unwrap()) as usize, bytes.len());
            assert_eq!(u32::from_le_bytes(bytes[16..20].try_into().unwrap()), 312);
            assert_eq!(u32::from_le_bytes(bytes[28..32].try_into().unwrap()), READONLY);
            assert_eq!(&bytes[48..53], b"root\0");
            assert_eq!(&bytes[312 + 40..312 + 45], b"1 a b");
            assert_eq!(message(&"x".repeat(128), 0, &[]), None);
        }
    }
}

#[cfg(test)]
mod tests;
