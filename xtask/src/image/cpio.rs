//! The archive format of an initrd: "newc" cpio (kernel, Documentation/driver-api/early-userspace/buffer-format.rst), written so that
//! the same tree gives the same bytes: sorted names, owner root, no times, inodes counted up.

use std::{
    fs,
    io::Write,
    os::unix::{ffi::OsStrExt as _, fs::MetadataExt as _},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

const DIRECTORY: u32 = 0o040_000;
const REGULAR: u32 = 0o100_000;
const SYMLINK: u32 = 0o120_000;

/// Write everything below `root` as one archive. Hard links become copies; devices and sockets are not expected.
pub fn write(root: &Path, out: &mut dyn Write) -> Result<()> {
    let mut paths = Vec::new();
    collect(root, &mut paths)?;
    paths.sort();
    let mut archive = Archive { out, inode: 0, offset: 0 };
    for path in paths {
        let name = path.strip_prefix(root).unwrap_or(&path);
        archive.add(&path, name).with_context(|| format!("archiving {}", path.display()))?;
    }
    archive.entry(b"TRAILER!!!", 0, &[])
}

fn collect(dir: &Path, paths: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(dir).with_context(|| format!("listing {}", dir.display()))? {
        let entry = entry.with_context(|| format!("listing {}", dir.display()))?;
        if entry.file_type().context("asking for a file's type")?.is_dir() {
            collect(&entry.path(), paths)?;
        }
        paths.push(entry.path());
    }
    Ok(())
}

struct Archive<'a> {
    out: &'a mut dyn Write,
    inode: u32,
    offset: usize,
}

impl Archive<'_> {
    fn add(&mut self, path: &Path, name: &Path) -> Result<()> {
        let metadata = fs::symlink_metadata(path)?;
        let (kind, content) = if metadata.is_dir() {
            (DIRECTORY, Vec::new())
        } else if metadata.is_symlink() {
            (SYMLINK, fs::read_link(path)?.as_os_str().as_bytes().to_vec())
        } else {
            (REGULAR, fs::read(path)?)
        };
        // Modes as the builder's umask left them would make two builders' archives differ.
        let permissions = match kind {
            SYMLINK => 0o777,
            DIRECTORY => 0o755,
            _ if metadata.mode() & 0o100 != 0 => 0o755,
            _ => 0o644,
        };
        self.entry(name.as_os_str().as_bytes(), kind | permissions, &content)
    }

    fn entry(&mut self, name: &[u8], mode: u32, content: &[u8]) -> Result<()> {
        self.inode += 1;
        let size = u32::try_from(content.len()).context("a file of 4 GiB or more has no place in an initrd")?;
        let links = if mode & DIRECTORY == DIRECTORY && mode & REGULAR != REGULAR { 2 } else { 1 };
        let fields = [self.inode, mode, 0, 0, links, 0, size, 0, 0, 0, 0, name.len() as u32 + 1, 0];
        let mut header = String::from("070701");
        for field in fields {
            use std::fmt::Write as _;
            write!(header, "{field:08x}")?;
        }
        self.put(header.as_bytes())?;
        self.put(name)?;
        self.put(&[0])?;
        self.pad()?;
        self.put(content)?;
        self.pad()
    }

    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        self.offset += bytes.len();
        self.out.write_all(bytes).context("writing the archive")
    }

    fn pad(&mut self) -> Result<()> {
        let missing = self.offset.wrapping_neg() % 4;
        self.put([0; 4].get(..missing).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("bin")).unwrap();
        fs::write(dir.path().join("bin/tool"), "12345").unwrap();
        std::os::unix::fs::symlink("bin/tool", dir.path().join("init")).unwrap();
        dir
    }

    #[test]
    fn the_same_tree_gives_the_same_bytes() {
        let (mut one, mut other) = (Vec::new(), Vec::new());
        write(tree().path(), &mut one).unwrap();
        write(tree().path(), &mut other).unwrap();
        assert_eq!(one, other);
        assert_eq!(one.len() % 4, 0);
    }

    #[test]
    fn what_was_written_is_what_cpio_reads() {
        let mut bytes = Vec::new();
        write(tree().path(), &mut bytes).unwrap();
        let mut offset = 0;
        let mut seen = Vec::new();
        let field = |at: usize| usize::from_str_radix(std::str::from_utf8(&bytes[at..at + 8]).unwrap(), 16).unwrap();
        loop {
            assert_eq!(&bytes[offset..offset + 6], b"070701");
            let (mode, size, name) = (field(offset + 14), field(offset + 54), field(offset + 94));
            let text = String::from_utf8(bytes[offset + 110..offset + 110 + name - 1].to_vec()).unwrap();
            let content = (offset + 110 + name).next_multiple_of(4);
            if text == "TRAILER!!!" {
                break;
            }
            seen.push((text, mode, String::from_utf8(bytes[content..content + size].to_vec()).unwrap()));
            offset = (content + size).next_multiple_of(4);
        }
        let expected = [("bin", 0o040_755, ""), ("bin/tool", 0o100_644, "12345"), ("init", 0o120_777, "bin/tool")];
        assert_eq!(seen, expected.map(|(name, mode, content)| (name.to_owned(), mode, content.to_owned())));
    }
}
