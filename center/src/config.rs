//! What the center is told at its start: the command line, and what it makes of it.

use std::net::{IpAddr, SocketAddr, SocketAddrV4};
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Parser;
use lodge_model::answer::SiteAnswer;
use lodge_model::node::NodeFile;
use nix::ifaddrs::getifaddrs;
use nix::net::if_::InterfaceFlags;
use serde::de::DeserializeOwned;

/// The control center of Lodge: it admits bare machines, gives them tickets to install, keeps the list of nodes and tells them
/// what to do.
#[derive(Debug, Parser)]
#[command(version, after_long_help = EXAMPLES)]
pub struct Arguments {
    /// Directory of everything that lasts: database, CA, consoles, and bundles in DATA/bundles. Made if it is not there.
    #[arg(long, value_name = "DIR")]
    pub data: PathBuf,
    /// Where the HTTPS API listens. With port 0 the system chooses one; it is printed.
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "0.0.0.0:8443")]
    pub listen: SocketAddr,
    /// Where boot files and bundles are served by plain HTTP, below /boot/. Machines need it to be installed.
    /// [default: 0.0.0.0:80 with netboot, else nowhere]
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub boot_listen: Option<SocketAddr>,
    /// Address of this center. The first is the one that machines are told; all are in its certificate. May be repeated.
    /// [default: the host's addresses, loopback left out]
    #[arg(long = "address", value_name = "IP")]
    pub addresses: Vec<IpAddr>,
    /// First settings of the site, as JSON: {"admit":"auto","disk":{"min-gib":16},"netboot":true}. Read at the first start only.
    #[arg(long, value_name = "FILE", conflicts_with = "node_file")]
    pub site: Option<PathBuf>,
    /// The node.json of an installed center machine, to take the first settings of the site from.
    #[arg(long, value_name = "FILE")]
    pub node_file: Option<PathBuf>,
    /// Answer machines that boot from the network (proxy DHCP on UDP 67 and 4011, TFTP on UDP 69), beside the site's DHCP
    /// server. Also on when the site's settings say so. Needs root.
    #[arg(long)]
    pub netboot: bool,
    /// Where the proxy DHCP listens, with netboot. Another port than 67 is for trying it out.
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "0.0.0.0:67")]
    pub dhcp_listen: SocketAddrV4,
    /// Where PXE clients ask for the boot file's name, with netboot.
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "0.0.0.0:4011")]
    pub pxe_listen: SocketAddrV4,
    /// Where TFTP listens, with netboot.
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "0.0.0.0:69")]
    pub tftp_listen: SocketAddrV4,
    /// Write a token here at each start, by which the agent of this machine enrols (mode 0600).
    #[arg(long, value_name = "FILE")]
    pub local_join: Option<PathBuf>,
    /// Where the operator's token is told, once, at the first start: a file or a terminal as /dev/console. May be repeated.
    /// [default: standard error]
    #[arg(long = "announce", value_name = "FILE")]
    pub announce: Vec<PathBuf>,
    /// Longest template that may be uploaded, in MiB. It is kept in DATA/uploads until a node has imported it.
    #[arg(long, value_name = "MIB", default_value_t = 20 * 1024, value_parser = clap::value_parser!(u64).range(1..=1 << 24))]
    pub upload_max_mib: u64,
    /// Make a new operator's token now and tell it, for when the first one has been lost. Former ones stay good.
    #[arg(long)]
    pub new_operator_token: bool,
}

const EXAMPLES: &str = "\
Try it on any Linux, without root:
  center --data ./lodge-data --listen 127.0.0.1:8443 --boot-listen 127.0.0.1:8080 --address 127.0.0.1

Put a bundle where nodes are installed from, at any time:
  cp out/lodge-os-0.1.0.tar.gz ./lodge-data/bundles/

Log in with the line that the first start prints, then look around:
  lodge login https://127.0.0.1:8443 --ca sha256:… --token …
  lodge node ls

The first lines of standard output say where it listens; its log goes to standard error (RUST_LOG sets how much).
The API describes itself at https://ADDRESS:PORT/openapi.json.";

/// The site's first settings, if the command line names any.
pub fn first_site(arguments: &Arguments) -> anyhow::Result<SiteAnswer> {
    match (&arguments.site, &arguments.node_file) {
        (Some(site), _) => read_json(site),
        (None, Some(node)) => Ok(read_json::<NodeFile>(node)?.site.unwrap_or_default()),
        (None, None) => Ok(SiteAnswer::default()),
    }
}

/// The addresses that were given, else the host's own.
pub fn addresses(given: &[IpAddr]) -> anyhow::Result<Vec<IpAddr>> {
    if !given.is_empty() {
        return Ok(given.to_vec());
    }
    let mut found = host_addresses()?;
    if found.is_empty() {
        tracing::warn!("this host has no address but loopback; machines cannot reach this center (give one with --address)");
        found.push(IpAddr::from([127, 0, 0, 1]));
    }
    Ok(found)
}

/// The host's addresses that others can reach, IPv4 first.
fn host_addresses() -> anyhow::Result<Vec<IpAddr>> {
    let mut found = Vec::new();
    for interface in getifaddrs().context("listing the host's addresses")? {
        let address = interface.address.as_ref();
        let v4 = address.and_then(|address| address.as_sockaddr_in()).map(|address| IpAddr::V4(address.ip()));
        let v6 = address.and_then(|address| address.as_sockaddr_in6()).map(|address| IpAddr::V6(address.ip()));
        let is_up = interface.flags.contains(InterfaceFlags::IFF_UP) && !interface.flags.contains(InterfaceFlags::IFF_LOOPBACK);
        found.extend(v4.or(v6).filter(|address| is_up && !is_link_local(address)));
    }
    found.sort_by_key(IpAddr::is_ipv6);
    Ok(found)
}

fn is_link_local(address: &IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    }
}

fn read_json<T: DeserializeOwned>(path: &Path) -> anyhow::Result<T> {
    let text = std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    serde_json::from_str(&text).with_context(|| format!("reading {}", path.display()))
}
