//! What a proxy DHCP answers: pure. It stands beside the site's DHCP server, gives no addresses, and says only where a boot
//! file is (PXE 2.1 "proxyDHCP", UEFI 2.10 section 24.7 "HTTP Boot") or, to an installer that asks with DHCPINFORM, which
//! center there is. A machine that has nothing to install gets no answer, so its firmware goes on to its disk.
//!
//! PXE is answered as edk2 (`NetworkPkg/UefiPxeBcDxe/PxeBcDhcp4.c`) and with it most firmware takes it: an offer with
//! `PXEClient` and *without* vendor options (43) makes it ask once more, at port 4011, and that answer carries the file. An
//! offer with PXE discovery options would be a `ProxyPxe10` offer, which edk2 counts but never keeps.
//!
//! Requests are read through dhcproto's borrowed view, which decodes nothing it is not asked for: its full decoder has
//! `debug_assert`s on the lengths of options that have no business here, and anybody on the link could set them off.

use std::net::{Ipv4Addr, SocketAddrV4};

use dhcproto::Encodable;
use dhcproto::v4::{DhcpOption, Flags, HType, Message, MessageType, Opcode, OptionCode, UnknownOption, borrowed};
use lodge_model::ids::MachineId;
use lodge_model::keywords::{DHCP_OPTION, DHCP_VENDOR_CLASS};
use uuid::Uuid;

/// The least length of a BOOTP packet that old firmware takes, in bytes (RFC 1542, section 2.1).
const PACKET_MIN: usize = 300;
/// Longest name in the fixed field for it, with its end.
const FILE_MAX: usize = 127;
/// Name of the boot file for TFTP.
pub const BOOT_FILE: &str = "lodge.efi";

/// A request that could be for us.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// What it asks.
    pub kind: Kind,
    /// Hardware address, lower case with colons.
    pub mac: String,
    /// Who it may be, by its SMBIOS UUID (option 97). SMBIOS 2.6 stores the first three fields little-endian; firmware that
    /// is older or wrong does not, so both readings are given, the standard's first.
    pub machines: Vec<MachineId>,
    echo: Echo,
}

/// What an answer repeats of its request.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Echo {
    htype: HType,
    xid: u32,
    flags: Flags,
    chaddr: Vec<u8>,
    client: Ipv4Addr,
    relay: Ipv4Addr,
    identifier: Option<Vec<u8>>,
}

/// The options of a request that matter here, as bytes.
#[derive(Default)]
struct Options {
    kind: Option<u8>,
    class: Vec<u8>,
    architecture: Option<u16>,
    identifier: Option<Vec<u8>>,
}

/// What a request asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// UEFI PXE looks for boot servers.
    PxeDiscover,
    /// UEFI PXE asks this boot server for the file (port 4011).
    PxeRequest,
    /// UEFI HTTP Boot looks for a URL.
    HttpDiscover,
    /// A Lodge installer looks for its center.
    Inform,
    /// A network boot that Lodge has no file for: BIOS, or another processor.
    Foreign(u16),
}

/// What is known of the machine that asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Known {
    /// Never heard of, or heard of and not installed yet.
    Bare,
    /// There is an open ticket for it, or one that is being used.
    Wanted,
    /// It is a node and has nothing to install.
    Done(String),
}

/// What there is to offer.
#[derive(Clone, Debug)]
pub struct Place {
    /// Address of this center on the link that the request came in by.
    pub address: Ipv4Addr,
    /// `http://…/boot/lodge.efi`.
    pub url: String,
    /// Whether machines that nobody has ordered anything for are offered something.
    pub strangers: bool,
}

/// The decision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Offer {
    /// The boot file's name or URL.
    File(String),
    /// The center's words, which are still to be made.
    Words,
    /// No answer, for this reason.
    Nothing(String),
}

/// An answer and where it goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The packet.
    pub packet: Vec<u8>,
    /// Destination.
    pub to: SocketAddrV4,
}

