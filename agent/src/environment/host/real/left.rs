//! What is left of environments on this node, counted for its certificate: from the kernel's own tables, whoever it belongs to.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use lodge_model::drain::Counts;
use lodge_sys::cgroup::Cgroup;
use lodge_sys::loopdev;
use lodge_sys::mount::mounts;

use super::Real;
use super::disk::environment_of;

impl Real {
    pub(super) fn count_left(&self) -> Result<Counts> {
        let number = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        let mounted = mounts()?.iter().filter(|mount| mount.target.starts_with(&self.layout.run)).count();
        let loops = loopdev::list()?.iter().filter(|device| environment_of(&device.backing).is_some()).count();
        Ok(Counts {
            processes: number(Cgroup::at(&self.layout.cgroups).count()?),
            mounts: number(mounted),
            loop_devices: number(loops),
            open_files: number(open_below(Path::new("/proc"), &self.layout.share, &self.layout.share.join("nodes"))?),
        })
    }
}

/// Open files, working directories and roots of all processes below a directory, but for those below `own`: the proof of the share.
fn open_below(proc: &Path, share: &Path, own: &Path) -> Result<usize> {
    let mut count = 0;
    for entry in fs::read_dir(proc).with_context(|| format!("listing {}", proc.display()))?.flatten() {
        let is_process = entry.file_name().to_str().is_some_and(|name| name.bytes().all(|byte| byte.is_ascii_digit()));
        if !is_process {
            continue;
        }
        // A process that ends meanwhile has nothing open any more.
        let files = fs::read_dir(entry.path().join("fd")).into_iter().flatten().flatten().map(|file| file.path());
        let places = ["cwd", "root"].map(|name| entry.path().join(name));
        let targets = files.chain(places).filter_map(|link| fs::read_link(link).ok());
        count += targets.filter(|target| target.starts_with(share) && !target.starts_with(own)).count();
    }
    Ok(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_files_and_working_directories_count_until_they_are_closed() {
        let share = tempfile::tempdir().unwrap();
        let own = share.path().join("nodes");
        fs::create_dir(&own).unwrap();
        let count = || open_below(Path::new("/proc"), share.path(), &own).unwrap();
        assert_eq!(count(), 0);
        let probe = fs::File::create(own.join("probe")).unwrap();
        assert_eq!(count(), 0, "the proof of the share is no environment's");
        let disk = fs::File::create(share.path().join("disk.img")).unwrap();
        let mut stays =
            std::process::Command::new("cat").stdin(std::process::Stdio::piped()).current_dir(share.path()).spawn().unwrap();
        assert_eq!(count(), 2);
        drop((disk, probe, stays.stdin.take()));
        stays.wait().unwrap();
        assert_eq!(count(), 0);
    }
}
