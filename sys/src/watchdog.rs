//! The hardware watchdog (kernel, Documentation/watchdog/watchdog-api.rst): once open, the machine is reset unless it is fed.

use std::{
    fs::{File, OpenOptions},
    io::Write as _,
    os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd},
    path::Path,
    time::Duration,
};

use anyhow::{Context as _, Result};

/// The first watchdog of the machine.
pub const DEVICE: &str = "/dev/watchdog0";

/// What the kernel says of that watchdog (Documentation/ABI/testing/sysfs-class-watchdog).
const SYSFS: &str = "/sys/class/watchdog/watchdog0";

/// How a watchdog stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// What its driver calls itself.
    pub identity: String,
    /// From the last feeding to the reset.
    pub timeout: Duration,
    /// It is armed.
    pub is_armed: bool,
    /// It is the kernel's own timer, which hangs when the kernel does.
    pub is_soft: bool,
}

/// How the first watchdog of the machine stands; nothing where there is none.
pub fn status() -> Result<Option<Status>> {
    status_in(Path::new(SYSFS))
}

fn status_in(dir: &Path) -> Result<Option<Status>> {
    if !dir.exists() {
        return Ok(None);
    }
    let read = |name: &str| {
        let path = dir.join(name);
        let text = std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
        anyhow::Ok(text.trim().to_owned())
    };
    let identity = read("identity")?;
    let seconds: u64 = read("timeout")?.parse().context("reading the watchdog's time limit")?;
    let is_soft = identity == SOFT_IDENTITY;
    Ok(Some(Status { identity, timeout: Duration::from_secs(seconds), is_armed: read("state")? == "active", is_soft }))
}

/// What the kernel's softdog calls itself.
const SOFT_IDENTITY: &str = "Software Watchdog";

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watchdog_says_what_it_is_and_whether_it_is_armed() {
        let dir = tempfile::tempdir().unwrap();
        let device = dir.path().join("watchdog0");
        assert_eq!(status_in(&device).unwrap(), None);
        std::fs::create_dir(&device).unwrap();
        let write = |name: &str, text: &str| std::fs::write(device.join(name), text).unwrap();
        for (name, text) in [("identity", "i6300ESB timer\n"), ("timeout", "60\n"), ("state", "active\n")] {
            write(name, text);
        }
        let status = status_in(&device).unwrap().unwrap();
        assert_eq!((status.identity.as_str(), status.timeout.as_secs(), status.is_armed), ("i6300ESB timer", 60, true));
        assert!(!status.is_soft);
        write("identity", "Software Watchdog\n");
        write("state", "inactive\n");
        let status = status_in(&device).unwrap().unwrap();
        assert!(status.is_soft && !status.is_armed);
        write("timeout", "soon\n");
        assert!(status_in(&device).is_err());
    }
}
