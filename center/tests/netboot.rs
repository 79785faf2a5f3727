//! The network boot as firmware meets it: DHCP and TFTP packets to the real program, on loopback.

#![allow(clippy::unwrap_used)]

mod support;

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use dhcproto::v4::{Architecture, DhcpOption, Message, MessageType, OptionCode};
use dhcproto::{Decodable, Decoder, Encodable};
use lodge_model::answer::Answer;
use lodge_model::api::MachineEvent;
use lodge_model::keywords::{DHCP_OPTION, Keywords};
use lodge_model::layout::Slot;
use support::{Running, UKI_BYTES, disk, holding};

const NETBOOT: [&str; 9] = [
    "--boot-listen",
    "127.0.0.1:0",
    "--netboot",
    "--dhcp-listen",
    "127.0.0.1:0",
    "--pxe-listen",
    "127.0.0.1:0",
    "--tftp-listen",
    "127.0.0.1:0",
];

fn start(site: &str) -> Running {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(dir.path().join("data/bundles")).unwrap();
    support::write_bundle(&dir.path().join("data/bundles"), "0.1.0");
    Running::start_in(dir, site, &NETBOOT)
}

fn client() -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    socket
}

/// A packet of machine number `number`, whose hardware address ends in it.
fn packet(kind: MessageType, class: &str, architecture: Option<u16>, number: u8) -> Vec<u8> {
    let mut message = Message::default();
    message.set_chaddr(&[0x52, 0x54, 0, 0, 0, number]).set_ciaddr(Ipv4Addr::LOCALHOST);
    let options = message.opts_mut();
    options.insert(DhcpOption::MessageType(kind));
    options.insert(DhcpOption::ClassIdentifier(class.as_bytes().to_vec()));
    if let Some(architecture) = architecture {
        options.insert(DhcpOption::ClientSystemArchitecture(Architecture::from(architecture)));
    }
    message.to_vec().unwrap()
}

fn receive(socket: &UdpSocket) -> Message {
    let mut packet = [0; 1500];
    let length = socket.recv(&mut packet).unwrap();
    Message::decode(&mut Decoder::new(&packet[..length])).unwrap()
}

