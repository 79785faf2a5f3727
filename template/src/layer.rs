//! Reads a tar into a tree: a whole root, or a layer that changes the ones below it (whiteouts as in the OCI image specification,
//! `layer.md`).

use std::io::Read;

use anyhow::{Context as _, Result, bail};
use lodge_model::ids::Digest;
use tar::EntryType;

use crate::{
    archive::{Archive, Unpacked},
    entry::{self, Entry, Prefix},
    tree::{Through, Tree, beside, last},
};

/// Bytes of a long name or a pax header, at most: they are held in memory.
const PREFIX: u64 = 1 << 20;
/// Marks the name of something that the layer takes away.
const WHITEOUT: &[u8] = b".wh.";
/// Marks a directory of which nothing of the layers below is left.
const OPAQUE: &[u8] = b".wh..wh..opq";

/// What a tar means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// The whole of a root.
    Root,
    /// Changes of what is there.
    Layer,
}

/// Read an archive into the tree.
pub fn read(archive: &mut Archive<'_>, mut tree: Tree, style: Style) -> Result<Tree> {
    apply(&mut archive.tar()?, &mut tree, style)?;
    Ok(tree)
}

/// Read an unpacked stream into the tree, to its end; returns the digest of the stream.
pub fn apply(from: &mut Unpacked<'_>, tree: &mut Tree, style: Style) -> Result<Digest> {
    entries(&mut *from, tree, style)?;
    from.finish()
}

fn entries(from: &mut Unpacked<'_>, tree: &mut Tree, style: Style) -> Result<()> {
    let mut archive = tar::Archive::new(from);
    let mut prefix = Prefix::default();
    // Raw: what stands before an entry is read here, because the library would take as much of it into memory as there is.
    for entry in archive.entries().context("reading a tar header")?.raw(true) {
        let mut entry = entry.context("reading a tar header")?;
        match entry.header().entry_type() {
            EntryType::GNULongName => prefix.name = Some(without_nul(small(&mut entry)?)),
            EntryType::GNULongLink => prefix.link = Some(without_nul(small(&mut entry)?)),
            EntryType::XHeader => prefix.pax = Some(small(&mut entry)?),
            // A comment of who packed it.
            EntryType::XGlobalHeader => {}
            _ => {
                let header = entry.header().clone();
                if let Some(checked) = entry::check(&header, &std::mem::take(&mut prefix))? {
                    take(tree, checked, &mut entry, style)?;
                }
            }
        }
    }
    Ok(())
}

fn take(tree: &mut Tree, entry: Entry, contents: &mut dyn Read, style: Style) -> Result<()> {
    if style == Style::Root {
        return tree.insert(entry, contents, Through::Refuse);
    }
    match last(&entry.path) {
        OPAQUE => {
            let directory = beside(&entry.path, b"");
            let directory = directory.strip_suffix(b"/").unwrap_or(&directory);
            tree.clear_lower(&tree.resolve(directory).unwrap_or_else(|| directory.to_vec()));
            Ok(())
        }
        name => match name.strip_prefix(WHITEOUT) {
            Some(gone) if gone.is_empty() || gone == b"." || gone == b".." => bail!("a layer takes away a name that cannot be"),
            Some(gone) => tree.remove_lower(&beside(&entry.path, gone), Through::Follow),
            None => tree.insert(entry, contents, Through::Follow),
        },
    }
}

fn small(entry: &mut impl Read) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    entry.take(PREFIX + 1).read_to_end(&mut bytes).context("reading a long name")?;
    if bytes.len() as u64 > PREFIX {
        bail!("an entry has a name or attributes of more than {}", crate::archive::size(PREFIX));
    }
    Ok(bytes)
}

fn without_nul(mut name: Vec<u8>) -> Vec<u8> {
    while name.last() == Some(&0) {
        name.pop();
    }
    name
}
