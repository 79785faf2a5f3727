//! The hardware watchdog (kernel, Documentation/watchdog/watchdog-api.rst): once open, the machine is reset unless it is fed.

use std::{
    fs::{File, OpenOptions},
    io::Write as _,
    os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd},
    time::Duration,
};

use anyhow::{Context as _, Result};

/// The first watchdog of the machine.
pub const DEVICE: &str = "/dev/watchdog0";

/// An armed watchdog.
#[derive(Debug)]
pub struct Watchdog {
    file: File,
}

impl Watchdog {
    /// Arm it. Returns it with the time limit that the hardware took, which may differ from the one asked for.
    pub fn arm(limit: Duration) -> Result<(Self, Duration)> {
        let file = OpenOptions::new().write(true).open(DEVICE).with_context(|| format!("opening {DEVICE}"))?;
        let watchdog = Self { file };
        let seconds = i32::try_from(limit.as_secs()).unwrap_or(i32::MAX);
        let taken = ioctl::set_timeout(watchdog.file.as_raw_fd(), seconds).context("setting the watchdog's time limit")?;
        watchdog.feed()?;
        Ok((watchdog, Duration::from_secs(u64::from(taken.unsigned_abs()))))
    }

    /// One that the program before this one armed and handed over.
    pub fn from_fd(fd: OwnedFd) -> Self {
        Self { file: File::from(fd) }
    }

    /// Start its time again.
    pub fn feed(&self) -> Result<()> {
        (&self.file).write_all(b"\0").context("feeding the watchdog")
    }

    /// Stop it, where the driver allows that (the "magic close").
    pub fn disarm(self) -> Result<()> {
        (&self.file).write_all(b"V").context("disarming the watchdog")
    }
}

impl AsFd for Watchdog {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

mod ioctl {
    //! WDIOC_SETTIMEOUT (linux/watchdog.h).
    #![expect(unsafe_code, reason = "ioctl(2)")]
    use std::os::fd::RawFd;

    nix::ioctl_readwrite!(settimeout, b'W', 6, nix::libc::c_int);

    pub fn set_timeout(fd: RawFd, seconds: i32) -> nix::Result<i32> {
        let mut seconds = seconds;
        // SAFETY: the kernel reads and writes one int, which we own for the call.
        unsafe { settimeout(fd, &raw mut seconds) }?;
        Ok(seconds)
    }
}
