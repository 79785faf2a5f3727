//! A mount namespace that outlives the processes in it (mount_namespaces(7)): kept by a mount of its own file, it is there until that
//! one is unmounted, and what is mounted in it goes then, newest first, before the unmount returns.
//!
//! It differs from the namespace it was made in by one tree. What is mounted below that tree stays inside; everywhere else both
//! are peers, so that a mount or an unmount in one of them happens in the other one, too.

use std::{
    fs::{self, File},
    os::fd::OwnedFd,
    path::Path,
    sync::mpsc::channel,
};

use anyhow::{Context as _, Result, anyhow};
use nix::{
    errno::Errno,
    mount::{MsFlags, mount},
    sched::{CloneFlags, CpuSet, sched_getaffinity, sched_setaffinity, setns, unshare},
    sys::statfs::statfs,
    unistd::{Pid, gettid},
};

/// `f_type` of a namespace's file (linux/magic.h, `NSFS_MAGIC`).
const NSFS: i64 = 0x6e73_6673;
const THIS_THREAD: Pid = Pid::from_raw(0);

/// Enter the namespace that is kept at `pin`; make it where there is none. Whether it was made. `tree` is a mount point of both: what is
/// mounted below it stays inside. `pin` must lie below it, or the namespace would hold itself.
///
/// The calling thread must have its root and working directory for itself, as a process of one thread has. What it starts from
/// then on, threads and programs, is inside.
pub fn enter(pin: &Path, tree: &Path) -> Result<bool> {
    let enter = || -> Result<bool> {
        let is_new = !is_pinned(pin);
        if is_new {
            make(pin, tree)?;
        }
        setns(OwnedFd::from(File::open(pin)?), CloneFlags::CLONE_NEWNS)?;
        Ok(is_new)
    };
    enter().with_context(|| format!("entering the mount namespace at {}", pin.display()))
}

fn is_pinned(pin: &Path) -> bool {
    statfs(pin).is_ok_and(|found| found.filesystem_type().0 == NSFS)
}

/// It is kept only when it is complete: whatever ends this before leaves nothing.
///
/// The kernel keeps no namespace in one that is younger, and from Linux 6.18 on goes by numbers of which each processor has some in stock: one
/// that is made on another processor than this one was may count as older. So it is made on one processor after the other.
fn make(pin: &Path, tree: &Path) -> Result<()> {
    fs::create_dir_all(pin.parent().unwrap_or(tree))?;
    File::create(pin)?;
    change(Path::new("/"), MsFlags::MS_REC | MsFlags::MS_SHARED)?;
    let all = sched_getaffinity(THIS_THREAD).context("asking for this thread's processors")?;
    let mut kept = make_on(&all, pin, tree);
    for processor in (0..CpuSet::count()).filter(|processor| all.is_set(*processor) == Ok(true)) {
        if !kept.as_ref().is_err_and(|error| error.downcast_ref() == Some(&Errno::EINVAL)) {
            break;
        }
        let mut one = CpuSet::new();
        one.set(processor).context("choosing a processor")?;
        kept = make_on(&one, pin, tree);
    }
    kept
}

fn make_on(processors: &CpuSet, pin: &Path, tree: &Path) -> Result<()> {
    let (made, is_made) = channel();
    let (kept, is_kept) = channel::<()>();
    std::thread::scope(|scope| {
        let inside = move || {
            let done = sched_setaffinity(THIS_THREAD, processors).context("choosing a processor");
            let done = done.and_then(|()| unshare(CloneFlags::CLONE_NEWNS).context("making a mount namespace"));
            // Nobody waits any more when the other side has ended.
            let _ = made.send(done.and_then(|()| change(tree, MsFlags::MS_PRIVATE)).map(|()| gettid()));
            let _ = is_kept.recv();
        };
        std::thread::Builder::new().name("namespace".into()).spawn_scoped(scope, inside).context("starting a thread")?;
        let thread = is_made.recv().map_err(|_| anyhow!("the thread that makes it ended"))??;
        let bound = crate::mount::bind(Path::new(&file_of(thread)), pin);
        drop(kept);
        bound
    })
}

fn file_of(thread: Pid) -> String {
    format!("/proc/self/task/{thread}/ns/mnt")
}

