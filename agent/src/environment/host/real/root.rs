//! The root of an environment: its template below, its disk above, both with the environment's ids.
//!
//! | below the environment's directory | what |
//! |---|---|
//! | `lower` | the template, ids mapped, read-only |
//! | `private` | the disk, ids mapped: `up` is the upper layer, `work` overlayfs's own |
//! | `root` | the overlay of both |
//! | `beside-lower`, `beside` | the same for a root that is shown besides (`Beside`): template, and overlay of it and the disk |
//! | `scratch` | of a repair environment: in memory, with `up` and `work` of its own root |
//!
//! The overlay is mounted by somebody who is the environment's own root for the file systems: overlayfs makes its files as whoever mounted
//! it, and the host's root has no id on these disks. So an id on a disk can never mean somebody of the host.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use lodge_model::environment::order::{Assignment, Beside, IDS};
use lodge_model::ids::EnvironmentId;
use lodge_sys::idmap::{IdMap, IdRange, with_file_owner};
use lodge_sys::loopdev;
use lodge_sys::mount::{is_mount_point, mounts, unmount};
use lodge_sys::tree::{Tree, Trust};
use nix::errno::Errno;

use super::disk::sync_dir;
use super::layout::{BESIDE, BESIDE_LOWER, LOWER, Note, PRIVATE, ROOT, SCRATCH, private_dir, remove_file};
use super::{Real, guest};

/// How often, and after which pause, an unmount is tried again while it is busy.
const BUSY_TRIES: u32 = 20;
const BUSY_PAUSE: Duration = Duration::from_millis(50);
/// Bytes that are read ahead of a sequential reader: a round trip to the share has to pay.
const READ_AHEAD: u32 = 4 << 20;

impl Real {
    /// Template, disk, overlay: what is mounted already stays.
    pub(super) fn mount_root(&self, order: &Assignment) -> Result<()> {
        let id = order.id;
        let at = |name: &str| self.layout.on_node(id).join(name);
        let device = self.loop_of(id)?.context("its disk is not attached")?;
        let map = IdMap::new(IdRange { base: order.id_base, count: IDS })?;
        let lacks = |name: &str| self.is_mounted(id, name).map(|is| !is);
        if lacks(LOWER)? {
            private_dir(&at(LOWER))?;
            self.clone_template(&order.template.digest)?.map_ids(&map)?.attach(&at(LOWER))?;
        }
        if lacks(PRIVATE)? {
            if self.layout.notes(id).read::<u64>(Note::Checked).is_none() {
                bail!("its disk has not been checked");
            }
            private_dir(&at(PRIVATE))?;
            let source = device.path.to_string_lossy().into_owned();
            let options = [("source", source.as_str()), ("errors", "remount-ro")];
            Tree::new("ext4", &options, false, Trust::Data)?.map_ids(&map)?.attach(&at(PRIVATE))?;
        }
        // Not before: whoever looks what is on a new device reads here and there.
        loopdev::set_read_ahead(&device.path, READ_AHEAD)?;
        let own = match &order.beside {
            None => PRIVATE,
            Some(beside) => self.mount_beside(order, beside, &map, &lacks)?,
        };
        if lacks(ROOT)? {
            private_dir(&at(ROOT))?;
            with_file_owner(order.id_base, || overlay(&at(LOWER), &at(own), Trust::SetId)?.attach(&at(ROOT)))?;
        }
        Ok(())
    }

    /// The root that it is shown besides. Where its own is kept.
    fn mount_beside(
        &self,
        order: &Assignment,
        beside: &Beside,
        map: &IdMap,
        lacks: &dyn Fn(&str) -> Result<bool>,
    ) -> Result<&'static str> {
        let id = order.id;
        let at = |name: &str| self.layout.on_node(id).join(name);
        let (layers, own) = match beside {
            Beside::Repair { .. } => (at(PRIVATE), SCRATCH),
            Beside::Old { generation, .. } => (set_aside(order.id_base, &at(PRIVATE), *generation)?, PRIVATE),
        };
        if own == SCRATCH && lacks(SCRATCH)? {
            private_dir(&at(SCRATCH))?;
            // The rest of its memory is for its processes.
            let size = (order.memory / 2).to_string();
            let options = [("source", "lodge"), ("size", size.as_str()), ("mode", "0755")];
            Tree::new("tmpfs", &options, false, Trust::Data)?.map_ids(map)?.attach(&at(SCRATCH))?;
        }
        if lacks(BESIDE_LOWER)? {
            private_dir(&at(BESIDE_LOWER))?;
            self.clone_template(&beside.template().digest)?.map_ids(map)?.attach(&at(BESIDE_LOWER))?;
        }
        if lacks(BESIDE)? {
            private_dir(&at(BESIDE))?;
            with_file_owner(order.id_base, || {
                show_found(&layers)?;
                overlay(&at(BESIDE_LOWER), &layers, Trust::Programs)?.attach(&at(BESIDE))
            })?;
        }
        Ok(own)
    }

    /// Flush and unmount everything of it.
    pub(super) fn unmount_root(&self, id: EnvironmentId) -> Result<()> {
        self.thaw(id)?;
        if let Some(Err(error)) = self.files.end(id) {
            tracing::warn!("{error:#}");
        }
        // The newest mount first. A mount may lie on top of another one.
        for target in mounts()?.into_iter().rev().map(|mount| mount.target) {
            if target.starts_with(self.layout.on_node(id)) {
                unmount_idle(&target)?;
            }
        }
        // It is checked before every mount.
        self.layout.notes(id).remove(Note::Checked)?;
        self.unmount_idle_templates()
    }

    /// Let its disk go on, where a copy that was cut short left it frozen.
    pub(super) fn thaw(&self, id: EnvironmentId) -> Result<()> {
        let notes = self.layout.notes(id);
        if notes.read::<bool>(Note::Frozen).is_some() {
            if self.is_mounted(id, PRIVATE)? {
                lodge_sys::freeze::thaw(&self.layout.on_node(id).join(PRIVATE))?;
            }
            notes.remove(Note::Frozen)?;
        }
        Ok(())
    }

    /// What is mounted below its directory: `lower`, `private`, `root`.
    pub(super) fn mounted(&self, id: EnvironmentId) -> Result<Vec<String>> {
        let dir = self.layout.on_node(id);
        let names = mounts()?
            .into_iter()
            .filter_map(|mount| Some(mount.target.strip_prefix(&dir).ok()?.to_string_lossy().into_owned()));
        Ok(names.collect())
    }

    pub(super) fn is_mounted(&self, id: EnvironmentId, name: &str) -> Result<bool> {
        is_mount_point(&self.layout.on_node(id).join(name))
    }
}

