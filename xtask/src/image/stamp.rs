//! Rebuild only what changed. A step has a key, a hash over everything that goes into it; beside the key its stamp remembers how the
//! outputs looked. Same key and same outputs: nothing to do. A step's key goes into the keys of the steps that use its outputs,
//! so big files are not read again to find out that they are the same.

use std::{
    fmt::Write as _,
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use ring::digest;

/// The hash over a step's inputs, being made.
pub struct Key(digest::Context);

impl Key {
    /// `recipe` changes when the code of a step changes what it makes of the same inputs.
    pub fn new(recipe: &str) -> Self {
        Self(digest::Context::new(&digest::SHA256)).text(recipe)
    }

    /// Add a text; its length goes in too, so that neighbours cannot run into each other.
    pub fn text(mut self, text: &str) -> Self {
        self.0.update(&text.len().to_le_bytes());
        self.0.update(text.as_bytes());
        self
    }

    /// Add a file's name and content.
    pub fn file(self, path: &Path) -> Result<Self> {
        let content = fs::read(path).with_context(|| format!("reading {}", path.display()))?;
        let mut with_name = self.text(&path.file_name().unwrap_or_default().to_string_lossy()).text(&content.len().to_string());
        with_name.0.update(&content);
        Ok(with_name)
    }

    /// Add every file below a directory, in the order of their names. What is written for people alone changes nothing.
    pub fn dir(mut self, dir: &Path) -> Result<Self> {
        let list = fs::read_dir(dir).with_context(|| format!("listing {}", dir.display()))?;
        let mut entries = list.collect::<Result<Vec<_>, _>>().with_context(|| format!("listing {}", dir.display()))?;
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            let path = entry.path();
            if path.extension().is_some_and(|extension| extension == "md") {
                continue;
            }
            self = if path.is_dir() { self.text(&entry.file_name().to_string_lossy()).dir(&path)? } else { self.file(&path)? };
        }
        Ok(self)
    }

    /// Add how a file looks (length and time of change), for those too big to be read each time.
    pub fn look(self, path: &Path) -> Result<Self> {
        let look = describe("", &[path.to_path_buf()])?;
        Ok(self.text(&look))
    }

    /// The key as hexadecimal digits.
    pub fn finish(self) -> String {
        hex(self.0.finish().as_ref())
    }
}

/// SHA-256 of a file and its length, read in pieces.
pub fn sha256(path: &Path) -> Result<(String, u64)> {
    use std::io::Read as _;
    let mut file = fs::File::open(path).with_context(|| format!("opening {}", path.display()))?;
    let (mut context, mut length, mut piece) = (digest::Context::new(&digest::SHA256), 0, vec![0; 1 << 20]);
    loop {
        let read = file.read(&mut piece).with_context(|| format!("reading {}", path.display()))?;
        if read == 0 {
            return Ok((hex(context.finish().as_ref()), length));
        }
        context.update(piece.get(..read).unwrap_or_default());
        length += read as u64;
    }
}

/// Lower-case hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}"); // writing to a String cannot fail
        text
    })
}

/// Where stamps are kept.
pub struct Stamps {
    dir: PathBuf,
}

impl Stamps {
    /// Uses (and makes) a directory of its own.
    pub fn open(dir: PathBuf) -> Result<Self> {
        fs::create_dir_all(&dir).with_context(|| format!("making {}", dir.display()))?;
        Ok(Self { dir })
    }

    /// Whether the step was done with this key and its outputs are as it left them.
    pub fn is_fresh(&self, step: &str, key: &str, outputs: &[PathBuf]) -> bool {
        match (fs::read_to_string(self.path(step)), describe(key, outputs)) {
            (Ok(stamp), Ok(now)) => stamp == now,
            _ => false,
        }
    }

    /// Forget the step: called before it starts, so that one that was cut off counts as not done.
    pub fn forget(&self, step: &str) -> Result<()> {
        let path = self.path(step);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("removing {}", path.display()))
            }
            _ => Ok(()),
        }
    }

    /// Remember that the step is done.
    pub fn remember(&self, step: &str, key: &str, outputs: &[PathBuf]) -> Result<()> {
        let path = self.path(step);
        fs::write(&path, describe(key, outputs)?).with_context(|| format!("writing {}", path.display()))
    }

    fn path(&self, step: &str) -> PathBuf {
        self.dir.join(step.replace(' ', "-"))
    }
}

fn describe(key: &str, outputs: &[PathBuf]) -> Result<String> {
    let mut text = format!("{key}\n");
    for output in outputs {
        let metadata = fs::metadata(output).with_context(|| format!("looking at {}", output.display()))?;
        // Of a directory only its existence counts: its time changes when a later step works in it.
        let (length, time) =
            if metadata.is_dir() { (0, 0) } else { (metadata.len(), metadata.mtime_nsec() + metadata.mtime() * 1_000_000_000) };
        writeln!(text, "{length} {time} {}", output.display())?;
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_fresh_until_key_or_output_change() {
        let dir = tempfile::tempdir().unwrap();
        let stamps = Stamps::open(dir.path().join("stamps")).unwrap();
        let output = dir.path().join("output");
        let outputs = [output.clone()];
        assert!(!stamps.is_fresh("a step", "1", &outputs));
        fs::write(&output, "made").unwrap();
        stamps.remember("a step", "1", &outputs).unwrap();
        assert!(stamps.is_fresh("a step", "1", &outputs));
        assert!(!stamps.is_fresh("a step", "2", &outputs));
        fs::write(&output, "changed").unwrap();
        assert!(!stamps.is_fresh("a step", "1", &outputs));
        fs::remove_file(&output).unwrap();
        assert!(!stamps.is_fresh("a step", "1", &outputs));
    }

    #[test]
    fn a_key_tells_where_one_text_ends() {
        let one = Key::new("r").text("ab").text("c").finish();
        let other = Key::new("r").text("a").text("bc").finish();
        assert_ne!(one, other);
        assert_eq!(one, Key::new("r").text("ab").text("c").finish());
    }

    #[test]
    fn a_key_follows_names_and_contents() {
        let dir = tempfile::tempdir().unwrap();
        let key = || Key::new("r").dir(dir.path()).unwrap().finish();
        fs::write(dir.path().join("a"), "1").unwrap();
        let first = key();
        assert_eq!(first, key());
        fs::rename(dir.path().join("a"), dir.path().join("b")).unwrap();
        let second = key();
        assert_ne!(first, second);
        fs::write(dir.path().join("b"), "2").unwrap();
        let third = key();
        assert_ne!(second, third);
        fs::write(dir.path().join("README.md"), "words").unwrap();
        assert_eq!(third, key());
    }

    #[test]
    fn sha256_is_the_one_everybody_means() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("abc");
        fs::write(&path, "abc").unwrap();
        let (sum, length) = sha256(&path).unwrap();
        assert_eq!(sum, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert_eq!(length, 3);
    }
}
