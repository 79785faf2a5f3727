//! One port: the bytes that wait on it in both directions, and the cutting of a stream into frames.

use std::{
    collections::VecDeque,
    io::{ErrorKind, Read as _, Write as _},
    os::unix::net::{UnixListener, UnixStream},
};

use super::Cut;

/// A machine that does not read may have this many bytes waiting, about a TCP window of several connections; then it loses frames.
const WAITING_MAX: usize = 4 << 20;
/// Longer than any Ethernet frame QEMU sends without offloads that this transport cannot carry.
const FRAME_MAX: usize = 128 << 10;

/// A port.
pub struct Port {
    /// Name of the machine.
    pub name: String,
    /// Where its QEMU connects.
    pub listener: UnixListener,
    /// Its QEMU, while there is one.
    pub stream: Option<UnixStream>,
    /// What is wrong with its cable.
    pub cut: Option<Cut>,
    incoming: Vec<u8>,
    outgoing: VecDeque<u8>,
}

impl Port {
    /// A port that nothing is plugged into.
    pub fn new(name: String, listener: UnixListener) -> std::io::Result<Self> {
        listener.set_nonblocking(true)?;
        Ok(Self { name, listener, stream: None, cut: None, incoming: Vec::new(), outgoing: VecDeque::new() })
    }

    /// Plug in what connects, in place of what was there.
    pub fn accept(&mut self) {
        if let Ok((stream, _)) = self.listener.accept()
            && stream.set_nonblocking(true).is_ok()
        {
            self.unplug();
            self.stream = Some(stream);
        }
    }

    /// Whether bytes wait to be written.
    pub fn has_outgoing(&self) -> bool {
        !self.outgoing.is_empty()
    }

    /// Read what is there and return its whole frames; a port at its end is unplugged.
    pub fn read(&mut self) -> Vec<Vec<u8>> {
        let mut buffer = vec![0; 256 << 10];
        match self.stream.as_mut().map(|stream| stream.read(&mut buffer)) {
            Some(Ok(length)) if length > 0 => self.incoming.extend_from_slice(&buffer[..length]),
            Some(Err(error)) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            _ => self.unplug(),
        }
        match take_frames(&mut self.incoming) {
            Some(frames) if !matches!(self.cut, Some(Cut::Both | Cut::FromMachine)) => frames,
            Some(_) => Vec::new(),
            None => {
                self.unplug();
                Vec::new()
            }
        }
    }

    /// Queue a frame for the machine; lost when the cable is cut, nothing is plugged in or too much waits.
    pub fn send(&mut self, frame: &[u8]) {
        let full = self.outgoing.len() + frame.len() > WAITING_MAX;
        if self.stream.is_none() || full || matches!(self.cut, Some(Cut::Both | Cut::ToMachine)) {
            return;
        }
        let Ok(length) = u32::try_from(frame.len()) else { return };
        self.outgoing.extend(length.to_be_bytes());
        self.outgoing.extend(frame);
    }

    /// Write as much as the machine takes.
    pub fn flush(&mut self) {
        while let Some(stream) = self.stream.as_mut()
            && !self.outgoing.is_empty()
        {
            match stream.write(self.outgoing.as_slices().0) {
                Ok(length) if length > 0 => drop(self.outgoing.drain(..length)),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => return,
                _ => self.unplug(),
            }
        }
    }

    fn unplug(&mut self) {
        self.stream = None;
        self.incoming.clear();
        self.outgoing.clear();
    }
}

/// Cut the whole frames off the front; `None` when the stream cannot be one of frames.
fn take_frames(bytes: &mut Vec<u8>) -> Option<Vec<Vec<u8>>> {
    let mut frames = Vec::new();
    let mut at = 0;
    while let Some(head) = bytes.get(at..at + 4) {
        let length = u32::from_be_bytes(head.try_into().ok()?) as usize;
        if length > FRAME_MAX {
            return None;
        }
        let Some(frame) = bytes.get(at + 4..at + 4 + length) else { break };
        frames.push(frame.to_vec());
        at += 4 + length;
    }
    bytes.drain(..at);
    Some(frames)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn frames_survive_any_cutting_of_the_stream(
            frames in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 0..8),
            step in 1usize..50,
        ) {
            let mut stream = Vec::new();
            for frame in &frames {
                stream.extend((frame.len() as u32).to_be_bytes());
                stream.extend(frame);
            }
            let (mut waiting, mut read) = (Vec::new(), Vec::new());
            for piece in stream.chunks(step) {
                waiting.extend_from_slice(piece);
                read.extend(take_frames(&mut waiting).unwrap());
            }
            prop_assert_eq!(read, frames);
            prop_assert!(waiting.is_empty());
        }
    }

    #[test]
    fn a_stream_that_is_none_of_frames_is_refused() {
        assert_eq!(take_frames(&mut vec![0xff; 64]), None);
    }
}
