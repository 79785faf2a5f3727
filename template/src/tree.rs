//! The root as it will be: names and attributes in memory, contents one after the other in an anonymous file. Layers are laid over each
//! other here.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Read},
    os::unix::fs::FileExt as _,
    path::Path,
};

use anyhow::{Context as _, Result, bail};

use crate::{
    Limits, archive, copy_exactly,
    entry::{Attributes, Entry, What},
    shown,
};

/// Symbolic links in a row, as in the kernel.
const LINKS: usize = 40;
/// Directories that the node mounts on, with their modes.
const MOUNT_POINTS: [(&str, u32); 6] =
    [("dev", 0o755), ("proc", 0o555), ("root", 0o700), ("run", 0o755), ("sys", 0o555), ("tmp", 0o1777)];

/// The root.
pub struct Tree {
    names: BTreeMap<Vec<u8>, Name>,
    nodes: Vec<Node>,
    contents: File,
    end: u64,
    limits: Limits,
    layer: u32,
}

#[derive(Clone, Copy)]
struct Name {
    node: usize,
    layer: u32,
}

/// A file, whatever its names.
#[derive(Debug)]
pub struct Node {
    /// What it is.
    pub kind: Kind,
    /// Whose it is, and the like.
    pub attributes: Attributes,
}

/// What a file is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A file with contents.
    File {
        /// Where they begin.
        at: u64,
        /// Bytes of them.
        size: u64,
    },
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink(Vec<u8>),
    /// A named pipe.
    Fifo,
}

/// What becomes of names that lead through symbolic links.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Through {
    /// They are refused: no packer writes them.
    Refuse,
    /// They are followed within the root, as every container engine does with layers.
    Follow,
}

impl Tree {
    /// An empty root, its contents in a file without a name in `work`.
    pub fn new(work: &Path, limits: Limits) -> Result<Self> {
        let contents = tempfile::tempfile_in(work).with_context(|| format!("making a file in {}", work.display()))?;
        let mut tree = Self { names: BTreeMap::new(), nodes: Vec::new(), contents, end: 0, limits, layer: 0 };
        tree.put(Vec::new(), Kind::Directory, directory(0o755))?;
        Ok(tree)
    }

    /// What comes from here on lies above what is there.
    pub fn begin_layer(&mut self) {
        self.layer += 1;
    }

    /// Take in an entry; `contents` are those of a file.
    pub fn insert(&mut self, entry: Entry, contents: &mut dyn Read, through: Through) -> Result<()> {
        let path = self.place_for(&entry.path, through)?;
        match entry.what {
            What::Directory => match self.node_mut(&path) {
                Some(Node { kind: Kind::Directory, attributes }) => {
                    *attributes = entry.attributes;
                    self.touch(&path);
                    Ok(())
                }
                _ => self.replace(path, Kind::Directory, entry.attributes),
            },
            What::Symlink(target) => self.replace(path, Kind::Symlink(target), entry.attributes),
            What::Fifo => self.replace(path, Kind::Fifo, entry.attributes),
            What::File { size } => {
                let at = self.keep(contents, size).with_context(|| format!("the entry {}", shown(&entry.path)))?;
                self.replace(path, Kind::File { at, size }, entry.attributes)
            }
            What::HardLink(other) => self.link(path, &entry.path, &other, through),
        }
    }

    /// Remove a name, and everything below it, of the layers below this one.
    pub fn remove_lower(&mut self, path: &[u8], through: Through) -> Result<()> {
        let path = self.place_for(path, through)?;
        if self.names.get(&path).is_some_and(|name| name.layer < self.layer) {
            self.names.remove(&path);
        }
        self.clear_lower(&path);
        Ok(())
    }

    /// Remove everything below a directory of the layers below this one.
    pub fn clear_lower(&mut self, path: &[u8]) {
        let layer = self.layer;
        self.remove_below(path, |name| name.layer < layer);
    }

