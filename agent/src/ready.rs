//! Waiting until a descriptor that tokio has no type for can be read.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// A wait on a descriptor of our own, which stays open as long as this does.
pub struct Ready(AsyncFd<OwnedFd>);

impl Ready {
    /// Wait on what `fd` refers to. It must be one that reads of return at once (`O_NONBLOCK`).
    pub fn on(fd: impl AsFd) -> io::Result<Self> {
        let fd = fd.as_fd().try_clone_to_owned()?;
        // tokio deprecates it for types whose descriptor may change or close under it; an OwnedFd's cannot.
        #[expect(deprecated, reason = "the replacement is unsafe, and the agent has no unsafe code")]
        AsyncFd::with_interest(fd, Interest::READABLE).map(Self)
    }

    /// Return when there may be something to read. Read until `WouldBlock` before waiting again.
    pub async fn readable(&self) -> io::Result<()> {
        self.0.readable().await?.clear_ready();
        Ok(())
    }
}
