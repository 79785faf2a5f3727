//! The object `/org/freedesktop/login1` with logind's names and signatures (org.freedesktop.login1(5)), so far as shutdown goes.
//!
//! Where Lodge differs: there is no polkit, only root may shut the node down; `interactive` is ignored; a block inhibitor refuses
//! root as well (as logind since v257), and the refusal names who holds it and why.

use std::path::PathBuf;
use std::sync::Arc;

use lodge_model::initproto::{Down, Request};
use lodge_model::timing;
use tokio::sync::watch;
use zbus::message::Header;
use zbus::object_server::SignalEmitter;
use zbus::{Connection, DBusError, interface};

use super::inhibitors::{Inhibitor, Mode, Operation};
use super::locks::Locks;
use crate::init;

/// `SD_LOGIND_SKIP_INHIBITORS` (systemd, sd-login internals; `systemctl --check-inhibitors=no`).
const SKIP_INHIBITORS: u64 = 1 << 4;

/// The object.
pub struct Manager {
    /// Locks that are out.
    pub locks: Arc<Locks>,
    /// Whether the node is going down.
    pub going_down: watch::Receiver<bool>,
    /// init's socket.
    pub init: PathBuf,
}

/// Why a call is refused, by its name on the bus.
#[derive(Debug, DBusError)]
#[zbus(prefix = "org.freedesktop")]
pub enum Refusal {
    /// The bus itself.
    #[zbus(error)]
    Bus(zbus::Error),
    /// Somebody holds it back.
    #[zbus(name = "login1.BlockedByInhibitorLock")]
    Blocked(String),
    /// It is being done already.
    #[zbus(name = "login1.OperationInProgress")]
    InProgress(String),
    /// Not root.
    #[zbus(name = "DBus.Error.AccessDenied")]
    AccessDenied(String),
    /// Not a request that makes sense.
    #[zbus(name = "DBus.Error.InvalidArgs")]
    InvalidArgs(String),
    /// Too many locks, or no room for one.
    #[zbus(name = "DBus.Error.LimitsExceeded")]
    Limits(String),
    /// init did not take it.
    #[zbus(name = "DBus.Error.Failed")]
    Failed(String),
}

#[interface(name = "org.freedesktop.login1.Manager", introspection_docs = false)]
impl Manager {
    async fn power_off(
        &self,
        #[zbus(header)] call: Header<'_>,
        #[zbus(connection)] bus: &Connection,
        interactive: bool,
    ) -> Result<(), Refusal> {
        let _ = interactive;
        self.go_down(Down::Poweroff, 0, &call, bus).await
    }

    async fn reboot(
        &self,
        #[zbus(header)] call: Header<'_>,
        #[zbus(connection)] bus: &Connection,
        interactive: bool,
    ) -> Result<(), Refusal> {
        let _ = interactive;
        self.go_down(Down::Reboot, 0, &call, bus).await
    }

    async fn halt(
        &self,
        #[zbus(header)] call: Header<'_>,
        #[zbus(connection)] bus: &Connection,
        interactive: bool,
    ) -> Result<(), Refusal> {
        let _ = interactive;
        self.go_down(Down::Halt, 0, &call, bus).await
    }

    async fn power_off_with_flags(
        &self,
        #[zbus(header)] call: Header<'_>,
        #[zbus(connection)] bus: &Connection,
        flags: u64,
    ) -> Result<(), Refusal> {
        self.go_down(Down::Poweroff, flags, &call, bus).await
    }

    async fn reboot_with_flags(
        &self,
        #[zbus(header)] call: Header<'_>,
        #[zbus(connection)] bus: &Connection,
        flags: u64,
    ) -> Result<(), Refusal> {
        self.go_down(Down::Reboot, flags, &call, bus).await
    }

    async fn halt_with_flags(
        &self,
        #[zbus(header)] call: Header<'_>,
        #[zbus(connection)] bus: &Connection,
        flags: u64,
    ) -> Result<(), Refusal> {
        self.go_down(Down::Halt, flags, &call, bus).await
    }

