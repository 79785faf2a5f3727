//! From the tree to the image: a plain tar in a fixed order, `mkfs.erofs` on it, and the result under the name of its digest.

use std::{
    collections::HashMap,
    fs::{self, File},
    io::{self, BufWriter, Read as _, Write as _},
    os::unix::fs::PermissionsExt as _,
    path::Path,
    time::Duration,
};

use anyhow::{Context as _, Result};
use lodge_model::ids::Digest;
use lodge_sys::program::Program;
use ring::digest;
use tar::{EntryType, Header};

use crate::{
    PARTIAL, archive, image_path, pax,
    tree::{Kind, Node, Tree},
};

/// Fast to make on a busy node and fast to read; the same id and time in all of them, so that contents alone decide the digest.
pub const OPTIONS: [&str; 8] =
    ["--quiet", "--tar=f", "-zlz4", "-C65536", "-T0", "--mkfs-time", "-U", "6c6f6467-6500-4000-8000-74656d706c61"];
/// Longest time it may take; an image of the greatest size on a slow disk.
const DEADLINE: Duration = Duration::from_secs(2 * 3600);

/// Makes an image (second) of a tar (first).
pub type Mkfs = dyn Fn(&Path, &Path) -> Result<()>;

/// `mkfs.erofs` of the base OS.
pub fn mkfs(tar: &Path, image: &Path) -> Result<()> {
    let paths = [image, tar].map(|path| path.as_os_str().to_owned());
    let arguments = OPTIONS.iter().map(Into::into).chain(paths);
    Program::MkfsErofs.call::<_, std::ffi::OsString>(arguments).deadline(DEADLINE).run().context("making the image")?;
    Ok(())
}

/// Write the tree as a tar, in the order of its names.
pub fn write_tar(tree: &Tree, path: &Path) -> Result<()> {
    let write = || {
        let mut builder = tar::Builder::new(BufWriter::with_capacity(1 << 18, File::create(path)?));
        let mut first: HashMap<usize, &[u8]> = HashMap::new();
        for (name, number, node) in tree.entries() {
            let other = match node.kind {
                Kind::Directory => None,
                _ => first.get(&number).copied(),
            };
            append(&mut builder, tree, name, node, other)?;
            first.entry(number).or_insert(name);
        }
        builder.into_inner()?.into_inner().map_err(io::IntoInnerError::into_error)?;
        anyhow::Ok(())
    };
    write().with_context(|| format!("writing {}", path.display()))
}

/// One entry; `other` is a name of the same file that has been written already.
fn append(to: &mut tar::Builder<BufWriter<File>>, tree: &Tree, name: &[u8], node: &Node, other: Option<&[u8]>) -> Result<()> {
    let (kind, link, at, size) = match (&node.kind, other) {
        (_, Some(other)) => (EntryType::Link, other, 0, 0),
        (Kind::File { at, size }, None) => (EntryType::Regular, &[][..], *at, *size),
        (Kind::Directory, None) => (EntryType::Directory, &[][..], 0, 0),
        (Kind::Symlink(target), None) => (EntryType::Symlink, target.as_slice(), 0, 0),
        (Kind::Fifo, None) => (EntryType::Fifo, &[][..], 0, 0),
    };
    let name = if name.is_empty() { b"./" } else { name };
    let mut header = Header::new_gnu();
    let mut extended = Vec::new();
    let old = header.as_old_mut();
    if !put(&mut old.name, name) {
        pax::push(&mut extended, "path", name)?;
    }
    if !put(&mut old.linkname, link) {
        pax::push(&mut extended, "linkpath", link)?;
    }
    if other.is_none() {
        for (key, value) in &node.attributes.extended {
            pax::push(&mut extended, &format!("SCHILY.xattr.{key}"), value)?;
        }
    }
    header.set_entry_type(kind);
    header.set_mode(node.attributes.mode);
    header.set_uid(node.attributes.uid.into());
    header.set_gid(node.attributes.gid.into());
    header.set_mtime(node.attributes.time);
    header.set_size(size);
    if kind == EntryType::Fifo {
        header.set_device_major(0)?;
        header.set_device_minor(0)?;
    }
    header.set_cksum();
    if !extended.is_empty() {
        let mut before = Header::new_ustar();
        put(&mut before.as_old_mut().name, b"pax");
        before.set_entry_type(EntryType::XHeader);
        before.set_size(extended.len() as u64);
        before.set_mode(0o600);
        before.set_uid(0);
        before.set_gid(0);
        before.set_mtime(0);
        before.set_cksum();
        to.append(&before, extended.as_slice())?;
    }
    Ok(to.append(&header, tree.contents(at, size))?)
}

/// Put a text into a field of a header, where it fits.
fn put(field: &mut [u8], text: &[u8]) -> bool {
    let fits = field.get_mut(..text.len());
    fits.is_some_and(|place| {
        place.copy_from_slice(text);
        true
    })
}

/// Copy the image to where templates are, under its digest: a file without a name in use, synced, then renamed.
pub fn place(image: &Path, target: &Path) -> Result<(Digest, u64)> {
    let mut from = File::open(image).with_context(|| format!("opening {}", image.display()))?;
    let mut copy = || {
        let mut to = tempfile::Builder::new().prefix(PARTIAL).tempfile_in(target)?;
        let (mut hash, mut piece, mut size) = (digest::Context::new(&digest::SHA256), vec![0; 1 << 20], 0);
        loop {
            let read = from.read(&mut piece)?;
            let piece = piece.get(..read).unwrap_or_default();
            if piece.is_empty() {
                break;
            }
            hash.update(piece);
            to.write_all(piece)?;
            size += read as u64;
        }
        let digest = archive::finished(hash);
        let path = image_path(&digest, target);
        if fs::metadata(&path).is_ok_and(|metadata| metadata.len() == size) {
            return Ok((digest, size));
        }
        to.as_file().set_permissions(fs::Permissions::from_mode(0o644))?;
        to.as_file().sync_all()?;
        to.persist(&path)?;
        File::open(target)?.sync_all()?;
        anyhow::Ok((digest, size))
    };
    copy().with_context(|| format!("copying the image to {}", target.display()))
}
