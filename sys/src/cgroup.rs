//! cgroup v2 (kernel, Documentation/admin-guide/cgroup-v2.rst): a group a service, so that none of its processes outlives it.

use std::{
    fs::{self, File, OpenOptions},
    io::ErrorKind,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

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
