//! The proxy DHCP's sockets: what comes in by an interface is answered by that interface, from the center's address on it.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use lodge_model::answer::CenterAnswer;
use lodge_model::keywords::center_words;
use nix::libc::{in_addr, in_pktinfo};
use nix::sys::socket::sockopt::{Broadcast, Ipv4PacketInfo, ReuseAddr};
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, SockaddrIn, bind, recvmsg, sendmsg,
    setsockopt, socket,
};
use tokio::io::Interest;

use super::known;
use super::offer::{self, Offer, Place, Reply};
use crate::center::Center;
use crate::fault::Fault;
use crate::records::Site;
use crate::token;

/// Pause after an error of the socket itself.
const PAUSE: Duration = Duration::from_secs(1);

/// A packet and by which way it came.
struct Received {
    packet: Vec<u8>,
    from: SocketAddrV4,
    interface: i32,
    address: Ipv4Addr,
}

/// Open a socket for one of the two ports. It shares the port with nobody: two DHCP servers on one host would fight.
pub fn open(place: SocketAddrV4) -> anyhow::Result<UdpSocket> {
    let make = || -> nix::Result<UdpSocket> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let fd = socket(AddressFamily::Inet, SockType::Datagram, flags, None)?;
        setsockopt(&fd, ReuseAddr, &false)?;
        setsockopt(&fd, Broadcast, &true)?;
        setsockopt(&fd, Ipv4PacketInfo, &true)?;
        bind(fd.as_raw_fd(), &SockaddrIn::from(place))?;
        Ok(UdpSocket::from(fd))
    };
    make().with_context(|| format!("listening on UDP {place} for machines that boot from the network"))
}

/// Answer on this socket until the process ends.
pub async fn serve(socket: UdpSocket, is_pxe_port: bool, center: Arc<Center>) -> anyhow::Result<()> {
    let socket = tokio::net::UdpSocket::from_std(socket).context("serving DHCP")?;
    loop {
        let received = match socket.async_io(Interest::READABLE, || receive(&socket)).await {
            Ok(received) => received,
            Err(error) => {
                // A link that goes down says so here. Nothing tells when the kernel is well again: it is tried again, slowly.
                tracing::warn!("netboot: receiving a packet: {error}");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let reply = match answer(&received, is_pxe_port, &center).await {
            Ok(reply) => reply,
            Err(Fault::Internal(error)) => {
                tracing::error!("netboot: answering {}: {error:#}", received.from);
                None
            }
            Err(Fault::Refused(_, why)) => {
                tracing::warn!("netboot: answering {}: {why}", received.from);
                None
            }
        };
        if let Some(reply) = reply
            && let Err(error) = socket.async_io(Interest::WRITABLE, || send(&socket, &received, &reply)).await
        {
            tracing::warn!("netboot: sending to {}: {error}", reply.to);
        }
    }
}

async fn answer(received: &Received, is_pxe_port: bool, center: &Arc<Center>) -> Result<Option<Reply>, Fault> {
    let Some(request) = offer::parse(&received.packet, is_pxe_port) else { return Ok(None) };
    let now = center.now();
    let asked = request.clone();
    let (known, site) = center
        .store
        .transact(move |tx| Ok((known::lookup(tx, &asked, now)?, tx.get::<Site>(&"site")?.unwrap_or_default())))
        .await?;
    let url = center.boot_url.as_ref().map(|base| format!("{base}{}", offer::BOOT_FILE)).unwrap_or_default();
    let place = Place { address: received.address, url, strangers: site.answer.netboot };
    let mac = &request.mac;
    let decided = match offer::offer(&request, &known, &place) {
        Offer::Nothing(why) => Offer::Nothing(why),
        something => match center.bundle().await? {
            Ok(_) => something,
            Err(why) => Offer::Nothing(why),
        },
    };
    Ok(match decided {
        Offer::Nothing(why) => {
            tracing::info!("netboot: {mac} is offered nothing: {why}");
            None
        }
        Offer::File(file) => {
            tracing::info!("netboot: {mac} ({:?}) is offered {file}", request.kind);
            offer::file_reply(&request, &place, &file, received.from)
        }
        Offer::Words => {
            tracing::info!("netboot: the installer at {mac} is told of this center");
            let (token, _) = center.store.transact(move |tx| token::mint_join(tx, None, now)).await?;
            let answer = CenterAnswer { url: center.world.url.clone(), ca: center.world.ca.fingerprint(), token };
            offer::words_reply(&request, &place, &center_words(&answer), received.from)
        }
    })
}

fn receive(socket: &tokio::net::UdpSocket) -> io::Result<Received> {
    let mut packet = vec![0; 2048];
    let mut control = nix::cmsg_space!(in_pktinfo);
    let (length, from, info) = {
        let mut slices = [IoSliceMut::new(&mut packet)];
        let message = recvmsg::<SockaddrIn>(socket.as_raw_fd(), &mut slices, Some(&mut control), MsgFlags::MSG_DONTWAIT)?;
        let info = message.cmsgs()?.find_map(|control| match control {
            ControlMessageOwned::Ipv4PacketInfo(info) => Some(info),
            _ => None,
        });
        (message.bytes, message.address, info)
    };
    packet.truncate(length);
    let from = from.ok_or_else(|| io::Error::other("a packet without a sender"))?;
    let info = info.ok_or_else(|| io::Error::other("a packet without an interface"))?;
    Ok(Received {
        packet,
        from: SocketAddrV4::new(from.ip(), from.port()),
        interface: info.ipi_ifindex,
        address: Ipv4Addr::from(u32::from_be(info.ipi_spec_dst.s_addr)),
    })
}

fn send(socket: &tokio::net::UdpSocket, received: &Received, reply: &Reply) -> io::Result<usize> {
    let info = in_pktinfo {
        ipi_ifindex: received.interface,
        ipi_spec_dst: in_addr { s_addr: u32::from(received.address).to_be() },
        ipi_addr: in_addr { s_addr: 0 },
    };
    let slices = [IoSlice::new(&reply.packet)];
    let control = [ControlMessage::Ipv4PacketInfo(&info)];
    let to = SockaddrIn::from(reply.to);
    Ok(sendmsg(socket.as_raw_fd(), &slices, &control, MsgFlags::MSG_DONTWAIT, Some(&to))?)
}