    /// Make the directories that a node mounts on, where they are missing.
    pub fn add_mount_points(&mut self) -> Result<()> {
        for (path, mode) in MOUNT_POINTS {
            if !self.names.contains_key(path.as_bytes()) {
                self.put(path.as_bytes().to_vec(), Kind::Directory, directory(mode))?;
            }
        }
        Ok(())
    }

    /// The file of a name, no link being followed.
    pub fn get(&self, path: &[u8]) -> Option<&Node> {
        self.nodes.get(self.names.get(path)?.node)
    }

    /// The real name of a file, symbolic links being followed within the root. Fails where nothing is there.
    pub fn resolve(&self, path: &[u8]) -> Option<Vec<u8>> {
        let mut left: Vec<Vec<u8>> = parts(path).rev().collect();
        let (mut at, mut links) = (Vec::new(), 0);
        while let Some(part) = left.pop() {
            if part == b".." {
                at = parent(&at).to_vec();
                continue;
            }
            let next = join(&at, &part);
            match &self.get(&next)?.kind {
                Kind::Symlink(target) => {
                    links += 1;
                    if links > LINKS {
                        return None;
                    }
                    if target.starts_with(b"/") {
                        at.clear();
                    }
                    left.extend(parts(target).rev());
                }
                _ => at = next,
            }
        }
        Some(at)
    }

    /// The contents of a file, links being followed; none where there is no file.
    pub fn open(&self, path: &[u8]) -> Option<Contents<'_>> {
        match self.get(&self.resolve(path)?)?.kind {
            Kind::File { at, size } => Some(self.contents(at, size)),
            _ => None,
        }
    }

    /// The contents at a place.
    pub fn contents(&self, at: u64, size: u64) -> Contents<'_> {
        Contents { file: &self.contents, at, left: size }
    }

    /// A small file as text, links being followed; none where there is no file.
    pub fn text(&self, path: &str, most: u64) -> Result<Option<String>> {
        let Some(mut contents) = self.open(path.as_bytes()) else { return Ok(None) };
        if contents.left > most {
            bail!("/{path} has more than {}", archive::size(most));
        }
        let mut text = String::new();
        contents.read_to_string(&mut text).with_context(|| format!("reading /{path} of the archive"))?;
        Ok(Some(text))
    }

    /// Every name in order, a directory before what is in it, with the number that tells names of the same file.
    pub fn entries(&self) -> impl Iterator<Item = (&[u8], usize, &Node)> {
        self.names.iter().filter_map(|(path, name)| Some((path.as_slice(), name.node, self.nodes.get(name.node)?)))
    }

    /// Keep contents and say where they begin.
    fn keep(&mut self, contents: &mut dyn Read, size: u64) -> Result<u64> {
        let (at, end) = (self.end, self.end.saturating_add(size));
        if end > self.limits.bytes {
            bail!("with it the archive has more than {} of files", archive::size(self.limits.bytes));
        }
        copy_exactly(contents, &mut &self.contents, size)?;
        self.end = end;
        Ok(at)
    }

    fn link(&mut self, path: Vec<u8>, shown_path: &[u8], other: &[u8], through: Through) -> Result<()> {
        let other = match through {
            Through::Refuse => other.to_vec(),
            Through::Follow => join(&self.resolve(parent(other)).unwrap_or_default(), last(other)),
        };
        let node = self.names.get(&other).map(|name| name.node);
        let Some(node) = node.filter(|node| !matches!(self.nodes.get(*node), None | Some(Node { kind: Kind::Directory, .. })))
        else {
            bail!("the entry {} is a hard link to {}, which is no file of the archive", shown(shown_path), shown(&other));
        };
        if path != other {
            self.remove_below(&path, |_| true);
            self.names.insert(path, Name { node, layer: self.layer });
        }
        Ok(())
    }

    /// Where an entry of this name goes. Its directories are made where they are missing.
    fn place_for(&mut self, path: &[u8], through: Through) -> Result<Vec<u8>> {
        if path.is_empty() {
            return Ok(Vec::new());
        }
        let mut at = Vec::new();
        for part in parts(parent(path)) {
            let next = join(&at, &part);
            at = match self.get(&next).map(|node| &node.kind) {
                Some(Kind::Directory) => next,
                None => {
                    self.put(next.clone(), Kind::Directory, directory(0o755))?;
                    next
                }
                Some(Kind::Symlink(_)) if through == Through::Follow => {
                    let real = self
                        .resolve(&next)
                        .filter(|real| matches!(self.get(real).map(|node| &node.kind), Some(Kind::Directory)));
                    real.with_context(|| {
                        format!("the entry {} leads through the link {} to no directory", shown(path), shown(&next))
                    })?
                }
                Some(Kind::Symlink(_)) => {
                    bail!("the entry {} leads through the symbolic link {}", shown(path), shown(&next))
                }
                Some(_) => bail!("the entry {} is below {}, which is no directory", shown(path), shown(&next)),
            };
        }
        Ok(join(&at, last(path)))
    }

    fn replace(&mut self, path: Vec<u8>, kind: Kind, attributes: Attributes) -> Result<()> {
        if path.is_empty() {
            bail!("the root of the archive is no directory");
        }
        self.remove_below(&path, |_| true);
        self.put(path, kind, attributes)
    }

    fn put(&mut self, path: Vec<u8>, kind: Kind, attributes: Attributes) -> Result<()> {
        // Counted with those that were replaced: they took memory, too.
        if self.nodes.len() >= self.limits.entries {
            bail!("the archive has more than {} entries", self.limits.entries);
        }
        self.names.insert(path, Name { node: self.nodes.len(), layer: self.layer });
        self.nodes.push(Node { kind, attributes });
        Ok(())
    }

    fn touch(&mut self, path: &[u8]) {
        if let Some(name) = self.names.get_mut(path) {
            name.layer = self.layer;
        }
    }

    fn node_mut(&mut self, path: &[u8]) -> Option<&mut Node> {
        self.nodes.get_mut(self.names.get(path)?.node)
    }

    fn remove_below(&mut self, path: &[u8], which: impl Fn(&Name) -> bool) {
        let from = if path.is_empty() { Vec::new() } else { [path, b"/"].concat() };
        let inside = self.names.range(from.clone()..).take_while(|(name, _)| name.starts_with(&from));
        let gone: Vec<Vec<u8>> =
            inside.filter(|(name, entry)| !name.is_empty() && which(entry)).map(|(name, _)| name.clone()).collect();
        for name in gone {
            self.names.remove(&name);
        }
    }
}

