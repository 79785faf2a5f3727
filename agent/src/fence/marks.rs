//! How old the nodes' heartbeat files on the share are, seen on the machine that has the files. An age is that of the last change that
//! was seen here, by this machine's clock alone: neither a node's clock nor a step of this one's counts.
//!
//! Absence is no event, so the files are looked at in intervals, by a thread of its own: should the disk hang, only that thread does.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result};
use lodge_model::fence::{Mark, MarkAge, mark_path};
use lodge_model::ids::{BootId, NodeId};
use lodge_model::timing;

use crate::moments::since_boot;

const STACK: usize = 128 << 10;

/// The last mark of each node, and when it was first seen.
#[derive(Clone, Debug, Default)]
pub struct Marks(Arc<Mutex<BTreeMap<NodeId, (Mark, Duration)>>>);

impl Marks {
    /// Look at the files below `share` for as long as the agent lives.
    pub fn follow(share: &Path) -> Result<Self> {
        let marks = Self::default();
        let (seen, share) = (marks.clone(), share.to_owned());
        let look = move || {
            loop {
                seen.look(&share, since_boot());
                std::thread::sleep(timing::MARK / 2);
            }
        };
        std::thread::Builder::new()
            .name("marks".into())
            .stack_size(STACK)
            .spawn(look)
            .context("starting a thread for marks")?;
        Ok(marks)
    }

    /// All ages.
    pub fn ages(&self, now: Duration) -> Vec<MarkAge> {
        let marks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let age = |(node, (mark, seen)): (&NodeId, &(Mark, Duration))| MarkAge {
            node: *node,
            boot: mark.boot,
            age_ms: u64::try_from(now.saturating_sub(*seen).as_millis()).unwrap_or(u64::MAX),
        };
        marks.iter().map(age).collect()
    }

    /// The boots whose files have changed so lately that they are there still.
    pub fn living(&self, now: Duration) -> BTreeMap<NodeId, BootId> {
        let ages = self.ages(now).into_iter().filter(|mark| Duration::from_millis(mark.age_ms) < timing::MARK * 2);
        ages.map(|mark| (mark.node, mark.boot)).collect()
    }

    fn look(&self, share: &Path, now: Duration) {
        let found: Vec<(NodeId, Mark)> = nodes(share).into_iter().filter_map(|node| Some((node, read(share, node)?))).collect();
        let mut marks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for (node, mark) in found {
            if marks.get(&node).is_none_or(|(last, _)| *last != mark) {
                marks.insert(node, (mark, now));
            }
        }
    }
}

fn nodes(share: &Path) -> Vec<NodeId> {
    let entries = fs::read_dir(share.join("nodes")).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// One that is being written is read the next time.
fn read(share: &Path, node: NodeId) -> Option<Mark> {
    let path: PathBuf = share.join(mark_path(node));
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    #[test]
    fn an_age_is_that_of_the_last_change() {
        let share = tempfile::tempdir().unwrap();
        let node = NodeId(Uuid::from_u128(5));
        let path = share.path().join(mark_path(node));
        let write = |count| {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            let mark = Mark { boot: BootId(Uuid::from_u128(9)), count };
            fs::write(&path, serde_json::to_vec(&mark).unwrap()).unwrap();
        };
        let marks = Marks::default();
        let ages = |at| -> Vec<u64> {
            marks.look(share.path(), Duration::from_secs(at));
            marks.ages(Duration::from_secs(at)).iter().map(|age| age.age_ms).collect()
        };
        assert_eq!(ages(1), Vec::<u64>::new());
        write(1);
        assert_eq!((ages(10), ages(12)), (vec![0], vec![2000]));
        write(1);
        assert_eq!(ages(13), [3000], "a file that is only touched is no sign of life");
        write(2);
        assert_eq!(ages(14), [0]);
        fs::write(&path, "{").unwrap();
        assert_eq!(ages(15), [1000]);
        let living = |at| marks.living(Duration::from_secs(at)).into_values().collect::<Vec<_>>();
        assert_eq!((living(17), living(18)), (vec![BootId(Uuid::from_u128(9))], vec![]));
    }
}
