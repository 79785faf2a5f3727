//! Mounts: made with what was asked for in the error, looked up in the kernel's own table, and taken away in bounded time even when
//! a server behind them is dead.
#![expect(unsafe_code, reason = "a child process for an unmount that may never return")]

use std::{
    ffi::CString,
    fs,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
pub use nix::mount::MsFlags;
use nix::{
    errno::Errno,
    mount::{MntFlags, umount2},
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::wait::{WaitStatus, waitpid},
    unistd::Pid,
};
use rustix::fs::{AtFlags, CWD, StatxAttributes, StatxFlags, statx};

use crate::{child, process::PidFd};

/// One file system to mount, as a row of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount<'a> {
    /// Device, or a name where there is none.
    pub source: &'a str,
    /// Where. It is made (mode 0755) when it is not there.
    pub target: &'a str,
    /// Kernel name of the file system.
    pub fstype: &'a str,
    /// mount(2) flags.
    pub flags: MsFlags,
    /// Options of the file system; empty for none.
    pub data: &'a str,
}

impl Mount<'_> {
    /// Mount it.
    pub fn mount(&self) -> Result<()> {
        let Self { source, target, fstype, flags, data } = self;
        fs::create_dir_all(target).with_context(|| format!("making {target}"))?;
        nix::mount::mount(Some(*source), *target, Some(*fstype), *flags, Some(*data)).with_context(|| {
            format!("mounting {source} on {target} ({fstype}{}{data})", if data.is_empty() { "" } else { ": " })
        })
    }

    /// Mount it unless its target is a mount point already; whether it had to.
    pub fn ensure(&self) -> Result<bool> {
        let mounted = is_mounted(Path::new(self.target)).unwrap_or(false);
        if !mounted {
            self.mount()?;
        }
        Ok(!mounted)
    }
}

/// Let `to` show what `from` shows.
pub fn bind(from: &Path, to: &Path) -> Result<()> {
    nix::mount::mount(Some(from), to, None::<&str>, MsFlags::MS_BIND, None::<&str>)
        .with_context(|| format!("binding {} to {}", from.display(), to.display()))
}

/// Move a mount.
pub fn move_mount(from: &Path, to: &Path) -> Result<()> {
    nix::mount::mount(Some(from), to, None::<&str>, MsFlags::MS_MOVE, None::<&str>)
        .with_context(|| format!("moving the mount {} to {}", from.display(), to.display()))
}

/// Change the flags of a mounted file system, as to read-only.
pub fn remount(target: &Path, flags: MsFlags) -> Result<()> {
    nix::mount::mount(None::<&str>, target, None::<&str>, MsFlags::MS_REMOUNT | flags, None::<&str>)
        .with_context(|| format!("remounting {}", target.display()))
}

/// Unmount; returns only when the file system says so, so never use it for a network file system.
pub fn unmount(target: &Path) -> Result<()> {
    umount2(target, MntFlags::UMOUNT_NOFOLLOW).with_context(|| format!("unmounting {}", target.display()))
}

/// Take a mount out of sight at once; it ends when its last user does.
pub fn detach(target: &Path) -> Result<()> {
    umount2(target, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW).with_context(|| format!("detaching {}", target.display()))
}

/// Take a mount out of sight at once, and fail the requests that its server has not answered: whoever waits for them in the kernel goes on
/// with an error. What was not written yet is lost.
pub fn abandon(target: &Path) -> Result<()> {
    let flags = MntFlags::MNT_FORCE | MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW;
    umount2(target, flags).with_context(|| format!("abandoning {}", target.display()))
}

/// How an unmount in bounded time ended.
#[derive(Debug)]
pub enum Unmounted {
    /// Flushed and gone.
    Clean,
    /// Not in time, or refused for this reason: detached; what was not yet written may never be.
    Detached(String),
}

/// Unmount within a time limit, by a child process that may hang where it likes; after that, detach.
pub fn unmount_within(target: &Path, limit: Duration) -> Result<Unmounted> {
    let child = start_unmount(target)?;
    let end = Instant::now() + limit;
    let ended = PidFd::open(child.as_raw().unsigned_abs())?;
    let why = loop {
        let left = PollTimeout::try_from(end.saturating_duration_since(Instant::now())).unwrap_or(PollTimeout::MAX);
        match poll(&mut [PollFd::new(std::os::fd::AsFd::as_fd(&ended), PollFlags::POLLIN)], left) {
            Ok(0) => break format!("not done within {} s", limit.as_secs()),
            Ok(_) => match waitpid(child, None).context("waiting for an unmount")? {
                WaitStatus::Exited(_, 0) => return Ok(Unmounted::Clean),
                WaitStatus::Exited(_, errno) => break Errno::from_raw(errno).desc().to_owned(),
                other => break format!("{other:?}"),
            },
            Err(Errno::EINTR) => {}
            Err(error) => return Err(error).context("waiting for an unmount"),
        }
    };
    detach(target)?;
    Ok(Unmounted::Detached(why))
}

