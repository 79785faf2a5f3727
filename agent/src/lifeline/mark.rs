//! The heartbeat file of this node on the share. A write waits while the share's server is away, so it is done by a thread of its own;
//! everybody else looks at when the last one went through.

use std::fs::{self, File};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use lodge_model::fence::{Mark, mark_path};
use lodge_model::ids::{BootId, NodeId};
use lodge_model::timing;
use lodge_sys::child;
use lodge_sys::mount::is_mounted;
use nix::errno::Errno;

use super::Moment;
use crate::moments::since_boot;
use crate::reconcile::plan::PATIENCE;

const STACK: usize = 128 << 10;

/// When the file was last written.
#[derive(Clone, Debug)]
pub struct Written(Option<LastWrite>);

#[derive(Clone, Debug)]
struct LastWrite {
    last: Moment,
    /// The start of the agent, which counts as a write until there is one.
    start: Duration,
}

impl Written {
    /// The node serves the share itself: there is nothing that it could be cut from.
    pub fn always() -> Self {
        Self(None)
    }

    /// Since the kernel started. The start of the last write that went through, so that it is never said to be younger than it is.
    pub fn at(&self, now: Duration) -> Duration {
        self.0.as_ref().map_or(now, |file| file.last.get())
    }

    /// The same, where there was a write at all.
    pub fn proven(&self, now: Duration) -> Option<Duration> {
        let is_proven = |file: &LastWrite| file.last.get() > file.start;
        self.0.as_ref().is_none_or(is_proven).then(|| self.at(now))
    }
}

/// Write it for as long as the agent lives. Until the first write, its start counts as one.
pub fn write_to(share: &Path, node: NodeId, boot: BootId) -> Result<Written> {
    let last = Moment::now();
    let start = last.get();
    let (told, share) = (last.clone(), share.to_owned());
    let write = move || {
        let mut count = 0;
        let mut complaint = String::new();
        loop {
            let began = since_boot();
            count += 1;
            match write_once(&share, node, &Mark { boot, count }, is_mounted) {
                Ok(()) => {
                    told.set(began);
                    complaint.clear();
                }
                Err(error) => {
                    let text = format!("{error:#}");
                    if text != complaint {
                        tracing::warn!("writing the heartbeat file: {text}");
                        complaint = text;
                    }
                }
            }
            std::thread::sleep((began + timing::MARK).saturating_sub(since_boot()));
        }
    };
    std::thread::Builder::new().name("heartbeat".into()).stack_size(STACK).spawn(write).context("starting a thread")?;
    Ok(Written(Some(LastWrite { last, start })))
}

/// In place and synced: whoever reads it reads a whole one, or the end of the one before, which is no JSON.
fn write_once(share: &Path, node: NodeId, mark: &Mark, is_mounted: impl Fn(&Path) -> Result<bool>) -> Result<()> {
    // Below an empty mount point it would be a file of the node's own.
    if !is_mounted(share)? {
        bail!("the share is not mounted");
    }
    let path = share.join(mark_path(node));
    let text = serde_json::to_vec(mark).context("encoding it")?;
    // A boot's first one is shorter than the last one of the boot before. It is written by a process that can be killed: see
    // `reconcile::helper` for what a request that hangs keeps from going on.
    let write = |is_new| child::overwrite(&path, &text, is_new, PATIENCE);
    let written = match write(mark.count == 1)? {
        Err(Errno::ENOENT) => {
            let make = || path.parent().map_or(Ok(()), fs::create_dir_all).and_then(|()| File::create(&path));
            make().with_context(|| format!("making {}", path.display()))?;
            write(true)?
        }
        written => written,
    };
    written.with_context(|| format!("writing {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    fn boot(number: u128) -> BootId {
        BootId(Uuid::from_u128(number))
    }

    #[test]
    fn it_is_replaced_whole_also_by_a_new_boot() {
        let share = tempfile::tempdir().unwrap();
        let node = NodeId(Uuid::from_u128(3));
        for (boot, count) in [(boot(1), 1), (boot(1), 99), (boot(1), 100), (boot(2), 1), (boot(2), 2)] {
            let mark = Mark { boot, count };
            write_once(share.path(), node, &mark, |_| Ok(true)).unwrap();
            let text = fs::read(share.path().join(mark_path(node))).unwrap();
            assert_eq!(serde_json::from_slice::<Mark>(&text).unwrap(), mark);
        }
    }

    #[test]
    fn nothing_is_written_below_an_empty_mount_point() {
        let share = tempfile::tempdir().unwrap();
        let mark = Mark { boot: boot(1), count: 1 };
        let error = write_once(share.path(), NodeId(Uuid::from_u128(3)), &mark, |_| Ok(false)).unwrap_err();
        assert!(error.to_string().contains("not mounted"));
        assert_eq!(fs::read_dir(share.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_share_of_its_own_is_never_lost() {
        let now = Duration::from_secs(9);
        assert_eq!(Written::always().at(now), now);
        let (last, start) = (Moment::default(), Duration::from_secs(5));
        last.set(start);
        let written = Written(Some(LastWrite { last: last.clone(), start }));
        assert_eq!((written.at(now), written.proven(now)), (start, None), "the start of the agent renews nothing");
        last.set(Duration::from_secs(7));
        assert_eq!((written.at(now), written.proven(now)), (Duration::from_secs(7), Some(Duration::from_secs(7))));
        assert_eq!(Written::always().proven(now), Some(now));
    }
}
