//! The service on a real bus (`dbus-daemon` with a private socket) with a stand-in for init, as `busctl` and `systemd-inhibit` would
//! use it.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixListener;
use tokio::sync::{broadcast, mpsc};
use tokio::time::timeout;
use zbus::proxy;

use super::*;
use crate::environment::report::Reports;
use crate::moments::since_boot;
use crate::shutdown::Shutdown;
use crate::shutdown::drain::LeavingNode;

#[proxy(
    interface = "org.freedesktop.login1.Manager",
    default_service = "org.freedesktop.login1",
    default_path = "/org/freedesktop/login1"
)]
trait Login1 {
    fn power_off(&self, interactive: bool) -> zbus::Result<()>;
    fn can_power_off(&self) -> zbus::Result<String>;
    fn inhibit(&self, what: &str, who: &str, why: &str, mode: &str) -> zbus::Result<zbus::OwnedFd>;
    #[allow(clippy::type_complexity)]
    fn list_inhibitors(&self) -> zbus::Result<Vec<(String, String, String, String, u32, u32)>>;
    #[zbus(property)]
    fn block_inhibited(&self) -> zbus::Result<String>;
    #[zbus(property)]
    fn delay_inhibited(&self) -> zbus::Result<String>;
    #[zbus(property(emits_changed_signal = "false"))]
    fn preparing_for_shutdown(&self) -> zbus::Result<bool>;
    #[zbus(property(emits_changed_signal = "const"), name = "InhibitDelayMaxUSec")]
    fn inhibit_delay_max_usec(&self) -> zbus::Result<u64>;
    #[zbus(signal)]
    fn prepare_for_shutdown(&self, start: bool) -> zbus::Result<()>;
}

const SOON: Duration = Duration::from_secs(10);
const NOT_YET: Duration = Duration::from_millis(300);

/// Bus, init and agent; everything ends with it.
struct Node {
    bus: Child,
    address: Address,
    requests: mpsc::UnboundedReceiver<String>,
    events: broadcast::Sender<String>,
    environments: watch::Sender<Reports>,
    leaving: watch::Receiver<Option<Duration>>,
    _dir: tempfile::TempDir,
}

impl Drop for Node {
    fn drop(&mut self) {
        self.bus.kill().unwrap();
        self.bus.wait().unwrap();
    }
}

/// `None`, and why on standard error, where there is no `dbus-daemon`.
async fn node() -> Option<Node> {
    let dir = tempfile::tempdir().unwrap();
    let (bus, address) = start_bus(dir.path())?;
    let socket = dir.path().join("init.sock");
    let (requests, events) = start_init(&socket);
    let locks = Locks::open(&dir.path().join("inhibit")).unwrap();
    let (going_down, is_going_down) = watch::channel(false);
    let (_, center) = watch::channel(None);
    let service = Service { locks: Arc::clone(&locks), going_down: is_going_down, init: socket.clone() };
    let agent_address = address.clone();
    tokio::spawn(async move { service.serve(agent_address, &mut Backoff::up_to(SOON)).await.unwrap() });
    let (leaving_sender, leaving) = watch::channel(None);
    let (environments, reports) = watch::channel(Reports::default());
    let (silent, _) = watch::channel(false);
    let (told, issued) = (reports.clone(), watch::channel(None).1);
    let leaving_node = LeavingNode { init: socket.clone(), center: center.clone(), issued };
    let shutdown = Shutdown {
        init: socket,
        locks,
        going_down,
        leaving: leaving_sender,
        environments: reports,
        told,
        silent,
        center,
        farewell: watch::channel(None).1,
        leaving_node,
    };
    tokio::spawn(shutdown.run());
    let mut node = Node { bus, address, requests, events, environments, leaving, _dir: dir };
    assert_eq!(node.request().await, "subscribe");
    Some(node)
}

/// A bus of its own; `None`, and why on standard error, where there is no `dbus-daemon`.
pub fn start_bus(dir: &Path) -> Option<(Child, Address)> {
    let config = dir.join("bus.conf");
    let text = format!(
        r#"<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
           "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
           <busconfig><listen>unix:path={}/bus</listen><auth>EXTERNAL</auth>
           <policy context="default"><allow send_destination="*"/><allow receive_sender="*"/><allow own="*"/></policy></busconfig>"#,
        dir.display()
    );
    std::fs::write(&config, text).unwrap();
    let mut command = Command::new("dbus-daemon");
    command.arg(format!("--config-file={}", config.display())).args(["--nofork", "--nopidfile", "--print-address"]);
    let mut bus = match command.stdout(Stdio::piped()).spawn() {
        Ok(bus) => bus,
        Err(error) => {
            eprintln!("SKIPPED: this test needs dbus-daemon (package dbus-daemon): {error}");
            return None;
        }
    };
    let mut address = String::new();
    BufReader::new(bus.stdout.take().unwrap()).read_line(&mut address).unwrap();
    Some((bus, address.trim().try_into().unwrap()))
}