/// Contents of a file, read where they are kept.
pub struct Contents<'a> {
    file: &'a File,
    at: u64,
    left: u64,
}

impl Contents<'_> {
    /// Bytes that have not been read.
    pub fn left(&self) -> u64 {
        self.left
    }
}

impl Read for Contents<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let read = self.file.read_at(buffer.get_mut(..most).unwrap_or_default(), self.at)?;
        self.at += read as u64;
        self.left -= read as u64;
        Ok(read)
    }
}

fn directory(mode: u32) -> Attributes {
    Attributes { mode, ..Attributes::default() }
}

fn parts(path: &[u8]) -> impl DoubleEndedIterator<Item = Vec<u8>> {
    path.split(|byte| *byte == b'/').filter(|part| !part.is_empty() && *part != b".").map(<[u8]>::to_vec)
}

fn parent(path: &[u8]) -> &[u8] {
    path.iter().rposition(|byte| *byte == b'/').and_then(|at| path.get(..at)).unwrap_or_default()
}

/// The last component of a name.
pub fn last(path: &[u8]) -> &[u8] {
    path.iter().rposition(|byte| *byte == b'/').map_or(path, |at| path.get(at + 1..).unwrap_or_default())
}

/// A name with another last component.
pub fn beside(path: &[u8], name: &[u8]) -> Vec<u8> {
    join(parent(path), name)
}

fn join(dir: &[u8], name: &[u8]) -> Vec<u8> {
    if dir.is_empty() { name.to_vec() } else { [dir, b"/", name].concat() }
}
