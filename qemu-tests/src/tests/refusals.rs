//! Everything that may be wrong, on one machine in one run of its installer: each fault is told on the console and in the center, no
//! disk changes by one byte, and once the fault is mended the installer goes on by itself, in the end to a node that is ready.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use lodge_model::{
    answer::{Answer, CenterAnswer},
    progress::Progress,
};

use super::{Bench, ask_until, install::BOOT_LIMIT};
use crate::{
    api::Operator,
    machine::{
        Machine,
        spec::{Bus, DiskSpec, MachineSpec},
    },
    media::{self, bundles::Unpacked, signatures::Signature},
    rack::{CENTER, INSTALL_LIMIT},
    scenario::{Site, hold},
    shell,
    web::{self, Web},
};

/// Name and number in the rack of the machine that becomes a node in the end.
const MENDED: (&str, u8) = ("mended", 200);
/// Name and number of the one that never does.
const HELD: (&str, u8) = ("held", 201);
/// The installer tells a fault, or goes on after it, within this on the reference machine.
const SOON: Duration = Duration::from_secs(120);
/// Name under which a bundle is offered, good or bad.
const BUNDLE: &str = "bundle.tar.gz";
/// Larger than the least disk.
const GIB_ENOUGH: u64 = 8;

pub fn run(bench: &mut Bench) -> Result<()> {
    let bundle = bench.artifacts.bundle();
    let iso = bench.artifacts.iso();
    let site = bench.site()?;
    let center = center_answer(site)?;
    let (name, number) = MENDED;
    let mut spec = MachineSpec::new(name, number).kernel_words(shell::KERNEL_WORD);
    spec.cdrom = Some(iso);
    site.rack.add(spec)?;
    let web = site.rack.start_web()?;
    let mut refused = Refused { site, name, told: Vec::new() };
    refused.wrong_answers(&center)?;
    refused.wrong_disks()?;
    refused.wrong_bundles(&web, &bundle)?;
    let told = refused.told.join("\n");
    refused.site.rack.remove(name);
    bench.say(&told);
    Ok(())
}

/// A disk that holds something, on the buses that `run` leaves out.
pub fn by_bus(bench: &mut Bench) -> Result<()> {
    let iso = bench.artifacts.iso();
    let site = bench.site()?;
    let center = center_answer(site)?;
    let (name, number) = HELD;
    let mut spec = MachineSpec::new(name, number).kernel_words(shell::KERNEL_WORD);
    spec.cdrom = Some(iso);
    spec.answer = Some(answer(name, &center, ""));
    site.rack.add(spec)?.switch_on()?;
    let mut refused = Refused { site, name, told: Vec::new() };
    for bus in [Bus::Virtio, Bus::Nvme] {
        for signature in Signature::ALL {
            refused.disk_that_holds(signature, bus)?;
        }
    }
    refused.site.rack.remove(name);
    Ok(())
}

/// How a fault is known: every word is in one line of the installer's, whatever the case of its letters.
struct Fault<'a> {
    what: &'a str,
    words: &'a [&'a str],
}

struct Refused<'a> {
    site: &'a mut Site,
    name: &'static str,
    told: Vec<String>,
}

