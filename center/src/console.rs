//! What machines print on their consoles: one file a machine in `DATA/consoles`, the newest part of it, at most 1 MiB.

use std::fs::{self, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context;
use lodge_model::ids::MachineId;

use crate::fault::Fault;
use crate::files;

/// A log is never longer than this, in bytes.
const LIMIT: u64 = 1 << 20;
/// What is kept of one that is.
const KEPT: u64 = LIMIT / 2;

/// All console logs. Clones share them.
#[derive(Clone)]
pub struct Consoles {
    dir: PathBuf,
    writing: Arc<Mutex<()>>,
}

impl Consoles {
    /// Of a center's data directory.
    pub fn new(data: &Path) -> anyhow::Result<Self> {
        let dir = data.join("consoles");
        fs::create_dir_all(&dir).with_context(|| format!("making {}", dir.display()))?;
        Ok(Self { dir, writing: Arc::default() })
    }

    /// Add to a machine's log.
    pub async fn append(&self, machine: MachineId, text: String) -> Result<(), Fault> {
        let consoles = self.clone();
        let work = move || {
            let path = consoles.path(machine);
            let _writing = consoles.writing.lock().unwrap_or_else(PoisonError::into_inner);
            append(&path, text.as_bytes()).with_context(|| format!("writing {}", path.display()))
        };
        Ok(tokio::task::spawn_blocking(work).await.context("joining a console task")??)
    }

    /// A machine's log; empty when it has said nothing.
    pub async fn read(&self, machine: MachineId) -> Result<String, Fault> {
        let path = self.path(machine);
        match tokio::fs::read(&path).await {
            Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
            Err(error) => Err(anyhow::Error::from(error).context(format!("reading {}", path.display())).into()),
        }
    }

    /// Remove a machine's log.
    pub async fn remove(&self, machine: MachineId) -> Result<(), Fault> {
        let path = self.path(machine);
        match tokio::fs::remove_file(&path).await {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(anyhow::Error::from(error).context(format!("removing {}", path.display())).into())
            }
            _ => Ok(()),
        }
    }

    fn path(&self, machine: MachineId) -> PathBuf {
        self.dir.join(format!("{machine}.log"))
    }
}

fn append(path: &Path, text: &[u8]) -> anyhow::Result<()> {
    let mut file = OpenOptions::new().create(true).append(true).read(true).open(path)?;
    file.write_all(text)?;
    if file.metadata()?.len() <= LIMIT {
        return Ok(());
    }
    file.seek(SeekFrom::End(-(KEPT as i64)))?;
    let mut kept = Vec::new();
    file.read_to_end(&mut kept)?;
    let line = kept.iter().position(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    files::write(path, &kept[line..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_keeps_its_newest_lines_within_the_limit() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.log");
        for number in 0..40_000 {
            append(&path, format!("line {number} {}\n", "x".repeat(40)).as_bytes()).unwrap();
        }
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.len() as u64 <= LIMIT && text.len() as u64 >= KEPT / 2);
        assert!(text.starts_with("line ") && text.contains("line 39999 "));
    }
}
