//! DHCPINFORM (RFC 2131, 3.4): a machine that has an address already asks whoever listens for the center's words. The center
//! answers it beside a site's own DHCP server that knows nothing of Lodge.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket},
    os::fd::AsRawFd as _,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use dhcproto::{
    Encodable as _,
    v4::{DhcpOption, Message, MessageType, OptionCode, borrowed},
};
use lodge_model::{
    answer::parse_cidr,
    ids::unhex,
    keywords::{DHCP_OPTION, DHCP_VENDOR_CLASS},
};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, bind, setsockopt, socket, sockopt};

use crate::Uplink;

const CLIENT_PORT: u16 = 68;
const SERVER_PORT: u16 = 67;
/// Questions asked, one a `WAIT`: UDP may be lost and nobody can tell us that no one listens.
const TRIES: u32 = 3;
const WAIT: Duration = Duration::from_secs(2);

/// Ask with the vendor class `LodgeInstaller`; the `lodge.` words of the first answer that has any, `None` when nobody gives some.
pub fn inform(uplink: &Uplink) -> Result<Option<String>> {
    ask(uplink).with_context(|| format!("asking by DHCPINFORM on {}", uplink.interface))
}

fn ask(uplink: &Uplink) -> Result<Option<String>> {
    let Some((IpAddr::V4(address), _)) = parse_cidr(&uplink.address) else { return Ok(None) };
    let mac = unhex(&uplink.mac.replace(':', "")).context("reading the hardware address")?;
    let question = question(address, &mac);
    let bytes = question.to_vec().context("encoding the question")?;
    let socket = open(&uplink.interface)?;
    for _ in 0..TRIES {
        let to = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::BROADCAST, SERVER_PORT));
        socket.send_to(&bytes, to).context("sending the question")?;
        if let Some(words) = listen(&socket, question.xid())? {
            return Ok(Some(words));
        }
    }
    Ok(None)
}

fn question(address: Ipv4Addr, mac: &[u8]) -> Message {
    let mut message = Message::default();
    message.set_ciaddr(address).set_chaddr(mac);
    let options = message.opts_mut();
    options.insert(DhcpOption::MessageType(MessageType::Inform));
    options.insert(DhcpOption::ClassIdentifier(DHCP_VENDOR_CLASS.as_bytes().to_vec()));
    options.insert(DhcpOption::ParameterRequestList(vec![OptionCode::Unknown(DHCP_OPTION)]));
    message
}

/// A socket beside any other DHCP client's, bound to the link so that the broadcast needs no route.
fn open(interface: &str) -> Result<UdpSocket> {
    let fd = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None).context("making a socket")?;
    setsockopt(&fd, sockopt::ReuseAddr, &true).context("sharing the DHCP client's port")?;
    setsockopt(&fd, sockopt::Broadcast, &true).context("allowing broadcasts")?;
    setsockopt(&fd, sockopt::BindToDevice, &interface.into()).with_context(|| format!("binding to {interface}"))?;
    bind(fd.as_raw_fd(), &SockaddrIn::new(0, 0, 0, 0, CLIENT_PORT)).context("binding to the DHCP client's port")?;
    Ok(UdpSocket::from(fd))
}

fn listen(socket: &UdpSocket, xid: u32) -> Result<Option<String>> {
    let end = Instant::now() + WAIT;
    let mut packet = [0; 1500];
    loop {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(None);
        }
        socket.set_read_timeout(Some(left)).context("setting a time limit")?;
        match socket.recv(&mut packet) {
            Ok(length) => {
                if let Some(words) = packet.get(..length).and_then(|packet| words(packet, xid)) {
                    return Ok(Some(words));
                }
            }
            Err(error) if matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => {}
            Err(error) => bail!(anyhow::Error::new(error).context("waiting for an answer")),
        }
    }
}

/// The words of an answer to our question. Read through dhcproto's borrowed view: its full decoder asserts the lengths of options in
/// debug builds, and what comes off a wire may have any.
fn words(packet: &[u8], xid: u32) -> Option<String> {
    let message = borrowed::Message::new(packet).ok()?;
    if message.xid() != xid {
        return None;
    }
    let option = |code| message.opts().find(|option| option.code() == code).map(|option| option.data().to_vec());
    let kind = option(OptionCode::MessageType)?;
    if kind != [u8::from(MessageType::Ack)] {
        return None;
    }
    let text = String::from_utf8(option(OptionCode::Unknown(DHCP_OPTION))?).ok()?;
    let text = text.trim_matches(|char: char| char == '\0' || char.is_whitespace());
    (!text.is_empty()).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use dhcproto::{Decodable as _, Decoder, v4::UnknownOption};
    use proptest::prelude::*;

    fn answer(xid: u32, words: Option<&str>) -> Vec<u8> {
        let mut message = Message::default();
        message.set_xid(xid);
        message.opts_mut().insert(DhcpOption::MessageType(MessageType::Ack));
        if let Some(words) = words {
            let option = UnknownOption::new(OptionCode::Unknown(DHCP_OPTION), words.as_bytes().to_vec());
            message.opts_mut().insert(DhcpOption::Unknown(option));
        }
        message.to_vec().unwrap()
    }

    #[test]
    fn only_an_answer_to_us_with_words_counts() {
        assert_eq!(words(&answer(7, Some("lodge.name=n1")), 7).as_deref(), Some("lodge.name=n1"));
        assert_eq!(words(&answer(8, Some("lodge.name=n1")), 7), None);
        assert_eq!(words(&answer(7, None), 7), None);
    }

    #[test]
    fn the_question_says_who_asks() {
        let bytes = question(Ipv4Addr::new(10, 0, 0, 5), &[1, 2, 3, 4, 5, 6]).to_vec().unwrap();
        let message = Message::decode(&mut Decoder::new(&bytes)).unwrap();
        assert_eq!(message.ciaddr(), Ipv4Addr::new(10, 0, 0, 5));
        assert_eq!(message.opts().msg_type(), Some(MessageType::Inform));
        let class = DhcpOption::ClassIdentifier(b"LodgeInstaller".to_vec());
        assert_eq!(message.opts().get(OptionCode::ClassIdentifier), Some(&class));
    }

    proptest! {
        #[test]
        fn no_packet_makes_the_reader_panic(packet in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = words(&packet, 7);
        }
    }
}
