//! A real center, started as its users start it, on loopback and in a directory of its own; and machines to talk to it.

#![allow(dead_code, clippy::unwrap_used)]

pub mod cluster;

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use lodge_client::{Auth, Center, KeyPem, new_key_and_csr, verify_ticket};
use lodge_model::api::{Decision, EnrolReply, EnrolRequest, Heartbeat, Hello, LocalJoin, Orders, Phase, Register, ShareHealth};
use lodge_model::bundle::{MANIFEST, Manifest, Part, ROOT, SCHEMA, SIGNATURE, UKI, VERITY};
use lodge_model::facts::{Disk, Facts, Firmware, Nic, Signature, Transport};
use lodge_model::ids::{BootId, Fingerprint, MachineId, hex};
use lodge_model::layout::{GIB, Slot};
use lodge_model::node::Role;
use lodge_model::ticket::Ticket;
use sha2::{Digest, Sha256};
use tempfile::TempDir;
use uuid::Uuid;

pub const UKI_BYTES: &[u8] = b"not really a kernel, but it has bytes to fetch in ranges";

/// A center that runs.
pub struct Running {
    pub dir: TempDir,
    pub url: String,
    pub boot: Option<String>,
    pub netboot: Option<Netboot>,
    pub ca: Fingerprint,
    pub operator: String,
    pub local: LocalJoin,
    wrapper: Vec<String>,
    arguments: Vec<String>,
    child: Child,
}

