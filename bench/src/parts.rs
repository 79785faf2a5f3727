//! How far an environment was when, by the times of the files that the agent keeps of it below `/run`: only to tell where time goes.

use std::{
    fs,
    path::{Path, PathBuf},
    time::SystemTime,
};

use anyhow::{Context as _, Result};
use serde_json::{Map, Value};

/// Where the agent keeps a directory for each.
const DIR: &str = "/run/lodge/environments";
/// What is there when a step is done: the disk is held, made, the root is mounted and files are written into it, the container is made,
/// and started.
const PARTS: [(&str, &str); 5] = [
    ("held", "order.json"),
    ("disk", "checked.json"),
    ("files", "bundle/config.json"),
    ("created", "init.json"),
    ("started", "started.json"),
];

/// Seconds from a moment until the steps of whichever environment was started last, and until now.
pub fn since(begin: SystemTime) -> Result<Value> {
    let seconds = |at: SystemTime| at.duration_since(begin).map_or(0.0, |time| time.as_secs_f64());
    let mut said = Map::new();
    if let Some(dir) = newest(Path::new(DIR))? {
        for (name, file) in PARTS {
            // Looked at too early, or another version of the agent: then this part is not known.
            if let Ok(at) = fs::metadata(dir.join(file)).and_then(|found| found.modified()) {
                said.insert(name.into(), seconds(at).into());
            }
        }
    }
    said.insert("sshd".into(), seconds(SystemTime::now()).into());
    Ok(said.into())
}

fn newest(dir: &Path) -> Result<Option<PathBuf>> {
    let entries = fs::read_dir(dir).with_context(|| format!("listing {}", dir.display()))?;
    let started = |dir: PathBuf| Some((fs::metadata(dir.join("init.json")).ok()?.modified().ok()?, dir));
    Ok(entries.flatten().filter_map(|entry| started(entry.path())).max().map(|(_, dir)| dir))
}
