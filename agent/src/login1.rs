//! The part of `org.freedesktop.login1` that shutdown needs, on the system bus, so that `busctl`, `systemd-inhibit` and every program
//! that takes an inhibitor lock work as they do under systemd.
//!
//! It assumes a bus policy that lets root own the name and others call it. A bus that is away, or goes away, is waited for; locks
//! that are out stay out. It never shuts anything down by itself: init does, and goes down in order even when bus and agent are dead.

pub mod inhibitors;
pub mod locks;
pub mod manager;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::sync::watch;
use zbus::object_server::InterfaceRef;
use zbus::{Address, Connection, connection};

use crate::backoff::Backoff;
use locks::Locks;
use manager::{Manager, ManagerSignals as _};

/// Bus name.
pub const NAME: &str = "org.freedesktop.login1";
/// Object path.
pub const PATH: &str = "/org/freedesktop/login1";

/// The file that lets root own the name.
const POLICY: &str = "/usr/share/dbus-1/system.d/lodge.conf";
const RETRY_MAX: Duration = Duration::from_secs(10);

/// What the service stands on.
#[derive(Clone)]
pub struct Service {
    /// Locks that are out.
    pub locks: Arc<Locks>,
    /// Whether the node is going down.
    pub going_down: watch::Receiver<bool>,
    /// init's socket.
    pub init: PathBuf,
}

impl Service {
    /// Be on the system bus for as long as the agent lives.
    pub async fn run(self) {
        let mut backoff = Backoff::up_to(RETRY_MAX);
        let mut last = String::new();
        loop {
            let ended = match system_bus() {
                Ok(address) => self.serve(address, &mut backoff).await,
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
    async fn serve(&self, address: Address, backoff: &mut Backoff) -> Result<()> {
        let bus = self.connect(address).await?;
        backoff.reset();
        tracing::info!("{NAME} is on the bus");
        let manager: InterfaceRef<Manager> = bus.object_server().interface(PATH).await.context("finding the object")?;
        let mut going_down = self.going_down.clone();
        let mut locks = self.locks.changes();
        loop {
            tokio::select! {
                () = bus.closed() => return Ok(()),
                changed = going_down.changed() => {
                    changed.context("following the shutdown")?;
                    let start = *going_down.borrow();
                    manager.prepare_for_shutdown(start).await.context("announcing the shutdown")?;
                }
                changed = locks.changed() => {
                    changed.context("following the inhibitors")?;
                    let object = manager.get().await;
                    let emitter = manager.signal_emitter();
                    object.block_inhibited_changed(emitter).await.context("announcing a change")?;
                    object.block_weak_inhibited_changed(emitter).await.context("announcing a change")?;
                    object.delay_inhibited_changed(emitter).await.context("announcing a change")?;
                }
            }
        }
    }

    /// A connection that serves the object under its name.
    async fn connect(&self, address: Address) -> Result<Connection> {
        let Self { locks, going_down, init } = self.clone();
        let builder = connection::Builder::address(address).serve_at(PATH, Manager { locks, going_down, init });
        let bus = builder.build().await.context("connecting to the system bus")?;
        bus.request_name(NAME).await.with_context(|| format!("taking the name; is {POLICY} in place?"))?;
        Ok(bus)
    }
}

/// Where the bus is: as the environment says, else where it listens. `/var/run`, which zbus would take, is not on every node.
pub fn system_bus() -> zbus::Result<Address> {
    match std::env::var_os("DBUS_SYSTEM_BUS_ADDRESS") {
        Some(_) => Address::system(),
        None => "unix:path=/run/dbus/system_bus_socket".try_into(),
    }
}

#[cfg(test)]
pub mod tests;
