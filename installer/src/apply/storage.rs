//! Bytes to and from a partition at the disk's own speed: written by a thread beside the one that unpacks, read past the page cache.

use std::{
    fs::{File, OpenOptions},
    io::{Read as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::mpsc::{Receiver, SyncSender, sync_channel},
    thread::JoinHandle,
};

use anyhow::{Context as _, Result, anyhow, bail};
use lodge_model::ids::hex;
use nix::libc::{O_DIRECT, O_EXCL};
use ring::digest;

/// Pieces under way between the two threads, of at most 1 MiB each.
const QUEUE: usize = 16;
/// Written this much, the disk is asked to have it: progress stays true and memory free.
const SYNC_EVERY: usize = 16 << 20;
/// Alignment of O_DIRECT that every disk takes, and the size of its reads.
const ALIGNMENT: usize = 4096;
const READ: usize = 1 << 20;

/// Writes a device from its start.
pub struct Writer {
    path: PathBuf,
    pieces: SyncSender<Vec<u8>>,
    thread: JoinHandle<Result<()>>,
}

impl Writer {
    /// Open the device for us alone: a mounted one is refused.
    pub fn open(path: &Path) -> Result<Self> {
        let file = OpenOptions::new().write(true).custom_flags(O_EXCL).open(path);
        let file = file.with_context(|| format!("opening {} for writing", path.display()))?;
        let (pieces, receiver) = sync_channel(QUEUE);
        let thread = std::thread::Builder::new().name("writer".to_owned()).spawn(move || write(file, &receiver));
        Ok(Self { path: path.to_owned(), pieces, thread: thread.context("starting a writer")? })
    }

    /// Queue a piece; waits while the disk is behind.
    pub fn write(&self, piece: &[u8]) -> Result<()> {
        // Its error is told by `finish`.
        self.pieces.send(piece.to_vec()).map_err(|_| anyhow!("writing {} has failed", self.path.display()))
    }

    /// Wait until all is on the disk.
    pub fn finish(self) -> Result<()> {
        let Self { path, pieces, thread } = self;
        drop(pieces);
        let result = thread.join().map_err(|_| anyhow!("the writer died"))?;
        result.with_context(|| format!("writing {}", path.display()))
    }
}

fn write(mut file: File, pieces: &Receiver<Vec<u8>>) -> Result<()> {
    let mut unsynced = 0;
    for piece in pieces {
        file.write_all(&piece)?;
        unsynced += piece.len();
        if unsynced >= SYNC_EVERY {
            unsynced = 0;
            file.sync_data()?;
        }
    }
    file.sync_all()?;
    Ok(())
}

/// SHA-256 of a device's first bytes, as the disk itself has them. `take` hears how many were read.
pub fn sha256(path: &Path, size: u64, take: &mut dyn FnMut(u64)) -> Result<String> {
    let reading = || format!("reading {} back", path.display());
    let mut file = OpenOptions::new().read(true).custom_flags(O_DIRECT).open(path).with_context(reading)?;
    let mut memory = vec![0; READ + ALIGNMENT];
    let start = memory.as_ptr().align_offset(ALIGNMENT);
    let buffer = memory.get_mut(start..start + READ).context("aligning memory")?;
    let mut digest = digest::Context::new(&digest::SHA256);
    let mut left = size;
    while left > 0 {
        // O_DIRECT reads whole blocks; what follows the part in its partition is not looked at.
        let wanted = usize::try_from(left).unwrap_or(READ).min(READ).next_multiple_of(ALIGNMENT);
        let read = file.read(buffer.get_mut(..wanted).unwrap_or_default()).with_context(reading)?;
        let read = read.min(usize::try_from(left).unwrap_or(read));
        if read == 0 {
            bail!("{} ends {left} bytes early", path.display());
        }
        digest.update(buffer.get(..read).unwrap_or_default());
        left -= read as u64;
        take(read as u64);
    }
    Ok(hex(digest.finish().as_ref()))
}
