//! Copies of disk images: shared blocks where the file system can (FICLONE), else data alone, so that holes stay holes.

use std::{
    fs::{File, OpenOptions},
    io::{ErrorKind, Read as _, Seek as _, SeekFrom, Write as _},
    os::unix::fs::FileExt as _,
    path::Path,
};

use anyhow::{Context as _, Result, bail};
use rustix::{
    fs::{SeekFrom as Place, copy_file_range, ioctl_ficlone, seek},
    io::Errno,
};

/// How a copy was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Copied {
    /// The two files share their blocks until one is written to.
    Shared,
    /// So many bytes of data were copied.
    Data(u64),
}

/// Bytes that are copied between two calls of `progress`.
const PIECE: u64 = 4 << 20;

/// Copy a file to a new one, and see it on the disk. `progress` is told the bytes that are done of all, holes included; its error ends
/// the copy. A copy that fails is left for the caller to remove.
pub fn copy(from: &Path, to: &Path, progress: &mut dyn FnMut(u64, u64) -> Result<()>) -> Result<Copied> {
    try_copy(from, to, progress).with_context(|| format!("copying {} to {}", from.display(), to.display()))
}

fn try_copy(from: &Path, to: &Path, progress: &mut dyn FnMut(u64, u64) -> Result<()>) -> Result<Copied> {
    let source = File::open(from).context("opening the source")?;
    let target = OpenOptions::new().read(true).write(true).create_new(true).open(to).context("making the target")?;
    let length = source.metadata().context("looking at the source")?.len();
    let copied = if ioctl_ficlone(&target, &source).is_ok() {
        Copied::Shared
    } else {
        target.set_len(length).context("sizing the target")?;
        Copied::Data(copy_data(&source, &target, length, progress)?)
    };
    target.sync_all().context("syncing the target")?;
    progress(length, length)?;
    Ok(copied)
}

/// Put what is written of a file, at its place, onto something that is all zeros and at least as long, and see it on the disk. Zeros that
/// were written are not written again.
pub fn put(from: &Path, onto: &File) -> Result<()> {
    let put = || -> Result<()> {
        let source = File::open(from).context("opening the source")?;
        let mut at = 0;
        while let Some((start, end)) = next_data(&source, at)? {
            put_blocks(&source, onto, start, end)?;
            at = end;
        }
        onto.sync_all().context("syncing the target")
    };
    put().with_context(|| format!("putting {} onto a disk", from.display()))
}

/// Bytes that are looked at, and written or left out, together.
const BLOCK: usize = 4096;

fn put_blocks(source: &File, onto: &File, start: u64, end: u64) -> Result<()> {
    let mut block = [0; BLOCK];
    let mut at = start;
    while at < end {
        let block = block.get_mut(..usize::try_from(end - at)?.min(BLOCK)).unwrap_or_default();
        source.read_exact_at(block, at).context("reading")?;
        if block.iter().any(|byte| *byte != 0) {
            onto.write_all_at(block, at).context("writing")?;
        }
        at += block.len() as u64;
    }
    Ok(())
}

fn copy_data(source: &File, target: &File, length: u64, progress: &mut dyn FnMut(u64, u64) -> Result<()>) -> Result<u64> {
    let mut copied = 0;
    let mut at = 0;
    while let Some((start, end)) = next_data(source, at)? {
        at = start;
        while at < end {
            let done = copy_piece(source, target, at, (end - at).min(PIECE))?;
            if done == 0 {
                bail!("the source ended at byte {at}");
            }
            at += done;
            copied += done;
            progress(at, length)?;
        }
    }
    Ok(copied)
}

/// The next stretch of data at or after this place; `None` when only a hole is left.
fn next_data(source: &File, at: u64) -> Result<Option<(u64, u64)>> {
    let start = match seek(source, Place::Data(at)) {
        Ok(start) => start,
        Err(Errno::NXIO) => return Ok(None),
        Err(error) => return Err(error).context("looking for data"),
    };
    let end = seek(source, Place::Hole(start)).context("looking for a hole")?;
    Ok(Some((start, end)))
}

