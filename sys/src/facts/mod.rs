//! The facts of this machine, from sysfs, procfs and SMBIOS, as `lodge_model::facts` wants them. Reading only.

pub mod cpu;
pub mod disks;
pub mod nics;

use anyhow::{Result, bail};
use lodge_model::{
    facts::{Facts, Firmware, Nic},
    ids::MachineId,
};
use uuid::{Builder, Uuid};

use crate::{efivar, smbios};

/// Everything, with a fresh look at what is on every disk.
pub fn gather() -> Result<Facts> {
    let nics = nics::nics()?;
    Ok(Facts {
        machine: machine(&nics)?,
        firmware: firmware(),
        product: smbios::product(),
        cpus: cpu::count()?,
        cpu_model: cpu::model()?,
        memory: cpu::memory()?,
        disks: disks::disks()?,
        nics,
    })
}

/// How this machine was started.
pub fn firmware() -> Firmware {
    if efivar::is_uefi() { Firmware::Uefi } else { Firmware::Bios }
}

/// Who this machine is: the firmware's UUID, else one made from the first MAC.
pub fn machine(nics: &[Nic]) -> Result<MachineId> {
    match smbios::system_uuid().or_else(|| nics.iter().find_map(|nic| from_mac(&nic.mac))) {
        Some(uuid) => Ok(MachineId(uuid)),
        None => bail!("this machine has neither an SMBIOS UUID nor a network interface, so nothing tells it from others"),
    }
}

/// A version 8 UUID (RFC 9562, "custom") of a fixed text and the MAC's six bytes.
fn from_mac(mac: &str) -> Option<Uuid> {
    let digits = lodge_model::ids::unhex(&mac.replace(':', ""))?;
    let mac: [u8; 6] = digits.try_into().ok()?;
    let mut bytes = *b"lodge-mac\0\0\0\0\0\0\0";
    bytes.get_mut(10..)?.copy_from_slice(&mac);
    Some(Builder::from_custom_bytes(bytes).into_uuid())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mac_makes_a_stable_and_distinct_uuid() {
        let one = from_mac("52:54:00:12:34:56").unwrap();
        assert_eq!(one, from_mac("52:54:00:12:34:56").unwrap());
        assert_ne!(one, from_mac("52:54:00:12:34:57").unwrap());
        assert_eq!(one.get_version_num(), 8);
        assert_eq!(from_mac("52:54"), None);
    }
}