/// Start an unmount in a child process and return at once. Its exit status is 0 or the error number of umount2(2). The caller
/// waits for it; it may never end. A busy mount is refused by the kernel without a word to its server: then the server is asked for
/// something, so that the child ends only if it answers.
pub fn start_unmount(target: &Path) -> Result<Pid> {
    let path = CString::new(target.as_os_str().as_bytes()).context("naming a mount")?;
    let unmount = || {
        // SAFETY: umount2 reads a NUL-terminated string that was made before the fork and outlives it, and writes nothing.
        let status = unsafe { nix::libc::umount2(path.as_ptr(), nix::libc::UMOUNT_NOFOLLOW) };
        if status != 0 && Errno::last() == Errno::EBUSY {
            let mut room = std::mem::MaybeUninit::<nix::libc::statfs>::uninit();
            // SAFETY: statfs reads the same string and writes to memory of its type, which nobody reads.
            unsafe { nix::libc::statfs(path.as_ptr(), room.as_mut_ptr()) };
            Errno::EBUSY.set();
        }
        status
    };
    // SAFETY: two system calls, with memory that was prepared.
    unsafe { child::start(&unmount) }.with_context(|| format!("forking to unmount {}", target.display()))
}

/// Start sync(2) in a child process and return at once: with a dead server behind a mount it may never end.
pub fn start_sync() -> Result<Pid> {
    let sync = || {
        nix::unistd::sync();
        0
    };
    // SAFETY: one system call.
    unsafe { child::start(&sync) }.context("forking to sync")
}

/// A line of `/proc/thread-self/mountinfo` (proc(5)).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountPoint {
    /// Where.
    pub target: PathBuf,
    /// Kernel name of the file system.
    pub fstype: String,
    /// Device or name.
    pub source: String,
}

/// Everything that is mounted in this mount namespace, in the order it was mounted.
pub fn mounts() -> Result<Vec<MountPoint>> {
    let text = fs::read_to_string("/proc/thread-self/mountinfo").context("reading /proc/thread-self/mountinfo")?;
    Ok(text.lines().filter_map(parse).collect())
}

/// Whether a path is a mount point.
pub fn is_mounted(path: &Path) -> Result<bool> {
    Ok(mounts()?.iter().any(|mount| mount.target == path))
}

/// Whether something is mounted at a path on this machine's own file systems, without a look at all that is mounted; a path that is not
/// there has nothing mounted. What is mounted there is asked for nothing that it would have to ask a server for.
pub fn is_mount_point(path: &Path) -> Result<bool> {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT | AtFlags::STATX_DONT_SYNC;
    match statx(CWD, path, flags, StatxFlags::empty()) {
        Ok(found) => Ok(found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT)),
        Err(rustix::io::Errno::NOENT) => Ok(false),
        Err(error) => Err(error).with_context(|| format!("looking what is mounted on {}", path.display())),
    }
}

fn parse(line: &str) -> Option<MountPoint> {
    let (before, after) = line.split_once(" - ")?;
    let target = before.split(' ').nth(4)?;
    let mut after = after.split(' ');
    let (fstype, source) = (after.next()?, after.next()?);
    Some(MountPoint { target: unescape(target).into(), fstype: fstype.to_owned(), source: unescape(source) })
}

/// The kernel writes space, tab, newline and backslash as three octal digits.
fn unescape(text: &str) -> String {
    if !text.contains('\\') {
        return text.to_owned();
    }
    ["\\040", "\\011", "\\012", "\\134"]
        .iter()
        .zip([" ", "\t", "\n", "\\"])
        .fold(text.to_owned(), |text, (code, char)| text.replace(code, char))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mountinfo_lines_are_read() {
        let line = "36 35 98:0 /mnt1 /mnt\\040two rw,noatime master:1 - ext3 /dev/root rw,errors=continue";
        let mount = parse(line).unwrap();
        assert_eq!(mount, MountPoint { target: "/mnt two".into(), fstype: "ext3".into(), source: "/dev/root".into() });
        let no_optional = "20 1 0:19 / /proc rw - proc proc rw";
        assert_eq!(parse(no_optional).unwrap().target, Path::new("/proc"));
        assert_eq!(parse("nonsense"), None);
    }

    #[test]
    fn proc_is_mounted_and_a_refused_unmount_says_why() {
        for (path, is) in [("/proc", true), ("/proc/self", false), ("/nowhere/at/all", false)] {
            let found = [is_mounted(Path::new(path)), is_mount_point(Path::new(path))].map(Result::unwrap);
            assert_eq!(found, [is, is], "{path}");
        }
        let child = start_unmount(Path::new("/nowhere/at/all")).unwrap();
        let WaitStatus::Exited(_, errno) = waitpid(child, None).unwrap() else { panic!("it did not exit") };
        assert!(matches!(Errno::from_raw(errno), Errno::ENOENT | Errno::EPERM), "{errno}");
    }
}
