//! A machine as it stands in the rack, and the QEMU command line that makes it. Nothing here touches anything.

use std::path::{Path, PathBuf};

use lodge_model::layout::GIB;
use serde_json::json;
use uuid::Uuid;

use crate::accel::Host;

/// A machine.
#[derive(Clone, Debug)]
pub struct MachineSpec {
    /// Its name in the rack: of its directory, cable and console.
    pub name: String,
    /// Its number in the rack; MAC and SMBIOS UUID are made from it.
    pub number: u8,
    /// Memory in MiB.
    pub memory_mib: u32,
    /// Processors.
    pub cpus: u8,
    /// Its disks, in boot order.
    pub disks: Vec<DiskSpec>,
    /// How its network card boots, after the disks.
    pub netboot: Option<Netboot>,
    /// The network is asked before the disks.
    pub network_first: bool,
    /// A CD, booted after the disks.
    pub cdrom: Option<PathBuf>,
    /// A USB stick labelled LODGE with this `lodge.toml` on it.
    pub answer: Option<String>,
    /// SMBIOS type 11 (OEM) strings.
    pub oem_strings: Vec<String>,
}

/// How a network card boots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Netboot {
    /// UEFI HTTP Boot, PXE switched off in the firmware.
    Http,
    /// UEFI PXE over TFTP; the firmware tries it before HTTP Boot.
    Pxe,
}

/// A disk.
#[derive(Clone, Debug)]
pub struct DiskSpec {
    /// How it is attached.
    pub bus: Bus,
    /// Serial number.
    pub serial: String,
    /// Bytes.
    pub size: u64,
}

/// How a disk is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bus {
    /// virtio-blk.
    Virtio,
    /// NVMe.
    Nvme,
    /// A SCSI disk on virtio-scsi.
    Scsi,
}

/// Files of a machine, in its directory.
pub const VARIABLES: &str = "firmware-variables.fd";
/// The stick's contents.
pub const STICK: &str = "stick.img";
/// Where the switch is plugged in.
pub const NET_SOCKET: &str = "net.sock";
/// The serial port behind the console.
pub const SERIAL_SOCKET: &str = "serial.sock";
/// The second serial port, for the debug shell.
pub const SHELL_SOCKET: &str = "shell.sock";
/// The monitor.
pub const MONITOR_SOCKET: &str = "monitor.sock";

impl DiskSpec {
    /// A disk of so many GiB.
    pub fn new(bus: Bus, serial: &str, gib: u64) -> Self {
        Self { bus, serial: serial.to_owned(), size: gib * GIB }
    }

    /// Its file, in the machine's directory.
    pub fn file(&self) -> String {
        format!("disk-{}.raw", self.serial)
    }

    /// The monitor's name of its contents.
    pub fn node(&self) -> String {
        format!("disk-{}", self.serial)
    }

    /// The device, as `-device` and `device_add` take it. While the machine runs, a PCIe device needs a `slot` to be plugged into.
    pub fn device(&self, slot: Option<&str>, place: usize) -> serde_json::Value {
        let driver = match self.bus {
            Bus::Virtio => "virtio-blk-pci",
            Bus::Nvme => "nvme",
            Bus::Scsi => "scsi-hd",
        };
        let mut device =
            json!({"driver": driver, "id": self.serial, "drive": self.node(), "serial": self.serial, "bootindex": place});
        match (self.bus, slot) {
            (Bus::Scsi, _) => device["bus"] = "scsi.0".into(),
            (_, Some(slot)) => device["bus"] = slot.into(),
            (_, None) => {}
        }
        device
    }

    /// Its contents, as `-blockdev` and `blockdev-add` take them. A killed QEMU loses nothing that reached the host, so flushes, which
    /// would only wait for the host's own disk, are left out.
    pub fn contents(&self) -> serde_json::Value {
        let cache = json!({"no-flush": true});
        let file = json!({"driver": "file", "filename": self.file(), "discard": "unmap", "cache": cache});
        json!({
            "driver": "raw", "node-name": self.node(), "file": file,
            "cache": cache, "discard": "unmap", "detect-zeroes": "unmap",
        })
    }
}

