//! The EFI system partition: mounted only while something is changed there.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, anyhow};
use lodge_model::answer::{Answer, CenterAnswer, NetworkAnswer};
use lodge_model::node::BootFile;
use lodge_model::{layout, paths};
use lodge_sys::mount::{self, Mount, MsFlags};

use crate::durable;

/// Leave an answer, so that the next boot from this disk starts the installer. A fixed set-up of the uplink goes with it: without
/// it the installer would not reach the center.
pub fn leave_answer(boot: &BootFile, center: &CenterAnswer, network: Option<&NetworkAnswer>) -> Result<()> {
    let answer = Answer { center: Some(center.clone()), network: network.cloned(), ..Answer::default() };
    let text = toml::to_string(&answer).context("encoding the answer")?;
    on_esp(boot, |esp| durable::write(&esp.join(paths::ESP_ANSWER), text.as_bytes(), 0o600))
}

/// Take the tries off the running version's boot entry, so that it is good for ever; whether there was something to take off.
pub fn bless(boot: &BootFile) -> Result<bool> {
    on_esp(boot, |esp| {
        let dir = esp.join("EFI/Linux");
        let names = list(&dir)?;
        let Some(counted) = counted_entry(&names, &boot.version) else { return Ok(false) };
        let good = layout::uki_name(&boot.version, None);
        fs::rename(dir.join(counted), dir.join(&good)).with_context(|| format!("renaming {counted} to {good}"))?;
        File::open(&dir).and_then(|dir| dir.sync_all()).with_context(|| format!("syncing {}", dir.display()))?;
        Ok(true)
    })
}

/// Mount the ESP of the disk that was booted, work, unmount. A mount left by an agent that died is taken over.
fn on_esp<T>(boot: &BootFile, work: impl FnOnce(&Path) -> Result<T>) -> Result<T> {
    let device = device(Path::new("/sys/class/block"), &boot.disk)?;
    // On FAT a renamed file has no contents until its inode is written as well: without dirsync (linux, fs/fat/namei_vfat.c,
    // `vfat_sync_ipos`) a power cut after the directory's fsync leaves an empty boot file.
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC | MsFlags::MS_DIRSYNC;
    let source = device.to_str().ok_or_else(|| anyhow!("{} is not a device name", device.display()))?;
    Mount { source, target: paths::ESP, fstype: "vfat", flags, data: "umask=0077" }.ensure()?;
    let esp = Path::new(paths::ESP);
    let done = work(esp);
    // Unmounting writes everything out; a failure to do so is a failure of the work.
    mount::unmount(esp).and(done)
}

/// The partition of that disk whose GPT name is `layout::ESP`.
fn device(sysfs: &Path, disk: &str) -> Result<PathBuf> {
    let dir = sysfs.join(disk);
    for entry in fs::read_dir(&dir).with_context(|| format!("reading {}", dir.display()))? {
        let uevent = entry?.path().join("uevent");
        let Ok(text) = fs::read_to_string(&uevent) else { continue };
        let value = |key: &str| text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        if value("PARTNAME") == Some(layout::ESP)
            && let Some(name) = value("DEVNAME")
        {
            return Ok(Path::new("/dev").join(name));
        }
    }
    Err(anyhow!("disk {disk} has no partition named {:?}", layout::ESP))
}

fn list(dir: &Path) -> Result<Vec<String>> {
    let entries = fs::read_dir(dir).with_context(|| format!("reading {}", dir.display()))?;
    let names = entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
    names.collect::<std::io::Result<_>>().with_context(|| format!("reading {}", dir.display()))
}

/// `lodge_VERSION+TRIES.efi` or `lodge_VERSION+TRIES-FAILED.efi` (Boot Loader Specification, "boot counting").
fn counted_entry<'a>(names: &'a [String], version: &str) -> Option<&'a String> {
    let stem = format!("lodge_{version}+");
    let is_count = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    names.iter().find(|name| {
        let count = name.strip_prefix(&stem).and_then(|rest| rest.strip_suffix(".efi"));
        count.is_some_and(|count| match count.split_once('-') {
            Some((left, failed)) => is_count(left) && is_count(failed),
            None => is_count(count),
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_counted_entry_of_the_running_version_is_found() {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        for counted in ["lodge_1.2+3.efi", "lodge_1.2+0-3.efi", "lodge_1.2+2-1.efi"] {
            let names = names(&["lodge_1.1+3.efi", "other.efi", counted]);
            assert_eq!(counted_entry(&names, "1.2").map(String::as_str), Some(counted));
        }
        let none = names(&["lodge_1.2.efi", "lodge_1.2+.efi", "lodge_1.2+x.efi", "lodge_1.2+3-.efi", "lodge_1.20+3.efi"]);
        assert_eq!(counted_entry(&none, "1.2"), None);
    }

    #[test]
    fn the_esp_is_found_by_its_gpt_name_on_the_booted_disk() {
        let dir = tempfile::tempdir().unwrap();
        for (part, name) in [("vda1", "esp"), ("vda2", "root-a")] {
            let part_dir = dir.path().join("vda").join(part);
            fs::create_dir_all(&part_dir).unwrap();
            fs::write(part_dir.join("uevent"), format!("MAJOR=254\nDEVNAME={part}\nDEVTYPE=partition\nPARTNAME={name}\n"))
                .unwrap();
        }
        assert_eq!(device(dir.path(), "vda").unwrap(), Path::new("/dev/vda1"));
        assert!(format!("{:#}", device(dir.path(), "sdz").unwrap_err()).contains("sdz"));
    }
}
