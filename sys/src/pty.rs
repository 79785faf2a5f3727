//! Terminals in the hands of others: their descriptors sent over Unix sockets (unix(7), `SCM_RIGHTS`), and their sizes.

use std::ffi::OsString;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt as _;
use std::path::PathBuf;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, recvmsg,
    sendmsg,
};
use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

/// Receive one descriptor, as container engines send a console's (`--console-socket`): one message with one descriptor and some bytes
/// that mean nothing. `WouldBlock` on a socket whose reads return at once and that has no message.
pub fn receive(socket: impl AsFd) -> io::Result<OwnedFd> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut bytes = [0; 4096];
    let received = recvmsg(socket, &mut [IoSliceMut::new(&mut bytes)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
    let descriptor = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
        _ => None,
    });
    descriptor.ok_or_else(|| match received.bytes {
        0 => io::Error::new(io::ErrorKind::UnexpectedEof, "the other side hung up before it sent a descriptor"),
        _ => io::Error::new(io::ErrorKind::InvalidData, "a message without a descriptor"),
    })
}

/// Send one descriptor.
pub fn send(socket: impl AsFd, descriptor: impl AsFd) -> io::Result<()> {
    let descriptors = [descriptor.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !control.push(SendAncillaryMessage::ScmRights(&descriptors)) {
        return Err(io::Error::other("no room for a descriptor in a message"));
    }
    sendmsg(socket, &[IoSlice::new(b"console")], &mut control, SendFlags::empty())?;
    Ok(())
}

/// A new terminal of this machine: its master, and the name of its other end.
pub fn open() -> io::Result<(OwnedFd, PathBuf)> {
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
    grantpt(&master)?;
    unlockpt(&master)?;
    let name = ptsname(&master, Vec::new())?;
    Ok((master, PathBuf::from(OsString::from_vec(name.into_bytes()))))
}

/// Open the other end of a terminal by its master, wherever it is mounted (`TIOCGPTPEER`).
pub fn other_end(master: impl AsFd) -> io::Result<OwnedFd> {
    Ok(ioctl_tiocgptpeer(master, OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?)
}

/// Tell a terminal its size; its foreground processes get SIGWINCH.
pub fn resize(terminal: impl AsFd, columns: u16, rows: u16) -> io::Result<()> {
    tcsetwinsize(terminal, Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read as _, Write as _};
    use std::os::unix::net::UnixStream;

    #[test]
    fn a_descriptor_that_was_sent_is_the_same_pipe() {
        let (here, there) = UnixStream::pair().unwrap();
        let (mut reader, writer) = io::pipe().unwrap();
        send(&here, &writer).unwrap();
        drop(writer);
        let mut received = std::fs::File::from(receive(&there).unwrap());
        received.write_all(b"through").unwrap();
        drop(received);
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, "through");
    }

    #[test]
    fn whoever_sends_something_else_is_told_apart() {
        let (mut here, there) = UnixStream::pair().unwrap();
        here.write_all(b"text").unwrap();
        assert_eq!(receive(&there).unwrap_err().kind(), io::ErrorKind::InvalidData);
        there.set_nonblocking(true).unwrap();
        assert_eq!(receive(&there).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        drop(here);
        assert_eq!(receive(&there).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn a_terminal_knows_its_size() {
        let pty = nix::pty::openpty(None, None).unwrap();
        resize(&pty.master, 132, 43).unwrap();
        let size = rustix::termios::tcgetwinsize(&pty.slave).unwrap();
        assert_eq!((size.ws_col, size.ws_row), (132, 43));
    }

    #[test]
    fn both_ends_of_a_terminal_are_one() {
        let pty = nix::pty::openpty(None, None).unwrap();
        let other = other_end(&pty.master).unwrap();
        drop(pty.slave);
        nix::unistd::write(&other, b"still open\n").unwrap();
        let mut text = [0; 5];
        nix::unistd::read(&pty.master, &mut text).unwrap();
        assert_eq!(&text, b"still");
    }
}