impl MachineSpec {
    /// A bare machine of one processor and 1 GiB.
    pub fn new(name: &str, number: u8) -> Self {
        Self {
            name: name.to_owned(),
            number,
            memory_mib: 1024,
            cpus: 1,
            disks: Vec::new(),
            netboot: None,
            network_first: false,
            cdrom: None,
            answer: None,
            oem_strings: Vec::new(),
        }
    }

    /// The machine with one more disk.
    pub fn disk(mut self, disk: DiskSpec) -> Self {
        self.disks.push(disk);
        self
    }

    /// The machine booting from the network when its disks do not boot.
    pub fn netboot(mut self, how: Netboot) -> Self {
        self.netboot = Some(how);
        self
    }

    /// The machine with words added to the kernel command line by whoever stands before it: systemd's stub takes them from SMBIOS
    /// (systemd-stub(7)), never with Secure Boot.
    pub fn kernel_words(mut self, words: &str) -> Self {
        self.oem_strings.push(format!("io.systemd.stub.kernel-cmdline-extra={words}"));
        self
    }

    /// Its SMBIOS UUID.
    pub fn uuid(&self) -> Uuid {
        Uuid::from_u128(0x10d6_e000_0000_4000_8000_0000_0000_0000 | u128::from(self.number))
    }

    /// The hardware address of its network card (QEMU's own prefix).
    pub fn mac(&self) -> String {
        format!("52:54:00:77:00:{:02x}", self.number)
    }

    /// Arguments of qemu-system-x86_64, which runs in the machine's directory. `firmware` is OVMF's code.
    pub fn arguments(&self, host: &Host, firmware: &Path) -> Vec<String> {
        let mut line = Line::default();
        line.add("-name", &format!("{},debug-threads=on", self.name));
        line.flag("-nodefaults").flag("-no-user-config");
        line.add("-display", "none").add("-machine", "q35").add("-accel", host.accel.argument());
        line.add("-cpu", host.accel.cpu()).add("-smp", &self.cpus.to_string()).add("-m", &format!("{}M", self.memory_mib));
        line.add("-smbios", &format!("type=1,uuid={},manufacturer=Lodge,product=Rack", self.uuid()));
        for text in &self.oem_strings {
            line.add("-smbios", &format!("type=11,value={}", text.replace(',', ",,")));
        }
        self.firmware(&mut line, firmware);
        self.ports(&mut line);
        self.network(&mut line);
        self.storage(&mut line);
        line.device(json!({"driver": "virtio-rng-pci"}));
        line.device(json!({"driver": "i6300esb"}));
        line.add("-action", "watchdog=reset");
        line.arguments
    }

    fn firmware(&self, line: &mut Line, code: &Path) {
        line.blockdev(json!({
            "driver": "raw", "node-name": "firmware", "read-only": true,
            "file": {"driver": "file", "filename": code, "read-only": true},
        }));
        line.blockdev(json!({"driver": "raw", "node-name": "variables", "file": {"driver": "file", "filename": VARIABLES}}));
        line.add("-machine", "pflash0=firmware,pflash1=variables");
        // No IPv6 in the firmware: nothing on the site answers it, and waiting costs a minute each try.
        for knob in ["IPv6Support", "IPv6PXESupport"] {
            line.add("-fw_cfg", &format!("name=opt/org.tianocore/{knob},string=n"));
        }
        if self.netboot != Some(Netboot::Pxe) {
            line.add("-fw_cfg", "name=opt/org.tianocore/IPv4PXESupport,string=n");
        }
    }

    /// Both serial ports and the monitor, each a connection to the rack.
    fn ports(&self, line: &mut Line) {
        for (id, socket) in [("console", SERIAL_SOCKET), ("shell", SHELL_SOCKET), ("monitor", MONITOR_SOCKET)] {
            line.add("-chardev", &format!("socket,id={id},path={socket},server=off"));
        }
        line.add("-serial", "chardev:console").add("-serial", "chardev:shell").add("-mon", "chardev=monitor,mode=control");
    }

