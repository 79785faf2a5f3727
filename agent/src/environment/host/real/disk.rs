//! The disk of an environment: one node at a time has the lock of its file, by the loop device that has that very open file.

use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use lodge_model::environment::order::Assignment;
use lodge_model::environment::share;
use lodge_model::ids::EnvironmentId;
use lodge_sys::ext4;
use lodge_sys::lock::{self, Locked};
use lodge_sys::loopdev::{self, LoopDevice, Options};
use lodge_sys::mount::mounts;
use lodge_sys::program::Program;
use lodge_sys::sparse;

use super::check::check;
use super::layout::{BESIDE, BESIDE_LOWER, LOWER, Note, PRIVATE, ROOT, SCRATCH, new_private_dir, remove_file};
use super::{Real, StepError};
use crate::{consoles, durable};

/// How long the share may take to answer who has a lock.
const LOCK_LIMIT: Duration = Duration::from_secs(15);
/// How long a lock may outlive its holder on this node: a program that is just being started has copies of all open files until its exec,
/// and the kernel shows a loop device as free a moment before it closes the file of it.
const LINGER: Duration = Duration::from_millis(500);
/// How long the kernel may take to let go of a disk that nothing uses any more.
pub(super) const DETACH_LIMIT: Duration = Duration::from_secs(30);
/// A new file system in memory, until it is put onto the disk.
const FORM: &str = "form.img";
/// Bytes of the largest disk whose file system is made in memory: that takes 16 MiB.
const FORM_MOST: u64 = 1 << 40;

impl Real {
    /// Take the right to run it, and its disk.
    pub(super) fn hold(&self, order: &Assignment) -> Result<(), StepError> {
        let id = order.id;
        self.layout.make_on_node(id, order.id_base)?;
        self.begin_form(order);
        // What has just been made has nothing in it that the share could be asked for.
        let is_new = new_private_dir(&self.layout.on_share(id))?;
        let owner = if is_new { None } else { self.may_hold(id, order.epoch)? };
        if self.has_disk(id)? {
            self.write_owner(&self.record(id, order.epoch))?;
        } else {
            [Note::Checked, Note::Cached].into_iter().try_for_each(|note| self.layout.notes(id).remove(note))?;
            match !is_new && self.layout.disk(id).exists() {
                true => self.take_old(order)?,
                false => self.take_new(order, owner.is_some())?,
            }
        }
        self.forget_form(id)?;
        Ok(self.layout.notes(id).write(Note::Order, order)?)
    }

    /// Begin to make the file system of a disk that is most likely new: nobody has had it before.
    fn begin_form(&self, order: &Assignment) {
        if order.epoch == 1 {
            let (id, size, form) = (order.id, order.disk, self.form(order.id));
            self.forms.begin(id, move || make_form(id, size, &form));
        }
    }

    /// It is there, or would take too much memory: whether it is.
    fn need_form(&self, order: &Assignment) -> Result<bool> {
        match self.forms.end(order.id) {
            Some(Ok(is_there)) => Ok(is_there),
            _ => make_form(order.id, order.disk, &self.form(order.id)),
        }
    }

    /// What was begun is of no use any more.
    fn forget_form(&self, id: EnvironmentId) -> Result<()> {
        self.forms.end(id);
        remove_file(&self.form(id))
    }

    fn form(&self, id: EnvironmentId) -> PathBuf {
        self.layout.on_node(id).join(FORM)
    }

    /// Take the disk that is there.
    fn take_old(&self, order: &Assignment) -> Result<(), StepError> {
        let file = lock_file(&self.layout.disk(order.id))?;
        // Whoever had the lock before may have been of a later epoch.
        self.may_hold(order.id, order.epoch)?;
        if order.resume.is_none() {
            // Whoever starts it anew writes to the disk: nobody may go on from before that.
            self.forget_checkpoint(order.id)?;
        }
        self.write_owner(&self.record(order.id, order.epoch))?;
        Ok(attach(&file)?)
    }