/// Unmount what nobody uses any more. A process that another thread has just forked holds everything that is open here until it executes
/// its program, and nobody tells when that is: such a moment is waited out.
fn unmount_idle(target: &Path) -> Result<()> {
    for _ in 0..BUSY_TRIES {
        match unmount(target) {
            Err(error) if error.downcast_ref() == Some(&Errno::EBUSY) => std::thread::sleep(BUSY_PAUSE),
            ended => return ended,
        }
    }
    unmount(target)
}

/// What is set aside for the n-th time has this name on the disk.
const SET_ASIDE: &str = "old-";

/// What was written above the old system is set aside, once for each reinstallation: the rename is the moment at which it is so. What was
/// set aside before goes. Where it is kept.
fn set_aside(id_base: u32, private: &Path, generation: u32) -> Result<PathBuf> {
    let kept = private.join(format!("{SET_ASIDE}{generation}"));
    let (upper, old) = (private.join("up"), kept.join("up"));
    with_file_owner(id_base, || {
        if !old.exists() {
            fs::create_dir_all(&kept).with_context(|| format!("making {}", kept.display()))?;
            // The new system's files are nobody's yet.
            remove_file(&private.join(guest::RECORD))?;
            fs::create_dir_all(&upper).with_context(|| format!("making {}", upper.display()))?;
            fs::rename(&upper, &old).with_context(|| format!("renaming {} to {}", upper.display(), old.display()))?;
        }
        for entry in fs::read_dir(private).with_context(|| format!("listing {}", private.display()))?.flatten() {
            let is_older = entry.file_name().to_str().is_some_and(|name| name.starts_with(SET_ASIDE)) && entry.path() != kept;
            if is_older {
                fs::remove_dir_all(entry.path()).with_context(|| format!("removing {}", entry.path().display()))?;
            }
        }
        sync_dir(private)
    })?;
    Ok(kept)
}

/// What e2fsck has found without a name is put where it can be seen: in `lost+found` of the root, not beside it.
fn show_found(private: &Path) -> Result<()> {
    let (found, shown) = (private.join("lost+found"), private.join("up/lost+found"));
    let Ok(entries) = fs::read_dir(&found) else { return Ok(()) };
    for entry in entries.flatten() {
        fs::create_dir_all(&shown).with_context(|| format!("making {}", shown.display()))?;
        let to = shown.join(entry.file_name());
        fs::rename(entry.path(), &to).with_context(|| format!("moving what was found to {}", to.display()))?;
    }
    Ok(())
}

/// By the environment's own root: upper layer and work directory are made where they are not.
fn overlay(lower: &Path, private: &Path, trust: Trust) -> Result<Tree> {
    let (upper, work) = (private.join("up"), private.join("work"));
    for dir in [&upper, &work] {
        fs::create_dir_all(dir).with_context(|| format!("making {}", dir.display()))?;
    }
    let text = |path: &Path| path.to_string_lossy().into_owned();
    let (lower, upper, work) = (text(lower), text(&upper), text(&work));
    // The source is what `df` shows inside.
    let source = ("source", "lodge");
    let options = [
        source,
        ("lowerdir", lower.as_str()),
        ("upperdir", &upper),
        ("workdir", &work),
        ("redirect_dir", "on"),
        ("index", "off"),
        // A file has one number, whoever asks: criu finds watched files by it.
        ("xino", "on"),
    ];
    Tree::new("overlay", &options, false, trust)
}