/// Read a packet; `None` for all that is none of our business. `is_pxe_port`: it came to port 4011.
pub fn parse(packet: &[u8], is_pxe_port: bool) -> Option<Request> {
    let message = borrowed::Message::new(packet).ok()?;
    // A longer address than the field's 16 bytes is a lie, and the view would read on into the next field.
    if message.opcode() != Opcode::BootRequest || message.hlen() > 16 {
        return None;
    }
    let options = options(&message);
    let kind = kind(&options, is_pxe_port)?;
    let mac = message.chaddr().iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(":");
    let machines = options.identifier.as_deref().map(machines).unwrap_or_default();
    let echo = Echo {
        htype: message.htype(),
        xid: message.xid(),
        flags: message.flags(),
        chaddr: message.chaddr().to_vec(),
        client: message.ciaddr(),
        relay: message.giaddr(),
        identifier: options.identifier,
    };
    Some(Request { kind, mac, machines, echo })
}

/// Decide.
pub fn offer(request: &Request, known: &Known, place: &Place) -> Offer {
    let file = match request.kind {
        Kind::PxeDiscover | Kind::PxeRequest => BOOT_FILE.to_owned(),
        Kind::HttpDiscover => place.url.clone(),
        Kind::Inform => {
            return match known {
                Known::Bare if !place.strangers => {
                    Offer::Nothing("the site does not let unknown machines in by netboot".into())
                }
                _ => Offer::Words,
            };
        }
        Kind::Foreign(architecture) => {
            return Offer::Nothing(format!(
                "there is no boot file for client architecture {architecture}, only for x86-64 UEFI"
            ));
        }
    };
    match known {
        Known::Wanted => Offer::File(file),
        Known::Bare if place.strangers => Offer::File(file),
        Known::Bare => Offer::Nothing("the site does not let unknown machines in by netboot".into()),
        Known::Done(name) => Offer::Nothing(format!("{name} is installed and has nothing to install; it goes on to its disk")),
    }
}

/// The answer that offers a boot file. `from` is where the request came from.
pub fn file_reply(request: &Request, place: &Place, file: &str, from: SocketAddrV4) -> Option<Reply> {
    let (class, answer) = match request.kind {
        Kind::PxeDiscover => ("PXEClient", MessageType::Offer),
        Kind::PxeRequest => ("PXEClient", MessageType::Ack),
        Kind::HttpDiscover => ("HTTPClient", MessageType::Offer),
        Kind::Inform | Kind::Foreign(_) => return None,
    };
    let mut message = blank(request, place, answer, class);
    message.set_siaddr(place.address);
    if file.len() <= FILE_MAX {
        message.set_fname_str(file);
    }
    message.opts_mut().insert(DhcpOption::BootfileName(file.as_bytes().to_vec()));
    if let Some(identifier) = &request.echo.identifier {
        message.opts_mut().insert(DhcpOption::ClientMachineIdentifier(identifier.clone()));
    }
    finish(request, &message, from)
}

/// The answer that names the center to an installer.
pub fn words_reply(request: &Request, place: &Place, words: &str, from: SocketAddrV4) -> Option<Reply> {
    // One option holds 255 bytes; what is longer would have to be split, and nobody would put it together again.
    if words.len() > 255 {
        return None;
    }
    let mut message = blank(request, place, MessageType::Ack, DHCP_VENDOR_CLASS);
    message.set_ciaddr(request.echo.client);
    let option = UnknownOption::new(OptionCode::from(DHCP_OPTION), words.as_bytes().to_vec());
    message.opts_mut().insert(DhcpOption::Unknown(option));
    finish(request, &message, from)
}

fn options(message: &borrowed::Message) -> Options {
    let mut options = Options::default();
    for option in message.opts() {
        let data = option.data();
        match option.code() {
            OptionCode::MessageType => options.kind = data.first().copied(),
            OptionCode::ClassIdentifier => options.class = data.to_vec(),
            OptionCode::ClientSystemArchitecture => {
                options.architecture = data.first_chunk::<2>().map(|bytes| u16::from_be_bytes(*bytes));
            }
            OptionCode::ClientMachineIdentifier => options.identifier = Some(data.to_vec()),
            _ => {}
        }
    }
    options
}