    /// Make a disk and take it: its file system is made in memory, and put into its file while the share takes in whose it is. It gets its
    /// name when both are there. Whoever is to give it one has the lock of its file: so whether somebody was faster can be asked meanwhile.
    fn take_new(&self, order: &Assignment, was_owned: bool) -> Result<(), StepError> {
        let (disk, new) = (self.layout.disk(order.id), self.layout.new_disk(order.id));
        let file = self.make_file(order, was_owned)?;
        std::thread::scope(|scope| -> Result<(), StepError> {
            let filled = scope.spawn(|| match self.need_form(order)? {
                true => sparse::put(&self.form(order.id), &file).with_context(|| format!("filling {}", new.display())),
                false => make_file_system(order.id, &new),
            });
            if disk.exists() {
                remove_file(&new)?;
                return Err(anyhow!("somebody else has made its disk at this moment").into());
            }
            self.may_hold(order.id, order.epoch)?;
            self.write_owner(&self.record(order.id, order.epoch))?;
            Ok(filled.join().unwrap_or_else(|_| Err(anyhow!("the thread that fills its disk panicked")))?)
        })?;
        fs::rename(&new, &disk).with_context(|| format!("renaming {} to {}", new.display(), disk.display()))?;
        sync_dir(&self.layout.on_share(order.id))?;
        let notes = self.layout.notes(order.id);
        notes.write(Note::Cached, &true)?;
        loopdev::attach(&file, Options::default())?;
        Ok(notes.write(Note::Checked, &order.disk)?)
    }

    /// It has been of use: what was just written of a new disk is read when it is mounted, which took a way to the share for each block.
    pub(super) fn pass_cache(&self, id: EnvironmentId) -> Result<()> {
        // Not every file system can; such a disk stays as it is.
        if let Err(error) = loopdev::set_direct_io(&self.need_loop(id)?.path) {
            tracing::warn!("{error:#}");
        }
        self.layout.notes(id).remove(Note::Cached)
    }

    /// Whether the disk is attached with a lock that is good: the record, which was written under it, is still this node's. A device from
    /// before somebody else had the disk has lost its lock, and is let go of here.
    fn has_disk(&self, id: EnvironmentId) -> Result<bool, StepError> {
        let Some(device) = self.loop_of(id)? else { return Ok(false) };
        let mine = self.record(id, 0);
        let is_mine = |owner: share::Owner| (owner.node, owner.boot, owner.released) == (mine.node, mine.boot, false);
        if self.owner(id)?.is_some_and(is_mine) {
            return Ok(true);
        }
        if mounts()?.iter().any(|mount| Path::new(&mount.source) == device.path) {
            return Err(anyhow!("its disk is still mounted, with a lock that was lost").into());
        }
        loopdev::detach(&device.path, DETACH_LIMIT)?;
        Ok(false)
    }

    /// An empty file for its disk, open and locked.
    fn make_file(&self, order: &Assignment, was_owned: bool) -> Result<File, StepError> {
        let (disk, new) = (self.layout.disk(order.id), self.layout.new_disk(order.id));
        if was_owned && !new.exists() {
            // A blank disk in its place would hide the loss.
            return Err(StepError::Refused(format!("its disk {} is gone from the share", disk.display())));
        }
        let file = lock_as(&new, OpenOptions::new().read(true).write(true).create(true).truncate(false))?;
        // Nothing that was begun on it is of use.
        let size = || -> std::io::Result<()> {
            if file.metadata()?.len() > 0 {
                file.set_len(0)?;
            }
            file.set_len(order.disk)?;
            file.sync_all()
        };
        size().with_context(|| format!("sizing {}", new.display()))?;
        Ok(file)
    }

