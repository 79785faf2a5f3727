//! What operators send to be made into templates: one file an upload in `DATA/uploads`, named by its SHA-256, kept until a node has
//! imported it.
//!
//! A body is hashed while it is written to a temporary file, synced, and only then named; what breaks off leaves nothing behind. The
//! disk is shared with the center's own database, so an upload never takes the last of it. It knows nothing of tarballs: the node that
//! imports an upload reads it.

use std::fs;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use axum::body::Bytes;
use axum::http::StatusCode;
use futures_util::{Stream, StreamExt};
use lodge_model::ids::Digest;
use nix::sys::statvfs::statvfs;
use sha2::{Digest as _, Sha256};
use tempfile::NamedTempFile;
use tokio::sync::{OwnedRwLockReadGuard, RwLock, RwLockWriteGuard, mpsc};

use crate::fault::Fault;
use crate::files;

/// Beginning of the names of files that are being written.
const PART: &str = ".part-";
/// Free room on the disk is looked at again after this many bytes.
const LOOK_AGAIN: u64 = 16 << 20;
/// An upload leaves a twentieth of the disk free, and at most this many bytes.
const RESERVE: u64 = 256 << 20;
/// Pieces of a body that wait to be written; more are not taken from the network.
const WAITING: usize = 8;

/// All uploads.
pub struct Uploads {
    dir: PathBuf,
    limit: u64,
    /// Held for reading between the naming of an upload and its record, for writing while files without a record are removed.
    naming: Arc<RwLock<()>>,
}

/// An upload that has come in whole. It is safe from `Uploads::keep_only` as long as this lives.
#[derive(Debug)]
pub struct Received {
    /// Its SHA-256.
    pub digest: Digest,
    /// Bytes.
    pub size: u64,
    _naming: OwnedRwLockReadGuard<()>,
}

impl Uploads {
    /// Of a center's data directory. What a former run has left half-written is removed.
    pub fn new(data: &Path, limit: u64) -> anyhow::Result<Self> {
        let dir = data.join("uploads");
        fs::create_dir_all(&dir).with_context(|| format!("making {}", dir.display()))?;
        remove_files(&dir, |name| name.starts_with(PART))?;
        Ok(Self { dir, limit, naming: Arc::default() })
    }

    /// Where an upload is.
    pub fn path(&self, digest: &Digest) -> PathBuf {
        self.dir.join(digest.hex())
    }

    /// Take in a body. `length` is what the sender says of it beforehand.
    pub async fn receive<S, E>(&self, length: Option<u64>, body: S) -> Result<Received, Fault>
    where
        S: Stream<Item = Result<Bytes, E>>,
        E: std::fmt::Display,
    {
        if length.is_some_and(|length| length > self.limit) {
            return Err(too_long(self.limit));
        }
        check_room(&self.dir, length.unwrap_or(0))?;
        let (pieces, incoming) = mpsc::channel(WAITING);
        let (dir, limit) = (self.dir.clone(), self.limit);
        let writer = tokio::task::spawn_blocking(move || write(&dir, limit, incoming));
        let mut body = std::pin::pin!(body);
        let mut broken = None;
        loop {
            let piece = tokio::select! {
                piece = body.next() => piece,
                // The writer has given up; it says why below.
                () = pieces.closed() => break,
            };
            match piece {
                Some(Ok(piece)) => {
                    // A writer that has given up is noticed above.
                    let _ = pieces.send(piece).await;
                }
                Some(Err(error)) => {
                    broken = Some(error.to_string());
                    break;
                }
                None => break,
            }
        }
        drop(pieces);
        // From here on the file is held by a value that removes it when it is dropped, also when the caller goes away.
        let (file, digest, size) = writer.await.context("joining an upload task")??;
        if let Some(error) = broken {
            let why = format!("the upload broke off after {size} bytes: {error}; send it again");
            return Err(Fault::Refused(StatusCode::BAD_REQUEST, why));
        }
        if size == 0 {
            return Err(Fault::bad_input("body: it is empty; send the archive itself as the body"));
        }
        let naming = Arc::clone(&self.naming).read_owned().await;
        let path = self.path(&digest);
        tokio::task::spawn_blocking(move || name(file, &path)).await.context("joining an upload task")??;
        Ok(Received { digest, size, _naming: naming })
    }

