//! The locks that are out: each is the writing end of a FIFO whose reading end the agent holds. The lock is released when the last
//! copy of the writing end is closed, by whatever end of its holder; the kernel says so, nothing is polled.
//!
//! The FIFOs and a note on each are files below `/run`, as logind does it, so that a restart of the agent finds the locks that are
//! still held.

use std::fs;
use std::io::{ErrorKind, Read as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context as _, Result, bail};
use nix::libc::O_NONBLOCK;
use nix::sys::stat::Mode as FileMode;
use tokio::io::AsyncReadExt as _;
use tokio::net::unix::pipe::{OpenOptions, Receiver};
use tokio::sync::watch;

use super::inhibitors::{Book, Inhibitor};
use crate::durable;

/// Where the FIFOs are.
pub const DIR: &str = "/run/lodge/inhibit";

/// All locks that are out.
pub struct Locks {
    dir: PathBuf,
    book: Mutex<Book>,
    changed: watch::Sender<()>,
}

impl Locks {
    /// Find the locks that are still held.
    pub fn open(dir: &Path) -> Result<Arc<Self>> {
        fs::create_dir_all(dir).with_context(|| format!("making {}", dir.display()))?;
        let locks = Arc::new(Self { dir: dir.to_owned(), book: Mutex::default(), changed: watch::Sender::new(()) });
        for entry in fs::read_dir(dir).with_context(|| format!("reading {}", dir.display()))? {
            let name = entry?.file_name();
            let Some(id) = name.to_str().and_then(|name| name.strip_suffix(".json")?.parse().ok()) else { continue };
            if let Err(error) = locks.restore(id) {
                tracing::warn!("dropping inhibitor {id}: {error:#}");
                locks.remove_files(id);
            }
        }
        Ok(locks)
    }

    /// Hand one out.
    pub fn take(self: &Arc<Self>, inhibitor: Inhibitor) -> Result<OwnedFd> {
        let note = serde_json::to_vec(&inhibitor).context("noting an inhibitor")?;
        let Some(id) = self.book().add(inhibitor) else { bail!("there are too many inhibitors already") };
        let hand_out = || {
            let fifo = self.fifo(id);
            nix::unistd::mkfifo(&fifo, FileMode::S_IRUSR | FileMode::S_IWUSR)
                .with_context(|| format!("making {}", fifo.display()))?;
            let open = || format!("opening {}", fifo.display());
            let reader = OpenOptions::new().open_receiver(&fifo).with_context(open)?;
            let writer = OpenOptions::new().open_sender(&fifo).with_context(open)?;
            durable::write(&self.note(id), &note, 0o600)?;
            let writer = writer.into_nonblocking_fd().with_context(open)?;
            self.await_release(id, reader);
            Ok(writer)
        };
        let handed = hand_out();
        match handed {
            Ok(_) => self.changed.send_replace(()),
            Err(_) => self.release(id),
        }
        handed
    }

    /// Look something up.
    pub fn look<T>(&self, question: impl FnOnce(&Book) -> T) -> T {
        question(&self.book())
    }

    /// Told of every change from now on.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// Wait until the book is so.
    pub async fn until(&self, is_so: impl Fn(&Book) -> bool) {
        let mut changes = self.changes();
        while !self.look(&is_so) {
            if changes.changed().await.is_err() {
                return;
            }
        }
    }

    fn restore(self: &Arc<Self>, id: u64) -> Result<()> {
        let note = fs::read(self.note(id)).context("reading its note")?;
        let inhibitor = serde_json::from_slice(&note).context("reading its note")?;
        let mut fifo =
            fs::OpenOptions::new().read(true).custom_flags(O_NONBLOCK).open(self.fifo(id)).context("opening its FIFO")?;
        // poll(2) is silent about a writer that left before the FIFO was opened; read(2) is not.
        match fifo.read(&mut [0; 64]) {
            Ok(0) => bail!("nobody holds it any more"),
            Err(error) if error.kind() != ErrorKind::WouldBlock => return Err(error).context("reading its FIFO"),
            _ => {}
        }
        let reader = Receiver::from_file(fifo).context("waiting on its FIFO")?;
        self.book().restore(id, inhibitor);
        self.await_release(id, reader);
        Ok(())
    }

    fn await_release(self: &Arc<Self>, id: u64, reader: Receiver) {
        let locks = Arc::clone(self);
        tokio::spawn(async move {
            if let Err(error) = ended(reader).await {
                tracing::warn!("inhibitor {id} is dropped: waiting on its FIFO: {error}");
            }
            locks.release(id);
        });
    }

    fn release(&self, id: u64) {
        let released = self.book().release(id);
        self.remove_files(id);
        if let Some(inhibitor) = released {
            tracing::info!("inhibitor released: {inhibitor}");
            self.changed.send_replace(());
        }
    }

    fn remove_files(&self, id: u64) {
        for path in [self.note(id), self.fifo(id)] {
            match fs::remove_file(&path) {
                Err(error) if error.kind() != ErrorKind::NotFound => tracing::warn!("removing {}: {error}", path.display()),
                _ => {}
            }
        }
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        // Nothing that holds the book can panic half-way through a change.
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, id: u64) -> PathBuf {
        self.dir.join(format!("{id}.json"))
    }

    fn fifo(&self, id: u64) -> PathBuf {
        self.dir.join(format!("{id}.ref"))
    }
}

/// Wait for the end of a FIFO: no writer is left. What a holder writes into it is thrown away.
async fn ended(mut reader: Receiver) -> std::io::Result<()> {
    let mut trash = [0; 64];
    while reader.read(&mut trash).await? > 0 {}
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn lock(mode: &str) -> Inhibitor {
        Inhibitor::ask("shutdown", "backup", "copying", mode, 0, 7).unwrap()
    }

    async fn until_none(locks: &Locks) {
        tokio::time::timeout(Duration::from_secs(5), locks.until(|book| book.all().count() == 0)).await.unwrap();
    }

    #[tokio::test]
    async fn a_lock_ends_with_the_last_copy_of_its_descriptor() {
        let dir = tempfile::tempdir().unwrap();
        let locks = Locks::open(dir.path()).unwrap();
        let fd = locks.take(lock("block")).unwrap();
        let copy = fd.try_clone().unwrap();
        drop(fd);
        tokio::task::yield_now().await;
        assert_eq!(locks.look(|book| book.all().count()), 1);
        drop(copy);
        until_none(&locks).await;
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn a_restarted_agent_finds_held_locks_and_drops_the_others() {
        let dir = tempfile::tempdir().unwrap();
        // A runtime that ends takes the waiting tasks with it, as the end of an agent does.
        let (held, left) = std::thread::scope(|scope| {
            let work = || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                runtime.block_on(async {
                    let locks = Locks::open(dir.path()).unwrap();
                    (locks.take(lock("block")).unwrap(), locks.take(lock("delay")).unwrap())
                })
            };
            scope.spawn(work).join().unwrap()
        });
        drop(left);
        let locks = Locks::open(dir.path()).unwrap();
        tokio::time::timeout(Duration::from_secs(5), locks.until(|book| book.all().count() == 1)).await.unwrap();
        assert_eq!(locks.look(|book| book.all().next().cloned()), Some(lock("block")));
        drop(held);
        until_none(&locks).await;
    }
}
