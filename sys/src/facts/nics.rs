//! Network interfaces, from sysfs (kernel, Documentation/ABI/testing/sysfs-class-net).

use std::{fs, path::Path};

use anyhow::{Context as _, Result};
use lodge_model::facts::Nic;

const DIR: &str = "/sys/class/net";
/// ARPHRD_ETHER.
const ETHERNET: &str = "1";

/// Hardware network interfaces, in the order of their names.
pub fn nics() -> Result<Vec<Nic>> {
    let addresses = addresses()?;
    let mut nics = read(Path::new(DIR))?;
    for nic in &mut nics {
        // What is a port of a bridge is reached by the bridge's addresses.
        let bridge = fs::read_link(Path::new(DIR).join(&nic.name).join("master")).ok();
        let bridge = bridge.map(|master| name_of(&master)).unwrap_or_default();
        let own = addresses.iter().filter(|(name, _)| *name == nic.name || *name == bridge);
        nic.addresses = own.map(|(_, address)| address.clone()).collect();
    }
    Ok(nics)
}

fn read(dir: &Path) -> Result<Vec<Nic>> {
    let mut nics = Vec::new();
    for entry in fs::read_dir(dir).with_context(|| format!("reading {}", dir.display()))? {
        let path = entry.with_context(|| format!("reading {}", dir.display()))?.path();
        let value = |name: &str| fs::read_to_string(path.join(name)).unwrap_or_default().trim().to_owned();
        // What has a device is hardware; bridges, tunnels and ends of pairs have none.
        if value("type") != ETHERNET || !path.join("device").exists() {
            continue;
        }
        let driver = fs::read_link(path.join("device/driver")).ok();
        nics.push(Nic {
            name: name_of(&path),
            mac: value("address").to_lowercase(),
            driver: driver.map(|driver| name_of(&driver)).unwrap_or_default(),
            link: value("carrier") == "1",
            speed: value("speed").parse().ok().filter(|speed| (1..u32::MAX).contains(speed)),
            addresses: Vec::new(),
        });
    }
    nics.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(nics)
}

/// Addresses with prefix length, by interface, link-local ones left out.
fn addresses() -> Result<Vec<(String, String)>> {
    let mut found = Vec::new();
    for entry in nix::ifaddrs::getifaddrs().context("listing addresses")? {
        let Some((address, mask)) = entry.address.zip(entry.netmask) else { continue };
        let text = if let (Some(address), Some(mask)) = (address.as_sockaddr_in(), mask.as_sockaddr_in()) {
            format!("{}/{}", address.ip(), u32::from(mask.ip()).count_ones())
        } else if let (Some(address), Some(mask)) = (address.as_sockaddr_in6(), mask.as_sockaddr_in6()) {
            if address.ip().is_unicast_link_local() {
                continue;
            }
            format!("{}/{}", address.ip(), u128::from(mask.ip()).count_ones())
        } else {
            continue;
        };
        found.push((entry.interface_name, text));
    }
    Ok(found)
}

fn name_of(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hardware_is_listed_and_a_bridge_is_not() {
        let dir = tempfile::tempdir().unwrap();
        for (name, files, device) in [
            ("eth0", &[("type", "1"), ("address", "52:54:00:AA:00:01"), ("carrier", "1"), ("speed", "1000")][..], true),
            ("eth1", &[("type", "1"), ("address", "52:54:00:aa:00:02"), ("carrier", "0"), ("speed", "-1")], true),
            ("br0", &[("type", "1"), ("address", "52:54:00:aa:00:03")], false),
            ("lo", &[("type", "772")], false),
        ] {
            fs::create_dir(dir.path().join(name)).unwrap();
            for (file, text) in files {
                fs::write(dir.path().join(name).join(file), format!("{text}\n")).unwrap();
            }
            if device {
                fs::create_dir(dir.path().join(name).join("device")).unwrap();
            }
        }
        let nics = read(dir.path()).unwrap();
        assert_eq!(nics.iter().map(|nic| nic.name.as_str()).collect::<Vec<_>>(), ["eth0", "eth1"]);
        assert_eq!((nics[0].link, nics[0].speed, nics[0].mac.as_str()), (true, Some(1000), "52:54:00:aa:00:01"));
        assert_eq!((nics[1].link, nics[1].speed), (false, None));
    }

    #[test]
    fn this_machines_addresses_are_listed() {
        assert!(addresses().unwrap().iter().any(|(name, address)| name == "lo" && address == "127.0.0.1/8"));
    }
}