fn change(target: &Path, propagation: MsFlags) -> Result<()> {
    mount(None::<&str>, target, None::<&str>, propagation, None::<&str>)
        .with_context(|| format!("changing the propagation of {}", target.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        loopdev,
        mount::{Mount, is_mounted, unmount},
    };
    use std::{process::Command, time::Duration};

    /// Run as a process of its own would: with its own root and working directory, in the namespace of whoever calls.
    fn process<T: Send>(work: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let run = || {
                unshare(CloneFlags::CLONE_FS).unwrap();
                work()
            };
            scope.spawn(run).join().unwrap()
        })
    }

    /// In a namespace that stands for a node's, with a `/run` of its own; it needs root.
    fn on_node(test: impl FnOnce(&Path) + Send) {
        if !nix::unistd::geteuid().is_root() {
            return;
        }
        process(|| {
            unshare(CloneFlags::CLONE_NEWNS).unwrap();
            change(Path::new("/"), MsFlags::MS_REC | MsFlags::MS_PRIVATE).unwrap();
            let dir = tempfile::tempdir().unwrap();
            let run = dir.path().join("run");
            tmpfs(&run);
            test(dir.path());
            unmount(&run).unwrap();
        });
    }

    fn tmpfs(at: &Path) {
        let target = at.to_str().unwrap();
        Mount { source: "tmpfs", target, fstype: "tmpfs", flags: MsFlags::empty(), data: "" }.mount().unwrap();
    }

    #[test]
    fn what_is_mounted_inside_is_seen_by_all_inside_and_by_nobody_else() {
        on_node(|dir| {
            let (pin, run) = (dir.join("run/lodge/agent.mnt"), dir.join("run"));
            let (inner, share) = (run.join("inner"), dir.join("share"));
            let sees = |path: &Path| is_mounted(path).unwrap();
            process(|| {
                assert!(enter(&pin, &run).unwrap());
                tmpfs(&inner);
                tmpfs(&share);
                assert!(sees(&inner) && std::thread::scope(|scope| scope.spawn(|| sees(&inner)).join().unwrap()));
                let listed = Command::new("/bin/cat").arg("/proc/self/mountinfo").output().unwrap();
                assert!(String::from_utf8_lossy(&listed.stdout).contains(inner.to_str().unwrap()), "programs are inside");
            });
            assert!(!sees(&inner), "it stays inside");
            assert!(sees(&share), "the rest is everybody's");
            // As after the end of the first one.
            process(|| {
                assert!(!enter(&pin, &run).unwrap(), "it is found again");
                assert!(sees(&inner) && sees(&share));
            });
            unmount(&share).unwrap();
            let late = dir.join("late");
            tmpfs(&late);
            process(|| {
                enter(&pin, &run).unwrap();
                assert!(!sees(&share), "what is unmounted outside is gone inside");
                assert!(sees(&late), "what is mounted outside later is there");
            });
            unmount(&late).unwrap();
            unmount(&pin).unwrap();
        });
    }

    #[test]
    fn with_its_pin_go_its_mounts_and_what_they_hold() {
        on_node(|dir| {
            let (pin, run, image) = (dir.join("run/agent.mnt"), dir.join("run"), dir.join("disk.img"));
            File::create(&image).unwrap().set_len(16 << 20).unwrap();
            assert!(Command::new("/usr/sbin/mkfs.ext4").args(["-q", "-F"]).arg(&image).status().unwrap().success());
            let file = File::options().read(true).write(true).open(&image).unwrap();
            let device = loopdev::attach(&file, loopdev::Options::default()).unwrap().device.path;
            process(|| {
                enter(&pin, &run).unwrap();
                let (source, target) = (device.to_str().unwrap(), run.join("disk"));
                let target = target.to_str().unwrap();
                Mount { source, target, fstype: "ext4", flags: MsFlags::empty(), data: "" }.mount().unwrap();
                fs::write(format!("{target}/note"), "kept").unwrap();
            });
            unmount(&pin).unwrap();
            loopdev::detach(&device, Duration::ZERO).unwrap();
            let state = Command::new("/usr/sbin/dumpe2fs").arg("-h").arg(&image).output().unwrap();
            let state = String::from_utf8_lossy(&state.stdout);
            assert!(!state.contains("needs_recovery"), "it was unmounted, not cut off: {state}");
        });
    }

    #[test]
    fn what_cannot_be_made_leaves_no_pin() {
        on_node(|dir| {
            let pin = dir.join("run/agent.mnt");
            // No mount point: its propagation cannot be changed.
            let error = format!("{:#}", enter(&pin, &dir.join("nothing")).unwrap_err());
            assert!(error.contains("agent.mnt") && error.contains("nothing"), "{error}");
            assert!(!is_pinned(&pin));
        });
    }
}
