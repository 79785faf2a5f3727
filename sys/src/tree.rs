//! Mounts that are made out of sight (fsopen(2), open_tree(2), move_mount(2)): configured as they are to be, their ids mapped, and only
//! then put in their place. What is refused on the way leaves nothing behind.

use std::{
    os::fd::{AsFd as _, OwnedFd},
    path::Path,
};

use anyhow::{Context as _, Result, anyhow};
use rustix::{
    fs::CWD,
    mount::{
        FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, fsconfig_create, fsconfig_set_flag,
        fsconfig_set_string, fsmount, fsopen, move_mount, open_tree,
    },
};

use crate::idmap::IdMap;

/// What may not be done by way of a mount. Device files never work on any of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trust {
    /// Set-id programs work: the root of an environment, whose ids are mapped.
    SetId,
    /// Programs can be executed, and set-id marks mean nothing: a root that is nobody's now.
    Programs,
    /// Nothing of it can be executed, and set-id marks mean nothing: layers.
    Data,
}

/// A mount that has no place yet. Dropped, it is gone.
#[derive(Debug)]
pub struct Tree(OwnedFd);

impl Tree {
    /// Mount a file system: options are `key=value` or a single word. It knows no access times.
    pub fn new(fstype: &str, options: &[(&str, &str)], read_only: bool, trust: Trust) -> Result<Self> {
        let context = fsopen(fstype, FsOpenFlags::FSOPEN_CLOEXEC).with_context(|| format!("preparing to mount {fstype}"))?;
        let configure = || -> rustix::io::Result<OwnedFd> {
            for (key, value) in options {
                if value.is_empty() {
                    fsconfig_set_flag(context.as_fd(), *key)?;
                } else {
                    fsconfig_set_string(context.as_fd(), *key, *value)?;
                }
            }
            if read_only {
                fsconfig_set_flag(context.as_fd(), "ro")?;
            }
            fsconfig_create(context.as_fd())?;
            fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, flags(read_only, trust))
        };
        configure().map(Self).map_err(|error| {
            let said = messages(&context);
            let listed = options.iter().map(|(key, value)| format!(" {key}={value}")).collect::<String>();
            anyhow!(error).context(format!("mounting {fstype}{listed}{}{said}", if said.is_empty() { "" } else { ": " }))
        })
    }

    /// Another mount of what is mounted there, without what is mounted below it.
    pub fn clone_of(path: &Path) -> Result<Self> {
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        open_tree(CWD, path, flags).map(Self).with_context(|| format!("cloning the mount at {}", path.display()))
    }

    /// Let its ids appear through a map.
    pub fn map_ids(self, map: &IdMap) -> Result<Self> {
        map.apply(&self.0)?;
        Ok(self)
    }

    /// Put it in its place, which must be there.
    pub fn attach(self, target: &Path) -> Result<()> {
        move_mount(self.0.as_fd(), "", CWD, target, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
            .with_context(|| format!("putting a mount at {}", target.display()))
    }
}

fn flags(read_only: bool, trust: Trust) -> MountAttrFlags {
    let mut flags = MountAttrFlags::MOUNT_ATTR_NODEV | MountAttrFlags::MOUNT_ATTR_NOATIME;
    flags.set(MountAttrFlags::MOUNT_ATTR_RDONLY, read_only);
    flags.set(MountAttrFlags::MOUNT_ATTR_NOSUID, trust != Trust::SetId);
    flags.set(MountAttrFlags::MOUNT_ATTR_NOEXEC, trust == Trust::Data);
    flags
}

/// What the kernel has to say of a mount that it refused: one message a read, `e overlay: …`.
fn messages(context: &OwnedFd) -> String {
    let mut said = Vec::new();
    let mut buffer = [0; 1024];
    while let Ok(length @ 1..) = rustix::io::read(context, &mut buffer) {
        let message = String::from_utf8_lossy(buffer.get(..length).unwrap_or_default()).into_owned();
        said.push(message.trim().trim_start_matches(['e', 'w', 'i']).trim().to_owned());
    }
    said.join("; ")
}

#[cfg(test)]
mod tests;
