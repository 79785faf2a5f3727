//! Disks and sticks as files: made, dirtied, and compared byte for byte.

use std::{
    fs::{self, File},
    os::unix::fs::FileExt as _,
    path::Path,
    process::Command,
};

use anyhow::{Context, Result, bail};
use lodge_model::{ids::hex, paths};
use sha2::{Digest as _, Sha256};

pub mod archives;
pub mod bundles;
pub mod signatures;

/// Make a blank disk of so many bytes. It takes no room until something is written.
pub fn blank_disk(path: &Path, size: u64) -> Result<()> {
    let file = File::create(path).with_context(|| format!("making {}", path.display()))?;
    file.set_len(size).with_context(|| format!("sizing {}", path.display()))
}

/// Make a stick labelled LODGE that holds `lodge.toml`.
pub fn answer_stick(path: &Path, answer: &str) -> Result<()> {
    blank_disk(path, 16 << 20)?;
    run(Command::new("mkfs.vfat").args(["-n", paths::MEDIUM_LABEL]).arg(path))?;
    let folder = path.parent().context("the stick has no directory")?;
    let file = folder.join(paths::ANSWER_NAME);
    fs::write(&file, answer).with_context(|| format!("writing {}", file.display()))?;
    run(Command::new("mcopy").arg("-o").arg("-i").arg(path).arg(&file).arg(format!("::{}", paths::ANSWER_NAME)))
}

/// A digest of all bytes of a disk. Blocks of zeros are left out with their place kept, so that a large blank disk is quick.
pub fn digest(path: &Path) -> Result<String> {
    let file = File::open(path).with_context(|| format!("opening {}", path.display()))?;
    let size = file.metadata().with_context(|| format!("looking at {}", path.display()))?.len();
    let mut digest = Sha256::new();
    digest.update(size.to_le_bytes());
    let mut block = vec![0; 1 << 20];
    for (from, to) in data_ranges(&file, size).with_context(|| format!("finding the data of {}", path.display()))? {
        let mut at = from;
        while at < to {
            let length = usize::try_from((to - at).min(block.len() as u64)).unwrap_or(block.len());
            let block = &mut block[..length];
            file.read_exact_at(block, at).with_context(|| format!("reading {}", path.display()))?;
            for (index, piece) in block.chunks(4096).enumerate() {
                if piece.iter().any(|byte| *byte != 0) {
                    digest.update((at + index as u64 * 4096).to_le_bytes());
                    digest.update(piece);
                }
            }
            at += length as u64;
        }
    }
    Ok(hex(&digest.finalize()))
}

/// Where a sparse file has data: ranges whose ends are multiples of the file system's block, or the file's end.
fn data_ranges(file: &File, size: u64) -> Result<Vec<(u64, u64)>> {
    use nix::{
        errno::Errno,
        unistd::{Whence, lseek},
    };
    let mut ranges = Vec::new();
    let mut at = 0;
    while at < size {
        let from = match lseek(file, at.cast_signed(), Whence::SeekData) {
            Ok(from) => from,
            Err(Errno::ENXIO) => break,
            Err(error) => return Err(error.into()),
        };
        let to = lseek(file, from, Whence::SeekHole)?;
        // Pieces are counted from here, so that a file's layout on the host changes nothing.
        ranges.push((from.cast_unsigned() / 4096 * 4096, to.cast_unsigned()));
        at = to.cast_unsigned();
    }
    Ok(ranges)
}

/// Put bytes on a disk.
pub fn write_at(path: &Path, offset: u64, bytes: &[u8]) -> Result<()> {
    let file = File::options().write(true).open(path).with_context(|| format!("opening {}", path.display()))?;
    file.write_all_at(bytes, offset).with_context(|| format!("writing {}", path.display()))
}

/// Run a tool of the host; a failure holds what it said.
pub fn run(command: &mut Command) -> Result<()> {
    let shown = format!("{command:?}");
    let output = command.output().with_context(|| format!("starting {shown}"))?;
    if !output.status.success() {
        bail!("{shown} failed ({}): {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_changed_byte_changes_a_disks_digest_and_where_it_is_counts() {
        let dir = tempfile::tempdir().unwrap();
        let disk = dir.path().join("disk");
        let mut seen = std::collections::HashSet::new();
        blank_disk(&disk, 3 << 30).unwrap();
        assert!(seen.insert(digest(&disk).unwrap()));
        for offset in [0, 4096, (3 << 30) - 1, 1 << 30] {
            write_at(&disk, offset, &[1]).unwrap();
            assert!(seen.insert(digest(&disk).unwrap()), "{offset}");
        }
        write_at(&disk, 1 << 30, &[0]).unwrap();
        assert!(!seen.insert(digest(&disk).unwrap()), "zeros written over are as good as a hole");
    }

    #[test]
    fn a_stick_holds_its_answer() {
        let dir = tempfile::tempdir().unwrap();
        let stick = dir.path().join("stick.img");
        answer_stick(&stick, "[node]\nname = \"center1\"\n").unwrap();
        let output = Command::new("mtype").arg("-i").arg(&stick).arg("::lodge.toml").output().unwrap();
        assert!(String::from_utf8_lossy(&output.stdout).contains("center1"));
    }
}
