//! The file system on a disk, checked by e2fsck: gently before a start, thoroughly before a repair and when somebody asks.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, anyhow};
use lodge_model::environment::order::{Assignment, Beside, DiskCheck, Verdict};
use lodge_model::ids::EnvironmentId;
use lodge_sys::loopdev::{self, Options};
use lodge_sys::program::Program;

use super::disk::{DETACH_LIMIT, file_system_size, lock_file};
use super::layout::{Note, PRIVATE};
use super::superblock::Superblock;
use super::{Real, StepError, TaskDone};

/// How often a file system is mended before it is given up.
const MENDING_RUNS: u32 = 3;
/// Characters of what e2fsck says that are kept.
const LONGEST_REPORT: usize = 4000;

impl Real {
    /// Check and repair its file system. One that Lodge has not made for this environment is checked as a whole, and is then its own.
    pub(super) fn check_disk(&self, id: EnvironmentId) -> Result<(), StepError> {
        let device = self.need_loop(id)?;
        if self.is_mounted(id, PRIVATE)? {
            return Err(anyhow!("it is mounted").into());
        }
        let disk = self.layout.disk(id);
        let size = fs::metadata(&disk).with_context(|| format!("looking at {}", disk.display()))?.len();
        let own = id.0.as_u128();
        let is_known = ours(&device.path, size)? == Some(own);
        let notes = self.layout.notes(id);
        if notes.read::<Assignment>(Note::Order).is_some_and(|order| matches!(order.beside, Some(Beside::Repair { .. }))) {
            // It may have been mended by a check that was cut short afterwards.
            let before: String = notes.read(Note::Mended).unwrap_or_default();
            let (is_sound, mended) = mend(&device.path)?;
            if !is_sound {
                return Err(anyhow!("its file system has faults that e2fsck cannot mend: {}", mended.trim()).into());
            }
            notes.write(Note::Mended, &(before + &mended))?;
        } else {
            check(&device.path, if is_known { &["-p"] } else { &["-f", "-p"] })?;
        }
        // A repair may have brought an older superblock back.
        match ours(&device.path, size)? {
            None => return Err(anyhow!("there is no file system on {}", disk.display()).into()),
            Some(uuid) if uuid == own => {}
            Some(_) => drop(Program::Tune2fs.call(["-U", &id.to_string()]).arguments([&device.path]).run()?),
        }
        let size = if self.layout.growing(id).exists() { file_system_size(&device.path)? } else { size };
        Ok(notes.write(Note::Checked, &size)?)
    }

    /// Look for faults on the disk of one that nobody runs, and mend them if asked.
    pub(super) fn inspect(&self, id: EnvironmentId, mend: bool) -> Result<TaskDone, StepError> {
        if self.loop_of(id)?.is_some() {
            return Err(anyhow!("this node still holds its disk").into());
        }
        let disk = self.layout.disk(id);
        if !disk.exists() {
            return Err(StepError::Refused("it has no disk on the share".into()));
        }
        // As for one that runs, the lock is that of the very open file that is written through.
        let file = lock_file(&disk)?;
        let size = file.metadata().with_context(|| format!("looking at {}", disk.display()))?.len();
        let attached = loopdev::attach(&file, Options { direct_io: true, read_only: !mend, ..Options::default() })?;
        let device = attached.device.path.clone();
        let checked = inspect(&device, size, mend);
        drop(attached);
        loopdev::detach(&device, DETACH_LIMIT)?;
        Ok(TaskDone { check: Some(checked?), ..TaskDone::default() })
    }
}

fn inspect(device: &Path, size: u64, is_mended: bool) -> Result<DiskCheck, StepError> {
    ours(device, size)?;
    let has_journal = Superblock::read(device)?.is_some_and(|found| found.has_journal());
    let (is_sound, text) = if is_mended { mend(device)? } else { look(device)? };
    let verdict = match (is_sound, text.is_empty()) {
        (true, true) => Verdict::InOrder,
        (true, false) => Verdict::Mended,
        (false, _) => Verdict::Damaged,
    };
    Ok(DiskCheck { verdict, has_journal: has_journal && !is_mended, text })
}

/// The id on a disk of so many bytes; `None` where none is found that is whole, of which there are copies.
fn ours(device: &Path, size: u64) -> Result<Option<u128>, StepError> {
    let Some(found) = Superblock::read(device)?.filter(|found| !found.is_torn()) else { return Ok(None) };
    let refuse = |why| StepError::Refused(format!("its disk is not one that Lodge makes, and is left alone: {why}"));
    found.is_ours(size).map(|()| Some(found.uuid())).map_err(refuse)
}

/// Check a file system, with more force when it needs it. What cannot be repaired safely by itself is repaired as far as it can be: a
/// server that does not start serves nobody.
pub(super) fn check(device: &Path, options: &[&str]) -> Result<()> {
    let call = |options: &[&str], accept: &[i32]| Program::E2fsck.call(options).arguments([device]).accept(accept).run();
    let first = call(options, &[0, 1, 4])?;
    if first.code == 4 {
        tracing::warn!("{} needs a full repair: {}", device.display(), first.text().trim());
        let second = call(&["-f", "-y"], &[0, 1])?;
        tracing::warn!("{} was repaired: {}", device.display(), second.text().trim());
    }
    Ok(())
}

/// Look for faults, and write nothing. Whether there are none, and what e2fsck says of them.
fn look(device: &Path) -> Result<(bool, String)> {
    let run = Program::E2fsck.call(["-f", "-n"]).arguments([device]).accept(&[0, 4, 8, 12]).run()?;
    match run.code {
        0 => Ok((true, String::new())),
        _ => Ok((false, shortened(&run.text()))),
    }
}

/// Check all of a file system and mend whatever is wrong with it. Whether it is sound then, and what was mended, in e2fsck's words: nothing
/// where all was well. Another run is needed where the first one found another superblock.
fn mend(device: &Path) -> Result<(bool, String)> {
    let mut said = String::new();
    for _ in 0..MENDING_RUNS {
        let run = Program::E2fsck.call(["-f", "-y"]).arguments([device]).accept(&[0, 1, 4]).run()?;
        if run.code == 0 {
            return Ok((true, said));
        }
        said = shortened(&(said + &run.text()));
        tracing::warn!("{} was mended: {}", device.display(), said.trim());
    }
    Ok((false, said))
}

/// The beginning of a long text.
fn shortened(text: &str) -> String {
    match text.char_indices().nth(LONGEST_REPORT) {
        Some((end, _)) => format!("{}\n… and more\n", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}