impl Refused<'_> {
    /// Sticks with answers that are wrong, each pulled out for the next; the last one is right.
    fn wrong_answers(&mut self, center: &CenterAnswer) -> Result<()> {
        let stranger = CenterAnswer { ca: lodge_model::ids::Fingerprint::from_digest([1; 32]), ..center.clone() };
        let unasked = CenterAnswer { token: "not-a-token-of-this-center".into(), ..center.clone() };
        let unknown = answer(self.name, center, "[diskk]\nserial = \"x\"\n");
        let sticks: [(Fault, String); 3] = [
            (Fault { what: "an unknown key in the answer", words: &["lodge.toml", "diskk"] }, unknown),
            (
                Fault { what: "a wrong center certificate", words: &["not the center that was named", "expected CA"] },
                answer(self.name, &stranger, ""),
            ),
            (Fault { what: "a wrong token", words: &["token"] }, answer(self.name, &unasked, "")),
        ];
        for (number, (fault, text)) in sticks.iter().enumerate() {
            let machine = self.machine_mut()?;
            let from = machine.now();
            if number == 0 {
                machine.switch_on()?;
            }
            machine.swap_stick(text)?;
            self.is_told(from, fault, false)?;
        }
        let right = answer(self.name, center, &format!("[install]\nbundle = \"{}/{BUNDLE}\"\n", web::URL));
        let machine = self.machine_mut()?;
        let from = machine.now();
        machine.swap_stick(&right)?;
        // The mended answer brings it to the next fault: it has no disk.
        self.is_told(from, &Fault { what: "no disk", words: &["no disk"] }, true)
    }

    fn wrong_disks(&mut self) -> Result<()> {
        self.disk_is_refused(
            DiskSpec::new(Bus::Scsi, "SMALL0", 2),
            None,
            &Fault { what: "a small disk", words: &["too small", "SMALL0"] },
        )?;
        self.two_disks()?;
        for signature in Signature::ALL {
            self.disk_that_holds(signature, Bus::Scsi)?;
        }
        Ok(())
    }

    fn disk_that_holds(&mut self, signature: Signature, bus: Bus) -> Result<()> {
        let what = format!("a disk that holds {}", signature.kind());
        let words = ["already holds", signature.kind(), "HELD0"];
        self.disk_is_refused(DiskSpec::new(bus, "HELD0", GIB_ENOUGH), Some(signature), &Fault { what: &what, words: &words })
    }

    /// Plug a disk in, see it refused, pull it out, and find it as it was.
    fn disk_is_refused(&mut self, disk: DiskSpec, signature: Option<Signature>, fault: &Fault) -> Result<()> {
        let machine = self.machine_mut()?;
        let (file, serial) = (machine.disk_file(&disk.serial), disk.serial.clone());
        media::blank_disk(&file, disk.size)?;
        if let Some(signature) = signature {
            signature.put(&file)?;
        }
        let before = media::digest(&file)?;
        let from = machine.now();
        machine.plug_disk(disk)?;
        self.is_told(from, fault, true)?;
        self.machine_mut()?.unplug_disk(&serial)?;
        hold(media::digest(&file)? == before, || format!("{} was changed", fault.what))
    }

    fn two_disks(&mut self) -> Result<()> {
        let serials = ["TWIN0", "TWIN1"];
        let machine = self.machine_mut()?;
        let files = serials.map(|serial| machine.disk_file(serial));
        let blank = DiskSpec::new(Bus::Scsi, "", GIB_ENOUGH).size;
        files.iter().try_for_each(|file| media::blank_disk(file, blank))?;
        let before = media::digest(&files[0])?;
        let from = machine.now();
        // Both appear and both go while the machine stands still: at no moment has it one alone, which it would be installed on.
        machine.freeze()?;
        serials.iter().try_for_each(|serial| machine.plug_disk(DiskSpec::new(Bus::Scsi, serial, GIB_ENOUGH)))?;
        machine.thaw()?;
        self.is_told(from, &Fault { what: "two disks that both match", words: &["2 disks match", "TWIN0", "TWIN1"] }, true)?;
        let machine = self.machine_mut()?;
        machine.freeze()?;
        serials.iter().try_for_each(|serial| machine.unplug_disk(serial))?;
        machine.thaw()?;
        for file in files {
            hold(media::digest(&file)? == before, || format!("{} was changed", file.display()))?;
        }
        Ok(())
    }

    /// A good disk, and bundles that are not; then a good one, and the machine is installed.
    fn wrong_bundles(&mut self, web: &Web, good: &std::path::Path) -> Result<()> {
        let dir = self.site.rack.dir.clone();
        let [stranger, flipped] = ["stranger.tar.gz", "flipped.tar.gz"].map(|name| dir.join(name));
        let unpacked = Unpacked::new(good, &dir)?;
        unpacked.signed_by_a_stranger(&stranger)?;
        unpacked.with_a_flipped_bit(&flipped)?;
        drop(unpacked);
        web.put(BUNDLE, &stranger)?;
        let machine = self.machine_mut()?;
        let mut from = machine.now();
        machine.plug_disk(DiskSpec::new(Bus::Scsi, "GOOD0", GIB_ENOUGH))?;
        let disk = machine.disk_file("GOOD0");
        let before = media::digest(&disk)?;
        self.is_told(
            from,
            &Fault { what: "a manifest signed with another key", words: &["not signed by the release key"] },
            true,
        )?;
        from = self.machine()?.now();
        web.put(BUNDLE, &flipped)?;
        self.is_told(from, &Fault { what: "a flipped bit in the bundle", words: &["root.erofs", "sha256"] }, true)?;
        hold(media::digest(&disk)? == before, || "the disk was changed by a bad bundle".to_owned())?;
        from = self.machine()?.now();
        web.put(BUNDLE, good)?;
        self.machine()?.wait_text(from, "lodge: installed ", INSTALL_LIMIT)?;
        self.machine()?.wait_ready(from, BOOT_LIMIT)?;
        self.told.push("  mended: installed and ready".into());
        Ok(())
    }

    /// The console says it, and, where the center can be reached, the center too.
    fn is_told(&mut self, from: usize, fault: &Fault, in_center: bool) -> Result<()> {
        let fits = |text: &str| fault.words.iter().all(|word| text.to_lowercase().contains(&word.to_lowercase()));
        let told = |line: &crate::console::Line| match line.progress() {
            Some(Progress::Failed(text) | Progress::Waiting(text)) if fits(&text) => Some(text),
            _ => None,
        };
        let asked = Instant::now();
        let (text, _) = self.machine()?.wait_from(from, fault.what, SOON, told)?;
        let seconds = asked.elapsed().as_secs_f64();
        if in_center {
            self.center_knows(fault, &fits)?;
        }
        self.told.push(format!("  {} ({seconds:.1} s): {text}", fault.what));
        Ok(())
    }

    fn center_knows(&self, fault: &Fault, fits: &dyn Fn(&str) -> bool) -> Result<()> {
        let operator = &self.site.operator;
        let limit = self.site.rack.host.scale(Duration::from_secs(20));
        let what = format!("{} in the center's events", fault.what);
        let machine = self.machine()?.spec.uuid().to_string();
        ask_until(limit, &what, || Ok(events(operator, &machine)?.iter().any(|text| fits(text)).then_some(())))
    }

    fn machine(&self) -> Result<&Machine> {
        self.site.rack.machine(self.name)
    }

    fn machine_mut(&mut self) -> Result<&mut Machine> {
        self.site.rack.machine_mut(self.name)
    }
}

fn events(operator: &Operator, machine: &str) -> Result<Vec<String>> {
    Ok(operator.events(machine)?.into_iter().map(|event| event.text).collect())
}

/// An answer that names the center, and more.
fn answer(name: &str, center: &CenterAnswer, more: &str) -> String {
    format!(
        "[center]\nurl = \"{}\"\nca = \"{}\"\ntoken = \"{}\"\n\n[node]\nname = \"{name}\"\n\n{more}",
        center.url, center.ca, center.token
    )
}

/// What the center tells a machine that boots from it, with a fresh token.
fn center_answer(site: &Site) -> Result<CenterAnswer> {
    let text = site.rack.machine(CENTER)?.run("busybox wget -q -O - http://127.0.0.1/boot/lodge.toml")?;
    let answer = Answer::parse(&text, "the center's boot server").context("reading what the center tells machines")?;
    match answer.center {
        Some(center) => Ok(center),
        None => bail!("the center's boot server names no center: {text}"),
    }
}
