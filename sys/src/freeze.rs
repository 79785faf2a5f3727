//! Holding a file system still (FIFREEZE, linux/fs.h): everything that was written is on its device, and writers wait until it is thawed.
#![expect(unsafe_code, reason = "ioctl(2) has no safe wrapper")]

use std::{
    fs::File,
    os::fd::AsRawFd as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use nix::{errno::Errno, libc};

const FIFREEZE: libc::c_ulong = nix::request_code_readwrite!(b'X', 119, size_of::<libc::c_int>()) as libc::c_ulong;
const FITHAW: libc::c_ulong = nix::request_code_readwrite!(b'X', 120, size_of::<libc::c_int>()) as libc::c_ulong;

/// A file system that is held still; it goes on when this is dropped. A process that ends without dropping it leaves the file system
/// frozen: whoever comes after calls `thaw`.
#[derive(Debug)]
pub struct Frozen {
    root: File,
    path: PathBuf,
}

impl Frozen {
    /// Hold the file system that is mounted there still. Writes that go on are waited for.
    pub fn hold(path: &Path) -> Result<Self> {
        let root = File::open(path).with_context(|| format!("opening {}", path.display()))?;
        // SAFETY: FIFREEZE ignores its argument.
        Errno::result(unsafe { libc::ioctl(root.as_raw_fd(), FIFREEZE, 0) })
            .with_context(|| format!("freezing the file system at {}", path.display()))?;
        Ok(Self { root, path: path.to_owned() })
    }

    /// Let it go on, and say if that is refused.
    pub fn release(self) -> Result<()> {
        thaw_open(&self.root).map(drop).with_context(|| format!("thawing the file system at {}", self.path.display()))
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        // `release` tells of failures; here nobody can be told.
        let _ = thaw_open(&self.root);
    }
}

/// Let a file system go on; whether it had been held still.
pub fn thaw(path: &Path) -> Result<bool> {
    let root = File::open(path).with_context(|| format!("opening {}", path.display()))?;
    thaw_open(&root).with_context(|| format!("thawing the file system at {}", path.display()))
}

fn thaw_open(root: &File) -> Result<bool> {
    // SAFETY: FITHAW ignores its argument.
    match Errno::result(unsafe { libc::ioctl(root.as_raw_fd(), FITHAW, 0) }) {
        Ok(_) => Ok(true),
        Err(Errno::EINVAL) => Ok(false),
        Err(error) => Err(error.into()),
    }
}
