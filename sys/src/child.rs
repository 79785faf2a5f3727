//! System calls that may hang, made by a child process: it is left to itself, or killed after a while. Waits for a network file system's
//! server end when their process is killed, and with it everything that waits for that request.
#![expect(unsafe_code, reason = "fork(2), and system calls in the child")]

use std::{
    ffi::CString,
    os::{
        fd::{AsRawFd as _, BorrowedFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
    time::Duration,
};

use anyhow::{Context as _, Result};
use nix::{
    errno::Errno,
    libc,
    sys::wait::{WaitStatus, waitpid},
    unistd::{ForkResult, Pid, fork},
};

use crate::process::PidFd;

/// Make system calls in a child process whose exit status is 0 or the error number of the last one (`EIO` where the kernel gave none: a
/// short write). The caller waits for it.
///
/// # Safety
/// `calls` runs between fork and `_exit`: it makes system calls with memory prepared before the fork, and nothing that is not
/// async-signal-safe, so it does not matter what other threads held.
pub(crate) unsafe fn start(calls: &dyn Fn() -> libc::c_int) -> Result<Pid> {
    // SAFETY: the child does what the caller answers for, and `_exit`.
    match unsafe { fork() }? {
        ForkResult::Parent { child } => Ok(child),
        ForkResult::Child => {
            Errno::clear();
            let status = match (calls(), Errno::last_raw()) {
                (0, _) => 0,
                (_, 0) => libc::EIO,
                (_, error) => error,
            };
            // SAFETY: _exit ends this copy of the process and nothing else.
            unsafe { libc::_exit(status) }
        }
    }
}

/// Write into a file from its start and sync it, in a child process that is killed when that takes longer than `limit` (`ETIMEDOUT`). What
/// the file had beyond that stays, unless it `is_new`: then it is emptied before. It must be there: a file that may have to be created
/// keeps its directory locked for as long as its server takes.
pub fn overwrite(path: &Path, text: &[u8], is_new: bool, limit: Duration) -> Result<Result<(), Errno>> {
    let name = CString::new(path.as_os_str().as_bytes()).context("naming a file")?;
    let flags = libc::O_WRONLY | if is_new { libc::O_TRUNC } else { 0 };
    let length = libc::ssize_t::try_from(text.len()).context("measuring a text")?;
    let write = || {
        // SAFETY: open reads a NUL-terminated string and write a slice of that length, which were made before the fork and outlive the
        // child; the other calls take a descriptor.
        unsafe {
            let file = libc::open(name.as_ptr(), flags);
            let is_written =
                file >= 0 && libc::write(file, text.as_ptr().cast(), text.len()) == length && libc::fdatasync(file) == 0;
            if is_written { libc::close(file) } else { -1 }
        }
    };
    // SAFETY: those system calls and nothing else.
    unsafe { within(limit, None, &write) }
}

/// As [`start`], and waited for: killed after `limit` (`ETIMEDOUT`). Of the caller's open files the child has none but `kept`.
///
/// # Safety
/// As for [`start`].
pub(crate) unsafe fn within(
    limit: Duration,
    kept: Option<BorrowedFd<'_>>,
    calls: &dyn Fn() -> libc::c_int,
) -> Result<Result<(), Errno>> {
    let kept = kept.map_or(2, |kept| kept.as_raw_fd());
    let alone = || {
        // SAFETY: it closes descriptors of this copy of the process, and what owned them is not used again.
        unsafe {
            libc::syscall(libc::SYS_close_range, 3, kept - 1, 0);
            libc::syscall(libc::SYS_close_range, kept + 1, libc::c_uint::MAX, 0);
        }
        calls()
    };
    // SAFETY: by the caller's word, and close_range is a system call.
    let child = unsafe { start(&alone) }.context("forking")?;
    let handle = PidFd::open(child.as_raw().unsigned_abs())?;
    let in_time = handle.wait(limit)?;
    if !in_time {
        handle.send(libc::SIGKILL)?;
    }
    Ok(match waitpid(child, None).context("waiting for a child process")? {
        WaitStatus::Exited(_, 0) => Ok(()),
        WaitStatus::Exited(_, status) => Err(Errno::from_raw(status)),
        _ if in_time => Err(Errno::EINTR),
        _ => Err(Errno::ETIMEDOUT),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(20);

    #[test]
    fn what_is_written_replaces_the_beginning_or_all() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let write = |text: &str, is_new| {
            overwrite(file.path(), text.as_bytes(), is_new, LONG).unwrap().unwrap();
            std::fs::read_to_string(file.path()).unwrap()
        };
        assert_eq!(
            (write("first", false), write("2nd", false), write("3", true)),
            ("first".into(), "2ndst".into(), "3".into())
        );
    }

    #[test]
    fn a_failure_without_a_reason_is_none_that_succeeded() {
        let status = |calls: &dyn Fn() -> libc::c_int| {
            // SAFETY: no call but one that sets errno.
            let child = unsafe { start(calls) }.unwrap();
            let WaitStatus::Exited(_, status) = waitpid(child, None).unwrap() else { panic!() };
            status
        };
        assert_eq!((status(&|| 0), status(&|| -1)), (0, libc::EIO));
        let busy = || {
            Errno::EBUSY.set();
            -1
        };
        assert_eq!(status(&busy), libc::EBUSY);
    }

    #[test]
    fn what_hangs_is_killed_and_what_fails_says_why() {
        let dir = tempfile::tempdir().unwrap();
        let (pipe, none) = (dir.path().join("pipe"), dir.path().join("none"));
        // Nobody reads it, so that whoever opens it for writing waits.
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert_eq!(overwrite(&pipe, b"x", false, Duration::from_millis(50)).unwrap(), Err(Errno::ETIMEDOUT));
        assert_eq!(overwrite(&none, b"x", true, LONG).unwrap(), Err(Errno::ENOENT));
        assert!(!none.exists());
    }
}
