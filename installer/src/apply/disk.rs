//! The partition table and the state file system.

use std::{
    fs::{File, OpenOptions},
    io::{Seek as _, SeekFrom, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use lodge_model::{
    facts::human_bytes,
    layout::{self, MIB, Slot},
};
use lodge_sys::{
    gpt::{self, Ensured},
    mount::MsFlags,
    partitions,
    program::Program,
};
use uuid::Uuid;

use super::{Apply, Progress};
use crate::{bundle, mounted::Mounted};

/// mkfs on a slow disk; it writes little.
const MKFS: Duration = Duration::from_secs(300);

impl Apply<'_> {
    pub(super) fn verify_bundle(&mut self) -> Result<()> {
        let memory = lodge_sys::facts::cpu::memory_available()?;
        let source = std::mem::replace(&mut self.source, bundle::Source::File(PathBuf::new()));
        let report = &mut *self.report;
        self.source = bundle::verify(source, &self.key, memory, &mut |done, total| report.progress(done, total))?;
        let manifest = bundle::manifest(&self.source, &self.key)?;
        if manifest != self.manifest {
            bail!("the bundle has changed since the plan was made (it is version {} now)", manifest.version);
        }
        Ok(())
    }

    pub(super) fn partition(&mut self) -> Result<()> {
        self.check_disk_again()?;
        let mut file = self.open_alone()?;
        let (size, block_size) = (self.plan.disk.size, self.plan.disk.block_size);
        let old = gpt::read(&mut file, block_size)?.filter(|entries| gpt::is_lodge(entries, size));
        let uuids = self.uuids(old.as_deref())?;
        if old.is_none() {
            self.clear_old_starts(&mut file)?;
        }
        let ensured = gpt::ensure_lodge(&mut file, size, block_size, &uuids, true)?;
        file.sync_all().with_context(|| format!("writing {}", self.path().display()))?;
        let entries = gpt::read(&mut file, block_size)?.unwrap_or_default();
        if !gpt::is_lodge(&entries, size) {
            bail!("{} does not hold the partition table that was written to it; the disk is broken", self.path().display());
        }
        let places: Vec<(u32, u64, u64)> = entries.iter().map(|entry| (entry.number, entry.start, entry.size)).collect();
        partitions::announce(&file, &self.plan.disk.name, &places)?;
        if ensured == Ensured::Identity {
            self.report.note("the partition table is Lodge's already and stays");
        }
        Ok(())
    }

    pub(super) fn format_state(&mut self, progress: &mut Progress) -> Result<()> {
        progress.state = None;
        let node = self.node(layout::STATE)?;
        let text = node.to_string_lossy();
        // No discard: it takes minutes on some disks, and nothing here needs it.
        Program::MkfsExt4.call(["-q", "-F", "-L", layout::STATE, "-E", "nodiscard", &text]).deadline(MKFS).run()?;
        progress.state = Some(Mounted::mount(&node, "state", "ext4", MsFlags::MS_NOSUID | MsFlags::MS_NODEV, "")?);
        Ok(())
    }

    /// Clear the mark of an unfinished installation.
    pub(super) fn mark_finished(&self) -> Result<()> {
        let path = self.path();
        let mut file =
            OpenOptions::new().read(true).write(true).open(&path).with_context(|| format!("opening {}", path.display()))?;
        gpt::ensure_lodge(&mut file, self.plan.disk.size, self.plan.disk.block_size, &[], false)?;
        file.sync_all().with_context(|| format!("writing {}", path.display()))
    }

    /// The disk must still be the one, and hold what it held, when the plan was made.
    fn check_disk_again(&self) -> Result<()> {
        let disk = &self.plan.disk;
        let now = (self.host.look)(&disk.name)?;
        if (&now.serial, now.size) != (&disk.serial, disk.size) {
            bail!("{} was {} and is {} now; nothing was written to it", disk.name, disk.describe(), now.describe());
        }
        if now.signatures != self.seen {
            bail!("what is on {} has changed since the plan was made; nothing was written to it", disk.describe());
        }
        Ok(())
    }

    fn open_alone(&self) -> Result<File> {
        let path = self.path();
        let file = OpenOptions::new().read(true).write(true).custom_flags(nix::libc::O_EXCL).open(&path);
        file.with_context(|| format!("opening {} for this installation alone; is something on it in use?", path.display()))
    }

    /// The slot gets the GUIDs of its contents; another place that has them loses them, so that they name one place only.
    fn uuids(&self, old: Option<&[gpt::Entry]>) -> Result<Vec<(&'static str, Uuid)>> {
        let (root, verity) = layout::slot_uuids(&self.plan.roothash).context("reading the root hash")?;
        let slot = self.plan.slot;
        let mut uuids = vec![(slot.root_label(), root), (slot.verity_label(), verity)];
        let other = if slot == Slot::A { Slot::B } else { Slot::A };
        for (label, taken) in [(other.root_label(), root), (other.verity_label(), verity)] {
            if old.into_iter().flatten().any(|entry| entry.label == label && entry.uuid == taken) {
                uuids.push((label, Uuid::new_v4()));
            }
        }
        Ok(uuids)
    }

    /// Under a new table lies what was there before: a foreign boot loader, a file system, RAID members. None of it may be seen
    /// through the new partitions.
    fn clear_old_starts(&self, file: &mut File) -> Result<()> {
        let size = self.plan.disk.size;
        let places = gpt::places(size).with_context(|| format!("{} is too small", human_bytes(size)))?;
        let zeros = vec![0; MIB as usize];
        let starts = places.iter().map(|(_, start, _)| *start);
        // Both tables' places, each partition's start, and the disk's end, where RAID metadata is.
        for at in [0].into_iter().chain(starts).chain([size - MIB]) {
            file.seek(SeekFrom::Start(at)).with_context(|| format!("going to byte {at}"))?;
            file.write_all(&zeros).with_context(|| format!("clearing {} at byte {at}", self.path().display()))?;
        }
        file.sync_all().with_context(|| format!("clearing {}", self.path().display()))
    }

    pub(super) fn path(&self) -> PathBuf {
        Path::new("/dev").join(&self.plan.disk.name)
    }

    /// Device node of one of the layout's partitions.
    pub(super) fn node(&self, label: &str) -> Result<PathBuf> {
        let index = layout::PARTITIONS.iter().position(|partition| partition.label == label);
        let number =
            index.and_then(|index| u32::try_from(index + 1).ok()).with_context(|| format!("finding partition {label}"))?;
        Ok(partitions::node(&self.plan.disk.name, number))
    }
}