    fn network(&self, line: &mut Line) {
        line.add("-netdev", &format!("stream,id=net,server=off,addr.type=unix,addr.path={NET_SOCKET}"));
        // OVMF drives virtio-net itself; an option ROM would bring another, slower loader.
        let mut card = json!({"driver": "virtio-net-pci", "netdev": "net", "mac": self.mac(), "romfile": ""});
        if self.netboot.is_some() {
            card["bootindex"] = if self.network_first { 0 } else { DISC_PLACE + 1 }.into();
        }
        line.device(card);
    }

    fn storage(&self, line: &mut Line) {
        // Ways in for what is plugged in later.
        line.device(json!({"driver": "virtio-scsi-pci", "id": "scsi"}));
        line.device(json!({"driver": "pcie-root-port", "id": SPARE_SLOT, "chassis": 1}));
        line.device(json!({"driver": "qemu-xhci", "id": "usb"}));
        for (index, disk) in self.disks.iter().enumerate() {
            line.blockdev(disk.contents()).device(disk.device(None, index + 1));
        }
        if let Some(image) = &self.cdrom {
            let file = json!({"driver": "file", "filename": image, "read-only": true});
            line.blockdev(json!({"driver": "raw", "node-name": "cdrom", "read-only": true, "file": file}));
            line.device(json!({"driver": "ide-cd", "drive": "cdrom", "bootindex": DISC_PLACE}));
        }
        if self.answer.is_some() {
            line.blockdev(stick_contents()).device(stick_device());
        }
    }
}

/// A stick's contents, as `blockdev-add` takes them.
pub fn stick_contents() -> serde_json::Value {
    json!({"driver": "raw", "node-name": "stick", "file": {"driver": "file", "filename": STICK}})
}

/// A stick, as `device_add` takes it.
pub fn stick_device() -> serde_json::Value {
    json!({"driver": "usb-storage", "id": "stick", "drive": "stick", "removable": true})
}

/// The firmware starts discs after this many disks, and the network after them. QEMU's firmware forgets boot options of what has no
/// place, also those that an operating system made.
const DISC_PLACE: usize = 10;

/// A PCIe port that a disk can be plugged into while the machine runs.
pub const SPARE_SLOT: &str = "spare";

#[derive(Default)]
struct Line {
    arguments: Vec<String>,
}

impl Line {
    fn add(&mut self, option: &str, value: &str) -> &mut Self {
        self.arguments.extend([option.to_owned(), value.to_owned()]);
        self
    }

    fn flag(&mut self, option: &str) -> &mut Self {
        self.arguments.push(option.to_owned());
        self
    }

    fn device(&mut self, device: serde_json::Value) -> &mut Self {
        self.add("-device", &device.to_string())
    }

    fn blockdev(&mut self, blockdev: serde_json::Value) -> &mut Self {
        self.add("-blockdev", &blockdev.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn disks_come_before_the_network_and_pxe_is_off_for_http_boot() {
        let disk = DiskSpec::new(Bus::Nvme, "N1", 8);
        let spec = MachineSpec::new("node1", 7).disk(disk).netboot(Netboot::Http).kernel_words("a=b,c");
        let line = spec.arguments(&Host::emulated(1.0), Path::new("/firmware, with a comma.fd")).join(" ");
        assert!(line.contains(r#""bootindex":1,"drive":"disk-N1","driver":"nvme""#), "{line}");
        assert!(line.contains(r#""bootindex":11,"driver":"virtio-net-pci","mac":"52:54:00:77:00:07""#), "{line}");
        assert!(line.contains("IPv4PXESupport,string=n") && line.contains("kernel-cmdline-extra=a=b,,c"), "{line}");
        assert!(line.contains("/firmware, with a comma.fd"), "{line}");
    }

    #[test]
    fn no_two_machines_are_alike() {
        let [one, two] = [1, 2].map(|number| MachineSpec::new("x", number));
        assert_ne!(one.uuid(), two.uuid());
        assert_ne!(one.mac(), two.mac());
    }
}
