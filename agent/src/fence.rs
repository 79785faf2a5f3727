//! Cutting a node from the share, on the machine that serves it: drop its address, remove its export, expire its client, read back that it
//! is gone (`plan.rs` has the order and the reasons). The center says who is banned; what is banned is kept on the state partition before
//! anything is done, so that neither a restart of the agent nor of the machine lets anybody in again before the center has spoken:
//! `agent fence` runs before the NFS server starts.
//!
//! | file | what |
//! |---|---|
//! | `fence/plan.rs` | the next step, and what proves that a ban is in force |
//! | `fence/attest.rs` | what this node attests of its lease and its watchdog |
//! | `fence/marks.rs` | how old the nodes' heartbeat files are |
//! | `fence/peers.rs` | who of the neighbours that are asked after answers |

mod attest;
pub mod marks;
pub mod peers;
pub mod plan;

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use lodge_model::fence::{Ban, Fenced, PeerWord, Signs};
use lodge_network::{banned, set_banned};
use tokio::sync::watch;

use crate::durable;
use crate::exports::{self, Export};
use crate::moments::since_boot;
use marks::Marks;
use plan::{Client, Facts, Step};

/// The bans in force, or about to be.
const KEPT: &str = "/state/node/bans.json";
/// The clients of the NFS server, one directory each (fs/nfsd/nfs4state.c in the kernel's sources).
const CLIENTS: &str = "/proc/fs/nfsd/clients";
/// What the server has done, with a line `th THREADS …`; there as long as the kernel has a server.
const SERVER: &str = "/proc/net/rpc/nfsd";
/// Steps of one run of `agent fence`; a set of bans takes three.
const STEPS_MAX: usize = 8;

/// What this node can say of itself and others about fencing.
pub struct Witness {
    /// How old the heartbeat files are, on a share node.
    pub marks: Option<Marks>,
    /// Who answers.
    pub peers: watch::Receiver<Vec<PeerWord>>,
    /// The lease that this node is held to, on a worker.
    pub lease: Option<watch::Receiver<Option<Duration>>>,
}

impl Witness {
    /// Everything it can say now.
    pub fn signs(&self, fenced: Vec<Fenced>) -> Signs {
        let marks = self.marks.as_ref().map(|marks| marks.ages(since_boot())).unwrap_or_default();
        let guard = self.lease.as_ref().map(|lease| attest::guard(*lease.borrow()));
        Signs { fenced, marks, peers: self.peers.borrow().clone(), guard }
    }
}

/// What is in force.
pub fn look() -> Result<Facts> {
    let (kept, exports) = (kept(Path::new(KEPT))?, exports::current(Path::new(exports::ETAB))?);
    // Nothing is done for what is not kept.
    if kept.is_empty() {
        return Ok(Facts { exports, ..Facts::default() });
    }
    // Where the rules cannot be listed, setting them says why.
    let dropped = banned().unwrap_or_default();
    let clients = clients(Path::new(CLIENTS), Path::new(SERVER)).unwrap_or_else(|error| {
        tracing::warn!("{error:#}");
        vec![Client { number: 0, address: None }]
    });
    Ok(Facts { kept, dropped, exports, clients, ..Facts::default() })
}

/// Do one step. It may take as long as the server's disk takes for the requests in flight.
pub fn perform(step: &Step) -> Result<()> {
    match step {
        Step::Keep(bans) => {
            let text = serde_json::to_vec_pretty(bans).context("encoding the bans")?;
            durable::write(Path::new(KEPT), &text, 0o600)
        }
        Step::Drop(addresses) => set_banned(addresses),
        Step::Unexport(exports) => {
            exports.iter().try_for_each(Export::remove)?;
            exports::sync(Path::new(exports::ETAB))
        }
        Step::Expire(clients) => clients.iter().try_for_each(|number| expire(Path::new(CLIENTS), *number)),
    }
}

/// `agent fence`: what was banned when the machine went down is banned again before its server starts.
pub fn enforce_kept() -> Result<()> {
    for _ in 0..STEPS_MAX {
        let facts = look()?;
        let Some(step) = plan::next(&facts, &facts.kept) else {
            tracing::info!("{} bans are in force", facts.kept.len());
            return Ok(());
        };
        perform(&step)?;
    }
    bail!("the bans of {KEPT} do not come into force")
}

