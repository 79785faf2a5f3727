//! The control groups that an environment has made below its own: written down before it is moved, made again before its processes come.
//! criu itself makes only those with processes, and lets nobody share resources in them.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

/// Files whose values are kept. Those of the environment's own group are its limits, which the node sets.
const KEPT: [&str; 14] = [
    "cgroup.type",
    "memory.max",
    "memory.high",
    "memory.low",
    "memory.min",
    "memory.swap.max",
    "memory.oom.group",
    "pids.max",
    "cpu.max",
    "cpu.weight",
    "io.weight",
    "cpuset.cpus",
    "cpuset.mems",
    "cgroup.max.descendants",
];
/// Attributes that an environment may set; systemd keeps its own there.
const ATTRIBUTES: &str = "user.";

/// A control group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Group {
    /// Below the environment's own; empty for that itself.
    path: PathBuf,
    /// User and group it belongs to.
    owner: (u32, u32),
    /// Permissions.
    mode: u32,
    /// Files in it that do not belong to root, with their owners.
    owned: Vec<(String, (u32, u32))>,
    /// Resources that groups below it share.
    shares: Vec<String>,
    /// Values of files of `KEPT`.
    values: Vec<(String, String)>,
    /// Extended attributes.
    attributes: Vec<(String, Vec<u8>)>,
}

/// All of them, each after the one that it is in.
pub fn look(root: &Path) -> Result<Vec<Group>> {
    let mut groups = Vec::new();
    let mut left = vec![PathBuf::new()];
    while let Some(path) = left.pop() {
        let (group, below) = look_at(root, &path).with_context(|| format!("reading {}", root.join(&path).display()))?;
        groups.push(group);
        left.extend(below);
    }
    Ok(groups)
}

fn look_at(root: &Path, path: &Path) -> Result<(Group, Vec<PathBuf>)> {
    let dir = root.join(path);
    let found = fs::metadata(&dir)?;
    let read = |name: &str| fs::read_to_string(dir.join(name)).ok().map(|text| text.trim().to_owned());
    let (mut owned, mut below) = (Vec::new(), Vec::new());
    for entry in fs::read_dir(&dir)? {
        let entry = entry?;
        let (found, name) = (entry.metadata()?, entry.file_name().to_string_lossy().into_owned());
        match found.is_dir() {
            true => below.push(path.join(name)),
            false if (found.uid(), found.gid()) != (0, 0) => owned.push((name, (found.uid(), found.gid()))),
            false => {}
        }
    }
    let values = match path.as_os_str().is_empty() {
        true => Vec::new(),
        false => KEPT.into_iter().filter_map(|name| Some((name.to_owned(), read(name)?))).collect(),
    };
    let shares = read("cgroup.subtree_control").unwrap_or_default().split_whitespace().map(str::to_owned).collect();
    let owner = (found.uid(), found.gid());
    let mode = found.permissions().mode() & 0o7777;
    Ok((Group { path: path.to_owned(), owner, mode, owned, shares, values, attributes: attributes(&dir)? }, below))
}

fn attributes(dir: &Path) -> Result<Vec<(String, Vec<u8>)>> {
    let mut names = vec![0; 64 << 10];
    let length = rustix::fs::listxattr(dir, &mut names).context("listing attributes")?;
    let names = names.get(..length).unwrap_or_default().split(|byte| *byte == 0);
    let names = names.filter_map(|name| std::str::from_utf8(name).ok()).filter(|name| name.starts_with(ATTRIBUTES));
    names
        .map(|name| {
            let mut value = vec![0; 64 << 10];
            let length = rustix::fs::getxattr(dir, name, &mut value).with_context(|| format!("reading {name}"))?;
            value.truncate(length);
            Ok((name.to_owned(), value))
        })
        .collect()
}

/// Make them again. A value that is the kernel's own already is not written: some cannot be.
pub fn restore(root: &Path, groups: &[Group]) -> Result<()> {
    for group in groups {
        let dir = root.join(&group.path);
        restore_one(&dir, group).with_context(|| format!("making {}", dir.display()))?;
    }
    Ok(())
}

fn restore_one(dir: &Path, group: &Group) -> Result<()> {
    fs::create_dir_all(dir)?;
    for (name, value) in &group.values {
        let path = dir.join(name);
        if fs::read_to_string(&path).is_ok_and(|now| now.trim() != value) {
            fs::write(&path, value).with_context(|| format!("writing {value} to {name}"))?;
        }
    }
    for shared in &group.shares {
        let path = dir.join("cgroup.subtree_control");
        fs::write(&path, format!("+{shared}")).with_context(|| format!("sharing {shared}"))?;
    }
    fs::set_permissions(dir, fs::Permissions::from_mode(group.mode))?;
    let own = |path: &Path, (user, group)| chown(path, Some(user), Some(group));
    own(dir, group.owner)?;
    for (name, owner) in &group.owned {
        own(&dir.join(name), *owner).with_context(|| format!("giving {name} away"))?;
    }
    for (name, value) in &group.attributes {
        let flags = rustix::fs::XattrFlags::empty();
        rustix::fs::setxattr(dir, name.as_str(), value, flags).with_context(|| format!("setting {name}"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// On plain files, which take what control groups take.
    #[test]
    fn groups_are_made_again_as_they_were() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        for (group, file, value) in [
            ("", "cgroup.subtree_control", "memory pids"),
            ("", "memory.max", "1000"),
            ("system.slice/ssh.service", "memory.max", "max"),
            ("system.slice/ssh.service", "pids.max", "77"),
        ] {
            fs::create_dir_all(from.join(group)).unwrap();
            fs::write(from.join(group).join(file), value).unwrap();
        }
        fs::create_dir_all(to.join("system.slice/ssh.service")).unwrap();
        fs::write(to.join("system.slice/ssh.service/pids.max"), "max").unwrap();
        let groups = look(&from).unwrap();
        assert_eq!(groups.len(), 3);
        let groups: Vec<Group> = serde_json::from_slice(&serde_json::to_vec(&groups).unwrap()).unwrap();
        restore(&to, &groups).unwrap();
        assert_eq!(fs::read_to_string(to.join("system.slice/ssh.service/pids.max")).unwrap(), "77");
        assert!(!to.join("memory.max").exists(), "its limits are the node's affair");
        assert_eq!(fs::read_to_string(to.join("cgroup.subtree_control")).unwrap(), "+pids", "one after the other");
    }
}
