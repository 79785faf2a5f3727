//! Waiting for a file to come or to change (inotify(7)), whoever writes it and in whichever way.

use std::ffi::OsString;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, anyhow};
use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};

use crate::ready::Ready;

/// A watch on one name in one directory. Changes are noticed from its making on.
pub struct FileWatch {
    inotify: Inotify,
    ready: Ready,
    name: OsString,
}

impl FileWatch {
    /// Watch a path; neither it nor its directory needs to be there.
    pub fn new(path: &Path) -> Result<Self> {
        let (dir, name) = path.parent().zip(path.file_name()).ok_or_else(|| anyhow!("{} is no file", path.display()))?;
        fs::create_dir_all(dir).with_context(|| format!("making {}", dir.display()))?;
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK).context("setting inotify up")?;
        let flags = AddWatchFlags::IN_CLOSE_WRITE | AddWatchFlags::IN_MOVED_TO | AddWatchFlags::IN_CREATE;
        inotify.add_watch(dir, flags).with_context(|| format!("watching {}", dir.display()))?;
        let ready = Ready::on(&inotify).context("waiting on inotify")?;
        Ok(Self { inotify, ready, name: name.to_owned() })
    }

    /// Wait for the next change.
    pub async fn changed(&mut self) -> Result<()> {
        loop {
            let events = match self.inotify.read_events() {
                Ok(events) => events,
                Err(Errno::EAGAIN) => {
                    self.ready.readable().await.context("waiting on inotify")?;
                    continue;
                }
                Err(error) => return Err(error).context("reading inotify events"),
            };
            let overflow = |mask: AddWatchFlags| mask.contains(AddWatchFlags::IN_Q_OVERFLOW);
            if events.iter().any(|event| overflow(event.mask) || event.name.as_ref() == Some(&self.name)) {
                return Ok(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[tokio::test]
    async fn the_named_file_is_noticed_and_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run/join.json");
        let mut watch = FileWatch::new(&path).unwrap();
        fs::write(path.with_file_name("other"), "x").unwrap();
        assert!(tokio::time::timeout(Duration::from_millis(50), watch.changed()).await.is_err());
        crate::durable::write(&path, b"{}", 0o600).unwrap();
        tokio::time::timeout(Duration::from_secs(5), watch.changed()).await.unwrap().unwrap();
    }
}
