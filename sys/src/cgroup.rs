//! cgroup v2 (kernel, Documentation/admin-guide/cgroup-v2.rst): a group a service, so that none of its processes outlives it.

use std::{
    fs::{self, File, OpenOptions},
    io::{ErrorKind, Read as _},
    os::fd::AsFd as _,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use nix::{
    errno::Errno,
    libc,
    poll::{PollFd, PollFlags, PollTimeout, poll},
};

/// Where cgroup v2 is mounted.
pub const ROOT: &str = "/sys/fs/cgroup";

/// A control group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cgroup {
    path: PathBuf,
}

impl Cgroup {
    /// Make the group (a path below the root) unless it is there.
    pub fn ensure(name: &str) -> Result<Self> {
        let path = Path::new(ROOT).join(name);
        fs::create_dir_all(&path).with_context(|| format!("making {}", path.display()))?;
        Ok(Self { path })
    }

    /// The group at this directory, whether it is there or not.
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// Whether it is there.
    pub fn exists(&self) -> bool {
        self.path.exists()
    }

    /// A file of the group, without the end of its line; `None` where the group or the file is not there.
    pub fn read(&self, file: &str) -> Result<Option<String>> {
        let path = self.path.join(file);
        match fs::read_to_string(&path) {
            Ok(text) => Ok(Some(text.trim_end().to_owned())),
            // A group that is removed while it is read says ENODEV.
            Err(error) if error.kind() == ErrorKind::NotFound || error.raw_os_error() == Some(libc::ENODEV) => Ok(None),
            Err(error) => Err(error).with_context(|| format!("reading {}", path.display())),
        }
    }

    /// The value of a key in a file of lines `KEY VALUE`, as `memory.events`.
    pub fn read_key(&self, file: &str, key: &str) -> Result<Option<u64>> {
        let text = self.read(file)?.unwrap_or_default();
        let value = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' '));
        Ok(value.and_then(|value| value.trim().parse().ok()))
    }

    /// Set a file of the group.
    pub fn write(&self, file: &str, value: &str) -> Result<()> {
        let path = self.path.join(file);
        fs::write(&path, value).with_context(|| format!("writing {value} to {}", path.display()))
    }

    /// Processes in the group and below it.
    pub fn count(&self) -> Result<usize> {
        let mut count = self.processes()?.len();
        for below in self.below()? {
            count += below.count()?;
        }
        Ok(count)
    }

    fn below(&self) -> Result<Vec<Self>> {
        let entries = match fs::read_dir(&self.path) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error).with_context(|| format!("listing {}", self.path.display())),
        };
        let directories = entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        Ok(directories.map(|entry| Self::at(entry.path())).collect())
    }

    /// Wait until no process is in the group or below it; whether that came within the limit. A group that is not there is empty.
    pub fn wait_empty(&self, limit: Duration) -> Result<bool> {
        let path = self.path.join("cgroup.events");
        let end = Instant::now() + limit;
        loop {
            // Opened before it is read, so that no change in between is missed.
            let events = match File::open(&path) {
                Ok(events) => events,
                Err(error) if error.kind() == ErrorKind::NotFound => return Ok(true),
                Err(error) => return Err(error).with_context(|| format!("opening {}", path.display())),
            };
            if self.populated(&events)? != Some(true) {
                return Ok(true);
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(false);
            }
            let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
            match poll(&mut [PollFd::new(events.as_fd(), PollFlags::POLLPRI)], timeout) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(error) => return Err(error).with_context(|| format!("waiting for {}", path.display())),
            }
        }
    }

    fn populated(&self, mut events: &File) -> Result<Option<bool>> {
        let mut text = String::new();
        match events.read_to_string(&mut text) {
            Ok(_) => Ok(text.lines().find_map(|line| line.strip_prefix("populated ")).map(|value| value.trim() == "1")),
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(None),
            Err(error) => Err(error).with_context(|| format!("reading cgroup.events of {}", self.path.display())),
        }
    }

    /// Remove the group and all below it; they must be empty of processes. None there is fine.
    pub fn remove(&self) -> Result<()> {
        for below in self.below()? {
            below.remove()?;
        }
        match fs::remove_dir(&self.path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(error).with_context(|| format!("removing {}", self.path.display()))
            }
            _ => Ok(()),
        }
    }

    /// The descriptor by which a process enters the group.
    pub fn entrance(&self) -> Result<File> {
        let path = self.path.join("cgroup.procs");
        OpenOptions::new().write(true).open(&path).with_context(|| format!("opening {}", path.display()))
    }

    /// Let the groups below this one be given shares of these resources. Returns those that the kernel refuses.
    pub fn delegate(&self, controllers: &[&'static str]) -> Vec<&'static str> {
        let path = self.path.join("cgroup.subtree_control");
        controllers.iter().copied().filter(|name| fs::write(&path, format!("+{name}")).is_err()).collect()
    }

    /// Processes in the group itself.
    pub fn processes(&self) -> Result<Vec<i32>> {
        let path = self.path.join("cgroup.procs");
        match fs::read_to_string(&path) {
            Ok(text) => Ok(text.lines().filter_map(|line| line.parse().ok()).collect()),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(error).with_context(|| format!("reading {}", path.display())),
        }
    }

    /// Processes in the group and below it.
    pub fn all_processes(&self) -> Result<Vec<i32>> {
        let mut all = self.processes()?;
        for below in self.below()? {
            all.extend(below.all_processes()?);
        }
        Ok(all)
    }

    /// SIGKILL to every process in the group and below it, at once.
    pub fn kill(&self) -> Result<()> {
        let path = self.path.join("cgroup.kill");
        match fs::write(&path, "1") {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(error).with_context(|| format!("writing {}", path.display()))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    /// A hierarchy to try things in: the only one, or the one beside the older kind. It needs root.
    fn group(name: &str) -> Option<Cgroup> {
        let mounts = crate::mount::mounts().unwrap();
        let root = &mounts.iter().find(|mount| mount.fstype == "cgroup2")?.target;
        let group = Cgroup::at(root.join(format!("lodge-test-{name}-{}", std::process::id())));
        fs::create_dir(&group.path).ok()?;
        Some(group)
    }

    #[test]
    fn a_group_is_killed_waited_for_and_removed_with_all_below_it() {
        let Some(group) = group("kill") else { return };
        let below = Cgroup::at(group.path.join("a/b"));
        fs::create_dir_all(&below.path).unwrap();
        let mut child = Command::new("/bin/sleep").arg("60").spawn().unwrap();
        below.write("cgroup.procs", &child.id().to_string()).unwrap();
        assert_eq!((group.count().unwrap(), group.processes().unwrap().len()), (1, 0));
        assert_eq!(group.read_key("cgroup.events", "populated").unwrap(), Some(1));
        assert!(!group.wait_empty(Duration::from_millis(50)).unwrap());
        assert!(format!("{:#}", group.remove().unwrap_err()).contains("removing"));
        group.kill().unwrap();
        assert!(group.wait_empty(Duration::from_secs(10)).unwrap());
        child.wait().unwrap();
        group.remove().unwrap();
        group.remove().unwrap();
        assert!(!group.exists() && group.wait_empty(Duration::ZERO).unwrap() && group.count().unwrap() == 0);
        assert_eq!(group.read("cgroup.events").unwrap(), None);
    }
}
