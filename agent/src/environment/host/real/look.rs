//! What is found of environments on this node: kernel tables and files below `/run`, never the share, so that a look does not hang.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use lodge_model::environment::order::{TemplateRef, Usage};
use lodge_model::ids::EnvironmentId;
use lodge_network::Presence;
use lodge_sys::loopdev;
use lodge_sys::mount::mounts;
use nix::sys::statvfs::statvfs;

use super::disk::environment_of;
use super::layout::{LOWER, Note, PRIVATE, ROOT};
use super::{Container, Real};
use crate::environment::host::{Disk, Found, Limits, Mounts};

impl Real {
    pub(super) fn list_found(&self) -> Result<BTreeSet<EnvironmentId>> {
        let mut found: BTreeSet<EnvironmentId> =
            [&self.layout.run, &self.layout.cgroups, &self.layout.crun].into_iter().flat_map(|dir| named_in(dir)).collect();
        found.extend(loopdev::list()?.iter().filter_map(|device| environment_of(&device.backing)));
        found.extend(mounts()?.iter().filter_map(|mount| {
            let below = mount.target.strip_prefix(&self.layout.run).ok()?;
            below.iter().next()?.to_str()?.parse::<EnvironmentId>().ok()
        }));
        found.extend(lodge_network::list()?);
        Ok(found)
    }

    pub(super) fn look_at(&self, id: EnvironmentId, templates: &[&TemplateRef]) -> Result<Found> {
        let notes = self.layout.notes(id);
        let cgroup = self.layout.cgroup(id);
        let loops = self.loops_of(id)?;
        let mounted = self.mounted(id)?;
        let container = self.container(id);
        let presence = lodge_network::look(id)?;
        let link = matches!(presence, Presence::Partly | Presence::Whole);
        let disk = match (loops.first(), notes.read(Note::Checked)) {
            (None, _) => Disk::No,
            (Some(_), None) => Disk::Unchecked,
            (Some(_), Some(size)) => Disk::Ready { size },
        };
        let mut left: Vec<String> = loops.iter().map(|device| format!("loop device {}", device.path.display())).collect();
        left.extend(mounted.iter().map(|name| format!("mount {name}")));
        left.extend((container != Container::No).then(|| "container".to_owned()));
        left.extend(cgroup.exists().then(|| "control group".to_owned()));
        left.extend(link.then(|| "network link".to_owned()));
        left.extend((presence == Presence::Guarded).then(|| "network guard".to_owned()));
        left.extend(self.layout.on_node(id).exists().then(|| format!("directory {}", self.layout.on_node(id).display())));
        Ok(Found {
            held: notes.read(Note::Order),
            templates: templates.iter().filter(|template| self.has_template(template)).map(|it| it.digest.clone()).collect(),
            disk,
            mounts: state_of(&mounted),
            container,
            processes: u32::try_from(cgroup.count()?).unwrap_or(u32::MAX),
            // Held still by a copy that goes on is as it should be.
            frozen: notes.read::<bool>(Note::Frozen).is_some() && !self.is_disk_busy(id),
            cached: notes.path(Note::Cached).exists(),
            link,
            kept: notes.read(Note::Kept),
            mended: notes.read(Note::Mended).unwrap_or_default(),
            limits: if cgroup.exists() { notes.read::<[u64; 3]>(Note::Limits).and_then(limits) } else { None },
            oom_kills: cgroup.read_key("memory.events", "oom_kill")?.unwrap_or(0),
            left,
        })
    }

    pub(super) fn usage_of(&self, id: EnvironmentId) -> Result<Usage> {
        let cgroup = self.layout.cgroup(id);
        let number = |file: &str| -> Result<u64> { Ok(cgroup.read(file)?.and_then(|text| text.parse().ok()).unwrap_or(0)) };
        let traffic = lodge_network::traffic(id)?.unwrap_or_default();
        Ok(Usage {
            memory: number("memory.current")?,
            cpu_usec: cgroup.read_key("cpu.stat", "usage_usec")?.unwrap_or(0),
            tasks: u32::try_from(number("pids.current")?).unwrap_or(u32::MAX),
            disk: self.used(id)?,
            rx: traffic.rx,
            tx: traffic.tx,
        })
    }

    /// Bytes of its disk in use; the numbers of ext4 are in memory.
    fn used(&self, id: EnvironmentId) -> Result<u64> {
        if !self.is_mounted(id, PRIVATE)? {
            return Ok(0);
        }
        let path = self.layout.on_node(id).join(PRIVATE);
        let found = statvfs(&path).with_context(|| format!("looking at {}", path.display()))?;
        Ok(found.blocks().saturating_sub(found.blocks_free()) * found.fragment_size())
    }
}

fn state_of(mounted: &[String]) -> Mounts {
    let has = |name: &str| mounted.iter().any(|mounted| mounted == name);
    match (mounted.is_empty(), [LOWER, PRIVATE, ROOT].into_iter().all(has)) {
        (true, _) => Mounts::No,
        (false, true) => Mounts::Whole,
        (false, false) => Mounts::Partly,
    }
}

/// Limits, as they are noted.
pub(super) fn noted(limits: Limits) -> [u64; 3] {
    [limits.memory, limits.cpu_millis.into(), limits.tasks_max.into()]
}

fn limits([memory, cpu_millis, tasks_max]: [u64; 3]) -> Option<Limits> {
    Some(Limits { memory, cpu_millis: cpu_millis.try_into().ok()?, tasks_max: tasks_max.try_into().ok()? })
}

/// The environments that directories here are named after.
fn named_in(dir: &Path) -> Vec<EnvironmentId> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}
