use super::*;
use dhcproto::v4::Architecture;
use dhcproto::{Decodable, Decoder};
use proptest::prelude::*;

const CENTER: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 10);
const MAC: [u8; 6] = [0x52, 0x54, 0, 0, 0, 2];
/// 00112233-4455-6677-8899-aabbccddeeff as SMBIOS 2.6 stores it.
const SMBIOS: [u8; 16] = [0x33, 0x22, 0x11, 0, 0x55, 0x44, 0x77, 0x66, 0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff];

fn asked(kind: MessageType, class: &str, architecture: Option<u16>) -> Message {
    let mut message = Message::default();
    message.set_xid(0x1234_5678).set_chaddr(&MAC).set_flags(Flags::default().set_broadcast());
    let options = message.opts_mut();
    options.insert(DhcpOption::MessageType(kind));
    options.insert(DhcpOption::ClassIdentifier(class.as_bytes().to_vec()));
    if let Some(architecture) = architecture {
        options.insert(DhcpOption::ClientSystemArchitecture(Architecture::from(architecture)));
        let mut identifier = vec![0];
        identifier.extend(SMBIOS);
        options.insert(DhcpOption::ClientMachineIdentifier(identifier));
    }
    message
}

fn request(message: &Message, is_pxe_port: bool) -> Option<Request> {
    parse(&message.to_vec().unwrap(), is_pxe_port)
}

fn place(strangers: bool) -> Place {
    Place { address: CENTER, url: "http://10.77.0.10/boot/lodge.efi".into(), strangers }
}

fn from(port: u16) -> SocketAddrV4 {
    SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, port)
}

fn read(reply: &Reply) -> Message {
    Message::decode(&mut Decoder::new(&reply.packet)).unwrap()
}