fn kind(options: &Options, is_pxe_port: bool) -> Option<Kind> {
    let (class, architecture) = (options.class.as_slice(), options.architecture);
    // Architectures: the registry "Processor Architecture Types" of DHCPv6, shared by RFC 4578 clients. 7 and 9 are both used
    // for x86-64 UEFI, 16 is the same by HTTP.
    match MessageType::from(options.kind?) {
        MessageType::Inform if class == DHCP_VENDOR_CLASS.as_bytes() => Some(Kind::Inform),
        MessageType::Discover if class.starts_with(b"PXEClient") && !is_pxe_port => match architecture? {
            7 | 9 => Some(Kind::PxeDiscover),
            other => Some(Kind::Foreign(other)),
        },
        MessageType::Request | MessageType::Inform if class.starts_with(b"PXEClient") && is_pxe_port => match architecture? {
            7 | 9 => Some(Kind::PxeRequest),
            other => Some(Kind::Foreign(other)),
        },
        MessageType::Discover if class.starts_with(b"HTTPClient") && !is_pxe_port => match architecture? {
            16 => Some(Kind::HttpDiscover),
            other => Some(Kind::Foreign(other)),
        },
        _ => None,
    }
}

/// Option 97: a type byte, 0, and the 16 bytes of the UUID as SMBIOS has them.
fn machines(identifier: &[u8]) -> Vec<MachineId> {
    let Some((0, bytes)) = identifier.split_first().map(|(kind, bytes)| (*kind, bytes)) else {
        return Vec::new();
    };
    let Ok(bytes) = <[u8; 16]>::try_from(bytes) else {
        return Vec::new();
    };
    if bytes == [0; 16] || bytes == [0xff; 16] {
        return Vec::new();
    }
    vec![MachineId(Uuid::from_bytes_le(bytes)), MachineId(Uuid::from_bytes(bytes))]
}

fn blank(request: &Request, place: &Place, answer: MessageType, class: &str) -> Message {
    let asked = &request.echo;
    let mut message = Message::default();
    message
        .set_opcode(Opcode::BootReply)
        .set_htype(asked.htype)
        .set_xid(asked.xid)
        .set_flags(asked.flags)
        .set_giaddr(asked.relay)
        .set_chaddr(&asked.chaddr);
    let options = message.opts_mut();
    options.insert(DhcpOption::MessageType(answer));
    options.insert(DhcpOption::ServerIdentifier(place.address));
    options.insert(DhcpOption::ClassIdentifier(class.as_bytes().to_vec()));
    message
}

fn finish(request: &Request, message: &Message, from: SocketAddrV4) -> Option<Reply> {
    let mut packet = message.to_vec().ok()?;
    packet.resize(packet.len().max(PACKET_MIN), 0);
    let Echo { relay, client, .. } = request.echo;
    let to = match request.kind {
        Kind::PxeRequest => from,
        _ if !relay.is_unspecified() => SocketAddrV4::new(relay, 67),
        Kind::Inform if !client.is_unspecified() => SocketAddrV4::new(client, from.port()),
        _ => SocketAddrV4::new(Ipv4Addr::BROADCAST, from.port()),
    };
    Some(Reply { packet, to })
}

#[cfg(test)]
impl Request {
    /// A request with an empty packet.
    pub fn for_tests(kind: Kind, mac: &str, machines: Vec<MachineId>) -> Self {
        let unspecified = Ipv4Addr::UNSPECIFIED;
        let echo = Echo {
            htype: HType::Eth,
            xid: 0,
            flags: Flags::default(),
            chaddr: vec![],
            client: unspecified,
            relay: unspecified,
            identifier: None,
        };
        Self { kind, mac: mac.to_owned(), machines, echo }
    }
}

#[cfg(test)]
mod tests;
