//! Signals as a descriptor, so that an event loop reads them like everything else.

use std::os::fd::{AsFd, BorrowedFd};

use anyhow::{Context as _, Result};
pub use nix::sys::signal::Signal;
use nix::sys::{
    signal::SigSet,
    signalfd::{SfdFlags, SignalFd},
};

/// Blocked signals, waiting to be read.
#[derive(Debug)]
pub struct Signals(SignalFd);

impl Signals {
    /// From now on these signals do nothing but wait here. The calling thread must be the only one.
    pub fn block(signals: &[Signal]) -> Result<Self> {
        let set: SigSet = signals.iter().copied().collect();
        set.thread_block().context("blocking signals")?;
        let fd = SignalFd::with_flags(&set, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC).context("opening a signalfd")?;
        Ok(Self(fd))
    }

    /// The next one; `None` when none waits.
    pub fn next(&self) -> Result<Option<Signal>> {
        let info = self.0.read_signal().context("reading a signal")?;
        info.map(|info| Signal::try_from(info.ssi_signo.cast_signed()).context("reading a signal's number")).transpose()
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
