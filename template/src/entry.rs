//! One entry of a tar, checked: what it is, whose it is, and that its name means what it says. The rules are those of the table in the
//! crate's documentation; they know nothing of the other entries.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, bail};
use tar::{EntryType, Header};

use crate::{pax, shown};

/// Directories that programs are in: only there set-id bits and capabilities are no surprise.
const PROGRAMS: [&str; 7] = ["bin", "sbin", "usr", "lib", "lib32", "lib64", "opt"];
/// The device nodes that every root tarball made by hand has below `/dev`: name, major, minor. Left out: `/dev` comes from the node.
const USUAL_DEVICES: [(&str, u32, u32); 9] = [
    ("dev/null", 1, 3),
    ("dev/zero", 1, 5),
    ("dev/full", 1, 7),
    ("dev/random", 1, 8),
    ("dev/urandom", 1, 9),
    ("dev/tty", 5, 0),
    ("dev/console", 5, 1),
    ("dev/ptmx", 5, 2),
    ("dev/fuse", 10, 229),
];
/// Ids of an environment.
const IDS: u64 = lodge_model::environment::order::IDS as u64;
/// Latest time of a file: the end of the year 9999.
const LATEST: u64 = 253_402_300_799;

/// An entry that may be taken in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its name without slashes at the ends; empty for the root itself.
    pub path: Vec<u8>,
    /// What it is.
    pub what: What,
    /// Whose it is, and the like.
    pub attributes: Attributes,
}

/// What an entry is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// A file; its contents follow.
    File {
        /// Bytes.
        size: u64,
    },
    /// A directory.
    Directory,
    /// A symbolic link to this.
    Symlink(Vec<u8>),
    /// Another name of the file of this name.
    HardLink(Vec<u8>),
    /// A named pipe.
    Fifo,
}

/// What a file system keeps of a file besides contents.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attributes {
    /// Permission bits with set-id and sticky.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Seconds since 1970.
    pub time: u64,
    /// Extended attributes.
    pub extended: BTreeMap<String, Vec<u8>>,
}

/// What stands before an entry and belongs to it.
#[derive(Debug, Default)]
pub struct Prefix {
    /// GNU's long name.
    pub name: Option<Vec<u8>>,
    /// GNU's long link.
    pub link: Option<Vec<u8>>,
    /// Pax header.
    pub pax: Option<Vec<u8>>,
}

/// Check an entry. `None`: it is left out.
pub fn check(header: &Header, prefix: &Prefix) -> Result<Option<Entry>> {
    let pax = pax::parse(prefix.pax.as_deref().unwrap_or_default())?;
    let find = |key: &str| pax.iter().rev().find(|(name, _)| *name == key).map(|(_, value)| *value);
    let name =
        find("path").map(<[u8]>::to_vec).or_else(|| prefix.name.clone()).unwrap_or_else(|| header.path_bytes().into_owned());
    check_named(header, prefix, &pax, &name)
        .with_context(|| format!("the entry {}", shown(name.strip_prefix(b"/").unwrap_or(&name))))
}

fn check_named(header: &Header, prefix: &Prefix, pax: &[(&str, &[u8])], name: &[u8]) -> Result<Option<Entry>> {
    let find = |key: &str| pax.iter().rev().find(|(name, _)| *name == key).map(|(_, value)| *value);
    if pax.iter().any(|(key, _)| key.starts_with("GNU.sparse")) || header.entry_type().is_gnu_sparse() {
        bail!("is stored as a sparse file; pack without --sparse");
    }
    let path = path(name)?;
    let number = |key: &str, other: u64| match find(key) {
        Some(text) => {
            std::str::from_utf8(text).ok().and_then(|text| text.parse().ok()).with_context(|| format!("has a broken {key}"))
        }
        None => Ok(other),
    };
    let size = header.entry_size().context("has a broken size")?;
    if number("size", size)? != size {
        bail!("has two sizes; pack in GNU format");
    }
    let link = || {
        let link = find("linkpath").map(<[u8]>::to_vec).or_else(|| prefix.link.clone());
        link.or_else(|| header.link_name_bytes().map(|link| link.into_owned())).context("is a link to nothing")
    };
    let what = match header.entry_type() {
        EntryType::Regular | EntryType::Continuous if name.ends_with(b"/") => What::Directory,
        EntryType::Regular | EntryType::Continuous => What::File { size },
        EntryType::Directory => What::Directory,
        EntryType::Symlink => What::Symlink(symlink(link()?)?),
        EntryType::Link => {
            let link = link()?;
            What::HardLink(
                self::path(&link).with_context(|| format!("is a hard link to {:?}, which", String::from_utf8_lossy(&link)))?,
            )
        }
        EntryType::Fifo => What::Fifo,
        EntryType::Char | EntryType::Block => {
            return if is_usual_device(&path, header) {
                Ok(None)
            } else {
                bail!("is a device node; devices come from the node")
            };
        }
        other => bail!("is of a kind that is not known here ({:?})", char::from(other.as_byte())),
    };
    if path.is_empty() && what != What::Directory {
        bail!("has no name");
    }
    let attributes = Attributes {
        mode: header.mode().context("has a broken mode")? & 0o7777,
        uid: id("owner", number("uid", header.uid().context("has a broken owner")?)?)?,
        gid: id("group", number("gid", header.gid().context("has a broken group")?)?)?,
        time: header.mtime().unwrap_or(0).min(LATEST),
        extended: extended(pax)?,
    };
    check_privilege(&path, &what, &attributes)?;
    Ok(Some(Entry { path, what, attributes }))
}

