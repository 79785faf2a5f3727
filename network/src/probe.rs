//! Who has an address already? Asked on the bridge before an environment is started: an answer means that an old copy lives, or that
//! the address is somebody else's.
//!
//! IPv4 by ARP probes (RFC 5227, 2.1.1: sender 0.0.0.0, so that nobody's cache is spoilt), IPv6 by the neighbour solicitations of
//! duplicate address detection (RFC 4862, 5.4.2: from the unspecified address). Silence proves nothing about a machine that is cut off.

use std::{
    net::IpAddr,
    os::fd::AsFd as _,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use lodge_sys::packet::PacketSocket;
use nix::{
    errno::Errno,
    ifaddrs::getifaddrs,
    poll::{PollFd, PollFlags, PollTimeout, poll},
};

use crate::{BRIDGE, address::Mac, frames, netlink::Netlink, runtime};

/// How long `probe` listens when nobody answers: neighbours of one link that has been up for long answer within milliseconds, so the
/// seconds that RFC 5227 gives to machines that have just been plugged in are not needed. As long as NetworkManager listens (the default of
/// its `ipv4.dad-timeout` in Fedora since 40). Every start and move waits for it.
pub const LISTEN: Duration = Duration::from_millis(200);
/// Questions are asked this far apart: any of them may be lost.
const AGAIN: Duration = Duration::from_millis(66);
/// How often each question is asked.
const TIMES: usize = 3;

/// An address that somebody has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taken {
    /// The address.
    pub address: IpAddr,
    /// Hardware address of who answered; of the bridge, when it is this node's own address.
    pub mac: String,
}

/// Ask for all of these addresses at once, several times over `LISTEN`, and return those that are taken (none: good). Returns early
/// only when all of them are. Call it before `attach`: an environment that is connected here would answer for itself.
pub fn probe(addresses: &[IpAddr]) -> Result<Vec<Taken>> {
    probe_on(BRIDGE, addresses)
}

/// The same on another link: a machine that runs no environments has no bridge.
pub fn probe_on(link: &str, addresses: &[IpAddr]) -> Result<Vec<Taken>> {
    ask(link, addresses).with_context(|| {
        let list: Vec<String> = addresses.iter().map(IpAddr::to_string).collect();
        format!("asking on {link} whether anybody has {}", list.join(", "))
    })
}

fn ask(link: &str, addresses: &[IpAddr]) -> Result<Vec<Taken>> {
    if addresses.is_empty() {
        return Ok(Vec::new());
    }
    let found = runtime()?.block_on(async { Netlink::connect()?.carrier(link).await })?;
    let bridge = found.context("there is no such link")?;
    let own = own_addresses()?;
    let mut taken: Vec<Taken> = Vec::new();
    for address in addresses.iter().filter(|address| own.contains(address)) {
        taken.push(Taken { address: *address, mac: bridge.mac.to_string() });
    }
    // Before the first question, so that no answer is missed.
    let sockets = [PacketSocket::open(bridge.index, frames::ARP)?, PacketSocket::open(bridge.index, frames::IPV6)?];
    let start = Instant::now();
    let mut asked = 0;
    while taken.len() < addresses.len() && start.elapsed() < LISTEN {
        if asked < TIMES && start.elapsed() >= AGAIN * u32::try_from(asked).unwrap_or(u32::MAX) {
            asked += 1;
            for address in addresses {
                let [arp, ipv6] = &sockets;
                let socket = if address.is_ipv4() { arp } else { ipv6 };
                socket.send(&frames::probe(bridge.mac, *address)?)?;
            }
        }
        let next = if asked < TIMES { AGAIN * u32::try_from(asked).unwrap_or(u32::MAX) } else { LISTEN };
        wait(&sockets, next.saturating_sub(start.elapsed()))?;
        for (address, mac) in sockets.iter().map(claims).collect::<Result<Vec<_>>>()?.concat() {
            let is_new = !taken.iter().any(|known| known.address == address);
            if is_new && mac != bridge.mac && addresses.contains(&address) {
                taken.push(Taken { address, mac: mac.to_string() });
            }
        }
    }
    sockets.into_iter().for_each(PacketSocket::close_later);
    Ok(taken)
}

/// Until a frame has come or the time is over.
fn wait(sockets: &[PacketSocket], time: Duration) -> Result<()> {
    let mut fds: Vec<PollFd<'_>> = sockets.iter().map(|socket| PollFd::new(socket.as_fd(), PollFlags::POLLIN)).collect();
    // A millisecond more, so that the rest of one does not become a busy loop.
    let timeout = PollTimeout::try_from(time + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX);
    match poll(&mut fds, timeout) {
        Ok(_) | Err(Errno::EINTR) => Ok(()),
        Err(error) => Err(error).context("waiting for answers"),
    }
}

/// What the frames claim that have come so far.
fn claims(socket: &PacketSocket) -> Result<Vec<(IpAddr, Mac)>> {
    let mut buffer = [0; 2048];
    let mut claims = Vec::new();
    while let Some(frame) = socket.receive(&mut buffer)? {
        claims.extend(frames::claim(frame));
    }
    Ok(claims)
}

fn own_addresses() -> Result<Vec<IpAddr>> {
    let entries = getifaddrs().context("listing this node's addresses")?;
    let address = |entry: nix::ifaddrs::InterfaceAddress| {
        let address = entry.address?;
        let v4 = address.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
        v4.or_else(|| address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip())))
    };
    Ok(entries.filter_map(address).collect())
}
