//! Whole Ethernet frames of one kind, in and out by one interface (packet(7)).
#![expect(unsafe_code, reason = "binding to an interface takes a sockaddr_ll, which has no safe constructor")]

use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};

use anyhow::{Context as _, Result};
use nix::{
    errno::Errno,
    libc,
    sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, recv, send, socket},
};

/// A socket that hears and says nothing yet: of the network namespace that it was made in, whoever binds it.
#[derive(Debug)]
pub struct Unbound(OwnedFd);

/// A socket for frames of one type on one interface. What it sends itself does not come back.
#[derive(Debug)]
pub struct PacketSocket(OwnedFd);

impl Unbound {
    /// Make it.
    pub fn new() -> Result<Self> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        // Without a protocol it hears nothing until it is bound, so nothing of other interfaces is in its queue.
        socket(AddressFamily::Packet, SockType::Raw, flags, None).map(Self).context("making a packet socket")
    }

    /// Bind it, as [`PacketSocket::open`] does. The interface has to be up.
    pub fn bind(self, interface: u32, ether_type: u16) -> Result<PacketSocket> {
        // SAFETY: sockaddr_ll is made of integers, for which zero is a value.
        let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        address.sll_family = u16::try_from(libc::AF_PACKET).context("naming the address family")?;
        address.sll_protocol = ether_type.to_be();
        address.sll_ifindex = i32::try_from(interface).context("naming the interface")?;
        let length = libc::socklen_t::try_from(size_of::<libc::sockaddr_ll>()).context("measuring an address")?;
        // SAFETY: the pointer and the length are those of a live sockaddr_ll, which bind only reads.
        let bound = unsafe { libc::bind(self.0.as_raw_fd(), (&raw const address).cast(), length) };
        Errno::result(bound).with_context(|| format!("binding a packet socket to interface {interface}"))?;
        Ok(PacketSocket(self.0))
    }
}

impl PacketSocket {
    /// Open it on the interface with this kernel index, for frames of this type (`ether type`, 0x0806 for ARP). It hears only what
    /// arrives from now on.
    pub fn open(interface: u32, ether_type: u16) -> Result<Self> {
        Unbound::new()?.bind(interface, ether_type)
    }

    /// Send one frame, with its Ethernet header.
    pub fn send(&self, frame: &[u8]) -> Result<()> {
        send(self.0.as_raw_fd(), frame, MsgFlags::empty()).context("sending a frame")?;
        Ok(())
    }

    /// The next frame that has come, cut at the buffer's end; `None` when there is none now. The descriptor is readable when one comes.
    pub fn receive<'a>(&self, buffer: &'a mut [u8]) -> Result<Option<&'a [u8]>> {
        loop {
            match recv(self.0.as_raw_fd(), buffer, MsgFlags::empty()) {
                Ok(length) => return Ok(buffer.get(..length)),
                Err(Errno::EAGAIN) => return Ok(None),
                Err(Errno::EINTR) => {}
                Err(error) => return Err(error).context("receiving a frame"),
            }
        }
    }

    /// Close it without waiting for that: the kernel first lets every processor finish with it, which takes tens of milliseconds.
    pub fn close_later(self) {
        // Without a thread it is closed here.
        let _ = std::thread::Builder::new().stack_size(64 << 10).spawn(move || drop(self));
    }
}

impl AsFd for PacketSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
