//! `bench env`: an environment beside what somebody would have without Lodge. Sides take turns, so that what changes on the host in the
//! meantime changes for all of them.

use anyhow::Result;

use super::{
    EnvOptions, Options, Part,
    disk::{self, Disk},
    guest::{Engine, Guest, NEIGHBOUR, number},
    result::{Bar, Samples, Table},
};
use crate::demo;

/// Where the work on files is done outside of the environment.
const PLAIN: [(&str, &str); 2] = [("a plain directory on the share", "/share/bench"), ("local disk", "/state/bench")];
/// Starts of each side in a turn: one takes a second, and differs from the next by a fifth.
const STARTS: u16 = 3;
/// Its environment.
const WORKER: &str = "worker";

/// Run it.
pub fn run(options: &EnvOptions) -> Result<Table> {
    let artifacts = demo::artifacts()?;
    let disk = disk::ensure()?;
    super::say("installing a site with one node");
    let guest = Guest::install(artifacts, &disk)?;
    let mut table = Table::new("env");
    guest.order(NEIGHBOUR, 0, "256M")?;
    guest.answering([0])?;
    // Work on files comes last: what that leaves in the kernel's memory goes away at any time.
    for part in [Part::Starts, Part::Memory, Part::Files].into_iter().filter(|part| options.part.contains(part)) {
        match part {
            Part::Starts => starts(&guest, &options.shared, &mut table)?,
            Part::Memory => memory(&guest, options, &mut table)?,
            Part::Files => files(&guest, &disk, &options.shared, &mut table)?,
        }
    }
    Ok(table)
}

/// From the command to the answer of sshd: the environment is created, and so are the peers' roots.
fn starts(guest: &Guest, options: &Options, table: &mut Table) -> Result<()> {
    let [mut ours, mut crun, mut lxc] = [const { Samples(Vec::new()) }; 3];
    // The first turn warms caches up on every side.
    let turns = u16::from(options.repeat) * STARTS;
    for turn in 0..=turns {
        guest.settle()?;
        let (took, parts) = guest.start("timed", 1)?;
        guest.destroy("timed")?;
        let peer = |engine, samples: &mut Samples| -> Result<String> {
            guest.settle()?;
            let (took, parts) = guest.start_peer(engine, 1)?;
            guest.stop_peer(engine, 1)?;
            samples.0.extend((turn > 0).then_some(took));
            Ok(format!("{took:.2} s {parts}"))
        };
        let (by_crun, by_lxc) = (peer(Engine::Crun, &mut crun)?, peer(Engine::Lxc, &mut lxc)?);
        ours.0.extend((turn > 0).then_some(took));
        super::say(&format!("start {turn} of {turns}: ours {took:.2} s {parts}, crun {by_crun}, LXC {by_lxc}"));
    }
    table.row("create to sshd, beside bare crun (s)", &ours, &crun, Bar::AtMost(1.15));
    table.row("create to sshd, beside LXC (s)", &ours, &lxc, Bar::AtMost(1.0));
    Ok(())
}

/// Figures of one place, over all turns.
#[derive(Default)]
struct Place {
    untar: Samples,
    remove: Samples,
    sync: Samples,
    read: Samples,
}

/// Work on files, in an environment, in a plain directory on the share, and on the node's own disk.
fn files(guest: &Guest, disk: &Disk, options: &Options, table: &mut Table) -> Result<()> {
    guest.order(WORKER, 1, "256M")?;
    guest.answering([1])?;
    guest.equip(WORKER, disk)?;
    guest.inside(WORKER, "write /root/large")?;
    for (_, dir) in PLAIN {
        guest.on_node(&format!("write {dir}/large"))?;
    }
    let mut inside = Place::default();
    let mut plain: [Place; 2] = Default::default();
    for turn in 1..=options.repeat {
        inside.work(guest, "/root", &|command| guest.inside(WORKER, command))?;
        for (place, (_, dir)) in plain.iter_mut().zip(PLAIN) {
            place.work(guest, dir, &|command| guest.on_node(command))?;
        }
        super::say(&format!("files {turn} of {}", options.repeat));
    }
    let bars = [(Bar::AtLeast(5.0), Bar::AtLeast(0.8)), (Bar::None, Bar::None)];
    for ((place, (name, _)), (untar, read)) in plain.iter().zip(PLAIN).zip(bars) {
        table.row(format!("untar, beside {name} (files/s)"), &inside.untar, &place.untar, untar);
        table.row(format!("rm, beside {name} (files/s)"), &inside.remove, &place.remove, Bar::None);
        table.row(format!("synced 4 KiB, beside {name} (/s)"), &inside.sync, &place.sync, Bar::None);
        table.row(format!("cold read, beside {name} (MiB/s)"), &inside.read, &place.read, read);
    }
    guest.destroy(WORKER)
}

impl Place {
    fn work(&mut self, guest: &Guest, dir: &str, run: &dyn Fn(&str) -> Result<serde_json::Value>) -> Result<()> {
        let files = run(&format!("files {dir}"))?;
        self.untar.0.push(number(&files, "untar")?);
        self.remove.0.push(number(&files, "remove")?);
        self.sync.0.push(number(&run(&format!("sync {dir}"))?, "sync")?);
        guest.forget()?;
        self.read.0.push(number(&run(&format!("read {dir}/large"))?, "read")?);
        Ok(())
    }
}

/// Idle ones: both sides grow in turns, and what each step adds to the memory in use is theirs.
fn memory(guest: &Guest, options: &EnvOptions, table: &mut Table) -> Result<()> {
    let mut counts = options.idle.clone();
    counts.sort_unstable();
    let (mut ours, mut lxc) = ((0, 0.0), (0, 0.0));
    let mut used = guest.memory()?;
    let mut added = |now: f64| now - std::mem::replace(&mut used, now);
    for count in counts {
        let new: Vec<u8> = (ours.0 + 1..=count).collect();
        for some in new.chunks(AT_ONCE) {
            some.iter().try_for_each(|number| guest.order(&idle(*number), *number, "48M"))?;
            guest.answering(some.iter().copied())?;
        }
        ours = (count, ours.1 + added(guest.memory()?));
        for number in lxc.0 + 1..=count {
            guest.start_peer(Engine::Lxc, number)?;
        }
        lxc = (count, lxc.1 + added(guest.memory()?));
        let each = |(count, bytes): (u8, f64)| Samples(vec![bytes / f64::from(count)]).map(|bytes| bytes / f64::from(1 << 20));
        table.row(format!("memory of each of {count} idle, beside LXC (MiB)"), &each(ours), &each(lxc), Bar::Below(1.0));
        super::say(&format!("memory of {count}: {:.1} MiB, LXC {:.1} MiB", each(ours).median(), each(lxc).median()));
    }
    (1..=ours.0).try_for_each(|number| guest.destroy(&idle(number)))?;
    (1..=lxc.0).try_for_each(|number| guest.stop_peer(Engine::Lxc, number))
}

/// Environments that are ordered before they are waited for.
const AT_ONCE: usize = 10;

fn idle(number: u8) -> String {
    format!("idle{number}")
}
