//! What is true of a machine, as the installer and the agent report it. Facts only: nothing here decides.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::ids::MachineId;

/// Everything the center needs to know of a machine's hardware.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Facts {
    /// Who the machine is.
    pub machine: MachineId,
    /// How it was started.
    pub firmware: Firmware,
    /// SMBIOS vendor and product, empty where the firmware says nothing.
    pub product: String,
    /// Logical processors.
    pub cpus: u32,
    /// Processor model, as in `/proc/cpuinfo`.
    pub cpu_model: String,
    /// Memory in bytes.
    pub memory: u64,
    /// Whole disks, in the kernel's order.
    pub disks: Vec<Disk>,
    /// Network interfaces with a hardware address, loopback left out.
    pub nics: Vec<Nic>,
}

/// How the firmware started the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Firmware {
    /// UEFI: `/sys/firmware/efi` is there.
    Uefi,
    /// Legacy BIOS.
    Bios,
}

/// A whole disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Disk {
    /// Kernel name, as `nvme0n1`. It may change from boot to boot: never used to choose.
    pub name: String,
    /// Serial number, trimmed; empty where the disk has none.
    pub serial: String,
    /// Model, trimmed.
    pub model: String,
    /// How it is attached.
    pub transport: Transport,
    /// Bytes.
    pub size: u64,
    /// Logical block size in bytes.
    pub block_size: u32,
    /// Spinning.
    pub rotational: bool,
    /// Removable medium (stick, CD).
    pub removable: bool,
    /// Cannot be written.
    pub read_only: bool,
    /// What libblkid and the partition table say is already on it; empty on a blank disk.
    pub signatures: Vec<Signature>,
}

/// How a disk is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// NVMe.
    Nvme,
    /// SATA or PATA.
    Ata,
    /// SAS, Fibre Channel, RAID controllers.
    Scsi,
    /// virtio-blk or virtio-scsi.
    Virtio,
    /// USB.
    Usb,
    /// SD or eMMC.
    Mmc,
    /// Anything else.
    Other,
}

/// Something found on a disk or on one of its partitions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Signature {
    /// Device the signature is on, as `sda` or `sda1`.
    pub device: String,
    /// libblkid's name of it: `gpt`, `dos`, `ext4`, `LVM2_member`, `linux_raid_member`, `crypto_LUKS`…
    pub kind: String,
    /// Label or GPT partition name, empty where there is none.
    pub label: String,
}

/// A network interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Nic {
    /// Kernel name.
    pub name: String,
    /// Hardware address, lower case with colons.
    pub mac: String,
    /// Kernel driver, empty when unknown.
    pub driver: String,
    /// Carrier.
    pub link: bool,
    /// Mbit/s, where the driver tells.
    pub speed: Option<u32>,
    /// Addresses with prefix length, as `10.0.0.5/24`.
    pub addresses: Vec<String>,
}

impl Disk {
    /// One line a person recognises the disk by.
    pub fn describe(&self) -> String {
        let serial = if self.serial.is_empty() { "without serial" } else { &self.serial };
        format!("{} ({} {serial}, {})", self.name, self.model, human_bytes(self.size)).replace("( ", "(")
    }
}

/// Bytes for people: `7.3 GiB`.
pub fn human_bytes(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut unit = 0;
    let mut divisor = 1u64;
    while unit + 1 < UNITS.len() && bytes / divisor >= 1024 {
        divisor *= 1024;
        unit += 1;
    }
    if unit == 0 {
        return format!("{bytes} B");
    }
    let tenths = (u128::from(bytes) * 10 / u128::from(divisor)) as u64;
    format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_read_well() {
        assert_eq!(human_bytes(0), "0 B");
        assert_eq!(human_bytes(1023), "1023 B");
        assert_eq!(human_bytes(1536), "1.5 KiB");
        assert_eq!(human_bytes(u64::MAX), "16777215.9 TiB");
    }
}
