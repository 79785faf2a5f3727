//! A mount that ends with its value, so that no error leaves one behind.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use lodge_sys::mount::{self, Mount, MsFlags};

/// Everything the installer mounts is below here.
const DIR: &str = "/run/lodge/install";

/// A mounted file system.
#[derive(Debug)]
pub struct Mounted {
    dir: PathBuf,
}

impl Mounted {
    /// Mount a device below our directory, under this name.
    pub fn mount(device: &Path, name: &str, fstype: &str, flags: MsFlags, data: &str) -> Result<Self> {
        let dir = format!("{DIR}/{name}");
        let source = device.to_str().context("naming a device")?;
        // Left by an installer that was killed.
        if mount::is_mounted(Path::new(&dir)).unwrap_or(false) {
            mount::detach(Path::new(&dir))?;
        }
        Mount { source, target: &dir, fstype, flags, data }.mount()?;
        Ok(Self { dir: dir.into() })
    }

    /// Mount to look only; nothing is written to the device, not even a journal.
    pub fn look(device: &Path, name: &str, fstype: &str) -> Result<Self> {
        let data = if fstype == "ext4" { "noload" } else { "" };
        Self::mount(
            device,
            name,
            fstype,
            MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC,
            data,
        )
    }

    /// Its root.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Unmount and say whether it went well: only then everything is on the disk.
    pub fn unmount(self) -> Result<()> {
        let result = mount::unmount(&self.dir);
        if result.is_ok() {
            std::mem::forget(self);
        }
        result
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if mount::unmount(&self.dir).is_err() {
            // Somebody is still in it; it ends when they leave.
            let _ = mount::detach(&self.dir);
        }
    }
}