    async fn can_power_off(
        &self,
        #[zbus(header)] call: Header<'_>,
        #[zbus(connection)] bus: &Connection,
    ) -> Result<&'static str, Refusal> {
        can(&call, bus).await
    }

    async fn can_reboot(
        &self,
        #[zbus(header)] call: Header<'_>,
        #[zbus(connection)] bus: &Connection,
    ) -> Result<&'static str, Refusal> {
        can(&call, bus).await
    }

    async fn can_halt(
        &self,
        #[zbus(header)] call: Header<'_>,
        #[zbus(connection)] bus: &Connection,
    ) -> Result<&'static str, Refusal> {
        can(&call, bus).await
    }

    async fn inhibit(
        &self,
        #[zbus(header)] call: Header<'_>,
        #[zbus(connection)] bus: &Connection,
        what: &str,
        who: &str,
        why: &str,
        mode: &str,
    ) -> Result<zbus::OwnedFd, Refusal> {
        let (uid, pid) = caller(&call, bus).await?;
        let inhibitor = Inhibitor::ask(what, who, why, mode, uid, pid).map_err(Refusal::InvalidArgs)?;
        if inhibitor.mode == Mode::Block && !is_root(uid) {
            return Err(Refusal::AccessDenied("only root may block a shutdown; ask for mode delay".into()));
        }
        if *self.going_down.borrow() && inhibitor.what.contains(&Operation::Shutdown) {
            return Err(Refusal::InProgress("the node is going down already".into()));
        }
        tracing::info!("inhibitor taken ({}, {}): {inhibitor}", inhibitor.what(), inhibitor.mode);
        let fd = self.locks.take(inhibitor).map_err(|error| Refusal::Limits(format!("{error:#}")))?;
        Ok(fd.into())
    }

    #[zbus(out_args("inhibitors"))]
    async fn list_inhibitors(&self) -> Vec<(String, String, String, String, u32, u32)> {
        let line =
            |lock: &Inhibitor| (lock.what(), lock.who.clone(), lock.why.clone(), lock.mode.to_string(), lock.uid, lock.pid);
        self.locks.look(|book| book.all().map(line).collect())
    }

    #[zbus(property)]
    fn block_inhibited(&self) -> String {
        self.locks.look(|book| book.inhibited(Mode::Block))
    }

    #[zbus(property)]
    fn block_weak_inhibited(&self) -> String {
        self.locks.look(|book| book.inhibited(Mode::BlockWeak))
    }

    #[zbus(property)]
    fn delay_inhibited(&self) -> String {
        self.locks.look(|book| book.inhibited(Mode::Delay))
    }

    #[zbus(property(emits_changed_signal = "const"), name = "InhibitDelayMaxUSec")]
    fn inhibit_delay_max(&self) -> u64 {
        u64::try_from(timing::INHIBIT_DELAY_MAX.as_micros()).unwrap_or(u64::MAX)
    }

    #[zbus(property(emits_changed_signal = "false"))]
    fn preparing_for_shutdown(&self) -> bool {
        *self.going_down.borrow()
    }

    #[zbus(property(emits_changed_signal = "const"))]
    fn preparing_for_sleep(&self) -> bool {
        false
    }

    /// Sent before the shutdown begins; who holds a delay lock has until its end.
    #[zbus(signal)]
    pub async fn prepare_for_shutdown(emitter: &SignalEmitter<'_>, start: bool) -> zbus::Result<()>;
}

impl Manager {
    /// Refuse, or hand over to init, which announces the shutdown to the agent as it does with every other cause.
    async fn go_down(&self, down: Down, flags: u64, call: &Header<'_>, bus: &Connection) -> Result<(), Refusal> {
        let (uid, pid) = caller(call, bus).await?;
        if !is_root(uid) {
            return Err(Refusal::AccessDenied(format!("only root may ask for {down}, this is user {uid}")));
        }
        if flags & SKIP_INHIBITORS == 0 {
            let holders: Vec<String> =
                self.locks.look(|book| book.blocking(&[Operation::Shutdown]).map(ToString::to_string).collect());
            if !holders.is_empty() {
                return Err(Refusal::Blocked(format!("{down} is held back by {}", holders.join(" and by "))));
            }
        }
        tracing::info!("process {pid} asks for {down}");
        init::request(&self.init, &Request::Shutdown(down)).await.map_err(|error| Refusal::Failed(format!("{error:#}")))
    }
}

async fn can(call: &Header<'_>, bus: &Connection) -> Result<&'static str, Refusal> {
    Ok(if is_root(caller(call, bus).await?.0) { "yes" } else { "no" })
}

/// Root, or whoever the agent itself runs as: on a node that is root.
fn is_root(uid: u32) -> bool {
    uid == 0 || uid == nix::unistd::geteuid().as_raw()
}

/// User and process of the caller, as the bus knows them.
async fn caller(call: &Header<'_>, bus: &Connection) -> Result<(u32, u32), Refusal> {
    let unknown = || Refusal::AccessDenied("the bus does not say who calls".into());
    let sender = call.sender().ok_or_else(unknown)?.to_owned();
    let dbus = zbus::fdo::DBusProxy::new(bus).await?;
    let credentials = dbus.get_connection_credentials(sender.into()).await.map_err(|error| Refusal::Bus(error.into()))?;
    Ok((credentials.unix_user_id().ok_or_else(unknown)?, credentials.process_id().unwrap_or(0)))
}
