//! The site that the rack stands in: a router with a DHCP server that knows nothing of Lodge, and the way in for the operator.
//!
//! It is QEMU's user networking in a process without a machine. It gives addresses from 10.77.0.50 on, answers no PXE and no HTTP
//! Boot, and lets nothing out: a rack needs nothing from outside. One port of the host leads to the center's API; one address of the
//! site, 10.77.0.5:80, leads to a web server of the rack, and another, 10.77.0.6:443, to its BMCs, where a test wants one. More ports of the host lead to addresses of the site
//! as soon as somebody asks for them.
//!
//! | addresses of 10.77.0.0/24 | whose |
//! |---|---|
//! | .2, .3 | the router; its name server |
//! | .5, .6 | the rack's web server; its BMCs |
//! | .10 | the center |
//! | .50 to .65 | given by DHCP |
//! | .128 to .199 | for environments |

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, TcpListener},
    path::Path,
    sync::{Mutex, PoisonError},
};

use anyhow::{Context, Result, bail};
use serde_json::json;

use crate::{machine::spec::MONITOR_SOCKET, process::Process, qmp::Qmp, sockets, switch::Switch};

/// The center's fixed address, with its prefix.
pub const CENTER: &str = "10.77.0.10/24";
/// The router's own: the gateway of the site.
pub const ADDRESS: &str = "10.77.0.2";
/// Length of the prefix of the site's network.
pub const PREFIX: u8 = 24;
/// First and last address for environments; DHCP gives none of them.
pub const ENVIRONMENTS: (Ipv4Addr, Ipv4Addr) = (Ipv4Addr::new(10, 77, 0, 128), Ipv4Addr::new(10, 77, 0, 199));

/// A running router.
pub struct Router {
    process: Process,
    monitor: Qmp,
    forwards: Mutex<BTreeMap<(Ipv4Addr, u16), u16>>,
    /// Port of 127.0.0.1 that leads to the center's API.
    pub api_port: u16,
    /// Port of 127.0.0.1 that 10.77.0.5:80 leads to.
    pub web_port: u16,
    /// Port of 127.0.0.1 that 10.77.0.6:443 leads to.
    pub bmc_port: u16,
}

impl Router {
    /// Plug a router into the switch. Its files go to `dir`.
    pub fn start(dir: &Path, switch: &Switch) -> Result<Self> {
        let (api_port, web_port, bmc_port) = (free_port()?, free_port()?, free_port()?);
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
            format!("guestfwd=tcp:10.77.0.6:443-cmd:{}", relay(bmc_port)),
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
            "-chardev",
            &format!("socket,id=monitor,server=off,path={MONITOR_SOCKET}"),
            "-mon",
            "chardev=monitor,mode=control",
        ]
        .map(str::to_owned);
        let listener = sockets::listen(dir, MONITOR_SOCKET)?;
        let process = Process::spawn("router", dir, "qemu-system-x86_64", &arguments, &[MONITOR_SOCKET])?;
        let monitor = Qmp::new(process.accept(&listener)?).context("speaking to the router's monitor")?;
        Ok(Self { process, monitor, forwards: Mutex::default(), api_port, web_port, bmc_port })
    }

    /// A port of 127.0.0.1 that leads to a TCP port of an address of the site, from now until the rack is gone; the same one whenever
    /// it is asked for. That it takes a connection says nothing about the other side: the router answers first.
    pub fn forward(&self, address: Ipv4Addr, port: u16) -> Result<u16> {
        let mut forwards = self.forwards.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = forwards.get(&(address, port)) {
            return Ok(*known);
        }
        let local = free_port()?;
        let line = format!("hostfwd_add site tcp:127.0.0.1:{local}-{address}:{port}");
        // QMP has no command of its own for it. The human monitor says nothing when all is well.
        let said = self.monitor.run("human-monitor-command", json!({ "command-line": line }))?;
        match said.as_str().map(str::trim) {
            Some("") => {}
            said => bail!("forwarding a port to {address}:{port}: the router says {}", said.unwrap_or("nothing of use")),
        }
        forwards.insert((address, port), local);
        Ok(local)
    }

    /// Whether it still runs.
    pub fn is_running(&self) -> bool {
        self.process.is_running()
    }
}

/// What the router starts for each connection to an address of the rack's own, with the connection as standard input and output.
fn relay(port: u16) -> String {
    // A shell without job control gives what runs in the background no standard input of its own accord.
    format!("bash -c 'exec 3<>/dev/tcp/127.0.0.1/{port} 4<&0; cat <&4 >&3 & cat <&3; kill $!'")
}

/// A port of the loopback that nobody uses now.
fn free_port() -> Result<u16> {
    let listener = TcpListener::bind("127.0.0.1:0").context("looking for a free port")?;
    Ok(listener.local_addr().context("looking for a free port")?.port())
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read as _, Write as _},
        net::TcpStream,
        os::unix::net::UnixStream,
        time::Duration,
    };

    use super::*;

    /// Something with one cable that answers ARP for an address.
    struct Neighbour(UnixStream);

    impl Neighbour {
        fn send(&mut self, frame: &[u8]) {
            self.0.write_all(&(frame.len() as u32).to_be_bytes()).unwrap();
            self.0.write_all(frame).unwrap();
        }

        fn receive(&mut self) -> Vec<u8> {
            let mut head = [0; 4];
            self.0.read_exact(&mut head).unwrap();
            let mut frame = vec![0; u32::from_be_bytes(head) as usize];
            self.0.read_exact(&mut frame).unwrap();
            frame
        }
    }

    #[test]
    fn a_forwarded_port_leads_to_its_address() {
        if !Path::new("/usr/bin/qemu-system-x86_64").exists() {
            println!("skipped: there is no qemu-system-x86_64");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let switch = Switch::start(None).unwrap();
        let router = Router::start(dir.path(), &switch).unwrap();
        switch.add_port("guest", sockets::listen(dir.path(), "guest.sock").unwrap()).unwrap();
        let mut guest = Neighbour(sockets::connect(dir.path(), "guest.sock").unwrap());
        guest.0.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        let address = ENVIRONMENTS.0;
        // As an environment that has just been connected: its announcement makes it known to switch and router.
        let arp = |kind: u8, target: [u8; 4]| {
            let head =
                [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 1, 8, 6, 0, 1, 8, 0, 6, 4, 0, kind, 2, 0, 0, 0, 0, 1];
            [&head[..], &address.octets(), &[0; 6], &target].concat()
        };
        guest.send(&arp(1, address.octets()));
        let local = router.forward(address, 22).unwrap();
        assert_eq!(router.forward(address, 22).unwrap(), local);
        assert_ne!(router.forward(address, 80).unwrap(), local);
        let _client = TcpStream::connect(("127.0.0.1", local)).unwrap();
        loop {
            let frame = guest.receive();
            match &frame[12..14] {
                [8, 6] if frame[21] == 1 && frame[38..42] == address.octets() => guest.send(&arp(2, [10, 77, 0, 2])),
                // The first segment: to our address and port 22, with the SYN flag.
                [8, 0] if frame[23] == 6 && frame[30..34] == address.octets() => {
                    assert_eq!((&frame[36..38], frame[47] & 2), (&[0, 22][..], 2));
                    return;
                }
                _ => {}
            }
        }
    }
}
