//! /var on the state partition, with what the services expect to find there.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

use anyhow::{Context as _, Result};
use lodge_model::{node::Role, paths};
use lodge_sys::mount::{self, Mount, MsFlags};

use crate::step::may_degrade;

/// Directories on the state partition: path, mode, role that needs it (none: every node).
const DIRS: [(&str, u32, Option<Role>); 15] = [
    ("log", 0o750, None),
    ("var", 0o755, None),
    ("var/cache", 0o755, None),
    ("var/lib", 0o755, None),
    ("var/lib/dbus", 0o755, None),
    ("var/lib/lxcfs", 0o755, Some(Role::Worker)),
    ("var/lib/nfs", 0o755, None),
    ("var/lib/nfs/sm", 0o755, None),
    ("var/lib/nfs/v4recovery", 0o755, Some(Role::Share)),
    ("var/lib/nfs/nfsdcld", 0o755, Some(Role::Share)),
    ("var/log", 0o755, None),
    ("var/spool", 0o755, None),
    ("var/tmp", 0o1777, None),
    ("share", 0o755, Some(Role::Share)),
    ("center", 0o700, Some(Role::Center)),
];
/// Files that must exist before the NFS server's tools start.
const FILES: [&str; 2] = ["var/lib/nfs/etab", "var/lib/nfs/rmtab"];
/// Links that old programs expect.
const LINKS: [(&str, &str); 2] = [("var/run", "/run"), ("var/lock", "/run/lock")];

/// Mounted before the NFS server's daemons start; mounting them makes the kernel load the server.
const SHARE_SERVER: [Mount<'static>; 2] = [
    Mount { source: "sunrpc", target: "/run/rpc_pipefs", fstype: "rpc_pipefs", flags: MsFlags::empty(), data: "" },
    Mount { source: "nfsd", target: "/proc/fs/nfsd", fstype: "nfsd", flags: MsFlags::empty(), data: "" },
];

/// Make what is missing and show it at /var.
pub fn mount(roles: &[Role]) -> Result<()> {
    fill(Path::new(paths::STATE), roles)?;
    mount::bind(Path::new(paths::VAR), Path::new("/var"))
}

/// The file systems by which the NFS server's daemons talk to the kernel.
pub fn mount_share_server() {
    for row in &SHARE_SERVER {
        may_degrade(&format!("mounting {}", row.target), || row.ensure());
    }
}

fn fill(state: &Path, roles: &[Role]) -> Result<()> {
    for (dir, mode, role) in DIRS {
        let path = state.join(dir);
        if role.is_none_or(|role| roles.contains(&role)) && !path.is_dir() {
            fs::create_dir(&path).with_context(|| format!("making {}", path.display()))?;
            fs::set_permissions(&path, fs::Permissions::from_mode(mode))
                .with_context(|| format!("making {}", path.display()))?;
        }
    }
    for file in FILES {
        let path = state.join(file);
        let mut options = fs::OpenOptions::new();
        options.create(true).append(true).open(&path).with_context(|| format!("making {}", path.display()))?;
    }
    for (link, target) in LINKS {
        let path = state.join(link);
        if fs::symlink_metadata(&path).is_err() {
            std::os::unix::fs::symlink(target, &path).with_context(|| format!("linking {}", path.display()))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_is_made_once_and_what_is_there_stays() {
        let state = tempfile::tempdir().unwrap();
        fill(state.path(), &[Role::Worker]).unwrap();
        assert!(!state.path().join("center").exists());
        fs::write(state.path().join("var/lib/nfs/etab"), "kept").unwrap();
        fill(state.path(), &[Role::Center, Role::Share]).unwrap();
        assert_eq!(fs::read_to_string(state.path().join("var/lib/nfs/etab")).unwrap(), "kept");
        let mode = |dir: &str| fs::metadata(state.path().join(dir)).unwrap().permissions().mode() & 0o7777;
        assert_eq!((mode("center"), mode("var/tmp"), mode("log")), (0o700, 0o1777, 0o750));
        assert_eq!(fs::read_link(state.path().join("var/run")).unwrap(), Path::new("/run"));
    }

    #[test]
    fn parents_come_first() {
        for (at, (dir, ..)) in DIRS.iter().enumerate() {
            if let Some((parent, _)) = dir.rsplit_once('/') {
                assert!(DIRS.iter().take(at).any(|(other, ..)| *other == parent), "{dir}");
            }
        }
    }
}
