//! Who may mount the share: the table of the NFS server's own tools, and how to change it into what is wanted.
//!
//! One entry an address, nothing wider. Whatever else is in the table is taken out.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use lodge_model::paths;
use lodge_sys::program::Program;

/// Where exportfs(8) keeps what is exported.
pub const ETAB: &str = "/var/lib/nfs/etab";

const OPTIONS: &str = "rw,sync,no_subtree_check,no_root_squash,fsid=0,sec=sys";
const LIMIT: Duration = Duration::from_secs(20);

/// One entry: a directory and who may mount it, as exportfs(8) writes it (an address here; anything in a foreign entry).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Export {
    /// Directory.
    pub path: String,
    /// Client.
    pub client: String,
}

impl Export {
    /// The share, for this address.
    pub fn share_for(address: IpAddr) -> Self {
        Self { path: paths::SHARE_DATA.to_owned(), client: address.to_string() }
    }

    /// Whether it is the entry of this address.
    pub fn is_for(&self, address: IpAddr) -> bool {
        self.client.parse() == Ok(address)
    }

    /// Let the client in.
    pub fn add(&self) -> Result<()> {
        Program::Exportfs.call(["-o", OPTIONS, &self.word()]).deadline(LIMIT).run().map(drop)
    }

    /// Take the entry away.
    pub fn remove(&self) -> Result<()> {
        Program::Exportfs.call(["-u", &self.word()]).deadline(LIMIT).run().map(drop)
    }

    /// `client:/path`, an IPv6 address in brackets.
    fn word(&self) -> String {
        match self.client.parse::<IpAddr>() {
            Ok(IpAddr::V6(address)) => format!("[{address}]:{}", self.path),
            _ => format!("{}:{}", self.client, self.path),
        }
    }
}

/// What is exported now.
pub fn current(etab: &Path) -> Result<BTreeSet<Export>> {
    match fs::read_to_string(etab) {
        Ok(text) => Ok(parse(&text)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(BTreeSet::new()),
        Err(error) => Err(error).with_context(|| format!("reading {}", etab.display())),
    }
}

/// What exportfs(8) wrote last stays written, whatever happens to the power.
pub fn sync(etab: &Path) -> Result<()> {
    let dir = etab.parent().unwrap_or(Path::new("/"));
    for path in [etab, dir] {
        File::open(path).and_then(|file| file.sync_all()).with_context(|| format!("syncing {}", path.display()))?;
    }
    Ok(())
}

/// Lines `PATH<tab>CLIENT(OPTIONS)`.
fn parse(text: &str) -> BTreeSet<Export> {
    let entries = text.lines().filter_map(|line| {
        let (path, client) = line.split_once(char::is_whitespace)?;
        let client = client.trim_start().split('(').next()?;
        Some(Export { path: path.to_owned(), client: client.to_owned() })
    });
    entries.collect()
}

/// What the center wants; an entry that is not an address is refused, since it could let in more than one node.
pub fn wanted(addresses: &[String]) -> Result<BTreeSet<Export>, String> {
    let one = |text: &String| match text.parse() {
        Ok(address) => Ok(Export::share_for(address)),
        Err(_) => Err(format!("the center's order to export the share to {text:?} is refused: it is not an address")),
    };
    addresses.iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_servers_table_is_read() {
        let text = "/state/share\t10.77.0.51(rw,sync,wdelay,hide,nocrossmnt,secure,no_root_squash,fsid=0,sec=sys)\n\
                    /state/share\t10.77.0.0/24(ro,sync)\n\
                    /srv\tfd00::1(rw)\nnonsense\n";
        let clients: Vec<String> = parse(text).into_iter().map(|export| format!("{} {}", export.path, export.client)).collect();
        assert_eq!(clients, ["/srv fd00::1", "/state/share 10.77.0.0/24", "/state/share 10.77.0.51"]);
        assert_eq!(current(Path::new("/nowhere/etab")).unwrap(), BTreeSet::new());
    }

    #[test]
    fn only_addresses_are_exported_to() {
        let wanted_now = wanted(&["10.77.0.51".into(), "10.77.0.51".into(), "fd00::1".into()]).unwrap();
        let words: Vec<String> = wanted_now.iter().map(Export::word).collect();
        assert_eq!(words, ["10.77.0.51:/state/share", "[fd00::1]:/state/share"]);
        for wide in ["*", "10.0.0.0/8", "node1", ""] {
            assert!(wanted(&[wide.into()]).unwrap_err().contains(&format!("{wide:?}")));
        }
    }
}
