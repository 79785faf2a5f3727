//! The verified root: dm-verity over the slot, the hand-over file, and the switch into it.

use std::{convert::Infallible, fs, os::unix::fs::MetadataExt as _, path::Path, process::Command, time::Duration};

use anyhow::{Context as _, Result, bail};
use lodge_model::{layout::Slot, node::BootFile, paths};
use lodge_sys::{
    dm::{Superblock, Verity},
    mount::{self, Mount, MsFlags},
    process,
};

use super::mode::Device;
use crate::{
    STAGE, STAGE_SYSTEM, log,
    step::{Failure, required},
    watchdog,
};

const ROOT: &str = "/sysroot";
/// What the next stage gets as it is.
const MOVED: [&str; 4] = ["/dev", "/proc", "/sys", "/run"];
/// The next stage.
const INIT: &str = "/sbin/init";

/// The slot to start.
#[derive(Debug)]
pub struct Found {
    /// Which.
    pub slot: Slot,
    /// Its data.
    pub root: Device,
    /// Its hash tree.
    pub verity: Device,
    /// Its trusted hash.
    pub roothash: String,
    /// Its bytes, where they are known.
    pub rootsize: Option<u64>,
    /// Its version.
    pub version: String,
}

/// Mount the root, switch to it, and execute its init.
pub fn switch(found: &Found, init_at: Duration) -> Result<Infallible, Failure> {
    let broken = "the base OS in this slot is damaged or incomplete: choose another version in the boot menu, or reinstall";
    let device = required("verifying the root file system", broken, || verify(found))?;
    required("mounting the root file system", broken, || {
        Mount { source: &device, target: ROOT, fstype: "erofs", flags: MsFlags::MS_RDONLY, data: "" }.mount()
    })?;
    let fault = "this is a fault of the base OS: choose another version in the boot menu";
    required("writing the hand-over file", fault, || write_boot_file(found, init_at))?;
    required("switching to the root file system", fault, enter)?;
    required("executing the next stage", fault, || {
        let mut command = Command::new(INIT);
        command.env_clear().env(STAGE, STAGE_SYSTEM);
        watchdog::hand_over(&mut command);
        Err(process::exec(&mut command))
    })
}

fn verify(found: &Found) -> Result<String> {
    let superblock = Superblock::read(Path::new("/dev").join(&found.verity.name).as_path())?;
    let size = superblock.data_blocks.saturating_mul(4096);
    if found.rootsize.is_some_and(|expected| expected != size) {
        bail!("the hash tree covers {size} bytes, the boot file says {} bytes", found.rootsize.unwrap_or_default());
    }
    let verity =
        Verity { name: "root", data: &found.root.device_number, hash: &found.verity.device_number, roothash: &found.roothash };
    Ok(verity.create(&superblock)?.display().to_string())
}

fn write_boot_file(found: &Found, init_at: Duration) -> Result<()> {
    let file = BootFile {
        version: found.version.clone(),
        slot: found.slot,
        disk: found.root.disk.clone(),
        init_at: init_at.as_secs_f64(),
        switch_root_at: log::uptime().as_secs_f64(),
    };
    let text = serde_json::to_vec(&file).context("writing the hand-over file as JSON")?;
    fs::write(paths::BOOT_FILE, text).with_context(|| format!("writing {}", paths::BOOT_FILE))
}

/// Make the new root the root, and give the old one's memory back.
fn enter() -> Result<()> {
    for dir in MOVED {
        mount::move_mount(Path::new(dir), &Path::new(ROOT).join(dir.trim_start_matches('/')))?;
    }
    std::env::set_current_dir(ROOT).with_context(|| format!("changing to {ROOT}"))?;
    let device = fs::metadata("/").context("looking at /")?.dev();
    remove_below(Path::new("/"), device);
    mount::move_mount(Path::new("."), Path::new("/"))?;
    nix::unistd::chroot(".").context("making it the root")?;
    std::env::set_current_dir("/").context("changing to /")
}

/// Remove everything on this file system; other mounts stay. What cannot be removed only costs memory.
fn remove_below(dir: &Path, device: u64) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        match fs::symlink_metadata(&path) {
            Ok(metadata) if metadata.dev() != device => {}
            Ok(metadata) if metadata.is_dir() => {
                remove_below(&path, device);
                let _ = fs::remove_dir(&path);
            }
            Ok(_) => drop(fs::remove_file(&path)),
            Err(_) => {}
        }
    }
}