    /// Make it larger; never smaller.
    pub(super) fn grow_disk(&self, id: EnvironmentId, size: u64) -> Result<(), StepError> {
        let device = self.need_loop(id)?;
        let (disk, growing) = (self.layout.disk(id), self.layout.growing(id));
        let now = fs::metadata(&disk).with_context(|| format!("looking at {}", disk.display()))?.len();
        if size < now {
            return Err(StepError::Refused(format!(
                "its disk has {now} bytes and cannot be made smaller ({size} bytes are ordered)"
            )));
        }
        durable::write(&growing, b"", 0o600)?;
        let file = File::options().write(true).open(&disk).with_context(|| format!("opening {}", disk.display()))?;
        let sized = file.set_len(size).and_then(|()| file.sync_all());
        sized.with_context(|| format!("growing {}", disk.display()))?;
        loopdev::grow(&device.path)?;
        if !self.is_mounted(id, PRIVATE)? {
            // resize2fs refuses a file system that was not just checked.
            check(&device.path, &["-f", "-p"])?;
        }
        Program::Resize2fs.call([&device.path]).run()?;
        remove_file(&growing)?;
        Ok(self.layout.notes(id).write(Note::Checked, &size)?)
    }

    /// Let go of it: the record, the loop device and with it the lock, the directory on the node.
    pub(super) fn release(&self, id: EnvironmentId, epoch: u64) -> Result<(), StepError> {
        if let Some(left) = self.mounted(id)?.first() {
            return Err(anyhow!("its {left} is still mounted").into());
        }
        self.forget_link(id)?;
        self.bundles.end(id);
        self.forget_form(id)?;
        if self.layout.on_share(id).exists() {
            let mine = self.record(id, epoch);
            if self.owner(id)?.as_ref() == Some(&mine) {
                self.write_owner(&share::Owner { released: true, ..mine })?;
            }
        }
        for device in self.loops_of(id)? {
            loopdev::detach(&device.path, DETACH_LIMIT)?;
        }
        if let Err(error) = consoles::close(id) {
            tracing::warn!("{error:#}");
        }
        Ok(remove_node_dir(&self.layout.on_node(id))?)
    }

    /// Remove its directory on the share. The owner record goes last, so that what is cut short is known for what it is.
    pub(super) fn destroy(&self, id: EnvironmentId, epoch: u64) -> Result<(), StepError> {
        let dir = self.layout.on_share(id);
        if dir.exists() {
            self.may_hold(id, epoch)?;
            if self.loop_of(id)?.is_some() {
                return Err(anyhow!("its disk is still attached").into());
            }
            let mut locks = Vec::new();
            for disk in [self.layout.disk(id), self.layout.new_disk(id)] {
                if disk.exists() {
                    locks.push(lock_file(&disk)?);
                }
            }
            self.may_hold(id, epoch)?;
            remove_all_but_owner(&dir)?;
            drop(locks);
            fs::remove_dir_all(&dir).with_context(|| format!("removing {}", dir.display()))?;
            sync_dir(dir.parent().unwrap_or(&dir))?;
        }
        if let Err(error) = consoles::forget(id) {
            tracing::warn!("{error:#}");
        }
        Ok(())
    }

    /// The loop device of its disk; `None` where it is not attached.
    pub(super) fn loop_of(&self, id: EnvironmentId) -> Result<Option<LoopDevice>> {
        Ok(self.loops_of(id)?.into_iter().next())
    }

    /// All loop devices on files of its directory on the share.
    pub(super) fn loops_of(&self, id: EnvironmentId) -> Result<Vec<LoopDevice>> {
        let devices = loopdev::list()?.into_iter();
        Ok(devices.filter(|device| environment_of(&device.backing) == Some(id)).collect())
    }

    pub(super) fn need_loop(&self, id: EnvironmentId) -> Result<LoopDevice> {
        self.loop_of(id)?.ok_or_else(|| anyhow!("its disk is not attached"))
    }
}

/// Make the file system of a disk of this size in memory, unless that takes too much of it; whether it did.
fn make_form(id: EnvironmentId, size: u64, form: &Path) -> Result<bool> {
    if size > FORM_MOST {
        return Ok(false);
    }
    let draft = form.with_extension("new");
    // An agent that was killed may have left a mkfs behind that still writes to it.
    remove_file(&draft)?;
    let file = File::create(&draft).and_then(|file| file.set_len(size));
    file.with_context(|| format!("making {}", draft.display()))?;
    make_file_system(id, &draft)?;
    fs::rename(&draft, form).with_context(|| format!("renaming {} to {}", draft.display(), form.display()))?;
    Ok(true)
}

