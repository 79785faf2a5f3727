//! What is. Reads only local kernel tables and files of `/var`, never the share itself: a look must not hang.

use std::fs;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Result;
use lodge_model::node::Role;
use lodge_model::paths;
use lodge_sys::{mount, nfs};

use super::World;
use super::plan::{Mounted, Observed, Server};
use crate::fence::{self, plan as fence_plan};
use crate::moments::since_boot;

const THREADS: &str = "/proc/fs/nfsd/threads";

impl World {
    /// Look at everything.
    pub(super) fn observe(&self) -> Result<Observed> {
        let serves = self.file.roles.contains(&Role::Share);
        Ok(Observed {
            now: since_boot(),
            roles: self.file.roles.clone(),
            probe_dir: self.probe_dir.clone(),
            mounted: mounted(&mount::mounts()?),
            server: if serves { Some(self.server()?) } else { None },
            busy: self.helper.busy(),
            mount_failure: self.mount_failure.clone(),
            probe: self.probe.clone(),
            failures: self.failures.clone(),
            carried_out: self.carried_out,
            left: self.left.clone(),
            restart_asked: self.restart_asked,
            blessed: self.blessed,
        })
    }

    fn server(&self) -> Result<Server> {
        let threads = fs::read_to_string(THREADS).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0);
        let living = self.marks.as_ref().map(|marks| marks.living(since_boot())).unwrap_or_default();
        let (fence, fenced_at) = (fence_plan::Facts { living, ..fence::look()? }, self.fenced_at.clone());
        Ok(Server { threads, fence, fenced_at, wall: seconds_since_1970() })
    }
}

fn seconds_since_1970() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

/// What is on top at the share's mount point.
fn mounted(mounts: &[mount::MountPoint]) -> Mounted {
    let Some(top) = mounts.iter().rev().find(|mount| mount.target == Path::new(paths::SHARE)) else { return Mounted::No };
    match top.fstype.as_str() {
        "nfs4" | "nfs" => nfs::server(&top.source).map_or_else(|| Mounted::Foreign(top.source.clone()), Mounted::From),
        "ext4" => Mounted::Own,
        other => Mounted::Foreign(format!("{} ({other})", top.source)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lodge_sys::mount::MountPoint;

    #[test]
    fn the_share_is_recognised_in_the_mount_table() {
        let point = |target: &str, fstype: &str, source: &str| MountPoint {
            target: target.into(),
            fstype: fstype.into(),
            source: source.into(),
        };
        let root = point("/", "overlay", "overlay");
        assert_eq!(mounted(std::slice::from_ref(&root)), Mounted::No);
        let share = point("/share", "nfs4", "10.77.0.10:/");
        assert_eq!(mounted(&[root.clone(), share]), Mounted::From("10.77.0.10".parse().unwrap()));
        assert_eq!(mounted(&[point("/share", "ext4", "/dev/vda7")]), Mounted::Own);
        assert!(matches!(mounted(&[root, point("/share", "tmpfs", "tmpfs")]), Mounted::Foreign(_)));
    }
}
