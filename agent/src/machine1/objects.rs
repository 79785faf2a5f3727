//! The objects, with machined's names and signatures, so far as showing goes.

use std::collections::HashMap;
use std::net::IpAddr;

use tokio::sync::watch;
use zbus::fdo;
use zbus::interface;
use zbus::object_server::SignalEmitter;
use zbus::{ObjectPath, OwnedObjectPath};

use super::path_of;
use crate::environment::report::{Reports, Running};

/// `AF_INET` and `AF_INET6`, as machined tells them.
const FAMILIES: (i32, i32) = (nix::libc::AF_INET, nix::libc::AF_INET6);
/// What looks after them, in `machinectl list`.
const SERVICE: &str = "lodge";

/// `/org/freedesktop/machine1`.
pub struct Manager {
    /// What runs.
    pub reports: watch::Receiver<Reports>,
}

/// `/org/freedesktop/machine1/machine/NAME`.
pub struct Machine(pub Running);

impl Manager {
    fn find(&self, is_it: impl Fn(&Running) -> bool, asked: &str) -> fdo::Result<Running> {
        let found = self.reports.borrow().running.iter().find(|running| is_it(running)).cloned();
        found.ok_or_else(|| fdo::Error::Failed(format!("no environment {asked} runs on this node")))
    }

    fn named(&self, name: &str) -> fdo::Result<Running> {
        self.find(|running| running.name == name, name)
    }
}

#[interface(name = "org.freedesktop.machine1.Manager", introspection_docs = false)]
impl Manager {
    fn list_machines(&self) -> fdo::Result<Vec<(String, String, String, OwnedObjectPath)>> {
        let running = self.reports.borrow().running.clone();
        running.into_iter().map(|is| Ok((is.name.clone(), "container".into(), SERVICE.into(), object(&is.name)?))).collect()
    }

    fn get_machine(&self, name: &str) -> fdo::Result<OwnedObjectPath> {
        object(&self.named(name)?.name)
    }

    #[zbus(name = "GetMachineByPID")]
    fn get_machine_by_pid(&self, pid: u32) -> fdo::Result<OwnedObjectPath> {
        object(&self.find(|running| running.init.unsigned_abs() == pid, &format!("with init {pid}"))?.name)
    }

    fn get_machine_addresses(&self, name: &str) -> fdo::Result<Vec<(i32, Vec<u8>)>> {
        Ok(addresses(&self.named(name)?))
    }

    /// What an environment calls itself is in its own hands; it is not read from there.
    #[zbus(name = "GetMachineOSRelease")]
    fn get_machine_os_release(&self, name: &str) -> fdo::Result<HashMap<String, String>> {
        self.named(name).map(|_| HashMap::new())
    }

    #[zbus(signal)]
    pub async fn machine_new(emitter: &SignalEmitter<'_>, name: &str, machine: ObjectPath<'_>) -> zbus::Result<()>;

    #[zbus(signal)]
    pub async fn machine_removed(emitter: &SignalEmitter<'_>, name: &str, machine: ObjectPath<'_>) -> zbus::Result<()>;
}

#[interface(name = "org.freedesktop.machine1.Machine", introspection_docs = false)]
impl Machine {
    fn get_addresses(&self) -> Vec<(i32, Vec<u8>)> {
        addresses(&self.0)
    }

    #[zbus(property)]
    fn name(&self) -> &str {
        &self.0.name
    }

    #[zbus(property)]
    fn id(&self) -> Vec<u8> {
        self.0.id.0.as_bytes().to_vec()
    }

    #[zbus(property)]
    fn class(&self) -> &'static str {
        "container"
    }

    #[zbus(property)]
    fn service(&self) -> &'static str {
        SERVICE
    }

    #[zbus(property)]
    fn unit(&self) -> &'static str {
        ""
    }

    #[zbus(property)]
    fn root_directory(&self) -> &'static str {
        ""
    }

    #[zbus(property)]
    fn state(&self) -> &'static str {
        "running"
    }

    #[zbus(property)]
    fn leader(&self) -> u32 {
        self.0.init.unsigned_abs()
    }

    #[zbus(property)]
    fn timestamp(&self) -> u64 {
        u64::try_from(self.0.since).unwrap_or(0).saturating_mul(1_000_000)
    }

    #[zbus(property)]
    fn timestamp_monotonic(&self) -> u64 {
        0
    }

    #[zbus(property)]
    fn network_interfaces(&self) -> Vec<i32> {
        Vec::new()
    }
}

fn object(name: &str) -> fdo::Result<OwnedObjectPath> {
    path_of(name).map(Into::into).map_err(|error| fdo::Error::Failed(format!("{error:#}")))
}

fn addresses(running: &Running) -> Vec<(i32, Vec<u8>)> {
    let told = |ip: &IpAddr| match ip {
        IpAddr::V4(ip) => (FAMILIES.0, ip.octets().to_vec()),
        IpAddr::V6(ip) => (FAMILIES.1, ip.octets().to_vec()),
    };
    running.addresses.iter().map(told).collect()
}