/// The name, as its components joined by single slashes.
pub fn path(name: &[u8]) -> Result<Vec<u8>> {
    if name.starts_with(b"/") {
        bail!("has an absolute name; pack from inside the root: tar -C ROOT -c .");
    }
    if name.len() > 4096 || name.contains(&0) {
        bail!("has a name that no file can have");
    }
    let mut path = Vec::with_capacity(name.len());
    for part in name.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => continue,
            b".." => bail!("leads out of the archive by `..`"),
            part if part.len() > 255 => bail!("has a name that is too long"),
            _ => {}
        }
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(part);
    }
    Ok(path)
}

fn symlink(target: Vec<u8>) -> Result<Vec<u8>> {
    if target.is_empty() || target.len() > 4095 || target.contains(&0) {
        bail!("is a symbolic link to what no file can be called");
    }
    Ok(target)
}

fn id(what: &str, id: u64) -> Result<u32> {
    match u32::try_from(id) {
        Ok(small) if id < IDS => Ok(small),
        _ => bail!("has the {what} {id}: an environment has the ids 0 to {}", IDS - 1),
    }
}

/// What is kept: capabilities and users' own attributes. ACLs and labels are left out; what would speak to the node's overlay is refused.
fn extended(pax: &[(&str, &[u8])]) -> Result<BTreeMap<String, Vec<u8>>> {
    let mut kept = BTreeMap::new();
    for (key, value) in pax {
        let Some(name) = key.strip_prefix("SCHILY.xattr.") else { continue };
        if name.starts_with("trusted.") || name.starts_with("user.overlay.") {
            bail!("has the attribute {name}, which would speak to the node's overlay");
        }
        if name == "security.capability" || name.starts_with("user.") {
            if name.len() > 255 || value.len() > 4096 {
                bail!("has the attribute {name}, which is too long");
            }
            kept.insert(name.to_owned(), value.to_vec());
        }
    }
    Ok(kept)
}

fn check_privilege(path: &[u8], what: &What, attributes: &Attributes) -> Result<()> {
    if !matches!(what, What::File { .. } | What::HardLink(_)) {
        return Ok(());
    }
    let capability = attributes.extended.get("security.capability");
    let kind = match (attributes.mode & 0o6000, capability) {
        (0, None) => return Ok(()),
        (0, Some(_)) => "has capabilities",
        _ => "is a set-id program",
    };
    let first = path.split(|byte| *byte == b'/').next().unwrap_or_default();
    if !PROGRAMS.iter().any(|dir| dir.as_bytes() == first) {
        bail!("{kind} outside of {}; remove it or the bit", PROGRAMS.map(|dir| format!("/{dir}")).join(", "));
    }
    if attributes.mode & 0o022 != 0 {
        bail!("{kind} that others than its owner may write (mode {:o}); remove it or the bit", attributes.mode);
    }
    // VFS_CAP_REVISION_3 names the root user they are good for (capabilities(7)): nobody's here.
    if capability.is_some_and(|value| value.get(3) == Some(&3)) {
        bail!("has capabilities of another user namespace");
    }
    Ok(())
}

fn is_usual_device(path: &[u8], header: &Header) -> bool {
    let numbers = (header.device_major().ok().flatten(), header.device_minor().ok().flatten());
    let usual = |(name, major, minor): &(&str, u32, u32)| name.as_bytes() == path && numbers == (Some(*major), Some(*minor));
    header.entry_type() == EntryType::Char && USUAL_DEVICES.iter().any(usual)
}
