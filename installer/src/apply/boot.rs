//! The EFI system partition and the firmware's boot entry. FAT has no journal: every file goes to the disk under another name first.

use std::{
    fs::{self, File},
    io,
    path::Path,
    time::Duration,
};

use anyhow::{Context as _, Result};
use lodge_model::{
    layout::{self, uki_name},
    paths::ESP_ANSWER,
};
use lodge_sys::{efivar, mount::MsFlags, program::Program};

use super::{Apply, Progress, slot::sync_dir};
use crate::{
    boot_option::{self, LOADER},
    installed,
    mounted::Mounted,
};

/// Tries of a new version before the firmware's loader takes another one (systemd-boot's boot counting).
const TRIES: u8 = 3;
const LOADER_CONFIG: &str = "timeout 0\neditor no\n";
const FORMAT: Duration = Duration::from_secs(120);

impl Apply<'_> {
    pub(super) fn request(&mut self) -> Result<()> {
        let esp = self.mount_esp()?;
        let path = esp.dir().join(ESP_ANSWER);
        if !path.exists() {
            let text = toml::to_string(&self.answer).context("writing the answer down")?;
            replace(&path, &mut text.as_bytes())?;
        }
        esp.unmount()
    }

    pub(super) fn boot_entry(&mut self, progress: &mut Progress) -> Result<()> {
        let esp = self.esp()?;
        let staged = self.staged_uki(progress)?;
        replace(&esp.dir().join("loader/loader.conf"), &mut LOADER_CONFIG.as_bytes())?;
        let loader = &self.host.boot_loader;
        let mut bytes = File::open(loader).with_context(|| format!("opening the boot loader {}", loader.display()))?;
        replace(&esp.dir().join(LOADER), &mut bytes)?;
        let name = uki_name(&self.plan.version, Some(TRIES));
        let uki = esp.dir().join("EFI/Linux").join(&name);
        let mut bytes = File::open(&staged).with_context(|| format!("opening {}", staged.display()))?;
        // State is in order before the disk can start.
        fs::remove_file(&staged).with_context(|| format!("removing {}", staged.display()))?;
        if let Some(state) = progress.state.take() {
            copy_aside(&uki, &mut bytes)?;
            drop(bytes);
            state.unmount()?;
        }
        put_into_place(&uki)?;
        remove_others(esp.dir(), &name)?;
        esp.unmount()?;
        self.mark_finished()?;
        self.firmware_entry();
        Ok(())
    }

    pub(super) fn clear_request(&mut self) -> Result<()> {
        let esp = self.mount_esp()?;
        let path = esp.dir().join(ESP_ANSWER);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("removing {}", path.display()));
            }
            _ => {}
        }
        esp.unmount()
    }

    /// The ESP as it is where it can start already, else a new one.
    fn esp(&mut self) -> Result<Mounted> {
        if self.plan.steps.contains(&crate::plan::Step::Request) {
            match self.mount_esp() {
                Ok(esp) => return Ok(esp),
                Err(error) => self.report.note(&format!("the EFI system partition is damaged and made anew: {error:#}")),
            }
        }
        let node = self.node(layout::ESP)?;
        let text = node.to_string_lossy();
        let call = match self.host.esp_fstype {
            "vfat" => Program::MkfsVfat.call(["-F", "32", "-n", "ESP", &text]),
            _ => Program::MkfsExt4.call(["-q", "-F", &text]),
        };
        call.deadline(FORMAT).run()?;
        self.mount_esp()
    }

    pub(super) fn mount_esp(&self) -> Result<Mounted> {
        let node = self.node(layout::ESP)?;
        // DIRSYNC: without it FAT may write a rename before the length of what was renamed, and a power cut leaves an empty file.
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC | MsFlags::MS_DIRSYNC;
        if self.host.esp_fstype == "vfat" {
            // A power cut leaves FAT marked dirty, and maybe with lost clusters; 1 means repaired.
            Program::FsckFat.call(["-a", &node.to_string_lossy()]).accept(&[0, 1]).deadline(FORMAT).run()?;
        }
        Mounted::mount(&node, "esp", self.host.esp_fstype, flags, "")
    }

    /// The disk first in the firmware's order. Firmware that refuses still finds `EFI/BOOT/BOOTX64.EFI` by itself.
    fn firmware_entry(&mut self) {
        if !self.host.firmware || !efivar::is_uefi() {
            return;
        }
        if let Err(error) = boot_option::put_first(&self.path(), self.plan.disk.block_size) {
            self.report.note(&format!("the firmware takes no boot entry, it will find the disk by itself: {error:#}"));
        }
    }
}

fn remove_others(esp: &Path, keep: &str) -> Result<()> {
    let dir = esp.join("EFI/Linux");
    for name in installed::ukis(esp)?.iter().filter(|name| *name != keep) {
        fs::remove_file(dir.join(name)).with_context(|| format!("removing {name}"))?;
    }
    sync_dir(&dir)
}

/// Write a file whole or not at all.
fn replace(path: &Path, content: &mut dyn io::Read) -> Result<()> {
    copy_aside(path, content)?;
    put_into_place(path)
}

fn copy_aside(path: &Path, content: &mut dyn io::Read) -> Result<()> {
    let dir = path.parent().context("naming a directory")?;
    fs::create_dir_all(dir).with_context(|| format!("making {}", dir.display()))?;
    let new = path.with_extension("new");
    let mut file = File::create(&new).with_context(|| format!("making {}", new.display()))?;
    io::copy(content, &mut file).and_then(|_| file.sync_all()).with_context(|| format!("writing {}", new.display()))
}

fn put_into_place(path: &Path) -> Result<()> {
    let new = path.with_extension("new");
    fs::rename(&new, path).with_context(|| format!("putting {} into place", path.display()))?;
    sync_dir(path.parent().context("naming a directory")?)
}
