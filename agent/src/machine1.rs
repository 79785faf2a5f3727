//! The part of `org.freedesktop.machine1` that shows what runs on this node, on the system bus: `machinectl list`, `status` and `show`
//! work as they do under systemd (org.freedesktop.machine1(5)).
//!
//! It only shows. Environments are started, stopped and entered through the center; what changes something is not offered, so that no
//! one on the node works against it. A bus that is away, or goes away, is waited for.

mod objects;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::sync::watch;
use zbus::object_server::InterfaceRef;
use zbus::{Address, Connection, connection};
use zbus::{ObjectPath, OwnedObjectPath};

use crate::backoff::Backoff;
use crate::environment::report::{Reports, Running};
use crate::login1::system_bus;
use objects::{Machine, Manager, ManagerSignals as _};

/// Bus name.
pub const NAME: &str = "org.freedesktop.machine1";
/// Object path of the manager; those of machines are below.
pub const PATH: &str = "/org/freedesktop/machine1";

const RETRY_MAX: Duration = Duration::from_secs(10);

/// Be on the system bus for as long as the agent lives.
pub async fn run(reports: watch::Receiver<Reports>) {
    let mut backoff = Backoff::up_to(RETRY_MAX);
    let mut last = String::new();
    loop {
        let ended = match system_bus() {
            Ok(address) => serve(address, reports.clone(), &mut backoff).await,
            Err(error) => Err(error.into()),
        };
        let text = ended.map_or_else(|error| format!("{error:#}"), |()| "the bus has gone".to_owned());
        if text != last {
            tracing::warn!("{NAME} is not on the bus: {text}; trying again");
            last = text;
        }
        // A bus has no other way to say that it is back.
        tokio::time::sleep(backoff.pause()).await;
    }
}

/// Be on this bus until it goes away.
async fn serve(address: Address, mut reports: watch::Receiver<Reports>, backoff: &mut Backoff) -> Result<()> {
    let manager = Manager { reports: reports.clone() };
    let builder = connection::Builder::address(address).serve_at(PATH, manager);
    let bus = builder.build().await.context("connecting to the system bus")?;
    bus.request_name(NAME).await.context("taking the name; is systemd-container's bus policy in place?")?;
    backoff.reset();
    let mut shown = BTreeMap::new();
    loop {
        let running = reports.borrow_and_update().running.clone();
        show(&bus, &mut shown, running).await.context("showing an environment")?;
        tokio::select! {
            () = bus.closed() => return Ok(()),
            changed = reports.changed() => changed.context("following the environments")?,
        }
    }
}

/// One object a machine: old ones go, new ones come.
async fn show(bus: &Connection, shown: &mut BTreeMap<String, Running>, running: Vec<Running>) -> Result<()> {
    let manager: InterfaceRef<Manager> = bus.object_server().interface(PATH).await.context("finding the manager")?;
    let old: Vec<String> = shown.iter().filter(|(_, is)| !running.contains(is)).map(|(name, _)| name.clone()).collect();
    for name in old {
        let path = path_of(&name)?;
        bus.object_server().remove::<Machine, _>(&path).await?;
        manager.machine_removed(&name, path).await?;
        shown.remove(&name);
    }
    for machine in running {
        if !shown.contains_key(&machine.name) {
            let path = path_of(&machine.name)?;
            bus.object_server().at(&path, Machine(machine.clone())).await?;
            manager.machine_new(&machine.name, path).await?;
            shown.insert(machine.name.clone(), machine);
        }
    }
    Ok(())
}

/// Names on the bus are escaped as systemd does (sd_bus_path_encode(3)): everything but letters and digits becomes `_` and two
/// hexadecimal digits, as does a digit at the beginning.
fn path_of(name: &str) -> Result<ObjectPath<'static>> {
    let escaped: String = name
        .bytes()
        .enumerate()
        .map(|(at, byte)| match byte {
            b'a'..=b'z' | b'A'..=b'Z' => char::from(byte).to_string(),
            b'0'..=b'9' if at > 0 => char::from(byte).to_string(),
            other => format!("_{other:02x}"),
        })
        .collect();
    let path: OwnedObjectPath = format!("{PATH}/machine/{escaped}").try_into().with_context(|| format!("naming {name:?}"))?;
    Ok(path.into_inner())
}
