//! Partitions as the kernel knows them: told one by one (BLKPG), as sfdisk and parted do, so that it works while another partition
//! of the disk is in use and on kernels that do not read GPT themselves.
#![expect(unsafe_code, reason = "ioctl(2) BLKPG has no wrapper in nix")]

use std::{
    fs::{self, File},
    os::fd::AsRawFd as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use nix::libc::{c_int, c_longlong, c_void};

/// `linux/blkpg.h`: `struct blkpg_ioctl_arg`.
#[repr(C)]
struct Argument {
    op: c_int,
    flags: c_int,
    datalen: c_int,
    data: *mut c_void,
}

/// `linux/blkpg.h`: `struct blkpg_partition`; the two names are unused since Linux 2.6.
#[repr(C)]
struct Partition {
    start: c_longlong,
    length: c_longlong,
    number: c_int,
    devname: [u8; 64],
    volname: [u8; 64],
}

const ADD: c_int = 1;
const DELETE: c_int = 2;

mod ioctl {
    use super::Argument;
    nix::ioctl_write_ptr_bad!(
        /// BLKPG (linux/blkpg.h).
        blkpg,
        nix::request_code_none!(0x12, 105),
        Argument
    );
}

/// Make the kernel know exactly these partitions of a disk: number, first byte, bytes. What it already knows right stays; a wrong
/// one that is in use is an error.
pub fn announce(disk: &File, name: &str, partitions: &[(u32, u64, u64)]) -> Result<()> {
    for known in known(name)? {
        if !partitions.contains(&known) {
            tell(disk, DELETE, known).with_context(|| format!("forgetting partition {} of {name}; is it in use?", known.0))?;
        }
    }
    let known = known(name)?;
    for partition in partitions.iter().filter(|partition| !known.contains(partition)) {
        tell(disk, ADD, *partition).with_context(|| format!("announcing partition {} of {name}", partition.0))?;
    }
    Ok(())
}

/// The partitions of a disk that the kernel knows: number, first byte, bytes.
pub fn known(disk: &str) -> Result<Vec<(u32, u64, u64)>> {
    let mut known = Vec::new();
    for name in names(disk)? {
        let dir = Path::new("/sys/class/block").join(name);
        let value = |file: &str| -> Result<u64> {
            let path = dir.join(file);
            let text = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
            text.trim().parse().with_context(|| format!("reading {}", path.display()))
        };
        let number = u32::try_from(value("partition")?).context("reading a partition number")?;
        known.push((number, value("start")? * 512, value("size")? * 512));
    }
    Ok(known)
}

/// Kernel names of a disk's partitions, in order of their numbers.
pub fn names(disk: &str) -> Result<Vec<String>> {
    let dir = Path::new("/sys/class/block").join(disk);
    let mut names = Vec::new();
    for entry in fs::read_dir(&dir).with_context(|| format!("reading {}", dir.display()))? {
        let entry = entry.with_context(|| format!("reading {}", dir.display()))?;
        let number = fs::read_to_string(entry.path().join("partition")).ok();
        if let Some(number) = number.and_then(|number| number.trim().parse::<u32>().ok()) {
            names.push((number, entry.file_name().to_string_lossy().into_owned()));
        }
    }
    names.sort();
    Ok(names.into_iter().map(|(_, name)| name).collect())
}

/// Device node of a partition: `nvme0n1p3`, `sda3`.
pub fn node(disk: &str, number: u32) -> PathBuf {
    let separator = if disk.ends_with(|last: char| last.is_ascii_digit()) { "p" } else { "" };
    PathBuf::from(format!("/dev/{disk}{separator}{number}"))
}

fn tell(disk: &File, op: c_int, (number, start, size): (u32, u64, u64)) -> Result<()> {
    let mut partition = Partition {
        start: c_longlong::try_from(start).context("reading a partition's start")?,
        length: c_longlong::try_from(size).context("reading a partition's size")?,
        number: c_int::try_from(number).context("reading a partition's number")?,
        devname: [0; 64],
        volname: [0; 64],
    };
    let datalen = c_int::try_from(size_of::<Partition>()).context("sizing an argument")?;
    let argument = Argument { op, flags: 0, datalen, data: (&raw mut partition).cast() };
    // SAFETY: the argument and the partition it points to are of the kernel's layout, owned here, and outlive the call.
    unsafe { ioctl::blkpg(disk.as_raw_fd(), &raw const argument) }.context("telling the kernel")?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_are_named_as_the_kernel_does() {
        assert_eq!(node("sda", 3), Path::new("/dev/sda3"));
        assert_eq!(node("nvme0n1", 3), Path::new("/dev/nvme0n1p3"));
        assert_eq!(node("mmcblk0", 1), Path::new("/dev/mmcblk0p1"));
    }
}
