//! epoll with names instead of numbers.

use std::{os::fd::AsFd, time::Duration};

use anyhow::{Context as _, Result};
use nix::{
    errno::Errno,
    sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout},
};

/// Something that can be waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// A signal.
    Signals,
    /// Somebody calls on the socket.
    Listener,
    /// A caller says something, or can be told more.
    Client(u32),
    /// A child process says something.
    Output(u32),
    /// A path appeared that a service's readiness may hang on.
    ReadyPaths,
    /// An input device came.
    InputDevices,
    /// A power button was pressed.
    Button(u32),
    /// The kernel tells of a device.
    Devices,
    /// Somebody types at a console.
    Console(u32),
}

/// What is waited for.
#[derive(Debug)]
pub struct Poller(Epoll);

impl Poller {
    /// Nothing yet.
    pub fn new() -> Result<Self> {
        Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).map(Self).context("opening an epoll")
    }

    /// From now on.
    pub fn add(&self, fd: impl AsFd, source: Source) -> Result<()> {
        self.0.add(fd, EpollEvent::new(EpollFlags::EPOLLIN, source.token())).with_context(|| format!("waiting for {source:?}"))
    }

    /// Whether room for writing is waited for too.
    pub fn want_room(&self, fd: impl AsFd, source: Source, wanted: bool) -> Result<()> {
        let flags = if wanted { EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT } else { EpollFlags::EPOLLIN };
        self.0.modify(fd, &mut EpollEvent::new(flags, source.token())).with_context(|| format!("waiting for {source:?}"))
    }

    /// No longer. Closing a descriptor does the same.
    pub fn remove(&self, fd: impl AsFd) {
        // It may be gone already; then there is nothing to remove.
        let _ = self.0.delete(fd);
    }

    /// Wait until something happens or the time is over.
    pub fn wait(&self, limit: Duration) -> Result<Vec<Source>> {
        let mut events = [EpollEvent::empty(); 32];
        // One more millisecond than asked for: a wait that ends just before its deadline would be repeated with nothing to do.
        let limit = EpollTimeout::try_from(limit + Duration::from_millis(1)).unwrap_or(EpollTimeout::MAX);
        match self.0.wait(&mut events, limit) {
            Ok(count) => Ok(events.iter().take(count).filter_map(|event| Source::from_token(event.data())).collect()),
            Err(Errno::EINTR) => Ok(Vec::new()),
            Err(error) => Err(error).context("waiting for events"),
        }
    }
}

impl Source {
    fn token(self) -> u64 {
        let (kind, id) = match self {
            Source::Signals => (0, 0),
            Source::Listener => (1, 0),
            Source::Client(id) => (2, id),
            Source::Output(id) => (3, id),
            Source::ReadyPaths => (4, 0),
            Source::InputDevices => (5, 0),
            Source::Button(id) => (6, id),
            Source::Devices => (7, 0),
            Source::Console(id) => (8, id),
        };
        kind << 32 | u64::from(id)
    }

    fn from_token(token: u64) -> Option<Self> {
        let id = (token & u64::from(u32::MAX)) as u32;
        Some(match token >> 32 {
            0 => Source::Signals,
            1 => Source::Listener,
            2 => Source::Client(id),
            3 => Source::Output(id),
            4 => Source::ReadyPaths,
            5 => Source::InputDevices,
            6 => Source::Button(id),
            7 => Source::Devices,
            8 => Source::Console(id),
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_source_survives_its_token() {
        for source in [
            Source::Signals,
            Source::Listener,
            Source::Client(7),
            Source::Output(u32::MAX),
            Source::ReadyPaths,
            Source::InputDevices,
            Source::Button(1),
            Source::Devices,
            Source::Console(2),
        ] {
            assert_eq!(Source::from_token(source.token()), Some(source));
        }
    }
}