/// Takes every request, says what it was, and sends events to who subscribed.
fn start_init(socket: &Path) -> (mpsc::UnboundedReceiver<String>, broadcast::Sender<String>) {
    let listener = UnixListener::bind(socket).unwrap();
    let (request_sender, requests) = mpsc::unbounded_channel();
    let events = broadcast::Sender::new(16);
    let event_sender = events.clone();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let (requests, events) = (request_sender.clone(), event_sender.clone());
            tokio::spawn(async move {
                let (read, mut write) = stream.into_split();
                let line = tokio::io::BufReader::new(read).lines().next_line().await.unwrap().unwrap();
                let mut announced = events.subscribe();
                requests.send(line.clone()).unwrap();
                write.write_all(b"ok\n").await.unwrap();
                while line == "subscribe"
                    && let Ok(event) = announced.recv().await
                {
                    write.write_all(format!("{event}\n").as_bytes()).await.unwrap();
                }
            });
        }
    });
    (requests, events)
}

impl Node {
    async fn login1(&self) -> Login1Proxy<'static> {
        let bus = connection::Builder::address(self.address.clone()).build().await.unwrap();
        let dbus = zbus::fdo::DBusProxy::new(&bus).await.unwrap();
        let mut owners = dbus.receive_name_owner_changed().await.unwrap();
        while !dbus.name_has_owner(NAME.try_into().unwrap()).await.unwrap() {
            timeout(SOON, owners.next()).await.unwrap().unwrap();
        }
        Login1Proxy::new(&bus).await.unwrap()
    }

    async fn request(&mut self) -> String {
        timeout(SOON, self.requests.recv()).await.expect("init was not asked").unwrap()
    }

    async fn is_quiet(&mut self) -> bool {
        timeout(NOT_YET, self.requests.recv()).await.is_err()
    }
}

#[tokio::test]
async fn a_block_inhibitor_refuses_a_power_off_and_is_named_until_it_is_released() {
    let Some(mut node) = node().await else { return };
    let login1 = node.login1().await;
    assert_eq!(login1.can_power_off().await.unwrap(), "yes");
    let lock = login1.inhibit("shutdown:sleep", "backup", "copying the accounts", "block").await.unwrap();
    let uid = nix::unistd::getuid().as_raw();
    let mine =
        ("shutdown:sleep".into(), "backup".into(), "copying the accounts".into(), "block".into(), uid, std::process::id());
    assert_eq!(login1.list_inhibitors().await.unwrap(), [mine]);
    let error = login1.power_off(false).await.unwrap_err();
    let zbus::Error::MethodError(name, Some(text), _) = &error else { panic!("{error}") };
    assert_eq!(name.as_str(), "org.freedesktop.login1.BlockedByInhibitorLock");
    assert!(text.contains("backup") && text.contains("copying the accounts"), "{text}");
    assert!(node.is_quiet().await);
    let mut changes = login1.receive_block_inhibited_changed().await;
    drop(lock);
    while login1.block_inhibited().await.unwrap() != "" {
        timeout(SOON, changes.next()).await.unwrap();
    }
    login1.power_off(false).await.unwrap();
    assert_eq!(node.request().await, "shutdown poweroff");
}

#[tokio::test]
async fn a_delay_inhibitor_delays_until_it_is_released() {
    let Some(mut node) = node().await else { return };
    let login1 = node.login1().await;
    let mut announced = login1.receive_prepare_for_shutdown().await.unwrap();
    let lock = login1.inhibit("shutdown", "database", "writing back", "delay").await.unwrap();
    assert_eq!(login1.delay_inhibited().await.unwrap(), "shutdown");
    login1.power_off(true).await.unwrap();
    assert_eq!(node.request().await, "shutdown poweroff");
    node.events.send("shutdown poweroff request 30".into()).unwrap();
    let signal = timeout(SOON, announced.next()).await.unwrap().unwrap();
    assert!(*signal.args().unwrap().start());
    assert!(login1.preparing_for_shutdown().await.unwrap());
    assert!(node.is_quiet().await);
    drop(lock);
    assert_eq!(node.request().await, "proceed");
}

