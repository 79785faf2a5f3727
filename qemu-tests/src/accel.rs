//! What the host's QEMU can do, found by really running something: KVM where a guest boots with it, else emulation, and how fast.
//!
//! `/dev/kvm` that opens is no proof (nested hosts hang at the first guest), so a boot sector is run that counts and says when it is
//! done, with a time limit. The time that takes under emulation scales every time limit of the rack.

use std::{
    fs,
    io::Read as _,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use crate::process::Process;

/// How QEMU runs guests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Accel {
    /// By the processor.
    Kvm,
    /// By translation.
    Tcg,
}

/// What was found out about the host.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Host {
    /// How it runs guests.
    pub accel: Accel,
    /// How many times longer than on the reference machine (BOOT.md's: two cores, emulation) things may take; at least 1.
    pub slowness: f64,
}

/// A finding, with the boot of the host it was made in: a hang of KVM is met once a boot, not at every start.
#[derive(Serialize, Deserialize)]
struct Remembered {
    boot: String,
    host: Host,
}

/// Longest wait for the boot sector.
const LIMIT: Duration = Duration::from_secs(60);
/// KVM does it in well under a second, or not at all.
const KVM_LIMIT: Duration = Duration::from_secs(8);
/// Seconds the boot sector takes on the reference machine under emulation.
const REFERENCE: f64 = 1.5;
/// Loops of the boot sector.
const LOOPS: u32 = 300_000_000;

impl Accel {
    /// Value of `-accel`.
    pub fn argument(self) -> &'static str {
        match self {
            Accel::Kvm => "kvm",
            Accel::Tcg => "tcg,thread=multi",
        }
    }

    /// Value of `-cpu`.
    pub fn cpu(self) -> &'static str {
        match self {
            Accel::Kvm => "host",
            Accel::Tcg => "max",
        }
    }
}

impl Host {
    /// A host that emulates.
    pub fn emulated(slowness: f64) -> Self {
        Self { accel: Accel::Tcg, slowness }
    }

    /// A time limit that was chosen on the reference machine, for this one.
    pub fn scale(&self, limit: Duration) -> Duration {
        limit.mul_f64(self.slowness)
    }

    /// How patient a cluster of guests must be with silent nodes: translated machines stall for seconds.
    pub fn patience(&self) -> u32 {
        match self.accel {
            Accel::Kvm => 1,
            Accel::Tcg => self.scale(Duration::from_secs(4)).as_secs_f64().ceil() as u32,
        }
    }

    /// Find out, or remember what this boot of the host has found out. `LODGE_ACCEL=tcg` or `kvm` forbids trying the other.
    pub fn probe(dir: &Path) -> Result<Self> {
        fs::create_dir_all(dir).with_context(|| format!("making {}", dir.display()))?;
        let wanted = match std::env::var("LODGE_ACCEL").as_deref() {
            Ok("kvm") => Some(Accel::Kvm),
            Ok("tcg") => Some(Accel::Tcg),
            Ok("" | "auto") | Err(_) => None,
            Ok(other) => bail!("LODGE_ACCEL={other:?} is not kvm, tcg or auto"),
        };
        let memory = dir.join("host.json");
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").context("reading the host's boot id")?;
        let remembered = fs::read(&memory).ok().and_then(|text| serde_json::from_slice::<Remembered>(&text).ok());
        if let Some(known) = remembered.filter(|known| known.boot == boot)
            && wanted.is_none_or(|accel| accel == known.host.accel)
        {
            return Ok(known.host);
        }
        let host = Self::find_out(dir, wanted)?;
        let text = serde_json::to_string(&Remembered { boot, host }).context("writing down what the host can do")?;
        fs::write(&memory, text).with_context(|| format!("writing {}", memory.display()))?;
        Ok(host)
    }

    fn find_out(dir: &Path, wanted: Option<Accel>) -> Result<Self> {
        let try_kvm = wanted != Some(Accel::Tcg) && Path::new("/dev/kvm").exists();
        if try_kvm && run_boot_sector(dir, Accel::Kvm, KVM_LIMIT).is_ok() {
            return Ok(Self { accel: Accel::Kvm, slowness: 1.0 });
        }
        if wanted == Some(Accel::Kvm) {
            bail!("LODGE_ACCEL=kvm, but no guest runs with KVM here");
        }
        let took = run_boot_sector(dir, Accel::Tcg, LIMIT).context("running a first guest under emulation")?;
        Ok(Self::emulated((took.as_secs_f64() / REFERENCE).clamp(1.0, 10.0)))
    }
}

/// Writes `L` to the first serial port, counts down from `LOOPS`, writes `E`.
fn boot_sector() -> Vec<u8> {
    let mut code = vec![
        0xba, 0xf8, 0x03, // mov dx, 0x3f8
        0xb0, b'L', 0xee, // mov al, 'L'; out dx, al
        0x66, 0xb9, // mov ecx, LOOPS
    ];
    code.extend(LOOPS.to_le_bytes());
    code.extend([
        0x66, 0x49, 0x75, 0xfc, // dec ecx; jnz -2
        0xb0, b'E', 0xee, // mov al, 'E'; out dx, al
        0xf4, 0xeb, 0xfd, // hlt; jmp to hlt
    ]);
    code.resize(510, 0);
    code.extend([0x55, 0xaa]);
    code
}

/// Seconds between the two letters.
fn run_boot_sector(dir: &Path, accel: Accel, limit: Duration) -> Result<Duration> {
    fs::write(dir.join("probe.img"), boot_sector()).with_context(|| format!("writing a probe in {}", dir.display()))?;
    let listener = crate::sockets::listen(dir, "probe.sock")?;
    let arguments = [
        "-nodefaults",
        "-no-user-config",
        "-display",
        "none",
        "-machine",
        "pc",
        "-m",
        "32M",
        "-accel",
        accel.argument(),
        "-drive",
        "file=probe.img,format=raw,if=ide,readonly=off",
        "-chardev",
        "socket,id=c,path=probe.sock,server=off",
        "-serial",
        "chardev:c",
    ]
    .map(str::to_owned);
    let process = Process::spawn("the probe", dir, "qemu-system-x86_64", &arguments, &["probe.sock"])?;
    let mut console = process.accept(&listener)?;
    let mut letter = || -> Result<u8> {
        console.set_read_timeout(Some(limit)).context("setting a time limit")?;
        let mut letter = [0];
        console.read_exact(&mut letter).with_context(|| format!("waiting for a guest with {}", accel.argument()))?;
        Ok(letter[0])
    };
    while letter()? != b'L' {}
    let started = Instant::now();
    while letter()? != b'E' {}
    Ok(started.elapsed())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_boot_sector_is_one_and_its_loop_jumps_to_the_count() {
        let sector = boot_sector();
        assert_eq!((sector.len(), &sector[510..]), (512, &[0x55, 0xaa][..]));
        assert_eq!(&sector[12..16], &[0x66, 0x49, 0x75, 0xfc]);
    }

    #[test]
    fn limits_never_shrink() {
        assert_eq!(Host::emulated(2.0).scale(Duration::from_secs(10)), Duration::from_secs(20));
    }
}