/// Copy at most this many bytes at the same place of both files; within one server it may do that by itself.
fn copy_piece(source: &File, target: &File, at: u64, most: u64) -> Result<u64> {
    let (mut from, mut to) = (at, at);
    match copy_file_range(source, Some(&mut from), target, Some(&mut to), usize::try_from(most)?) {
        Ok(done) => Ok(done as u64),
        Err(Errno::XDEV | Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => read_and_write(source, target, at, most),
        Err(error) => Err(error).context("copying data"),
    }
}

fn read_and_write(mut source: &File, mut target: &File, at: u64, most: u64) -> Result<u64> {
    let mut piece = vec![0; usize::try_from(most.min(1 << 20))?];
    source.seek(SeekFrom::Start(at)).context("reading")?;
    target.seek(SeekFrom::Start(at)).context("writing")?;
    let read = loop {
        match source.read(&mut piece) {
            Ok(read) => break read,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error).context("reading"),
        }
    };
    target.write_all(piece.get(..read).unwrap_or_default()).context("writing")?;
    Ok(read as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt as _;

    #[test]
    fn holes_stay_holes_and_data_arrives() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("a"), dir.path().join("b"));
        let source = File::create(&from).unwrap();
        source.set_len(512 << 20).unwrap();
        source.write_all_at(&[7; 10_000], 300 << 20).unwrap();
        source.write_all_at(b"end", (512 << 20) - 3).unwrap();
        let mut told = Vec::new();
        copy(&from, &to, &mut |done, all| {
            told.push((done, all));
            Ok(())
        })
        .unwrap();
        assert!(told.is_sorted() && told.last() == Some(&(512 << 20, 512 << 20)), "{told:?}");
        let copy = File::open(&to).unwrap();
        let mut bytes = [0; 10_002];
        copy.read_exact_at(&mut bytes, (300 << 20) - 1).unwrap();
        assert_eq!((bytes[0], bytes[1], bytes[10_000], bytes[10_001]), (0, 7, 7, 0));
        copy.read_exact_at(&mut bytes[..3], (512 << 20) - 3).unwrap();
        assert_eq!(&bytes[..3], b"end");
        assert!(copy.metadata().unwrap().blocks() < 1000, "{} blocks", copy.metadata().unwrap().blocks());
    }

    #[test]
    fn only_what_is_written_is_put_onto_another_file() {
        let dir = tempfile::tempdir().unwrap();
        let (from, onto) = (dir.path().join("a"), dir.path().join("b"));
        let source = File::create(&from).unwrap();
        source.write_all_at(b"new", 1 << 20).unwrap();
        source.write_all_at(&[0; 2 * BLOCK], (1 << 20) + BLOCK as u64).unwrap();
        std::fs::write(&onto, "old").unwrap();
        put(&from, &File::options().write(true).open(&onto).unwrap()).unwrap();
        let bytes = std::fs::read(&onto).unwrap();
        assert_eq!((&bytes[..3], &bytes[1 << 20..][..3]), (&b"old"[..], &b"new"[..]));
        assert_eq!(bytes.len(), (1 << 20) + BLOCK, "zeros are not written again");
        let error = format!("{:#}", put(&from, &File::open(&onto).unwrap()).unwrap_err());
        assert!(error.contains("onto") && error.contains("writing"), "{error}");
    }

    #[test]
    fn nothing_is_overwritten_and_progress_can_end_it() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("a"), dir.path().join("b"));
        std::fs::write(&from, "new").unwrap();
        std::fs::write(&to, "old").unwrap();
        assert!(copy(&from, &to, &mut |_, _| Ok(())).is_err());
        assert_eq!(std::fs::read(&to).unwrap(), b"old");
        let third = dir.path().join("c");
        assert!(copy(&from, &third, &mut |_, _| bail!("enough")).is_err());
    }

    #[test]
    fn reading_and_writing_gives_the_same() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("a"), "0123456789").unwrap();
        let source = File::open(dir.path().join("a")).unwrap();
        let target = File::create(dir.path().join("b")).unwrap();
        assert_eq!(read_and_write(&source, &target, 4, 100).unwrap(), 6);
        assert_eq!(std::fs::read(dir.path().join("b")).unwrap(), b"\0\0\0\x00456789");
    }
}