/// In a file that is all zeros; mkfs sees it on the disk.
fn make_file_system(id: EnvironmentId, on: &Path) -> Result<()> {
    ext4::make_on_zeros(on, &["-e", "remount-ro", "-U", &id.to_string()])
}

/// The loop device has the very open file that has the lock.
fn attach(file: &File) -> Result<()> {
    loopdev::attach(file, Options { direct_io: true, ..Options::default() }).map(drop)
}

/// Whose disk a file is, by its name: `…/environments/<id>/disk.img`.
pub(super) fn environment_of(file: &Path) -> Option<EnvironmentId> {
    let dir = file.parent()?;
    let above = dir.parent()?.file_name()?;
    (above == share::ENVIRONMENTS).then(|| dir.file_name()?.to_str()?.parse().ok())?
}

/// A disk, open and locked. The name must still be that of the locked file: a copy may just have been put in its place.
pub(super) fn lock_file(path: &Path) -> Result<File> {
    lock_as(path, OpenOptions::new().read(true).write(true))
}

fn lock_as(path: &Path, options: &OpenOptions) -> Result<File> {
    let lock = || -> Result<File> {
        let asked = match lock::exclusive(options.open(path)?, LOCK_LIMIT)? {
            Locked::Held => lock::await_exclusive(options.open(path)?, LINGER)?,
            asked => asked,
        };
        let file = match asked {
            Locked::Yes(file) => file,
            Locked::Held => bail!("somebody else has it: another node runs it or uses its disk"),
            Locked::Unanswered => bail!("the share did not answer within {} s", LOCK_LIMIT.as_secs()),
        };
        if !loopdev::is_same_file(&file, path)? {
            bail!("it was replaced at this moment");
        }
        Ok(file)
    };
    lock().with_context(|| format!("locking {}", path.display()))
}

pub(super) fn file_system_size(device: &Path) -> Result<u64> {
    let text = Program::Dumpe2fs.call(["-h"]).arguments([device]).run()?.text();
    let value = |key: &str| text.lines().find_map(|line| line.strip_prefix(key)?.trim().parse::<u64>().ok());
    let size = value("Block count:").zip(value("Block size:")).and_then(|(count, size)| count.checked_mul(size));
    size.ok_or_else(|| anyhow!("dumpe2fs does not tell the size of {}", device.display()))
}

/// Mount points are removed only when they are empty: what is mounted is never walked into.
fn remove_node_dir(dir: &Path) -> Result<()> {
    for name in [ROOT, BESIDE, BESIDE_LOWER, SCRATCH, PRIVATE, LOWER] {
        gone(fs::remove_dir(dir.join(name))).with_context(|| format!("removing {}", dir.join(name).display()))?;
    }
    gone(fs::remove_dir_all(dir)).with_context(|| format!("removing {}", dir.display()))
}

fn gone(removed: std::io::Result<()>) -> std::io::Result<()> {
    removed.or_else(|error| if error.kind() == std::io::ErrorKind::NotFound { Ok(()) } else { Err(error) })
}

fn remove_all_but_owner(dir: &Path) -> Result<()> {
    for entry in fs::read_dir(dir).with_context(|| format!("listing {}", dir.display()))? {
        let entry = entry.with_context(|| format!("listing {}", dir.display()))?;
        let path: PathBuf = entry.path();
        let is_dir = entry.file_type().with_context(|| format!("looking at {}", path.display()))?.is_dir();
        if entry.file_name() == share::OWNER {
            continue;
        }
        let removed = if is_dir { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        removed.with_context(|| format!("removing {}", path.display()))?;
    }
    Ok(())
}

/// See the names in a directory on the disk.
pub(super) fn sync_dir(dir: &Path) -> Result<()> {
    File::open(dir).and_then(|dir| dir.sync_all()).with_context(|| format!("syncing {}", dir.display()))
}
