//! What is done once with disks on the share: snapshots, going back to one, copies for new environments.
//!
//! A copy is made under another name and renamed when it is whole. What was cut short is begun anew.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, anyhow};
use lodge_model::environment::order::TaskKind;
use lodge_model::environment::share;
use lodge_model::ids::EnvironmentId;
use lodge_model::node::check_name;
use lodge_sys::freeze::Frozen;
use lodge_sys::sparse;

use super::disk::{lock_file, sync_dir};
use super::layout::{Note, PRIVATE, private_dir, remove_file};
use super::template::percent;
use super::{Progress, Real, StepError, TaskDone};

impl Real {
    pub(super) fn do_task(&self, task: &TaskKind, progress: &dyn Progress) -> Result<TaskDone, StepError> {
        match task {
            TaskKind::Snapshot { environment, snapshot } => {
                let target = self.snapshot(*environment, snapshot)?;
                self.with_disk(*environment, || self.copy_still(*environment, &target, progress))
            }
            TaskKind::Rollback { environment, snapshot } => {
                let source = self.snapshot(*environment, snapshot)?;
                self.with_disk(*environment, || self.rollback(*environment, &source, progress))
            }
            TaskKind::RemoveSnapshot { environment, snapshot } => {
                let path = self.snapshot(*environment, snapshot)?;
                remove_file(&path)?;
                remove_file(&part(&path))?;
                Ok(TaskDone::default())
            }
            TaskKind::CheckDisk { environment, mend } => self.with_disk(*environment, || self.inspect(*environment, *mend)),
            TaskKind::Clone { from, to } => {
                private_dir(&self.layout.on_share(*to))?;
                let target = self.layout.disk(*to);
                self.with_disk(*from, || self.copy_still(*from, &target, progress)).map(|_| TaskDone::default())
            }
            TaskKind::RemoveTemplate { digest } => {
                self.remove_template(digest)?;
                Ok(TaskDone::default())
            }
            TaskKind::ImportTemplate { .. } => Err(anyhow!("importing templates is not a task of the host").into()),
        }
    }

    /// Copy a disk as it is at one moment, unless the copy is there already.
    fn copy_still(&self, id: EnvironmentId, target: &Path, progress: &dyn Progress) -> Result<TaskDone, StepError> {
        if !target.exists() {
            let disk = self.layout.disk(id);
            if !disk.exists() {
                return Err(StepError::Refused("it has no disk on the share".into()));
            }
            if self.layout.growing(id).exists() {
                return Err(anyhow!("its disk is being made larger").into());
            }
            if self.is_mounted(id, PRIVATE)? {
                self.copy_frozen(id, &disk, target, progress)?;
            } else if self.loop_of(id)?.is_some() {
                copy_whole(&disk, target, progress)?;
            } else {
                let _lock = lock_file(&disk)?;
                copy_whole(&disk, target, progress)?;
            }
        }
        let found = fs::metadata(target).with_context(|| format!("looking at {}", target.display()))?;
        Ok(TaskDone { bytes: found.blocks() * 512, ..TaskDone::default() })
    }

    fn copy_frozen(&self, id: EnvironmentId, disk: &Path, target: &Path, progress: &dyn Progress) -> Result<()> {
        let notes = self.layout.notes(id);
        // Noted first: whoever comes after a crash knows that it has to be thawed.
        notes.write(Note::Frozen, &true)?;
        let copied = Frozen::hold(&self.layout.on_node(id).join(PRIVATE)).and_then(|frozen| {
            let copied = copy_whole(disk, target, progress);
            frozen.release()?;
            copied
        });
        notes.remove(Note::Frozen)?;
        copied
    }

    fn rollback(&self, id: EnvironmentId, source: &Path, progress: &dyn Progress) -> Result<TaskDone, StepError> {
        if !source.exists() {
            return Err(StepError::Refused(format!("there is no snapshot {}", source.display())));
        }
        if self.loop_of(id)?.is_some() {
            return Err(anyhow!("this node still holds its disk").into());
        }
        let disk = self.layout.disk(id);
        let _lock = if disk.exists() { Some(lock_file(&disk)?) } else { None };
        let back = self.layout.on_share(id).join("disk.back");
        remove_file(&back)?;
        copy_whole(source, &back, progress)?;
        fs::rename(&back, &disk).with_context(|| format!("renaming {} to {}", back.display(), disk.display()))?;
        sync_dir(&self.layout.on_share(id))?;
        Ok(TaskDone::default())
    }

    fn snapshot(&self, id: EnvironmentId, name: &str) -> Result<PathBuf, StepError> {
        check_name(name).map_err(|why| StepError::Refused(format!("snapshot {name:?}: {why}")))?;
        let dir = self.layout.on_share(id);
        if !dir.exists() {
            return Err(StepError::Refused("it has no directory on the share".into()));
        }
        let dir = dir.join(share::SNAPSHOTS);
        private_dir(&dir)?;
        Ok(dir.join(format!("{name}.img")))
    }
}

/// A copy that has its name only when it is whole and on the disk.
fn copy_whole(from: &Path, to: &Path, progress: &dyn Progress) -> Result<()> {
    let part = part(to);
    remove_file(&part)?;
    let copied = sparse::copy(from, &part, &mut |done, all| {
        progress.percent(percent(done, all));
        Ok(())
    });
    if let Err(error) = copied {
        // A full share needs the room.
        remove_file(&part)?;
        return Err(error);
    }
    fs::rename(&part, to).with_context(|| format!("renaming {} to {}", part.display(), to.display()))?;
    sync_dir(to.parent().unwrap_or(to))
}

fn part(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".part");
    path.with_file_name(name)
}