    /// Keep uploads from being named while it is found out which are needed.
    pub async fn hold(&self) -> RwLockWriteGuard<'_, ()> {
        self.naming.write().await
    }

    /// Remove all uploads but these. The guard proves that none is between its name and its record.
    pub fn keep_only(&self, wanted: &[Digest], _held: &RwLockWriteGuard<'_, ()>) -> anyhow::Result<()> {
        let wanted: Vec<String> = wanted.iter().map(Digest::hex).collect();
        remove_files(&self.dir, |name| !name.starts_with(PART) && !wanted.iter().any(|hex| hex == name))
    }
}

/// The writing side of an upload: it ends when the sending side does.
fn write(dir: &Path, limit: u64, mut pieces: mpsc::Receiver<Bytes>) -> Result<(NamedTempFile, Digest, u64), Fault> {
    let mut file = tempfile::Builder::new()
        .prefix(PART)
        .tempfile_in(dir)
        .with_context(|| format!("making a file in {}", dir.display()))?;
    let (mut hash, mut size, mut look_at) = (Sha256::new(), 0, LOOK_AGAIN);
    while let Some(piece) = pieces.blocking_recv() {
        size += piece.len() as u64;
        if size > limit {
            return Err(too_long(limit));
        }
        if size >= look_at {
            look_at = size + LOOK_AGAIN;
            check_room(dir, 0)?;
        }
        hash.update(&piece);
        file.write_all(&piece).map_err(|error| failed(error, dir))?;
    }
    file.as_file().sync_all().map_err(|error| failed(error, dir))?;
    Ok((file, Digest::from_digest(hash.finalize().into()), size))
}

fn name(file: NamedTempFile, path: &Path) -> anyhow::Result<()> {
    let temporary = file.into_temp_path();
    files::finish(&temporary, path)?;
    // It has another name now: there is nothing to remove under the old one.
    temporary.keep().map(drop).with_context(|| format!("naming {}", path.display()))
}

/// Whether so many more bytes leave the reserve untouched.
fn check_room(dir: &Path, more: u64) -> Result<(), Fault> {
    let disk = statvfs(dir).with_context(|| format!("asking for the free room of {}", dir.display()))?;
    let (free, whole) = (disk.blocks_available() * disk.fragment_size(), disk.blocks() * disk.fragment_size());
    let reserve = RESERVE.min(whole / 20);
    if free >= more.saturating_add(reserve) {
        return Ok(());
    }
    Err(no_room(&format!("{free} bytes are free there, and {reserve} of them are kept for its database")))
}

fn failed(error: std::io::Error, dir: &Path) -> Fault {
    match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => no_room(&error.to_string()),
        _ => anyhow::Error::from(error).context(format!("writing an upload in {}", dir.display())).into(),
    }
}

fn no_room(why: &str) -> Fault {
    let told =
        format!("the center's disk has no room for this upload ({why}); nothing of it was kept; make room and try again");
    Fault::Refused(StatusCode::INSUFFICIENT_STORAGE, told)
}

fn too_long(limit: u64) -> Fault {
    let told = format!("body: longer than {limit} bytes; that is the limit of this center (center --upload-max-mib)");
    Fault::Refused(StatusCode::PAYLOAD_TOO_LARGE, told)
}

