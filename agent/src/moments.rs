//! When things happened in this boot, in seconds since the kernel started. One small file a moment below `/run`, so that a restart
//! of the agent neither forgets one nor records it twice, and so that `agent network` can add its own.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};
use lodge_model::api::Phase;
use lodge_model::node::BootFile;
use nix::time::{ClockId, clock_gettime};

/// Where the moments of this boot are.
pub const DIR: &str = "/run/lodge/moments";
/// The uplink has an address.
pub const NETWORK: &str = "network";
/// The agent started for the first time.
pub const AGENT: &str = "agent";
/// The center took the registration.
pub const REGISTERED: &str = "registered";
/// The share was proved for the first time.
pub const SHARE: &str = "share";
/// Everything was in order for the first time.
pub const READY: &str = "ready";

/// The moments of this boot.
#[derive(Clone, Debug)]
pub struct Moments {
    dir: PathBuf,
}

impl Moments {
    /// Kept in this directory, which must be empty after a boot.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into() }
    }

    /// Record that it happens now, unless it happened before; whether it was the first time.
    pub fn record(&self, name: &str) -> Result<bool> {
        let path = self.dir.join(name);
        fs::create_dir_all(&self.dir).with_context(|| format!("making {}", self.dir.display()))?;
        match OpenOptions::new().write(true).create_new(true).open(&path) {
            Ok(mut file) => {
                let now = since_boot().as_secs_f64();
                write!(file, "{now:.6}").with_context(|| format!("writing {}", path.display()))?;
                Ok(true)
            }
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(false),
            Err(error) => Err(error).with_context(|| format!("making {}", path.display())),
        }
    }

    /// All of them and the initrd's two, in the order they happened.
    pub fn phases(&self, boot: &BootFile) -> Vec<Phase> {
        let mut phases = vec![
            Phase { name: "init".into(), at: boot.init_at },
            Phase { name: "switch-root".into(), at: boot.switch_root_at },
        ];
        phases.extend(read(&self.dir).unwrap_or_default());
        phases.sort_by(|one, other| one.at.total_cmp(&other.at));
        phases
    }
}

/// Time since the kernel started.
pub fn since_boot() -> Duration {
    clock_gettime(ClockId::CLOCK_BOOTTIME).map(Duration::from).unwrap_or_default()
}

fn read(dir: &Path) -> Result<Vec<Phase>> {
    let mut phases = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let at = fs::read_to_string(entry.path())?.parse();
        phases.extend(at.ok().map(|at| Phase { name: entry.file_name().to_string_lossy().into_owned(), at }));
    }
    Ok(phases)
}

#[cfg(test)]
mod tests {
    use super::*;
    use lodge_model::layout::Slot;

    #[test]
    fn a_moment_is_recorded_once_and_listed_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let moments = Moments::new(dir.path().join("moments"));
        assert!(moments.record(NETWORK).unwrap());
        assert!(moments.record(AGENT).unwrap());
        assert!(!moments.record(AGENT).unwrap());
        let boot = BootFile { version: "1".into(), slot: Slot::A, disk: "vda".into(), init_at: 0.001, switch_root_at: 0.002 };
        let names: Vec<String> = moments.phases(&boot).into_iter().map(|phase| phase.name).collect();
        assert_eq!(names, ["init", "switch-root", "network", "agent"]);
    }
}
