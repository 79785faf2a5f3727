//! Processes as file descriptors, and the flags of descriptors that are waited on.
#![expect(unsafe_code, reason = "pidfd_open(2) has no wrapper in nix")]

use std::os::fd::{AsFd, BorrowedFd, FromRawFd as _, OwnedFd, RawFd};

use anyhow::{Context as _, Result};
use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};

/// A process; readable when it has ended.
#[derive(Debug)]
pub struct PidFd(OwnedFd);

impl PidFd {
    /// Refer to a process that is the caller's child and has not been waited for, so that the id cannot mean another one.
    pub fn open(pid: u32) -> Result<Self> {
        // SAFETY: pidfd_open takes two integers and touches no memory of ours.
        let fd = unsafe { nix::libc::syscall(nix::libc::SYS_pidfd_open, pid, 0) };
        let fd = nix::errno::Errno::result(fd).with_context(|| format!("opening process {pid}"))?;
        let fd = RawFd::try_from(fd).context("reading a descriptor")?;
        // SAFETY: the kernel just gave us this descriptor and nobody else knows it.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }
}

impl AsFd for PidFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Reads and writes of this descriptor return at once.
pub fn set_nonblocking(fd: impl AsFd) -> Result<()> {
    let flags = fcntl(fd.as_fd(), FcntlArg::F_GETFL).context("reading a descriptor's flags")?;
    let flags = OFlag::from_bits_retain(flags) | OFlag::O_NONBLOCK;
    fcntl(fd.as_fd(), FcntlArg::F_SETFL(flags)).context("setting a descriptor's flags")?;
    Ok(())
}

/// Whether a descriptor is closed by execve(2).
pub fn set_close_on_exec(fd: impl AsFd, close: bool) -> Result<()> {
    let flags = if close { FdFlag::FD_CLOEXEC } else { FdFlag::empty() };
    fcntl(fd.as_fd(), FcntlArg::F_SETFD(flags)).context("setting a descriptor's close-on-exec flag")?;
    Ok(())
}
