//! Templates on this node: copied once from the share, checked by digest while they are copied, and mounted once for all environments made
//! from them, so that they share one page cache. Each environment gets a clone of that mount with its own ids.
//!
//! The image is mounted by a loop device, not straight from its file: file systems on files count as stacked, and the kernel allows two
//! levels, of which the environment's own overlays need one.

use std::fs::{self, File};
use std::io::{Read, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use lodge_model::environment::order::TemplateRef;
use lodge_model::environment::share;
use lodge_model::ids::Digest;
use lodge_sys::loopdev::{self, Options};
use lodge_sys::mount::{is_mounted, mounts, unmount};
use lodge_sys::tree::{Tree, Trust};
use nix::sys::statvfs::statvfs;
use sha2::{Digest as _, Sha256};

use super::disk::sync_dir;
use super::layout::{private_dir, remove_file};
use super::{Progress, Real};

const PIECE: usize = 1 << 20;
/// Bytes of the state partition that templates leave to others.
const SPARE: u64 = 256 << 20;

impl Real {
    /// Copy a template into the cache, unless it is there.
    pub(super) fn fetch_template(&self, template: &TemplateRef, progress: &dyn Progress) -> Result<()> {
        let target = self.layout.cached(&template.digest);
        if self.has_template(template) {
            return Ok(());
        }
        private_dir(&self.layout.cache)?;
        self.make_room(template.size)?;
        let source = self.layout.share.join(share::template(&template.digest));
        // Two environments may fetch the same one at once.
        let temporary = tempfile::Builder::new().prefix(".fetch-").tempfile_in(&self.layout.cache);
        let temporary = temporary.with_context(|| format!("making a file in {}", self.layout.cache.display()))?;
        let copy = || -> Result<()> {
            let source = File::open(&source)?;
            let (digest, size) = copy_with_digest(source, temporary.as_file(), template.size, progress)?;
            if size != template.size || digest != template.digest {
                bail!("it has {size} bytes and digest {digest}; {} bytes and {} are expected", template.size, template.digest);
            }
            Ok(temporary.as_file().sync_all()?)
        };
        copy().with_context(|| format!("copying template {}", source.display()))?;
        temporary.persist(&target).map_err(|error| error.error).with_context(|| format!("making {}", target.display()))?;
        sync_dir(&self.layout.cache)
    }

    /// Remove templates that nothing uses, the oldest first, until there is room for so many bytes, or none is left to remove.
    fn make_room(&self, bytes: u64) -> Result<()> {
        let cache = &self.layout.cache;
        let free = || -> Result<u64> {
            let found = statvfs(cache).with_context(|| format!("looking at {}", cache.display()))?;
            Ok(found.blocks_available() * found.fragment_size())
        };
        if free()? > bytes + SPARE {
            return Ok(());
        }
        let entries = fs::read_dir(cache).with_context(|| format!("listing {}", cache.display()))?;
        let used: Vec<PathBuf> = loopdev::list()?.into_iter().map(|device| device.backing).collect();
        let idle = entries.flatten().filter(|entry| is_image(&entry.path()) && !used.contains(&entry.path()));
        let mut idle: Vec<_> = idle.filter_map(|entry| Some((entry.metadata().ok()?.modified().ok()?, entry.path()))).collect();
        idle.sort();
        for (_, image) in idle {
            if free()? > bytes + SPARE {
                break;
            }
            tracing::info!("removing {} from the cache to make room", image.display());
            remove_file(&image)?;
        }
        Ok(())
    }

    /// Whether a template is in the cache, whole: it was checked before it got its name.
    pub(super) fn has_template(&self, template: &TemplateRef) -> bool {
        fs::metadata(self.layout.cached(&template.digest)).is_ok_and(|found| found.len() == template.size)
    }

    /// A mount of a template that is the caller's own.
    pub(super) fn clone_template(&self, digest: &Digest) -> Result<Tree> {
        let _one_at_a_time = self.templates.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let target = self.layout.template_mounts.join(digest.hex());
        if !is_mounted(&target)? {
            private_dir(&target)?;
            let image = self.layout.cached(digest);
            let file = File::open(&image).with_context(|| format!("opening {}", image.display()))?;
            let options = Options { read_only: true, autoclear: true, direct_io: true };
            let attached = loopdev::attach(&file, options)?;
            let source = attached.device.path.to_string_lossy().into_owned();
            Tree::new("erofs", &[("source", &source)], true, Trust::Data)?.attach(&target)?;
        }
        Tree::clone_of(&target)
    }

    /// Unmount the templates that no environment uses; their loop devices go with them.
    pub(super) fn unmount_idle_templates(&self) -> Result<()> {
        let _one_at_a_time = self.templates.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let all = mounts()?;
        for shared in all.iter().filter(|mount| mount.target.parent() == Some(&self.layout.template_mounts)) {
            let is_used = all.iter().any(|mount| mount.source == shared.source && mount.target != shared.target);
            if !is_used {
                unmount(&shared.target)?;
                fs::remove_dir(&shared.target).with_context(|| format!("removing {}", shared.target.display()))?;
            }
        }
        Ok(())
    }

    /// Remove a template from the share, and from the cache where nothing uses it.
    pub(super) fn remove_template(&self, digest: &Digest) -> Result<()> {
        remove_file(&self.layout.share.join(share::template(digest)))?;
        self.unmount_idle_templates()?;
        let mount: PathBuf = self.layout.template_mounts.join(digest.hex());
        if is_mounted(&mount)? { Ok(()) } else { remove_file(&self.layout.cached(digest)) }
    }
}

fn copy_with_digest(mut from: impl Read, mut to: &File, expected: u64, progress: &dyn Progress) -> Result<(Digest, u64)> {
    let mut hash = Sha256::new();
    let mut piece = vec![0; PIECE];
    let mut done = 0u64;
    loop {
        let read = match from.read(&mut piece) {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error).context("reading"),
        };
        let bytes = piece.get(..read).unwrap_or_default();
        hash.update(bytes);
        to.write_all(bytes).context("writing")?;
        done += read as u64;
        if done > expected {
            bail!("it has more than the {expected} bytes that are expected");
        }
        progress.percent(percent(done, expected));
    }
    Ok((Digest::from_digest(hash.finalize().into()), done))
}

fn is_image(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "erofs")
}

/// 0 to 100.
pub(super) fn percent(done: u64, all: u64) -> u8 {
    done.saturating_mul(100).checked_div(all).and_then(|percent| u8::try_from(percent.min(100)).ok()).unwrap_or(100)
}

/// Temporary files that a fetch left when the agent was killed. Called when nothing is fetched.
pub(super) fn remove_leftovers(cache: &Path) -> Result<()> {
    let Ok(entries) = fs::read_dir(cache) else { return Ok(()) };
    for entry in entries.flatten() {
        if entry.file_name().as_encoded_bytes().starts_with(b".fetch-") {
            remove_file(&entry.path())?;
        }
    }
    Ok(())
}
