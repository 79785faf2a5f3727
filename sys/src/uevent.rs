//! The kernel's news of devices that come, go or change (kernel, lib/kobject_uevent.c), to wait for a mended cable or disk.

use std::{
    os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::socket::{AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, socket},
};

/// The multicast group that the kernel itself sends to; udev has another one.
const KERNEL: u32 = 1;
const LONGEST: usize = 8 << 10;

/// Hears of devices from when it is opened.
#[derive(Debug)]
pub struct Uevents(OwnedFd);

impl Uevents {
    /// Listen.
    pub fn open() -> Result<Self> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let fd = socket(AddressFamily::Netlink, SockType::Raw, flags, SockProtocol::NetlinkKObjectUEvent)
            .context("making a socket for device events")?;
        bind(fd.as_raw_fd(), &NetlinkAddr::new(0, KERNEL)).context("listening for device events")?;
        Ok(Self(fd))
    }

    /// Wait until a disk or a network interface changes, at most this long; whether one did.
    pub fn wait(&self, limit: Duration) -> Result<bool> {
        let end = Instant::now() + limit;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
            match poll(&mut [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)], timeout) {
                Ok(0) if left.is_zero() || timeout != PollTimeout::MAX => return Ok(false),
                Ok(_) | Err(Errno::EINTR) => {}
                Err(error) => return Err(error).context("waiting for device events"),
            }
            if self.heard()? {
                return Ok(true);
            }
        }
    }

    /// Take all events that wait; whether a disk or a network interface changed among them.
    pub fn heard(&self) -> Result<bool> {
        let mut message = [0; LONGEST];
        let mut news = false;
        loop {
            match recv(self.0.as_raw_fd(), &mut message, MsgFlags::empty()) {
                Ok(length) => news |= is_news(message.get(..length).unwrap_or_default()),
                // Events were lost: one of them may have been the one.
                Err(Errno::ENOBUFS) => news = true,
                Err(Errno::EAGAIN) => return Ok(news),
                Err(Errno::EINTR) => {}
                Err(error) => return Err(error).context("reading a device event"),
            }
        }
    }
}

impl Uevents {
    /// The next event, for an event loop; `None` when none waits. Lost events count as one that says nothing.
    pub fn next(&self) -> Result<Option<Uevent>> {
        let mut message = [0; LONGEST];
        loop {
            return match recv(self.0.as_raw_fd(), &mut message, MsgFlags::empty()) {
                Ok(length) => Ok(Some(parse(message.get(..length).unwrap_or_default()))),
                Err(Errno::ENOBUFS) => Ok(Some(Uevent::default())),
                Err(Errno::EAGAIN) => Ok(None),
                Err(Errno::EINTR) => continue,
                Err(error) => Err(error).context("reading a device event"),
            };
        }
    }
}

impl AsFd for Uevents {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// What the kernel said of one device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Uevent {
    /// `add`, `remove`, `change`…
    pub action: String,
    /// By which a driver is found, where the device has one.
    pub modalias: Option<String>,
}

fn parse(message: &[u8]) -> Uevent {
    let mut event = Uevent::default();
    for field in message.split(|byte| *byte == 0) {
        match String::from_utf8_lossy(field).split_once('=') {
            Some(("ACTION", value)) => event.action = value.to_owned(),
            Some(("MODALIAS", value)) => event.modalias = Some(value.to_owned()),
            _ => {}
        }
    }
    event
}

/// `ACTION@PATH`, then `KEY=VALUE` fields, each ended by NUL.
fn is_news(message: &[u8]) -> bool {
    let mut fields = message.split(|byte| *byte == 0);
    fields.any(|field| matches!(field, b"SUBSYSTEM=block" | b"SUBSYSTEM=net"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn disks_and_links_are_news() {
        assert!(is_news(b"add@/devices/x\0ACTION=add\0SUBSYSTEM=block\0SEQNUM=1\0"));
        assert!(!is_news(b"add@/devices/x\0ACTION=add\0SUBSYSTEM=input\0"));
    }

    #[test]
    fn an_event_is_read() {
        let event = parse(b"add@/devices/pci0\0ACTION=add\0SUBSYSTEM=pci\0MODALIAS=pci:v00001AF4d00001041\0SEQNUM=7\0");
        assert_eq!(event, Uevent { action: "add".into(), modalias: Some("pci:v00001AF4d00001041".into()) });
        assert_eq!(parse(b"\xff\0=\0"), Uevent::default());
    }

    #[test]
    fn without_news_the_wait_ends_in_time() {
        let start = Instant::now();
        Uevents::open().unwrap().wait(Duration::from_millis(50)).unwrap();
        assert!(start.elapsed() < Duration::from_secs(5));
    }
}
