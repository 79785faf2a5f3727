//! The bundle of an environment: `config.json`, and where crun sends its console. It is made while the root is being mounted: nothing of it
//! needs that, and mounting is mostly waiting for the share.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use lodge_model::environment::order::Assignment;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use super::Real;
use super::config::{self, Node};
use super::layout::{BESIDE, BUNDLE, Layout, ROOT, private_dir};

/// systemd's default of the greatest number of open files of a process.
const OPEN_FILES: u64 = 524_288;

impl Real {
    /// Begin to make it.
    pub(super) fn begin_bundle(&self, order: &Assignment) {
        let (layout, order) = (self.layout.clone(), order.clone());
        self.bundles.begin(order.id, move || make(&layout, &order).map(|console| (order, console)));
    }

    /// It is made, as it was begun or now. The socket of its console.
    pub(super) fn need_bundle(&self, order: &Assignment) -> Result<PathBuf> {
        match self.bundles.end(order.id) {
            Some(Ok((begun, console))) if begun == *order => Ok(console),
            _ => make(&self.layout, order),
        }
    }
}

fn make(layout: &Layout, order: &Assignment) -> Result<PathBuf> {
    let bundle = layout.on_node(order.id).join(BUNDLE);
    private_dir(&bundle)?;
    let root = layout.on_node(order.id).join(ROOT);
    let path = bundle.join("config.json");
    let text = serde_json::to_vec_pretty(&config::config(order, &node(layout, order, &root)))?;
    fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
    (layout.console)(order.id)
}

fn node<'a>(layout: &'a Layout, order: &Assignment, root: &'a Path) -> Node<'a> {
    // Only the names: asked for a file itself, lxcfs makes up all of it to tell its size.
    let shown: BTreeSet<_> =
        fs::read_dir(layout.lxcfs.join("proc")).into_iter().flatten().flatten().map(|entry| entry.file_name()).collect();
    let lxcfs_files: Vec<_> = config::LXCFS.into_iter().filter(|file| shown.contains(OsStr::new(file))).collect();
    if lxcfs_files.is_empty() {
        tracing::warn!("lxcfs is not there: environments will see the memory and processors of the whole node");
    }
    let devices = config::DEVICES.into_iter().filter(|(path, ..)| fs::exists(path).unwrap_or(false)).collect();
    let beside = order.beside.as_ref().map(|beside| (beside.place(), layout.on_node(order.id).join(BESIDE)));
    Node { root, beside, lxcfs: &layout.lxcfs, lxcfs_files, devices, open_files: open_files() }
}

/// What an environment may raise its limit of open files to: as much as systemd gives, where this machine can. Nobody can give more than
/// it has, so this process's own greatest limit is raised to it.
fn open_files() -> u64 {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap_or((1024, 4096));
    if hard >= OPEN_FILES || setrlimit(Resource::RLIMIT_NOFILE, soft, OPEN_FILES).is_ok() { OPEN_FILES } else { hard }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::atomic::{AtomicU32, Ordering};

    use lodge_model::environment::order::Want;
    use lodge_model::ids::NodeId;
    use uuid::Uuid;

    use super::*;
    use crate::environment::stage;

    /// Bundles that were made.
    static MADE: AtomicU32 = AtomicU32::new(0);

    #[test]
    fn one_that_was_begun_is_not_made_again_but_for_another_order() {
        let dir = tempfile::tempdir().unwrap();
        let console = |id| {
            MADE.fetch_add(1, Ordering::Relaxed);
            Ok(format!("/{id}.sock").into())
        };
        let layout = Layout { run: dir.path().into(), console, ..Layout::of_node(dir.path().join("share")) };
        let node = Real::with(layout, NodeId(Uuid::from_u128(1)), stage::BOOT);
        let order = stage::order(Want::Running, 1);
        let renamed = Assignment { name: "web2".into(), ..order.clone() };
        let config = dir.path().join(order.id.to_string()).join(BUNDLE).join("config.json");
        for (begun, needed, made) in [(Some(&order), &order, 1), (Some(&order), &renamed, 2), (None, &order, 1)] {
            MADE.store(0, Ordering::Relaxed);
            begun.into_iter().for_each(|order| node.begin_bundle(order));
            assert_eq!(node.need_bundle(needed).unwrap(), PathBuf::from(format!("/{}.sock", order.id)));
            assert_eq!(MADE.load(Ordering::Relaxed), made);
            assert!(fs::read_to_string(&config).unwrap().contains(&format!("\"hostname\": \"{}\"", needed.name)));
        }
        assert!(node.bundles.end(order.id).is_none());
    }
}
