use std::path::Path;
use std::process::Command;

use lodge_model::ids::EnvironmentId;
use tokio::time::timeout;
use uuid::Uuid;
use zbus::names::BusName;

use super::*;
use crate::login1::tests::start_bus;

const SOON: Duration = Duration::from_secs(20);

fn running(name: &str, init: i32) -> Running {
    Running {
        id: EnvironmentId(Uuid::from_u128(7)),
        name: name.into(),
        init,
        since: 1_700_000_000,
        addresses: vec!["10.9.0.7".parse().unwrap(), "fd00::7".parse().unwrap()],
    }
}

#[test]
fn names_are_escaped_as_systemd_does() {
    assert_eq!(path_of("web1").unwrap().as_str(), "/org/freedesktop/machine1/machine/web1");
    assert_eq!(path_of("1-a.b").unwrap().as_str(), "/org/freedesktop/machine1/machine/_31_2da_2eb");
}

/// `machinectl` of systemd itself looks on, where it is installed.
#[tokio::test(flavor = "multi_thread")]
async fn machinectl_sees_what_runs() {
    let dir = tempfile::tempdir().unwrap();
    let Some((mut bus, address)) = start_bus(dir.path()) else { return };
    let (sender, reports) = watch::channel(Reports { running: vec![running("web1", 42)], ..Reports::default() });
    let serving = address.clone();
    tokio::spawn(async move { serve(serving, reports, &mut Backoff::up_to(SOON)).await.unwrap() });
    let client = connection::Builder::address(address.clone()).build().await.unwrap();
    let dbus = zbus::fdo::DBusProxy::new(&client).await.unwrap();
    let mut owners = dbus.receive_name_owner_changed().await.unwrap();
    while !dbus.name_has_owner(BusName::try_from(NAME).unwrap()).await.unwrap() {
        use futures_util::StreamExt as _;
        timeout(SOON, owners.next()).await.unwrap().unwrap();
    }
    let manager = zbus::Proxy::new(&client, NAME, PATH, "org.freedesktop.machine1.Manager").await.unwrap();
    let machines: Vec<(String, String, String, OwnedObjectPath)> = manager.call("ListMachines", &()).await.unwrap();
    assert_eq!(machines.len(), 1);
    assert_eq!((machines[0].0.as_str(), machines[0].1.as_str(), machines[0].2.as_str()), ("web1", "container", "lodge"));
    let addresses: Vec<(i32, Vec<u8>)> = manager.call("GetMachineAddresses", &"web1").await.unwrap();
    assert_eq!(addresses[0], (2, vec![10, 9, 0, 7]));
    let machine = zbus::Proxy::new(&client, NAME, machines[0].3.clone(), "org.freedesktop.machine1.Machine").await.unwrap();
    assert_eq!(machine.get_property::<u32>("Leader").await.unwrap(), 42);
    let unknown = manager.call::<_, _, OwnedObjectPath>("GetMachine", &"nobody").await.unwrap_err();
    assert!(unknown.to_string().contains("no environment nobody runs"), "{unknown}");
    machinectl(&address, "web1");
    let mut removed = manager.receive_signal("MachineRemoved").await.unwrap();
    sender.send_modify(|reports| reports.running = Vec::new());
    {
        use futures_util::StreamExt as _;
        timeout(SOON, removed.next()).await.unwrap().unwrap();
    }
    let machines: Vec<(String, String, String, OwnedObjectPath)> = manager.call("ListMachines", &()).await.unwrap();
    assert!(machines.is_empty());
    bus.kill().unwrap();
    bus.wait().unwrap();
}

fn machinectl(address: &Address, name: &str) {
    let mut command = Command::new("machinectl");
    match command.arg("list").env("DBUS_SYSTEM_BUS_ADDRESS", address.to_string()).output() {
        // It works only where the directory `/run/systemd/system` is.
        Ok(output) if !Path::new("/run/systemd/system").exists() => eprintln!("NOT SHOWN: machinectl: {output:?}"),
        Ok(output) => {
            let text = String::from_utf8_lossy(&output.stdout);
            let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{output:?}"));
            assert!(line.contains("container") && line.contains("lodge") && line.contains("10.9.0.7"), "{line}");
        }
        Err(error) => eprintln!("NOT SHOWN: machinectl (package systemd-container): {error}"),
    }
}
