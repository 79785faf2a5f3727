//! Archives that must not become templates, each with one fault in what would otherwise be a system.

use std::{
    fs,
    io::Write as _,
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};
use tar::{EntryType, Header};

/// A tar in the making. Names are written as they are, good or bad.
#[derive(Clone)]
pub struct Archive(Vec<u8>);

/// Zeros of one frame of a bomb, and how many frames make ten GiB.
const ZEROS: (usize, usize) = (64 << 20, 160);

impl Archive {
    /// The least that is a system.
    pub fn system() -> Self {
        let mut archive = Self(Vec::new());
        for dir in ["./", "./sbin/"] {
            archive.entry(EntryType::Directory, dir, "", 0);
        }
        archive.entry(EntryType::Regular, "./sbin/init", "", 0);
        archive
    }

    /// With an empty file of this name and owner.
    pub fn file(mut self, name: &str, owner: u64) -> Self {
        self.entry(EntryType::Regular, name, "", owner);
        self
    }

    /// With a link: a hard one, or a symbolic one.
    pub fn link(mut self, kind: EntryType, name: &str, target: &str) -> Self {
        self.entry(kind, name, target, 0);
        self
    }

    /// With a device node: a disk's.
    pub fn disk(mut self, name: &str) -> Self {
        self.entry(EntryType::Block, name, "", 0);
        self
    }

    /// With a file of these contents.
    pub fn contents(mut self, name: &str, contents: &[u8]) -> Self {
        self.header(EntryType::Regular, name, "", 0, contents.len() as u64);
        self.0.extend_from_slice(contents);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    /// A container image whose index names a manifest by another digest than it has.
    pub fn image_with_another_digest() -> Self {
        let (digits, manifest) = ("ab".repeat(32), b"{\"schemaVersion\":2}");
        let index = format!(
            "{{\"schemaVersion\":2,\"manifests\":[{{\"mediaType\":\"application/vnd.oci.image.manifest.v1+json\",\
             \"digest\":\"sha256:{digits}\",\"size\":{}}}]}}",
            manifest.len()
        );
        Self(Vec::new())
            .contents("oci-layout", b"{\"imageLayoutVersion\":\"1.0.0\"}")
            .contents("index.json", index.as_bytes())
            .contents(&format!("blobs/sha256/{digits}"), manifest)
    }

    /// Write it.
    pub fn put(mut self, path: &Path) -> Result<()> {
        self.0.resize(self.0.len() + 1024, 0);
        write(path, &self.0)
    }

    /// Write it without the mark that ends a tar.
    pub fn put_without_end(self, path: &Path) -> Result<()> {
        write(path, &self.0)
    }

    /// Write it with a file of ten GiB of zeros, which take less than one MiB.
    pub fn put_as_bomb(mut self, path: &Path) -> Result<()> {
        let (frame, frames) = ZEROS;
        self.header(EntryType::Regular, "./zeros", "", 0, (frame * frames) as u64);
        let mut bytes = zstd(&self.0)?;
        let zeros = zstd(&vec![0; frame])?;
        (0..frames).for_each(|_| bytes.extend_from_slice(&zeros));
        bytes.extend(zstd(&[0; 1024])?);
        if bytes.len() > 1 << 20 {
            bail!("ten GiB of zeros take {} bytes", bytes.len());
        }
        write(path, &bytes)
    }

    fn entry(&mut self, kind: EntryType, name: &str, target: &str, owner: u64) {
        self.header(kind, name, target, owner, 0);
    }

    fn header(&mut self, kind: EntryType, name: &str, target: &str, owner: u64, size: u64) {
        let mut header = Header::new_gnu();
        // The library itself refuses bad names.
        let old = header.as_old_mut();
        old.name[..name.len()].copy_from_slice(name.as_bytes());
        old.linkname[..target.len()].copy_from_slice(target.as_bytes());
        header.set_entry_type(kind);
        header.set_mode(0o755);
        header.set_uid(owner);
        header.set_gid(owner);
        header.set_mtime(1_000_000);
        header.set_size(size);
        header.set_cksum();
        self.0.extend_from_slice(header.as_bytes());
    }
}

/// The first part of a file.
pub fn cut(file: &Path, bytes: usize, path: &Path) -> Result<()> {
    let whole = fs::read(file).with_context(|| format!("reading {}", file.display()))?;
    write(path, whole.get(..bytes).with_context(|| format!("{} is shorter than {bytes} bytes", file.display()))?)
}

fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    fs::write(path, bytes).with_context(|| format!("writing {}", path.display()))
}

/// One frame of zstd.
fn zstd(bytes: &[u8]) -> Result<Vec<u8>> {
    let mut child = Command::new("zstd");
    let mut child = child.args(["-q", "-c"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().context("starting zstd")?;
    let mut input = child.stdin.take().context("zstd has no standard input")?;
    let output = std::thread::scope(|scope| {
        scope.spawn(move || input.write_all(bytes));
        child.wait_with_output()
    });
    let output = output.context("running zstd")?;
    if !output.status.success() {
        bail!("zstd failed: {}", output.status);
    }
    Ok(output.stdout)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bomb_is_small_and_a_cut_file_shorter() {
        if !Path::new("/usr/bin/zstd").exists() {
            println!("skipped: there is no zstd");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let [bomb, half] = ["bomb", "half"].map(|name| dir.path().join(name));
        Archive::system().put_as_bomb(&bomb).unwrap();
        let size = fs::metadata(&bomb).unwrap().len();
        cut(&bomb, 1000, &half).unwrap();
        assert!(size > 1000 && fs::metadata(&half).unwrap().len() == 1000, "{size}");
    }

    #[test]
    fn bad_names_are_written_as_they_are() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.tar");
        Archive::system().file("../outside", 0).link(EntryType::Link, "./key", "/etc/key").put(&path).unwrap();
        let listed = Command::new("tar").args(["-Ptf"]).arg(&path).output().unwrap();
        let text = String::from_utf8(listed.stdout).unwrap();
        assert!(text.contains("../outside\n") && text.contains("./key\n"), "{text}");
    }
}
