//! Settings of an environment's network namespace that a live move has to carry: criu carries those of links alone.
//!
//! They are the files of `/proc/sys/net` that a namespace of its own has, named by their path below it (`ipv4/tcp_keepalive_time`), with
//! their text, in which ids are those of the node.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

use crate::{inside::within, veth::namespace};

/// Who may ping.
pub const PING_GROUPS: &str = "ipv4/ping_group_range";
/// Nobody: the kernel's default.
pub const NO_PING_GROUPS: &str = "1 0";
/// Whether new connections may have windows of more than 64 KiB.
pub const WINDOW_SCALING: &str = "ipv4/tcp_window_scaling";

const TOP: &str = "/proc/sys/net";
/// What is below these belongs to links and tables, and is not looked into.
const DIRECTORIES: [&str; 3] = ["core", "ipv4", "ipv6"];

/// All of them. `pid` is any process in the namespace.
pub fn settings(pid: u32) -> Result<BTreeMap<String, String>> {
    within(&namespace(pid)?, || Ok(DIRECTORIES.iter().flat_map(|dir| read_all(dir)).collect()))
        .context("reading the settings of a network namespace")
}

/// Set those that are different now. Whatever cannot be set here, as on another kernel, is named.
pub fn set_settings(pid: u32, wanted: &BTreeMap<String, String>) -> Result<Vec<String>> {
    within(&namespace(pid)?, || {
        let differs = |(name, value): &(&String, &String)| read(&path(name)).as_deref() != Some(value.as_str());
        let refused = wanted.iter().filter(differs).filter(|(name, value)| fs::write(path(name), value).is_err());
        Ok(refused.map(|(name, _)| name.clone()).collect())
    })
    .context("setting what a network namespace had elsewhere")
}

/// Set one.
pub fn set_setting(pid: u32, name: &str, value: &str) -> Result<()> {
    within(&namespace(pid)?, || Ok(fs::write(path(name), value)?))
        .with_context(|| format!("setting {name} of a network namespace to {value}"))
}

fn read_all(dir: &str) -> Vec<(String, String)> {
    let entries = fs::read_dir(Path::new(TOP).join(dir)).into_iter().flatten().flatten();
    let file = |entry: fs::DirEntry| Some((format!("{dir}/{}", entry.file_name().to_str()?), read(&entry.path())?));
    entries.filter_map(file).collect()
}

/// Some can only be written.
fn read(path: &Path) -> Option<String> {
    fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

fn path(name: &str) -> PathBuf {
    Path::new(TOP).join(name)
}

#[cfg(test)]
mod tests;