fn words(answer: &Message) -> String {
    match answer.opts().get(OptionCode::from(DHCP_OPTION)) {
        Some(DhcpOption::Unknown(option)) => String::from_utf8(option.data().to_vec()).unwrap(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn an_installer_learns_its_center_and_gets_in() {
    let center = start(r#"{"admit":"auto","netboot":true}"#);
    let socket = client();
    let inform = packet(MessageType::Inform, "LodgeInstaller", None, 2);
    socket.send_to(&inform, center.netboot.as_ref().unwrap().dhcp).unwrap();
    let words = Keywords::parse(&words(&receive(&socket)), "the DHCP answer").unwrap();
    let answer = words.answer("the DHCP answer").unwrap().unwrap().center.unwrap();
    assert_eq!((&answer.url, &answer.ca), (&center.url, &center.ca));
    let machine = center.machine_with(&answer.token, 2);
    machine.ticket(machine.hello(vec![disk("vda", "S1")]).await);
}

#[tokio::test]
async fn the_answer_beside_the_boot_file_lets_a_machine_in() {
    let center = start(r#"{"admit":"auto","netboot":true}"#);
    let url = format!("{}/boot/lodge.toml", center.boot.clone().unwrap());
    let (_, answer) = support::plain_get(&url, "");
    let answer = Answer::parse(std::str::from_utf8(&answer).unwrap(), "the boot server").unwrap().center.unwrap();
    let machine = center.machine_with(&answer.token, 2);
    machine.ticket(machine.hello(vec![disk("vda", "S1")]).await);
}

#[tokio::test]
async fn a_finished_node_is_offered_nothing_until_it_is_to_be_reinstalled() {
    let center = start(r#"{"admit":"auto","netboot":true}"#);
    let netboot = center.netboot.as_ref().unwrap();
    let socket = client();
    let pxe = packet(MessageType::Request, "PXEClient:Arch:00007:UNDI:003000", Some(7), 2);
    socket.send_to(&pxe, netboot.pxe).unwrap();
    let answer = receive(&socket);
    assert_eq!(answer.opts().msg_type(), Some(MessageType::Ack));
    assert_eq!(answer.opts().get(OptionCode::BootfileName), Some(&DhcpOption::BootfileName(b"lodge.efi".to_vec())));
    assert_eq!(answer.siaddr(), Ipv4Addr::LOCALHOST);

    let machine = center.new_machine(2).await;
    machine.ticket(machine.hello(vec![disk("vda", "S1")]).await);
    let installed = MachineEvent::Installed { version: "0.1.0".into(), slot: Slot::A, disk_serial: "S1".into() };
    machine.center.machine_events(machine.id, &[installed]).await.unwrap();

    // Packets of one socket are answered in order: the only answer is the other machine's.
    socket.send_to(&pxe, netboot.pxe).unwrap();
    let other = packet(MessageType::Request, "PXEClient:Arch:00007:UNDI:003000", Some(7), 3);
    socket.send_to(&other, netboot.pxe).unwrap();
    assert_eq!(receive(&socket).chaddr()[5], 3);

    center.as_operator().reinstall("node1", &lodge_model::api::InstallOrder::default()).await.unwrap();
    socket.send_to(&pxe, netboot.pxe).unwrap();
    assert_eq!(receive(&socket).chaddr()[5], 2);
    machine.ticket(machine.hello(vec![holding("vda", "S1", "gpt")]).await);
}

#[test]
fn offers_go_out_as_broadcasts() {
    let center = start(r#"{"admit":"auto","netboot":true}"#);
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let discover = packet(MessageType::Discover, "HTTPClient:Arch:00016:UNDI:003001", Some(16), 2);
    socket.send_to(&discover, center.netboot.as_ref().unwrap().dhcp).unwrap();
    let answer = receive(&socket);
    let url = format!("{}/boot/lodge.efi", center.boot.clone().unwrap());
    assert_eq!(answer.opts().get(OptionCode::BootfileName), Some(&DhcpOption::BootfileName(url.into_bytes())));
}

/// Fetch a file as edk2 does: block size, window of 4, size asked for. Every `lose`th data packet is lost.
fn tftp_get(server: SocketAddr, name: &str, lose: Option<usize>) -> Result<Vec<u8>, String> {
    const BLOCK: usize = 16;
    let socket = client();
    let mut request = vec![0, 1];
    for word in [name, "octet", "tsize", "0", "blksize", "16", "windowsize", "4"] {
        request.extend(word.as_bytes());
        request.push(0);
    }
    socket.send_to(&request, server).unwrap();
    let mut packet = [0; 1500];
    let (length, peer) = socket.recv_from(&mut packet).unwrap();
    if packet[1] == 5 {
        return Err(String::from_utf8_lossy(&packet[4..length - 1]).into_owned());
    }
    let options = String::from_utf8_lossy(&packet[2..length]).into_owned();
    assert_eq!(packet[1], 6, "no option was acknowledged");
    assert!(
        options.contains("windowsize\u{0}4\u{0}") && options.contains(&format!("tsize\0{}\0", UKI_BYTES.len())),
        "{options:?}"
    );
    let (mut content, mut block, mut received, mut in_window) = (Vec::new(), 0u16, 0, 0);
    socket.send_to(&[0, 4, 0, 0], peer).unwrap();
    loop {
        let length = socket.recv(&mut packet).unwrap();
        received += 1;
        if lose.is_some_and(|lose| received % lose == 0) {
            continue;
        }
        if u16::from_be_bytes([packet[2], packet[3]]) != block.wrapping_add(1) {
            // A gap: say what came last, as RFC 7440 has it.
            let [high, low] = block.to_be_bytes();
            socket.send_to(&[0, 4, high, low], peer).unwrap();
            in_window = 0;
            continue;
        }
        block = block.wrapping_add(1);
        in_window += 1;
        content.extend(&packet[4..length]);
        let is_last = length - 4 < BLOCK;
        if in_window == 4 || is_last {
            let [high, low] = block.to_be_bytes();
            socket.send_to(&[0, 4, high, low], peer).unwrap();
            in_window = 0;
        }
        if is_last {
            return Ok(content);
        }
    }
}

#[test]
fn tftp_serves_the_boot_file_in_windows_and_nothing_else() {
    let center = start(r#"{"admit":"auto","netboot":true}"#);
    let tftp = center.netboot.as_ref().unwrap().tftp;
    assert_eq!(tftp_get(tftp, "lodge.efi", None).unwrap(), UKI_BYTES);
    assert_eq!(tftp_get(tftp, "lodge.efi", Some(3)).unwrap(), UKI_BYTES);
    assert!(tftp_get(tftp, "../center.db", None).is_err());
}
