//! Files that are there whole or not at all: written beside, synced, renamed.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::Context;

/// Write a file that everybody may read.
pub fn write(path: &Path, content: &[u8]) -> anyhow::Result<()> {
    replace(path, content, 0o644)
}

/// Write a file that only its owner may read.
pub fn write_private(path: &Path, content: &[u8]) -> anyhow::Result<()> {
    replace(path, content, 0o600)
}

/// The name under which a file is written before it is renamed.
pub fn temporary(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    path.with_file_name(name)
}

/// Give a synced temporary file its name, durably.
pub fn finish(temporary: &Path, path: &Path) -> anyhow::Result<()> {
    fs::rename(temporary, path).with_context(|| format!("renaming {} to {}", temporary.display(), path.display()))?;
    let dir = path.parent().unwrap_or(Path::new("/"));
    File::open(dir).and_then(|dir| dir.sync_all()).with_context(|| format!("syncing {}", dir.display()))
}

fn replace(path: &Path, content: &[u8], mode: u32) -> anyhow::Result<()> {
    let beside = temporary(path);
    match fs::remove_file(&beside) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("removing {}", beside.display()));
        }
        _ => {}
    }
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(&beside)
        .and_then(|mut file| {
            file.write_all(content)?;
            file.sync_all()
        })
        .with_context(|| format!("writing {}", beside.display()))?;
    finish(&beside, path)
}
