//! Makes a template of what people have: a root tarball (`.tar`, `.tar.gz`, `.tar.zst`), or an image archive as `docker save` and
//! `skopeo copy … oci-archive:` write it. A template is one erofs image, named by its digest.
//!
//! It assumes that the archive may come from an enemy. Nothing of it is ever unpacked into a directory: contents go into one anonymous
//! file, names and attributes into a checked tree in memory, and from both a plain tar is written for `mkfs.erofs`. What is refused is
//! refused before anything is on the share, with the name of the entry and the reason:
//!
//! | refused | why |
//! |---|---|
//! | absolute names, `..`, ways through symbolic links | they mean another file than they say |
//! | hard links to what is not in the archive | the file is missing |
//! | owners and groups above 65535 | an environment has 65,536 ids; the next one is the node's root |
//! | device nodes (the usual ones below `/dev` are left out) | devices come from the node |
//! | set-id programs and capabilities outside program directories or writable by others | whoever finds them becomes root inside |
//! | overlay's own attributes (`trusted.*`) | they would redirect the node's overlay |
//! | more than `Limits` | the node's disk and memory are everybody's |
//! | archives without their end mark, blobs and layers whose digest differs | half an archive is half a system |
//! | images without an init | an environment is a whole system, not one program |
//!
//! It never fetches anything, and knows nothing of who may import what. POSIX ACLs and security labels are left out.

use std::{
    fs,
    io::Read,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use anyhow::{Context as _, Result, bail};
use lodge_model::{environment::order::TemplateRef, ids::Digest};

mod archive;
mod entry;
mod image;
mod layer;
mod meta;
mod oci;
mod pax;
#[cfg(test)]
mod tests;
mod tree;

use tree::Tree;

/// What an archive may cost at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of all files together.
    pub bytes: u64,
    /// Files, directories, links.
    pub entries: usize,
    /// An archive may always unpack to this many bytes…
    pub free: u64,
    /// …and beyond that to this many times its packed size.
    pub ratio: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { bytes: 64 << 30, entries: 4_000_000, free: 256 << 20, ratio: 100 }
    }
}

/// What to import and where to.
pub struct Import<'a> {
    /// The archive, to be read once from its beginning.
    pub archive: &'a mut dyn Read,
    /// Bytes of the archive, for the percentage.
    pub size: Option<u64>,
    /// What the archive's SHA-256 must be.
    pub digest: Option<&'a Digest>,
    /// A directory on a local disk for what is large and thrown away; at most twice the unpacked size. Made where it is missing.
    pub work: &'a Path,
    /// The directory of templates; the image becomes `<hexadecimal digits>.erofs` in it, whole or not at all. Made where it is missing.
    pub target: &'a Path,
    /// What it may cost.
    pub limits: Limits,
}

/// Make the template. `progress` is told the percentage, 0 to 100, never less than before.
///
/// The same contents make the same image, whatever order and compression they come in; an image that is there already stays.
///
/// # Errors
/// Whatever is wrong with the archive, in words for who made it; and what goes wrong on this machine. Nothing is left behind then.
pub fn import(order: Import<'_>, progress: &mut dyn FnMut(u8)) -> Result<TemplateRef> {
    import_with(order, progress, &image::mkfs)
}

fn import_with(order: Import<'_>, progress: &mut dyn FnMut(u8), mkfs: &image::Mkfs) -> Result<TemplateRef> {
    for dir in [order.work, order.target] {
        fs::create_dir_all(dir).with_context(|| format!("making {}", dir.display()))?;
    }
    sweep(order.work, PARTIAL, SystemTime::now());
    sweep(order.target, PARTIAL, SystemTime::now());
    let work = tempfile::Builder::new().prefix(PARTIAL).tempdir_in(order.work);
    let work = work.with_context(|| format!("making a directory in {}", order.work.display()))?;
    let (size, limits, digest) = (order.size, order.limits, order.digest);
    let mut told = |read: u64| progress(part(read, size, 0, 60));
    let mut archive = archive::Archive::new(order.archive, limits, digest, &mut told);
    let read = layer::read(&mut archive, Tree::new(work.path(), limits)?, layer::Style::Root);
    // A wrong digest explains whatever else is wrong with it.
    archive.finish()?;
    let read = read.context("reading the archive")?;
    let mut tree = if oci::is_image(&read) {
        oci::flatten(&read, Tree::new(work.path(), limits)?, limits).context("reading the container image")?
    } else {
        read
    };
    tree.add_mount_points()?;
    let meta = meta::of(&tree)?;
    progress(60);
    let tar = work.path().join("root.tar");
    image::write_tar(&tree, &tar)?;
    drop(tree);
    progress(70);
    let made = work.path().join("root.erofs");
    mkfs(&tar, &made)?;
    progress(90);
    let (digest, size) = image::place(&made, order.target)?;
    progress(100);
    Ok(TemplateRef { digest, size, meta })
}

/// How the names of everything begin that is not finished.
const PARTIAL: &str = ".import-";
/// No import takes that long: what is older was left by one that was cut off with its machine.
const ABANDONED: Duration = Duration::from_secs(24 * 3600);

/// Remove what imports have left that were cut off. Others may be at work in the same directory, so age decides; what cannot be removed
/// only takes room.
fn sweep(dir: &Path, prefix: &str, now: SystemTime) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let is_ours = entry.file_name().to_string_lossy().starts_with(prefix);
        let age = entry.metadata().and_then(|metadata| metadata.modified()).ok().and_then(|time| now.duration_since(time).ok());
        if is_ours && age.is_some_and(|age| age > ABANDONED) {
            let path = entry.path();
            let _ = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
        }
    }
}

/// A percentage between two others.
fn part(done: u64, of: Option<u64>, from: u8, to: u8) -> u8 {
    let Some(of) = of.filter(|of| *of > 0) else { return from };
    let share = u64::from(to - from) * done.min(of) / of;
    from + u8::try_from(share).unwrap_or(0)
}

/// Remove a template's image; nothing to do where it is gone.
///
/// # Errors
/// What the file system says.
pub fn remove(digest: &Digest, target: &Path) -> Result<()> {
    let path = image_path(digest, target);
    match fs::remove_file(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("removing {}", path.display()))
        }
        _ => Ok(()),
    }
}

fn image_path(digest: &Digest, target: &Path) -> PathBuf {
    target.join(format!("{}.erofs", digest.hex()))
}

/// Names of an archive as people read them: bytes that are not text or not printable are escaped.
fn shown(name: &[u8]) -> String {
    let text = String::from_utf8_lossy(name);
    if text.chars().any(char::is_control) { format!("{text:?}") } else { format!("/{text}") }
}

/// Copy exactly so many bytes.
fn copy_exactly(from: &mut dyn Read, to: &mut dyn std::io::Write, size: u64) -> Result<()> {
    let copied = std::io::copy(&mut from.take(size), to)?;
    if copied != size {
        bail!("the archive is cut off: {copied} of {size} bytes are there");
    }
    Ok(())
}