impl Running {
    /// A fresh one with these settings and a bundle.
    pub fn start(site: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("data/bundles")).unwrap();
        write_bundle(&dir.path().join("data/bundles"), "0.1.0");
        Self::start_in(dir, site, &["--boot-listen", "127.0.0.1:0"])
    }

    /// In a directory that is there, with more arguments.
    pub fn start_in(dir: TempDir, site: &str, more: &[&str]) -> Self {
        Self::start_wrapped(dir, site, more, &[])
    }

    /// With a file system of its own, of so many MiB, for uploads. Needs no privileges where user namespaces are allowed.
    pub fn start_with_small_uploads(site: &str, mib: u32) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let uploads = dir.path().join("data/uploads");
        std::fs::create_dir_all(&uploads).unwrap();
        let script = format!("mount -t tmpfs -o size={mib}m tmpfs {} && exec \"$@\"", uploads.display());
        Self::start_wrapped(dir, site, &[], &["unshare", "--map-root-user", "--mount", "sh", "-c", &script, "sh"])
    }

    fn start_wrapped(dir: TempDir, site: &str, more: &[&str], wrapper: &[&str]) -> Self {
        std::fs::write(dir.path().join("site.json"), site).unwrap();
        let path = |name: &str| dir.path().join(name).display().to_string();
        let mut arguments: Vec<String> =
            ["--listen", "127.0.0.1:0", "--address", "127.0.0.1", "--data"].map(str::to_owned).into();
        arguments.extend([path("data"), "--site".into(), path("site.json"), "--announce".into(), path("announced")]);
        arguments.extend(["--local-join".into(), path("join.json")]);
        arguments.extend(more.iter().map(|argument| (*argument).to_owned()));
        let wrapper: Vec<String> = wrapper.iter().map(|word| (*word).to_owned()).collect();
        let (child, url, boot, netboot) = spawn(&wrapper, &arguments);
        let announced = std::fs::read_to_string(path("announced")).unwrap();
        let words: Vec<&str> = announced.split_whitespace().collect();
        let after = |flag: &str| words[words.iter().position(|word| *word == flag).unwrap() + 1].to_owned();
        assert!(announced.starts_with("lodge: note: log in with: lodge login https://127.0.0.1:"), "{announced}");
        let (ca, operator) = (after("--ca").parse().unwrap(), after("--token"));
        let local = read_local(&dir);
        Self { dir, url, boot, netboot, ca, operator, local, wrapper, arguments, child }
    }

    /// Stop it with SIGTERM and start it again on the same data.
    pub fn restart(&mut self) {
        self.stop();
        self.start_again();
    }

    /// Kill it without warning and start it again on the same data.
    pub fn crash(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.start_again();
    }

    fn start_again(&mut self) {
        let (child, url, boot, netboot) = spawn(&self.wrapper, &self.arguments);
        (self.child, self.url, self.boot, self.netboot) = (child, url, boot, netboot);
        self.local = read_local(&self.dir);
    }

    fn stop(&mut self) {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.child.id()).unwrap());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
        assert!(self.child.wait().unwrap().success());
    }

    pub fn as_operator(&self) -> Center {
        self.with_token(&self.operator)
    }

    pub fn with_token(&self, token: &str) -> Center {
        Center::new(&self.url, &self.ca, Auth::Token(token.to_owned())).unwrap()
    }

    pub async fn new_machine(&self, number: u128) -> Machine {
        let token = self.as_operator().mint_token().await.unwrap().token;
        self.machine_with(&token, number)
    }

    pub fn machine_with(&self, token: &str, number: u128) -> Machine {
        Machine { center: self.with_token(token), id: MachineId(Uuid::from_u128(number)), number }
    }

    pub fn as_node(&self, node: &Enrolled) -> Center {
        let auth = Auth::Certificate { cert_pem: node.reply.certificate.clone(), key_pem: node.key.0.clone() };
        Center::new(&self.url, &self.ca, auth).unwrap()
    }

    /// Bytes of memory that it has in use.
    pub fn memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
    }

    pub fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// The center's own machine, enrolled with the local token and registered as the share.
    pub async fn own_machine(&self) -> Enrolled {
        let machine = self.machine_with(&self.local.token, 1);
        let (key, csr) = new_key_and_csr().unwrap();
        let request = EnrolRequest {
            ticket: None,
            name: Some("center1".into()),
            roles: vec![Role::Center, Role::Share],
            csr: csr.0,
            address: "10.77.0.10".into(),
        };
        let reply = machine.center.enrol(machine.id, &request).await.unwrap();
        Enrolled { key, reply, number: 1 }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn read_local(dir: &TempDir) -> LocalJoin {
    use std::os::unix::fs::PermissionsExt;
    let path = dir.path().join("join.json");
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// Where the network boot listens.
pub struct Netboot {
    pub dhcp: SocketAddr,
    pub pxe: SocketAddr,
    pub tftp: SocketAddr,
}

/// Start the program and read from its standard output where it listens.
fn spawn(wrapper: &[String], arguments: &[String]) -> (Child, String, Option<String>, Option<Netboot>) {
    let mut words = wrapper.to_vec();
    words.push(env!("CARGO_BIN_EXE_center").to_owned());
    words.extend_from_slice(arguments);
    let mut child = Command::new(&words[0]).args(&words[1..]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut next = |word: &str| lines.next().unwrap().unwrap().strip_prefix(word).unwrap().trim().to_owned();
    let has = |option: &str| arguments.iter().any(|argument| argument == option);
    let url = next("api ");
    let boot = has("--boot-listen").then(|| next("boot "));
    let mut udp = |word: &str| next(word).strip_prefix("udp://").unwrap().parse().unwrap();
    let netboot = has("--netboot").then(|| Netboot { dhcp: udp("dhcp "), pxe: udp("pxe "), tftp: udp("tftp ") });
    (child, url, boot, netboot)
}

/// An installer.
pub struct Machine {
    pub center: Center,
    pub id: MachineId,
    pub number: u128,
}

/// What an installer leaves on the disk for the agent.
pub struct Enrolled {
    pub key: KeyPem,
    pub reply: EnrolReply,
    pub number: u128,
}

impl Machine {
    pub async fn hello(&self, disks: Vec<Disk>) -> Decision {
        let hello = Hello { facts: facts(self.number, disks), name: None, version: "0.1.0".into() };
        self.center.hello(self.id, &hello).await.unwrap()
    }

    /// The ticket, once its signature has been checked.
    pub fn ticket(&self, decision: Decision) -> Ticket {
        match decision {
            Decision::Install { ticket } => verify_ticket(&ticket, self.center.ca_der().unwrap()).unwrap(),
            other => panic!("expected a ticket, got {other:?}"),
        }
    }

    pub async fn enrol(&self, ticket: &Ticket, address: &str) -> Result<Enrolled, lodge_client::Error> {
        let (key, csr) = new_key_and_csr().unwrap();
        let request = EnrolRequest { ticket: Some(ticket.id), name: None, roles: vec![], csr: csr.0, address: address.into() };
        let reply = self.center.enrol(self.id, &request).await?;
        Ok(Enrolled { key, reply, number: self.number })
    }
}

pub fn register(number: u128, boot: u128, serial: &str, address: &str, roles: Vec<Role>) -> Register {
    Register {
        boot: BootId(Uuid::from_u128(boot)),
        facts: facts(number, vec![disk("vda", serial)]),
        roles,
        version: "0.1.0".into(),
        kernel: "6.12.0".into(),
        slot: Slot::A,
        disk_serial: serial.into(),
        address: address.into(),
        phases: vec![Phase { name: "agent".into(), at: 3.5 }],
    }
}

pub fn heartbeat(boot: u128, share: ShareHealth, orders: &Orders) -> Heartbeat {
    Heartbeat {
        boot: BootId(Uuid::from_u128(boot)),
        share,
        generation: orders.generation,
        problem: None,
        phases: vec![],
        environments: vec![],
        tasks: vec![],
        warm: orders.warm.iter().map(|template| template.digest.clone()).collect(),
        last_words: vec![],
        reached: vec![],
        signs: Default::default(),
        criu: None,
    }
}

pub fn disk(name: &str, serial: &str) -> Disk {
    Disk {
        name: name.into(),
        serial: serial.into(),
        model: "QEMU HARDDISK".into(),
        transport: Transport::Virtio,
        size: 20 * GIB,
        block_size: 512,
        rotational: false,
        removable: false,
        read_only: false,
        signatures: vec![],
    }
}

pub fn holding(name: &str, serial: &str, kind: &str) -> Disk {
    let signature = Signature { device: name.into(), kind: kind.into(), label: String::new() };
    Disk { signatures: vec![signature], ..disk(name, serial) }
}

pub fn facts(number: u128, disks: Vec<Disk>) -> Facts {
    let nic = Nic {
        name: "eth0".into(),
        mac: format!("52:54:00:00:00:{number:02x}"),
        driver: "virtio_net".into(),
        link: true,
        speed: None,
        addresses: vec![],
    };
    Facts {
        machine: MachineId(Uuid::from_u128(number)),
        firmware: Firmware::Uefi,
        product: "QEMU q35".into(),
        cpus: 1,
        cpu_model: "TCG".into(),
        memory: GIB,
        disks,
        nics: vec![nic],
    }
}

pub fn write_bundle(dir: &Path, version: &str) {
    let part =
        |name: &str, bytes: &[u8]| Part { name: name.into(), size: bytes.len() as u64, sha256: hex(&Sha256::digest(bytes)) };
    let parts = vec![part(UKI, UKI_BYTES), part(VERITY, b"tree"), part(ROOT, b"root")];
    let manifest = Manifest { schema: SCHEMA, version: version.into(), roothash: "11".repeat(32), parts };
    let manifest = serde_json::to_vec(&manifest).unwrap();
    let file = std::fs::File::create(dir.join(format!("lodge-os-{version}.tar.gz"))).unwrap();
    let mut archive = tar::Builder::new(flate2::write::GzEncoder::new(file, flate2::Compression::fast()));
    let members: [(&str, &[u8]); 5] =
        [(MANIFEST, &manifest), (SIGNATURE, &[0; 64]), (UKI, UKI_BYTES), (VERITY, b"tree"), (ROOT, b"root")];
    for (name, bytes) in members {
        let mut header = tar::Header::new_ustar();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        archive.append_data(&mut header, name, bytes).unwrap();
    }
    archive.into_inner().unwrap().finish().unwrap();
}

/// One plain HTTP/1.0 request, as firmware makes it: status line and headers, body.
pub fn plain_get(url: &str, more: &str) -> (String, Vec<u8>) {
    use std::io::Write;
    let rest = url.strip_prefix("http://").unwrap();
    let (place, path) = rest.split_once('/').unwrap();
    let mut stream = std::net::TcpStream::connect(place).unwrap();
    write!(stream, "GET /{path} HTTP/1.1\r\nHost: {place}\r\nConnection: close\r\n{more}\r\n").unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let at = answer.windows(4).position(|window| window == b"\r\n\r\n").unwrap();
    (String::from_utf8_lossy(&answer[..at]).into_owned(), answer[at + 4..].to_vec())
}
