//! Exclusive locks of open files (fcntl(2), "Open file description locks"). Such a lock belongs to one open file: it lives as long as
//! anybody, a process or a loop device, holds that very open file, and no other open of the same path shares it.
//!
//! On a network file system a server may take long to answer, or never do, so the question is asked by a thread of its own and waited
//! for in bounded time. An answer that comes later is thrown away with the open file, and the lock with it.
#![expect(unsafe_code, reason = "a lock that is waited for in a child process")]

use std::{
    fs::File,
    os::fd::{AsFd as _, AsRawFd as _},
    sync::mpsc::{RecvTimeoutError, sync_channel},
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow};
use nix::{
    errno::Errno,
    fcntl::{FcntlArg, fcntl},
    libc,
};

use crate::child;

/// How the question for a lock ended.
#[derive(Debug)]
pub enum Locked {
    /// The open file has the lock.
    Yes(File),
    /// Somebody else has it.
    Held,
    /// The file system did not answer in time; should the answer still come, the lock is let go of at once.
    Unanswered,
}

/// Take the exclusive lock of a whole file, which must be open for writing. Never waits for another holder to let go.
pub fn exclusive(file: File, limit: Duration) -> Result<Locked> {
    let (answer, question) = sync_channel(1);
    let ask = move || {
        let asked = ask_exclusive(&file);
        // Nobody waits any more: the file is closed here, and its lock ends.
        let _ = answer.send(asked.map(|held| held.then_some(file)));
    };
    std::thread::Builder::new().name("lock".into()).stack_size(64 << 10).spawn(ask).context("starting a thread for a lock")?;
    match question.recv_timeout(limit) {
        Ok(Ok(Some(file))) => Ok(Locked::Yes(file)),
        Ok(Ok(None)) => Ok(Locked::Held),
        Ok(Err(error)) => Err(error),
        Err(RecvTimeoutError::Timeout) => Ok(Locked::Unanswered),
        Err(RecvTimeoutError::Disconnected) => Err(anyhow!("the thread that asked for a lock ended without an answer")),
    }
}

/// The same, and wait for another holder to let go: by a child process that has the very open file, so that its lock is the caller's, and
/// that is killed after `limit`.
pub fn await_exclusive(file: File, limit: Duration) -> Result<Locked> {
    let (descriptor, whole) = (file.as_raw_fd(), whole());
    let ask = || {
        // SAFETY: fcntl reads a lock that was made before the fork, of a descriptor that the child has.
        unsafe { libc::fcntl(descriptor, libc::F_OFD_SETLKW, &raw const whole) }
    };
    // SAFETY: that system call and nothing else.
    match unsafe { child::within(limit, Some(file.as_fd()), &ask) }? {
        Ok(()) => Ok(Locked::Yes(file)),
        Err(Errno::ETIMEDOUT) => Ok(Locked::Held),
        Err(error) => Err(error).context("waiting for the lock of an open file"),
    }
}

fn whole() -> libc::flock {
    libc::flock {
        l_type: libc::F_WRLCK as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    }
}

fn ask_exclusive(file: &File) -> Result<bool> {
    let whole = whole();
    loop {
        match fcntl(file, FcntlArg::F_OFD_SETLK(&whole)) {
            Ok(_) => return Ok(true),
            Err(Errno::EAGAIN | Errno::EACCES) => return Ok(false),
            Err(Errno::EINTR) => {}
            Err(error) => return Err(error).context("locking an open file"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::OpenOptions;

    const SOON: Duration = Duration::from_secs(5);

    #[test]
    fn one_open_file_has_the_lock_until_its_last_user_lets_go() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk.img");
        File::create(&path).unwrap();
        let open = || OpenOptions::new().read(true).write(true).open(&path).unwrap();
        let Locked::Yes(first) = exclusive(open(), SOON).unwrap() else { panic!("a free file is not locked") };
        let same = first.try_clone().unwrap();
        assert!(matches!(exclusive(open(), SOON).unwrap(), Locked::Held));
        drop(open());
        drop(first);
        assert!(matches!(exclusive(open(), SOON).unwrap(), Locked::Held), "a duplicate keeps it");
        drop(same);
        assert!(matches!(exclusive(open(), SOON).unwrap(), Locked::Yes(_)));
    }

    #[test]
    fn a_lock_is_waited_for_until_its_holder_lets_go() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let open = || OpenOptions::new().read(true).write(true).open(file.path()).unwrap();
        let Locked::Yes(first) = exclusive(open(), SOON).unwrap() else { panic!("a free file is not locked") };
        assert!(matches!(await_exclusive(open(), Duration::from_millis(50)).unwrap(), Locked::Held));
        let waits = std::thread::spawn({
            let second = open();
            move || await_exclusive(second, SOON).unwrap()
        });
        drop(first);
        let Locked::Yes(second) = waits.join().unwrap() else { panic!("it is free") };
        assert!(matches!(exclusive(open(), SOON).unwrap(), Locked::Held), "the lock is the caller's, not its child's");
        drop(second);
    }

    #[test]
    fn a_file_that_is_open_for_reading_only_is_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let error = exclusive(File::open(file.path()).unwrap(), SOON).unwrap_err();
        assert!(format!("{error:#}").contains("locking"), "{error:#}");
    }
}
