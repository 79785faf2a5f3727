//! The site that the rack stands in: a router with a DHCP server that knows nothing of Lodge, and the way in for the operator.
//!
//! It is QEMU's user networking in a process without a machine. It gives addresses from 10.77.0.50 on, answers no PXE and no HTTP
//! Boot, and lets nothing out: a rack needs nothing from outside. One port of the host leads to the center's API; one address of the
//! site, 10.77.0.5:80, leads to a web server of the rack, where a test wants one.

use std::{net::TcpListener, path::Path};

use anyhow::{Context, Result};

use crate::{process::Process, sockets, switch::Switch};

/// The center's fixed address, with its prefix.
pub const CENTER: &str = "10.77.0.10/24";
/// The router's own.
pub const ADDRESS: &str = "10.77.0.2";

/// A running router.
pub struct Router {
    process: Process,
    /// Port of 127.0.0.1 that leads to the center's API.
    pub api_port: u16,
    /// Port of 127.0.0.1 that 10.77.0.5:80 leads to.
    pub web_port: u16,
}

impl Router {
    /// Plug a router into the switch. Its files go to `dir`.
    pub fn start(dir: &Path, switch: &Switch) -> Result<Self> {
        let (api_port, web_port) = (free_port()?, free_port()?);
        switch.add_port("router", sockets::listen(dir, "net.sock")?)?;
        let center = CENTER.split('/').next().unwrap_or(CENTER);
        let site = [
            "user,id=site".to_owned(),
            "net=10.77.0.0/24".to_owned(),
            format!("host={ADDRESS}"),
            "dhcpstart=10.77.0.50".to_owned(),
            "ipv6=off".to_owned(),
            "restrict=on".to_owned(),
            format!("hostfwd=tcp:127.0.0.1:{api_port}-{center}:8443"),
            format!("guestfwd=tcp:10.77.0.5:80-cmd:{}", relay(web_port)),
        ];
        let arguments = [
            "-nodefaults",
            "-no-user-config",
            "-display",
            "none",
            "-machine",
            "none",
            "-name",
            "router",
            "-netdev",
            &site.join(","),
            "-netdev",
            "hubport,id=site-side,hubid=0,netdev=site",
            "-netdev",
            "stream,id=cable,server=off,addr.type=unix,addr.path=net.sock",
            "-netdev",
            "hubport,id=rack-side,hubid=0,netdev=cable",
        ]
        .map(str::to_owned);
        let process = Process::spawn("router", dir, "qemu-system-x86_64", &arguments, &[])?;
        Ok(Self { process, api_port, web_port })
    }

    /// Whether it still runs.
    pub fn is_running(&self) -> bool {
        self.process.is_running()
    }
}

/// What the router starts for each connection to 10.77.0.5:80, with the connection as standard input and output.
fn relay(port: u16) -> String {
    // A shell without job control gives what runs in the background no standard input of its own accord.
    format!("bash -c 'exec 3<>/dev/tcp/127.0.0.1/{port} 4<&0; cat <&4 >&3 & cat <&3; kill $!'")
}

/// A port of the loopback that nobody uses now.
fn free_port() -> Result<u16> {
    let listener = TcpListener::bind("127.0.0.1:0").context("looking for a free port")?;
    Ok(listener.local_addr().context("looking for a free port")?.port())
}
