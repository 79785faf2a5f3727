//! The switch's thread: one poll over all ports, frames from one to the others.

use std::{
    io::Read as _,
    os::{fd::AsFd as _, unix::net::UnixStream},
    sync::mpsc::{Receiver, TryRecvError},
};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
};

use super::{
    Control,
    learning::{PortId, Route, Table},
    pcap::Capture,
    port::Port,
};

/// Everything the thread owns.
pub struct Fabric {
    orders: Receiver<Control>,
    woken: UnixStream,
    ports: Vec<Port>,
    table: Table,
    capture: Option<Capture>,
}

/// What poll found at a port.
#[derive(Clone, Copy)]
struct Ready {
    plug: bool,
    frames: bool,
}

impl Fabric {
    /// A fabric without ports that obeys `orders` whenever `woken` has a byte.
    pub fn new(orders: Receiver<Control>, woken: UnixStream, capture: Option<Capture>) -> std::io::Result<Self> {
        woken.set_nonblocking(true)?;
        Ok(Self { orders, woken, ports: Vec::new(), table: Table::default(), capture })
    }

    /// Forward until told to stop.
    pub fn run(mut self) {
        loop {
            let Some(ready) = self.wait() else { return };
            if !self.obey() {
                return;
            }
            let plugged: Vec<bool> = self.ports.iter().map(|port| port.stream.is_some()).collect();
            for (port, ready) in ready.into_iter().enumerate() {
                if ready.plug {
                    self.ports[port].accept();
                }
                if ready.frames {
                    for frame in self.ports[port].read() {
                        self.forward(port, &frame);
                    }
                }
            }
            self.ports.iter_mut().for_each(Port::flush);
            for (port, was_plugged) in plugged.into_iter().enumerate() {
                if was_plugged && self.ports[port].stream.is_none() {
                    self.table.forget(port);
                }
            }
        }
    }

    /// Sleep until something is to be done; `None` when polling itself fails, which is the end of the switch.
    fn wait(&self) -> Option<Vec<Ready>> {
        let mut polled = vec![PollFd::new(self.woken.as_fd(), PollFlags::POLLIN)];
        for port in &self.ports {
            polled.push(PollFd::new(port.listener.as_fd(), PollFlags::POLLIN));
            if let Some(stream) = &port.stream {
                let write = if port.has_outgoing() { PollFlags::POLLOUT } else { PollFlags::empty() };
                polled.push(PollFd::new(stream.as_fd(), PollFlags::POLLIN | write));
            }
        }
        match poll(&mut polled, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(_) => return None,
        }
        let mut found = polled.iter().skip(1).map(|fd| fd.any() == Some(true));
        let ready = |port: &Port| Ready {
            plug: found.next() == Some(true),
            frames: port.stream.is_some() && found.next() == Some(true),
        };
        Some(self.ports.iter().map(ready).collect())
    }

    /// Carry out what was ordered; `false` to stop.
    fn obey(&mut self) -> bool {
        let mut bytes = [0; 64];
        while matches!(self.woken.read(&mut bytes), Ok(length) if length > 0) {}
        loop {
            match self.orders.try_recv() {
                Ok(Control::Add { name, listener }) => self.ports.extend(Port::new(name, listener)),
                Ok(Control::Cut { name, cut }) => {
                    self.ports.iter_mut().filter(|port| port.name == name).for_each(|port| port.cut = cut);
                }
                Ok(Control::Stop) | Err(TryRecvError::Disconnected) => return false,
                Err(TryRecvError::Empty) => return true,
            }
        }
    }

    fn forward(&mut self, from: PortId, frame: &[u8]) {
        if let Some(capture) = &mut self.capture
            && capture.write(frame).is_err()
        {
            self.capture = None;
        }
        match self.table.route(from, frame) {
            Route::Drop => {}
            Route::To(port) => self.ports[port].send(frame),
            Route::Flood => {
                let others = self.ports.iter_mut().enumerate().filter(|(port, _)| *port != from);
                others.for_each(|(_, port)| port.send(frame));
            }
        }
    }
}
