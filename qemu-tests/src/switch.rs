//! A learning layer-2 switch of our own, with cables that can be cut.
//!
//! A port is a unix stream socket that QEMU's `-netdev stream` connects to; a frame on it is a 4-byte big-endian length and the frame
//! (QEMU, net/stream.c). One thread forwards between all ports. A port whose machine does not read (it is paused) loses frames, as a
//! real one does, and never holds the others up.

use std::{
    fs::File,
    io::Write as _,
    os::unix::net::{UnixListener, UnixStream},
    path::Path,
    sync::{Mutex, PoisonError, mpsc},
    thread::JoinHandle,
};

use anyhow::{Context, Result};

mod fabric;
mod learning;
mod pcap;
mod port;

/// A running switch. It stops when it is dropped.
pub struct Switch {
    control: Mutex<mpsc::Sender<Control>>,
    wake: UnixStream,
    thread: Option<JoinHandle<()>>,
}

/// Which way a cut cable still carries nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// Neither way.
    Both,
    /// What the machine sends is lost.
    FromMachine,
    /// What is sent to the machine is lost.
    ToMachine,
}

enum Control {
    Add { name: String, listener: UnixListener },
    Cut { name: String, cut: Option<Cut> },
    Stop,
}

impl Switch {
    /// Start a switch without ports. With `capture` everything that enters it is written there, for Wireshark.
    pub fn start(capture: Option<&Path>) -> Result<Self> {
        let capture = match capture {
            Some(path) => {
                let file = File::create(path).with_context(|| format!("making {}", path.display()))?;
                Some(pcap::Capture::new(file).with_context(|| format!("writing {}", path.display()))?)
            }
            None => None,
        };
        let (control, orders) = mpsc::channel();
        let (wake, woken) = UnixStream::pair().context("making a socket pair")?;
        let fabric = fabric::Fabric::new(orders, woken, capture).context("setting up the switch")?;
        let thread =
            std::thread::Builder::new().name("switch".into()).spawn(move || fabric.run()).context("starting a thread")?;
        Ok(Self { control: Mutex::new(control), wake, thread: Some(thread) })
    }

    /// A port that the machine called `name` plugs into through this socket, again after each restart of its QEMU.
    pub fn add_port(&self, name: &str, listener: UnixListener) -> Result<()> {
        self.tell(Control::Add { name: name.to_owned(), listener })
    }

    /// Cut the cable of a machine.
    pub fn cut(&self, name: &str, cut: Cut) -> Result<()> {
        self.tell(Control::Cut { name: name.to_owned(), cut: Some(cut) })
    }

    /// Mend it.
    pub fn heal(&self, name: &str) -> Result<()> {
        self.tell(Control::Cut { name: name.to_owned(), cut: None })
    }

    fn tell(&self, control: Control) -> Result<()> {
        let sent = self.control.lock().unwrap_or_else(PoisonError::into_inner).send(control);
        sent.ok().context("the switch has stopped")?;
        (&self.wake).write_all(&[0]).context("waking the switch")
    }
}

impl Drop for Switch {
    fn drop(&mut self) {
        drop(self.tell(Control::Stop));
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

#[cfg(test)]
mod tests;
