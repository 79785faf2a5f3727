//! Work on files, the same on every side: many small ones, small synced writes, one large one.

use std::{
    fs::{self, File},
    io::{Read as _, Write as _},
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};

/// Small files of an archive.
pub const FILES: f64 = 500.0;
/// Of these in a directory.
const IN_DIR: usize = 20;
/// Bytes of the largest.
const LARGEST: usize = 8192;
/// Synced writes.
pub const SYNCS: f64 = 100.0;
const BLOCK: usize = 4096;
/// MiB of the large file.
pub const LARGE: f64 = 64.0;
const MIB: usize = 1 << 20;

/// Unpack and remove, both until the file system has it on its disk: the times.
pub fn files(dir: &Path) -> Result<(Duration, Duration)> {
    let archive = archive()?;
    let target = dir.join("files");
    fs::create_dir_all(&target).with_context(|| format!("making {}", target.display()))?;
    let untar = timed(dir, || {
        tar::Archive::new(archive.as_slice()).unpack(&target).with_context(|| format!("unpacking in {}", target.display()))
    })?;
    let remove = timed(dir, || fs::remove_dir_all(&target).with_context(|| format!("removing {}", target.display())))?;
    Ok((untar, remove))
}

/// Append blocks to a new file, each on the disk before the next.
pub fn sync_writes(dir: &Path) -> Result<Duration> {
    let path = dir.join("synced");
    let mut file = File::create(&path).with_context(|| format!("making {}", path.display()))?;
    let mut bytes = Bytes(1);
    let begin = Instant::now();
    for _ in 0..SYNCS as usize {
        let written = file.write_all(&bytes.take(BLOCK)).and_then(|()| file.sync_data());
        written.with_context(|| format!("writing {}", path.display()))?;
    }
    let took = begin.elapsed();
    fs::remove_file(&path).with_context(|| format!("removing {}", path.display()))?;
    Ok(took)
}

/// Write the large file, and see it on the disk.
pub fn write(path: &Path) -> Result<Duration> {
    let begin = Instant::now();
    let mut file = File::create(path).with_context(|| format!("making {}", path.display()))?;
    let mut bytes = Bytes(2);
    for _ in 0..LARGE as usize {
        file.write_all(&bytes.take(MIB)).with_context(|| format!("writing {}", path.display()))?;
    }
    file.sync_all().with_context(|| format!("syncing {}", path.display()))?;
    Ok(begin.elapsed())
}

/// Read it in order, as `cp` would.
pub fn read(path: &Path) -> Result<Duration> {
    let begin = Instant::now();
    let mut file = File::open(path).with_context(|| format!("opening {}", path.display()))?;
    let mut piece = vec![0; 128 << 10];
    while file.read(&mut piece).with_context(|| format!("reading {}", path.display()))? > 0 {}
    Ok(begin.elapsed())
}

fn timed(dir: &Path, work: impl FnOnce() -> Result<()>) -> Result<Duration> {
    let begin = Instant::now();
    work()?;
    let dir = File::open(dir).with_context(|| format!("opening {}", dir.display()))?;
    nix::unistd::syncfs(&dir).context("syncing a file system")?;
    Ok(begin.elapsed())
}

/// An archive like a program's sources: small files in many directories.
fn archive() -> Result<Vec<u8>> {
    let mut builder = tar::Builder::new(Vec::new());
    let mut bytes = Bytes(3);
    for number in 0..FILES as usize {
        let size = number.wrapping_mul(2_654_435_761) % LARGEST;
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o644);
        header.set_size(size as u64);
        let path = format!("directory-{}/file-{number}", number / IN_DIR);
        builder.append_data(&mut header, path, bytes.take(size).as_slice()).context("making an archive")?;
    }
    builder.into_inner().context("making an archive")
}

/// Bytes that cannot be packed, the same every time (xorshift64).
struct Bytes(u64);

impl Bytes {
    fn take(&mut self, count: usize) -> Vec<u8> {
        let word = |_| {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            self.0.to_le_bytes()
        };
        let mut bytes: Vec<u8> = (0..count.div_ceil(8)).flat_map(word).collect();
        bytes.truncate(count);
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_archive_has_as_many_files_as_it_says() {
        let dir = tempfile::tempdir().unwrap();
        tar::Archive::new(archive().unwrap().as_slice()).unpack(dir.path()).unwrap();
        let dirs = fs::read_dir(dir.path()).unwrap().map(|dir| dir.unwrap().path());
        assert_eq!(dirs.map(|dir| fs::read_dir(dir).unwrap().count()).sum::<usize>(), FILES as usize);
    }

    #[test]
    fn work_leaves_nothing_but_the_large_file() {
        let dir = tempfile::tempdir().unwrap();
        files(dir.path()).unwrap();
        sync_writes(dir.path()).unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        let large = dir.path().join("large");
        write(&large).unwrap();
        read(&large).unwrap();
        assert_eq!(fs::metadata(&large).unwrap().len(), LARGE as u64 * MIB as u64);
    }
}
