//! Drives of removable discs.

#![expect(unsafe_code, reason = "ioctl(2) CDROMEJECT has no wrapper in nix")]

use std::{
    fs::OpenOptions,
    os::{fd::AsRawFd as _, unix::fs::OpenOptionsExt as _},
    path::Path,
};

use anyhow::{Context as _, Result};

mod ioctl {
    // `linux/cdrom.h`.
    nix::ioctl_none_bad!(cdromeject, 0x5309);
}

/// Open the drive. It fails while the disc is mounted.
pub fn eject(drive: &Path) -> Result<()> {
    let opening = || format!("opening {}", drive.display());
    let drive = OpenOptions::new().read(true).custom_flags(nix::libc::O_NONBLOCK).open(drive).with_context(opening)?;
    // SAFETY: CDROMEJECT takes no argument.
    unsafe { ioctl::cdromeject(drive.as_raw_fd()) }.context("letting the disc out")?;
    Ok(())
}