fn remove_files(dir: &Path, is_waste: impl Fn(&str) -> bool) -> anyhow::Result<()> {
    for entry in fs::read_dir(dir).with_context(|| format!("listing {}", dir.display()))? {
        let entry = entry.with_context(|| format!("listing {}", dir.display()))?;
        if is_waste(&entry.file_name().to_string_lossy()) {
            let path = entry.path();
            fs::remove_file(&path).with_context(|| format!("removing {}", path.display()))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::{FutureExt, stream};

    type Piece = Result<Bytes, std::io::Error>;

    fn names(uploads: &Uploads) -> Vec<String> {
        fs::read_dir(&uploads.dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    fn pieces(pieces: Vec<Piece>) -> impl Stream<Item = Piece> {
        stream::iter(pieces)
    }

    fn refusal(result: Result<Received, Fault>) -> (u16, String) {
        match result {
            Err(Fault::Refused(status, why)) => (status.as_u16(), why),
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn an_upload_has_the_name_of_its_digest_and_goes_when_nobody_wants_it() {
        let dir = tempfile::tempdir().unwrap();
        let uploads = Uploads::new(dir.path(), 100).unwrap();
        let body = || pieces(vec![Ok("hello ".into()), Ok("world".into())]);
        let received = uploads.receive(None, body()).await.unwrap();
        assert_eq!(received.size, 11);
        assert_eq!(received.digest.digest(), &<[u8; 32]>::from(Sha256::digest("hello world")));
        assert_eq!(fs::read(uploads.path(&received.digest)).unwrap(), b"hello world");
        let digest = received.digest.clone();
        drop(received);
        drop(uploads.receive(Some(11), body()).await.unwrap());
        assert_eq!(names(&uploads), [digest.hex()]);

        let held = uploads.hold().await;
        uploads.keep_only(std::slice::from_ref(&digest), &held).unwrap();
        assert_eq!(names(&uploads).len(), 1);
        uploads.keep_only(&[], &held).unwrap();
        assert!(names(&uploads).is_empty());
    }

    #[tokio::test]
    async fn what_cannot_be_taken_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        let uploads = Uploads::new(dir.path(), 10).unwrap();
        let (status, why) = refusal(uploads.receive(Some(11), pieces(vec![])).await);
        assert!(status == 413 && why.contains("10 bytes"), "{why}");
        assert_eq!(refusal(uploads.receive(None, pieces(vec![Ok("12345".into()), Ok("678901".into())])).await).0, 413);
        assert_eq!(refusal(uploads.receive(None, pieces(vec![])).await).0, 422);
        let broken = vec![Ok("12345".into()), Err(std::io::Error::other("connection reset"))];
        let (status, why) = refusal(uploads.receive(None, pieces(broken)).await);
        assert!(status == 400 && why.contains("after 5 bytes: connection reset"), "{why}");
        let (status, why) =
            refusal(Uploads { limit: u64::MAX, ..uploads_of(&uploads) }.receive(Some(u64::MAX), pieces(vec![])).await);
        assert!(status == 507 && why.contains("bytes are free"), "{why}");
        assert!(names(&uploads).is_empty());
    }

    #[tokio::test]
    async fn a_sender_that_goes_away_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        let uploads = Uploads::new(dir.path(), 1 << 20).unwrap();
        let endless = pieces(vec![Ok("12345".into())]).chain(stream::pending());
        let mut receiving = Box::pin(uploads.receive(None, endless));
        // Until its file is there.
        while names(&uploads).is_empty() {
            assert!((&mut receiving).now_or_never().is_none());
            tokio::task::yield_now().await;
        }
        assert!(names(&uploads)[0].starts_with(PART));
        drop(receiving);
        // The writing thread notices; nobody can be told of that.
        while !names(&uploads).is_empty() {
            tokio::task::yield_now().await;
        }
    }

    #[test]
    fn what_a_killed_center_has_left_goes_at_the_next_start() {
        let dir = tempfile::tempdir().unwrap();
        let uploads = Uploads::new(dir.path(), 10).unwrap();
        fs::write(uploads.dir.join(".part-abc"), "half").unwrap();
        fs::write(uploads.dir.join("11"), "whole").unwrap();
        assert_eq!(names(&Uploads::new(dir.path(), 10).unwrap()), ["11"]);
    }

    fn uploads_of(other: &Uploads) -> Uploads {
        Uploads { dir: other.dir.clone(), limit: other.limit, naming: Arc::default() }
    }
}
