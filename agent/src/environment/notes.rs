//! What must be known of an environment and cannot be found on the node: that it was told to stop, how it ended, for which order it was
//! started. One small file each below `/run`, so that a restart of the agent forgets nothing and a boot everything.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};
use lodge_model::environment::order::Assignment;
use lodge_model::ids::EnvironmentId;
use serde::{Deserialize, Serialize};

use crate::durable;

/// Where the notes of this boot are.
pub const DIR: &str = "/run/lodge/environment-notes";

/// Notes about one environment. Times are since the kernel started.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Notes {
    /// The epoch they are about.
    pub epoch: u64,
    /// Times the node has started it again by itself.
    pub starts: u32,
    /// `restarts_asked` when it was started last.
    pub started_for: u64,
    /// Its init, from before it is started until its end has been taken in.
    pub init: Option<i32>,
    /// When it was started last.
    pub started_at: Duration,
    /// When its init was first seen to have ended, while its wait status is awaited.
    pub gone_at: Option<Duration>,
    /// It was told to stop.
    pub stop: Option<Stop>,
    /// It ended and is not to be started again.
    pub ended: bool,
    /// Ends in a row soon after a start.
    pub failures: u32,
    /// It is not started again before.
    pub not_before: Option<Duration>,
    /// Everything is taken down before the next start: its disk is checked.
    pub clean: bool,
    /// How it ended last, for people.
    pub last_exit: String,
    /// A checkpoint was to be made of it.
    #[serde(default)]
    pub suspended: Option<Attempt>,
    /// It was to go on from a checkpoint.
    #[serde(default)]
    pub resumed: Option<Attempt>,
}

/// What is tried once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Attempt {
    /// From before it is tried until the next look.
    Tried,
    /// It went well.
    Done,
    /// It did not, for this reason.
    Failed(String),
}

/// That it was told to stop.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stop {
    /// When it was told first.
    pub at: Duration,
    /// When it was told last: its init may not have listened yet.
    pub told_at: Duration,
    /// Its time was over, and it was killed.
    pub killed: bool,
}

impl Notes {
    /// The first notes about an order.
    pub fn new(order: &Assignment) -> Self {
        Self { epoch: order.epoch, started_for: order.restarts_asked, ..Self::default() }
    }
}

/// The notes of all environments of this node.
#[derive(Clone, Debug)]
pub struct Book {
    dir: PathBuf,
}

impl Book {
    /// Kept in this directory, which must be empty after a boot.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into() }
    }

    /// The notes about one. What cannot be read counts as nothing noted, with a warning.
    pub fn read(&self, id: EnvironmentId) -> Notes {
        let path = self.path(id);
        let Ok(text) = fs::read_to_string(&path) else { return Notes::default() };
        serde_json::from_str(&text).unwrap_or_else(|error| {
            tracing::warn!("reading {}: {error}", path.display());
            Notes::default()
        })
    }

    /// Replace them.
    pub fn write(&self, id: EnvironmentId, notes: &Notes) -> Result<()> {
        let path = self.path(id);
        let text = serde_json::to_vec(notes).context("encoding notes")?;
        durable::write(&path, &text, 0o600)
    }

    /// Nothing is to be known of it any more.
    pub fn forget(&self, id: EnvironmentId) -> Result<()> {
        let path = self.path(id);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("removing {}", path.display()))
            }
            _ => Ok(()),
        }
    }

    /// The environments with notes.
    pub fn list(&self) -> Vec<EnvironmentId> {
        let id = |path: &Path| path.file_stem().and_then(|stem| stem.to_str()?.parse().ok());
        let entries = fs::read_dir(&self.dir).into_iter().flatten().flatten();
        entries.filter_map(|entry| id(&entry.path())).collect()
    }

    fn path(&self, id: EnvironmentId) -> PathBuf {
        self.dir.join(format!("{id}.json"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    #[test]
    fn notes_survive_and_a_torn_file_is_no_end() {
        let dir = tempfile::tempdir().unwrap();
        let book = Book::new(dir.path().join("notes"));
        let id = EnvironmentId(Uuid::from_u128(7));
        assert_eq!(book.read(id), Notes::default());
        let notes = Notes {
            epoch: 3,
            stop: Some(Stop { at: Duration::from_secs(1), told_at: Duration::from_secs(2), killed: false }),
            ..Notes::default()
        };
        book.write(id, &notes).unwrap();
        assert_eq!((book.read(id), book.list()), (notes, vec![id]));
        fs::write(book.path(id), "{").unwrap();
        assert_eq!(book.read(id), Notes::default());
        book.forget(id).unwrap();
        book.forget(id).unwrap();
        assert_eq!(book.list(), []);
    }
}
