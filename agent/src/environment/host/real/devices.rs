//! The node's devices, for processes that go on here to be given.
//!
//! Those below `/dev` itself cannot be: what is forbidden of a mount (there set-id marks and programs) stays forbidden of a mount of it that an
//! environment is given, and criu makes the mounts of the container engine again as they were, with nothing forbidden. So each is bound where
//! nothing is forbidden, as long as criu works.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use lodge_sys::mount::{MsFlags, bind, remount, unmount};

use crate::environment::live::arguments::{self, CONSOLE};

/// What is shown. Whatever is cut short goes with the other mounts of the environment.
pub(super) struct Devices {
    dir: PathBuf,
    shown: Vec<PathBuf>,
}

impl Devices {
    /// Show those that are mounted there; `console` is its console's other end on this node.
    pub(super) fn show(dir: PathBuf, mounts: &[String], console: &Path) -> Result<Self> {
        let mut devices = Self { dir, shown: Vec::new() };
        for name in arguments::devices(mounts) {
            let below_dev = Path::new(arguments::DEV).join(name);
            let (from, to) = (if below_dev == Path::new(CONSOLE) { console } else { &below_dev }, devices.dir.join(name));
            // criu finds its way to them as the environment's own root.
            let make = || -> std::io::Result<()> {
                if let Some(above) = to.parent() {
                    fs::create_dir_all(above)?;
                    fs::set_permissions(above, fs::Permissions::from_mode(0o711))?;
                }
                fs::File::create(&to).map(drop)
            };
            make().with_context(|| format!("making {}", to.display()))?;
            bind(from, &to)?;
            devices.shown.push(to.clone());
            remount(&to, MsFlags::MS_BIND)?;
        }
        Ok(devices)
    }

    /// Where each is to be found.
    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// What an environment was given of them are mounts of its own.
    pub(super) fn hide(self) -> Result<()> {
        self.shown.iter().try_for_each(|shown| unmount(shown))?;
        fs::remove_dir_all(&self.dir).with_context(|| format!("removing {}", self.dir.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lodge_sys::mount::mounts;
    use nix::sched::{CloneFlags, unshare};
    use nix::sys::statvfs::{FsFlags, statvfs};

    #[test]
    fn devices_are_shown_with_nothing_forbidden_and_hidden_again() {
        if !nix::unistd::geteuid().is_root() {
            return;
        }
        let test = || {
            unshare(CloneFlags::CLONE_NEWNS).unwrap();
            nix::mount::mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>).unwrap();
            let dir = tempfile::tempdir().unwrap();
            let dev = dir.path().join("dev");
            fs::create_dir(&dev).unwrap();
            // As `/dev` of a node is.
            let flags = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
            nix::mount::mount(Some("tmpfs"), &dev, Some("tmpfs"), flags, None::<&str>).unwrap();
            fs::write(dev.join("pts4"), "").unwrap();
            let mounts_inside = ["/dev/console", "/dev/null", "/proc/stat"].map(str::to_owned);
            let shown = Devices::show(dir.path().join("shown"), &mounts_inside, &dev.join("pts4")).unwrap();
            for name in ["console", "null"] {
                let flags = statvfs(&shown.dir().join(name)).unwrap().flags();
                assert!(!flags.intersects(FsFlags::ST_NOSUID | FsFlags::ST_NOEXEC), "{name}: {flags:?}");
            }
            assert!(!shown.dir().join("stat").exists());
            fs::write(shown.dir().join("null"), "nothing").unwrap();
            let at = shown.dir().to_owned();
            shown.hide().unwrap();
            assert!(!at.exists() && dev.join("pts4").exists());
            assert!(mounts().unwrap().iter().all(|mount| !mount.target.starts_with(&at)));
        };
        std::thread::scope(|scope| scope.spawn(test).join()).unwrap();
    }
}
