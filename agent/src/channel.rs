//! Pipes and terminals in tokio's loop: byte streams whose descriptor somebody else gave, read and written without threads.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::unistd;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// One end of a pipe, or a terminal's master.
#[derive(Debug)]
pub struct Channel(AsyncFd<OwnedFd>);

impl Channel {
    /// Take a descriptor over. Its reads and writes return at once from now on, for whoever else has the same open file too.
    pub fn new(descriptor: OwnedFd, interest: Interest) -> io::Result<Self> {
        lodge_sys::process::set_nonblocking(&descriptor).map_err(io::Error::other)?;
        // tokio deprecates it for types whose descriptor may change or close under it; an OwnedFd's cannot.
        #[expect(deprecated, reason = "the replacement is unsafe, and the agent has no unsafe code")]
        AsyncFd::with_interest(descriptor, interest).map(Self)
    }

    /// Read some; 0 is the end. What has been read is never lost when this is cancelled.
    pub async fn read(&self, into: &mut [u8]) -> io::Result<usize> {
        self.0.async_io(Interest::READABLE, |descriptor| read(descriptor, into)).await
    }

    /// What can be read without waiting: `None` when that is nothing.
    pub fn read_now(&self, into: &mut [u8]) -> io::Result<Option<usize>> {
        match read(self.0.get_ref(), into) {
            Ok(read) => Ok(Some(read)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Write all of it, as fast as the other side takes it.
    pub async fn write_all(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let write = |descriptor: &OwnedFd| unistd::write(descriptor, bytes).map_err(Into::into);
            let written = self.0.async_io(Interest::WRITABLE, write).await?;
            bytes = bytes.get(written..).unwrap_or_default();
        }
        Ok(())
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.get_ref().as_fd()
    }
}

/// A terminal's master says EIO when nobody has the terminal open any more: that is its end.
fn read(descriptor: &OwnedFd, into: &mut [u8]) -> io::Result<usize> {
    match unistd::read(descriptor, into) {
        Err(Errno::EIO) => Ok(0),
        other => other.map_err(Into::into),
    }
}