fn kept(path: &Path) -> Result<Vec<Ban>> {
    match fs::read(path) {
        Ok(text) => serde_json::from_slice(&text).with_context(|| format!("reading {}", path.display())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error).with_context(|| format!("reading {}", path.display())),
    }
}

/// The server's clients; none where it does not run.
fn clients(dir: &Path, server: &Path) -> Result<Vec<Client>> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound && !serves(server) => return Ok(Vec::new()),
        Err(error) => return Err(error).with_context(|| format!("listing {}", dir.display())),
    };
    let mut clients = Vec::new();
    for entry in entries {
        let entry = entry.with_context(|| format!("listing {}", dir.display()))?;
        let Some(number) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let path = entry.path().join("info");
        match fs::read_to_string(&path) {
            Ok(text) => clients.push(Client { number, address: address(&text) }),
            // It went meanwhile.
            Err(error) if error.kind() == ErrorKind::NotFound || error.raw_os_error() == Some(nix::libc::ENXIO) => {}
            Err(error) => {
                tracing::warn!("reading {}: {error}", path.display());
                clients.push(Client { number, address: None });
            }
        }
    }
    Ok(clients)
}

/// Whether the server has threads; taken for granted where that cannot be told.
fn serves(server: &Path) -> bool {
    match fs::read_to_string(server) {
        Ok(text) => !text.lines().any(|line| line == "th 0" || line.starts_with("th 0 ")),
        Err(error) => error.kind() != ErrorKind::NotFound,
    }
}

/// The address in a line `address: "10.77.0.101:874"`, an IPv6 one in brackets.
fn address(info: &str) -> Option<IpAddr> {
    let line = info.lines().find_map(|line| line.trim().strip_prefix("address:"))?;
    let (host, _port) = line.trim().trim_matches('"').rsplit_once(':')?;
    host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>().ok().map(|address| address.to_canonical())
}

/// Take all state of a client away; the kernel waits until no request of it is in flight. Done when it is gone already.
fn expire(dir: &Path, client: u64) -> Result<()> {
    let path = dir.join(client.to_string()).join("ctl");
    let write = |mut file: File| file.write_all(b"expire\n");
    match OpenOptions::new().write(true).open(&path).and_then(write) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("writing expire to {}", path.display()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_are_read_and_expired() {
        let dir = tempfile::tempdir().unwrap();
        let server = dir.path().join("server");
        let none = |server| clients(&dir.path().join("none"), server);
        assert_eq!(none(&server).unwrap(), []);
        fs::write(&server, "rc 0 0 0\nth 0 0 0.000\n").unwrap();
        assert_eq!(none(&server).unwrap(), []);
        fs::write(&server, "rc 0 0 0\nth 16 0 0.000\n").unwrap();
        assert!(none(&server).is_err(), "a server without a list of clients proves nothing");
        let info = |number: &str, address: &str| {
            let client = dir.path().join(number);
            fs::create_dir(&client).unwrap();
            let text = format!(
                "clientid: 0x6bd5b2f4\naddress: {address}\nstatus: confirmed\nseconds from last renew: 3\n\
                 name: \"Linux NFSv4.2 node1\"\nminor version: 2\n"
            );
            fs::write(client.join("info"), text).unwrap();
            fs::write(client.join("ctl"), "").unwrap();
        };
        info("7", "\"10.77.0.101:874\"");
        info("12", "\"[fd00::5]:1011\"");
        info("13", "\"nonsense\"");
        let mut found = clients(dir.path(), &server).unwrap();
        found.sort_by_key(|client| client.number);
        let client = |number, address: Option<&str>| Client { number, address: address.map(|text| text.parse().unwrap()) };
        assert_eq!(found, [client(7, Some("10.77.0.101")), client(12, Some("fd00::5")), client(13, None)]);
        expire(dir.path(), 7).unwrap();
        assert_eq!(fs::read_to_string(dir.path().join("7/ctl")).unwrap(), "expire\n");
        expire(dir.path(), 99).unwrap();
    }

    #[test]
    fn bans_survive_their_file_and_a_damaged_one_is_no_empty_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("bans.json");
        assert_eq!(kept(&path).unwrap(), []);
        let bans = vec![plan::tests::ban(1, &["10.77.0.101"])];
        fs::write(&path, serde_json::to_vec(&bans).unwrap()).unwrap();
        assert_eq!(kept(&path).unwrap(), bans);
        fs::write(&path, "[{").unwrap();
        assert!(format!("{:#}", kept(&path).unwrap_err()).contains("bans.json"));
    }
}