fn file_name(message: &Message) -> String {
    match message.opts().get(OptionCode::BootfileName) {
        Some(DhcpOption::BootfileName(name)) => String::from_utf8(name.clone()).unwrap(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn pxe_is_offered_a_server_and_then_the_file() {
    let discover = asked(MessageType::Discover, "PXEClient:Arch:00007:UNDI:003000", Some(7));
    let request_1 = request(&discover, false).unwrap();
    assert_eq!((request_1.kind, request_1.mac.as_str()), (Kind::PxeDiscover, "52:54:00:00:00:02"));
    assert_eq!(request_1.machines[0].to_string(), "00112233-4455-6677-8899-aabbccddeeff");
    let Offer::File(file) = offer(&request_1, &Known::Bare, &place(true)) else { panic!("nothing is offered") };
    let reply = file_reply(&request_1, &place(true), &file, from(68)).unwrap();
    assert_eq!(reply.to, SocketAddrV4::new(Ipv4Addr::BROADCAST, 68));
    assert!(reply.packet.len() >= PACKET_MIN);
    let answer = read(&reply);
    assert_eq!((answer.opcode(), answer.xid(), answer.chaddr()), (Opcode::BootReply, 0x1234_5678, MAC.as_slice()));
    assert_eq!((answer.yiaddr(), answer.siaddr()), (Ipv4Addr::UNSPECIFIED, CENTER));
    assert_eq!(answer.opts().msg_type(), Some(MessageType::Offer));
    // edk2 keeps the offer only without PXE discovery options.
    assert!(answer.opts().get(OptionCode::VendorExtensions).is_none());
    assert_eq!(answer.opts().get(OptionCode::ClassIdentifier), Some(&DhcpOption::ClassIdentifier(b"PXEClient".to_vec())));

    let again = asked(MessageType::Request, "PXEClient:Arch:00007:UNDI:003000", Some(7));
    let request_2 = request(&again, true).unwrap();
    assert_eq!(request_2.kind, Kind::PxeRequest);
    let station = SocketAddrV4::new(Ipv4Addr::new(10, 77, 0, 51), 4011);
    let reply = file_reply(&request_2, &place(true), &file, station).unwrap();
    assert_eq!(reply.to, station);
    let answer = read(&reply);
    assert_eq!(answer.opts().msg_type(), Some(MessageType::Ack));
    assert_eq!(
        (file_name(&answer).as_str(), answer.fname_str().unwrap().unwrap().trim_end_matches('\0')),
        ("lodge.efi", "lodge.efi")
    );
    assert_eq!(answer.opts().get(OptionCode::ServerIdentifier), Some(&DhcpOption::ServerIdentifier(CENTER)));
}

#[test]
fn http_boot_is_offered_a_url() {
    let request = request(&asked(MessageType::Discover, "HTTPClient:Arch:00016:UNDI:003001", Some(16)), false).unwrap();
    assert_eq!(request.kind, Kind::HttpDiscover);
    let Offer::File(url) = offer(&request, &Known::Wanted, &place(false)) else { panic!("nothing is offered") };
    let answer = read(&file_reply(&request, &place(false), &url, from(68)).unwrap());
    assert_eq!(file_name(&answer), "http://10.77.0.10/boot/lodge.efi");
    assert_eq!(answer.opts().get(OptionCode::ClassIdentifier), Some(&DhcpOption::ClassIdentifier(b"HTTPClient".to_vec())));
    assert_eq!(answer.yiaddr(), Ipv4Addr::UNSPECIFIED);
}

#[test]
fn only_who_has_something_to_install_is_offered_anything() {
    let discover = request(&asked(MessageType::Discover, "PXEClient:Arch:00009", Some(9)), false).unwrap();
    let nothing = |known: Known, strangers| match offer(&discover, &known, &place(strangers)) {
        Offer::Nothing(why) => why,
        other => panic!("{other:?}"),
    };
    assert!(nothing(Known::Done("node1".into()), true).contains("node1"));
    assert!(nothing(Known::Bare, false).contains("unknown machines"));
    assert_eq!(offer(&discover, &Known::Wanted, &place(false)), Offer::File("lodge.efi".into()));
    let bios = request(&asked(MessageType::Discover, "PXEClient:Arch:00000", Some(0)), false).unwrap();
    assert!(matches!(offer(&bios, &Known::Wanted, &place(true)), Offer::Nothing(why) if why.contains("architecture 0")));
}

#[test]
fn an_installer_is_told_the_words() {
    let mut inform = asked(MessageType::Inform, "LodgeInstaller", None);
    inform.set_ciaddr(Ipv4Addr::new(10, 77, 0, 51));
    let request = request(&inform, false).unwrap();
    assert_eq!((request.kind, offer(&request, &Known::Bare, &place(true))), (Kind::Inform, Offer::Words));
    let reply = words_reply(&request, &place(true), "lodge.center=https://10.77.0.10:8443", from(68)).unwrap();
    assert_eq!(reply.to, SocketAddrV4::new(Ipv4Addr::new(10, 77, 0, 51), 68));
    let answer = read(&reply);
    let Some(DhcpOption::Unknown(option)) = answer.opts().get(OptionCode::from(DHCP_OPTION)) else { panic!("no words") };
    assert_eq!(option.data(), b"lodge.center=https://10.77.0.10:8443");
    assert!(words_reply(&request, &place(true), &"x".repeat(256), from(68)).is_none());
}

#[test]
fn what_is_not_ours_is_left_alone() {
    // An ordinary client, a request to another server, an answer, and a PXE request on the DHCP port.
    assert_eq!(request(&asked(MessageType::Discover, "MSFT 5.0", None), false), None);
    assert_eq!(request(&asked(MessageType::Request, "PXEClient:Arch:00007", Some(7)), false), None);
    assert_eq!(request(&asked(MessageType::Request, "HTTPClient:Arch:00016", Some(16)), false), None);
    let mut answer = asked(MessageType::Discover, "PXEClient:Arch:00007", Some(7));
    answer.set_opcode(Opcode::BootReply);
    assert_eq!(request(&answer, false), None);
}

#[test]
fn a_relay_gets_its_answer_back() {
    let mut discover = asked(MessageType::Discover, "PXEClient:Arch:00007", Some(7));
    discover.set_giaddr(Ipv4Addr::new(10, 78, 0, 1));
    let reply = file_reply(&request(&discover, false).unwrap(), &place(true), "lodge.efi", from(67)).unwrap();
    assert_eq!(reply.to, SocketAddrV4::new(Ipv4Addr::new(10, 78, 0, 1), 67));
}

fn survives(packet: &[u8]) {
    for is_pxe_port in [false, true] {
        if let Some(request) = parse(packet, is_pxe_port) {
            let known = Known::Wanted;
            if let Offer::File(file) = offer(&request, &known, &place(true)) {
                let _ = file_reply(&request, &place(true), &file, from(68));
            }
            let _ = words_reply(&request, &place(true), "words", from(68));
        }
    }
}

proptest! {
    #[test]
    fn no_packet_makes_it_panic(packet in proptest::collection::vec(any::<u8>(), 0..600)) {
        survives(&packet);
    }

    #[test]
    fn no_damage_to_a_good_packet_makes_it_panic(
        damage in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 0..8),
        end in any::<proptest::sample::Index>(),
        class in proptest::sample::select(vec!["PXEClient:Arch:00007", "HTTPClient:Arch:00016", "LodgeInstaller"]),
        architecture in proptest::sample::select(vec![0u16, 7, 9, 16]),
    ) {
        let kind = if class == "LodgeInstaller" { MessageType::Inform } else { MessageType::Discover };
        let mut packet = asked(kind, class, Some(architecture)).to_vec().unwrap();
        for (at, byte) in damage {
            let at = at.index(packet.len());
            packet[at] = byte;
        }
        survives(&packet);
        packet.truncate(end.index(packet.len()));
        survives(&packet);
    }
}
