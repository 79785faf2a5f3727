//! Id-mapped mounts (kernel, Documentation/filesystems/idmappings.rst): ids in a file system are small everywhere, and on each node they
//! appear moved to a range of their own.
//!
//! The kernel takes the map from a user namespace, which needs no process once its file is open.
#![expect(unsafe_code, reason = "clone(2) into a user namespace, mount_setattr(2) and setting the file system ids of a thread")]

use std::{
    fs::{self, File},
    os::fd::{AsRawFd as _, OwnedFd},
};

use anyhow::{Context as _, Result, anyhow};
use nix::{
    errno::Errno,
    fcntl::OFlag,
    libc,
    sys::{signal::Signal, wait::waitpid},
    unistd::{Gid, Pid, Uid, pipe2, setfsgid, setfsuid},
};

use crate::process::kill;

/// `SECBIT_NO_SETUID_FIXUP` (linux/securebits.h): changing ids takes no capability away.
const NO_SETUID_FIXUP: libc::c_ulong = 1 << 2;

/// Ids of a file system, `0..count`, and where they appear: `base..base + count`. All others appear as nobody's and cannot be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdRange {
    /// First id outside.
    pub base: u32,
    /// How many.
    pub count: u32,
}

/// A map for mounts, as the kernel wants it: a user namespace.
#[derive(Debug)]
pub struct IdMap(File);

impl IdMap {
    /// Make it.
    pub fn new(range: IdRange) -> Result<Self> {
        let IdRange { base, count } = range;
        Self::make(&format!("0 {base} {count}\n")).with_context(|| format!("making a map of {count} ids from {base}"))
    }

    fn make(map: &str) -> Result<Self> {
        let (wait, alive) = pipe2(OFlag::O_CLOEXEC).context("making a pipe")?;
        let child = clone_into_user_namespace(&wait, &alive)?;
        let of = |what: &str| format!("/proc/{}/{what}", child.pid);
        for file in ["uid_map", "gid_map"] {
            fs::write(of(file), map).with_context(|| format!("writing {file}"))?;
        }
        File::open(of("ns/user")).map(Self).context("opening a user namespace")
    }

    /// Let the ids of a mount that has never been seen by anybody appear through the map.
    pub fn apply(&self, mount: &OwnedFd) -> Result<()> {
        let namespace = u64::try_from(self.0.as_raw_fd()).context("reading a descriptor")?;
        let attributes =
            libc::mount_attr { attr_set: libc::MOUNT_ATTR_IDMAP, attr_clr: 0, propagation: 0, userns_fd: namespace };
        // SAFETY: the kernel reads an empty path and one `struct mount_attr` of the size we say, and writes nothing of ours.
        let done = unsafe {
            libc::syscall(
                libc::SYS_mount_setattr,
                mount.as_raw_fd(),
                c"".as_ptr(),
                libc::AT_EMPTY_PATH,
                &raw const attributes,
                size_of::<libc::mount_attr>(),
            )
        };
        Errno::result(done).map(drop).context("mapping the ids of a mount")
    }
}

/// The process that a user namespace is made with; it ends when this does.
struct Child {
    /// 0: there is none.
    pid: i32,
    /// The descriptors that it waits by.
    ends: Box<[libc::c_int; 2]>,
    stack: Vec<u8>,
}

impl Drop for Child {
    fn drop(&mut self) {
        if self.pid > 0 {
            // It is ours and not yet waited for, so the id is still its own.
            let _ = kill(self.pid, Signal::SIGKILL);
            while waitpid(Pid::from_raw(self.pid), None) == Err(Errno::EINTR) {}
        }
    }
}

/// Bytes of the stack of a process that makes two system calls.
const STACK: usize = 16 << 10;

/// A child in a user namespace of its own that waits until it is killed, or until this process is gone. It runs in this process's memory:
/// a copy of that would cost far more than the namespace.
fn clone_into_user_namespace(wait: &OwnedFd, alive: &OwnedFd) -> Result<Child> {
    extern "C" fn sleep(ends: *mut libc::c_void) -> libc::c_int {
        let mut byte = 0u8;
        // SAFETY: the descriptors are the child's own copies, and what they are read from outlives it, as does its stack. `syscall` and
        // `_exit` use nothing of the thread whose state this is but `errno`, and that only on failure, where none is expected.
        unsafe {
            let [wait, alive] = *ends.cast::<[libc::c_int; 2]>();
            libc::syscall(libc::SYS_close, alive);
            libc::syscall(libc::SYS_read, wait, &raw mut byte, 1);
            libc::_exit(0)
        }
    }
    let mut child = Child { pid: 0, ends: Box::new([wait.as_raw_fd(), alive.as_raw_fd()]), stack: vec![0; STACK] };
    let flags = libc::CLONE_VM | libc::CLONE_NEWUSER | libc::SIGCHLD;
    let top = child.stack.as_mut_ptr_range().end;
    // SAFETY: the stack grows downwards from its end (which glibc aligns), and it and the argument are freed when the child was waited for.
    let pid = unsafe { libc::clone(sleep, top.cast(), flags, (&raw mut *child.ends).cast()) };
    child.pid = Errno::result(pid).context("making a user namespace")?;
    Ok(child)
}

/// Do something as the file system user `id` (of the host) with all capabilities of this process: files it makes belong to `id`. Whoever
/// mounts an overlay this way need not have an id in its layers' file systems that the environment does not have.
pub fn with_file_owner<T: Send>(id: u32, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    let owned = move || {
        // SAFETY: PR_SET_SECUREBITS takes an integer, and changes this thread only, which ends below.
        Errno::result(unsafe { libc::prctl(libc::PR_SET_SECUREBITS, NO_SETUID_FIXUP, 0, 0, 0) })
            .context("keeping the capabilities of a thread")?;
        setfsgid(Gid::from_raw(id));
        setfsuid(Uid::from_raw(id));
        // Both tell the id from before, whether they did it or not: the second call tells.
        if setfsuid(Uid::from_raw(id)).as_raw() != id || setfsgid(Gid::from_raw(id)).as_raw() != id {
            return Err(anyhow!("the kernel does not let us be file system user {id}"));
        }
        work()
    };
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("owner".into()).spawn_scoped(scope, owned);
        let thread = thread.context("starting a thread")?;
        thread.join().unwrap_or_else(|_| Err(anyhow!("the thread of file system user {id} panicked")))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt as _;

    #[test]
    fn a_map_needs_no_process() {
        if !nix::unistd::geteuid().is_root() {
            return;
        }
        let map = IdMap::new(IdRange { base: 1_000_000, count: 65_536 }).unwrap();
        assert!(map.0.metadata().unwrap().ino() > 0);
        let error = IdMap::new(IdRange { base: u32::MAX, count: 65_536 }).unwrap_err();
        assert!(format!("{error:#}").contains("uid_map"), "{error:#}");
    }

    #[test]
    fn files_belong_to_the_owner_that_was_named() {
        if !nix::unistd::geteuid().is_root() {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        with_file_owner(1_000_000, || File::create(&path).context("making a file")).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().uid(), 1_000_000);
        File::create(dir.path().join("other")).unwrap();
        assert_eq!(fs::metadata(dir.path().join("other")).unwrap().uid(), 0, "this thread is as before");
    }
}