#[tokio::test]
async fn a_delay_ends_at_its_limit() {
    let Some(mut node) = node().await else { return };
    let login1 = node.login1().await;
    let limit = Duration::from_micros(login1.inhibit_delay_max_usec().await.unwrap());
    let _lock = login1.inhibit("shutdown", "database", "hanging", "delay").await.unwrap();
    let start = Instant::now();
    node.events.send("shutdown reboot ctrl-alt-del 60".into()).unwrap();
    assert_eq!(node.request().await, "proceed");
    assert!(start.elapsed() >= limit, "{:?}", start.elapsed());
}

#[tokio::test]
async fn the_power_button_is_held_by_a_block_inhibitor_until_it_is_released() {
    let Some(mut node) = node().await else { return };
    let login1 = node.login1().await;
    let lock = login1.inhibit("handle-power-key", "panel", "asking the operator", "block").await.unwrap();
    node.events.send("shutdown poweroff button 300".into()).unwrap();
    assert_eq!(node.request().await, "hold 293");
    assert!(node.is_quiet().await);
    drop(lock);
    assert_eq!(node.request().await, "proceed");
}

#[tokio::test]
async fn nothing_holds_the_power_button_beyond_its_deadline() {
    let Some(mut node) = node().await else { return };
    let login1 = node.login1().await;
    let _lock = login1.inhibit("shutdown", "backup", "copying", "block").await.unwrap();
    node.events.send("shutdown poweroff button 8".into()).unwrap();
    assert_eq!(node.request().await, "hold 1");
    assert_eq!(node.request().await, "proceed");
}

#[tokio::test]
async fn a_request_that_makes_no_sense_is_refused() {
    let Some(node) = node().await else { return };
    let login1 = node.login1().await;
    for (what, mode) in [("dance", "block"), ("shutdown", "hard"), ("idle", "delay")] {
        let error = login1.inhibit(what, "w", "y", mode).await.unwrap_err();
        assert!(matches!(&error, zbus::Error::FDO(error) if matches!(**error, zbus::fdo::Error::InvalidArgs(_))), "{error}");
    }
}

#[tokio::test]
async fn a_second_announcement_shortens_the_wait() {
    let Some(mut node) = node().await else { return };
    let login1 = node.login1().await;
    let _lock = login1.inhibit("shutdown", "backup", "copying", "block").await.unwrap();
    node.events.send("shutdown reboot request 900".into()).unwrap();
    assert_eq!(node.request().await, "hold 893");
    node.events.send("shutdown poweroff power 8".into()).unwrap();
    assert_eq!(node.request().await, "hold 1");
    assert_eq!(node.request().await, "proceed");
}

#[tokio::test]
async fn the_programs_of_systemd_work_unchanged() {
    let Some(node) = node().await else { return };
    let login1 = node.login1().await;
    let bus = node.address.to_string();
    let mut command = tokio::process::Command::new("systemd-inhibit");
    command
        .args(["--what=shutdown", "--who=backup", "--why=copying", "--mode=block", "cat"])
        .env("DBUS_SYSTEM_BUS_ADDRESS", &bus);
    let mut holder = match command.stdin(Stdio::piped()).stdout(Stdio::null()).kill_on_drop(true).spawn() {
        Ok(holder) => holder,
        Err(error) => return eprintln!("SKIPPED: this test needs systemd-inhibit (package systemd): {error}"),
    };
    let mut changes = login1.receive_block_inhibited_changed().await;
    while login1.block_inhibited().await.unwrap() != "shutdown" {
        timeout(SOON, changes.next()).await.unwrap();
    }
    let call = ["call", NAME, PATH, "org.freedesktop.login1.Manager", "PowerOff", "b", "false"];
    let refused = tokio::process::Command::new("busctl").arg(format!("--address={bus}")).args(call).output().await.unwrap();
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && said.contains("\"backup\"") && said.contains("copying"), "{said}");
    drop(holder.stdin.take());
    assert!(timeout(SOON, holder.wait()).await.unwrap().unwrap().success());
    while login1.block_inhibited().await.unwrap() != "" {
        timeout(SOON, changes.next()).await.unwrap();
    }
}

#[tokio::test]
async fn environments_shut_down_before_the_node_does() {
    let Some(mut node) = node().await else { return };
    node.environments.send_replace(Reports { is_kept: true, ..Reports::default() });
    node.events.send("shutdown poweroff request 60".into()).unwrap();
    let by = node.leaving.wait_for(Option::is_some).await.unwrap().unwrap();
    let left = by.checked_sub(since_boot()).unwrap();
    assert!(left > Duration::from_secs(50) && left < Duration::from_secs(54), "{left:?}");
    assert!(node.is_quiet().await);
    node.environments.send_modify(|reports| reports.all_gone = true);
    assert_eq!(node.request().await, "proceed");
}
