//! What an earlier installation left on a disk: looked at, never changed.
//!
//! An installation that was begun and cut short is not something to be kept: its disk counts as blank, so that the machine goes on
//! by itself after a power cut. It is known by two things together: the mark in the partition table (set with the first write,
//! cleared after the last) and no UKI on the EFI system partition.

use std::{
    fs::{self, File},
    path::Path,
};

use anyhow::{Context as _, Result};
use lodge_model::{
    facts::{Disk, Facts, Signature},
    layout,
    paths::ESP_ANSWER,
};
use lodge_sys::{
    gpt::{self, Entry},
    mount::MsFlags,
    partitions,
};

use crate::mounted::Mounted;

/// What is on a disk.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Its partitions, if the table is Lodge's.
    pub entries: Option<Vec<Entry>>,
    /// A UKI of ours is on its EFI system partition: the machine can start from it.
    pub bootable: bool,
}

/// Look at a disk.
pub fn look(disk: &Disk) -> Result<Found> {
    let Some(entries) = lodge_table(disk)? else { return Ok(Found::default()) };
    let bootable = match esp(disk) {
        Ok(Some(esp)) => has_uki(esp.dir()).unwrap_or(true),
        Ok(None) => false,
        // What cannot be looked at is not ours to give up.
        Err(_) => true,
    };
    Ok(Found { entries: Some(entries), bootable })
}

/// Let disks with an installation that was cut short count as blank. Their names are returned.
pub fn forgive_unfinished(facts: &mut Facts) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for disk in facts.disks.iter_mut().filter(|disk| !disk.signatures.is_empty() && !disk.removable) {
        let marked = lodge_table(disk)?.is_some_and(|entries| gpt::is_unfinished(&entries));
        if marked && !look(disk)?.bootable {
            disk.signatures.clear();
            names.push(disk.name.clone());
        }
    }
    Ok(names)
}

/// The EFI system partition of a disk of ours, to look at; `None` where it has none.
pub fn esp(disk: &Disk) -> Result<Option<Mounted>> {
    let node = partitions::node(&disk.name, 1);
    let holds_fat = |signature: &Signature| signature.kind == "vfat" && Path::new("/dev").join(&signature.device) == node;
    if !disk.signatures.iter().any(holds_fat) || lodge_table(disk)?.is_none() {
        return Ok(None);
    }
    Mounted::look(&node, &format!("esp-{}", disk.name), "vfat").map(Some)
}

fn lodge_table(disk: &Disk) -> Result<Option<Vec<Entry>>> {
    if disk.size < layout::min_disk_size() || !disk.signatures.iter().any(|signature| signature.kind == "gpt") {
        return Ok(None);
    }
    let path = Path::new("/dev").join(&disk.name);
    let mut file = File::open(&path).with_context(|| format!("opening {}", path.display()))?;
    let entries = gpt::read(&mut file, disk.block_size).with_context(|| format!("looking at {}", path.display()))?;
    Ok(entries.filter(|entries| gpt::is_lodge(entries, disk.size)))
}

/// Whether a UKI of ours is on an EFI system partition.
pub fn has_uki(esp: &Path) -> Result<bool> {
    Ok(!ukis(esp)?.is_empty())
}

/// File names of our UKIs on an EFI system partition.
pub fn ukis(esp: &Path) -> Result<Vec<String>> {
    let dir = esp.join("EFI/Linux");
    let entries = match fs::read_dir(&dir) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.with_context(|| format!("reading {}", dir.display()))?,
    };
    let names = entries.filter_map(|entry| Some(entry.ok()?.file_name().to_string_lossy().into_owned()));
    Ok(names.filter(|name| name.starts_with("lodge_") && name.ends_with(".efi")).collect())
}

/// Withdraw the request to come back to the installer from a disk of ours; whether the disk may be started. It may not where a
/// reinstallation was begun.
pub fn withdraw_request(disk: &Disk) -> Result<bool> {
    let asks = match esp(disk)? {
        Some(esp) => esp.dir().join(ESP_ANSWER).exists(),
        None => false,
    };
    if !asks {
        return Ok(true);
    }
    if lodge_table(disk)?.is_some_and(|entries| gpt::is_unfinished(&entries)) {
        return Ok(false);
    }
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_DIRSYNC;
    let esp = Mounted::mount(&partitions::node(&disk.name, 1), "esp", "vfat", flags, "")?;
    let path = esp.dir().join(ESP_ANSWER);
    fs::remove_file(&path).with_context(|| format!("removing {}", path.display()))?;
    esp.unmount()?;
    Ok(true)
}
