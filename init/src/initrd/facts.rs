//! What there is to decide the mode by. Looking changes nothing: the EFI system partition is mounted read-only and let go again.

use std::{fs, path::Path};

use anyhow::{Context as _, Result};
use lodge_model::{keywords::Keywords, paths};
use lodge_sys::{
    block::{self, Partition},
    efivar, gpt,
    mount::{self, Mount, MsFlags},
};
use uuid::Uuid;

use super::mode::{Disk, Facts, Part};
use crate::{log, step::may_degrade};

const ESP_TARGET: &str = "/run/lodge/esp";

/// Look at the firmware and the disks as they are now.
pub fn look(words: &Result<Keywords, String>) -> Facts {
    let loaded_from = loaded_from().unwrap_or_else(|error| {
        log::warning(&format!("{error:#}"));
        None
    });
    let disks = disks().unwrap_or_else(|error| {
        log::warning(&format!("looking for disks: {error:#}"));
        Vec::new()
    });
    let esp = disks.iter().flat_map(|disk| &disk.partitions).find(|part| Some(part.uuid) == loaded_from);
    let has_answer =
        esp.and_then(|esp| may_degrade("looking for an answer where this was loaded from", || has_answer(&esp.name)));
    Facts { words: words.clone(), loaded_from, has_answer: has_answer.unwrap_or(false), disks, is_last_look: false }
}

/// The partition that the boot file came from, as systemd-boot or the stub noted it (systemd.io, "Boot Loader Interface").
fn loaded_from() -> Result<Option<Uuid>> {
    let Some(text) = efivar::read_text(efivar::LOADER, "LoaderDevicePartUUID")? else { return Ok(None) };
    let uuid = text.trim().parse().with_context(|| format!("reading LoaderDevicePartUUID {text:?}"))?;
    Ok(Some(uuid))
}

fn disks() -> Result<Vec<Disk>> {
    let partitions = block::partitions()?;
    let mut names: Vec<&str> = partitions.iter().map(|partition| partition.disk.as_str()).collect();
    names.dedup();
    Ok(names.into_iter().filter_map(|name| disk(name, &partitions)).collect())
}

/// A disk that cannot be read, or has no GPT, is no place for Lodge.
fn disk(name: &str, partitions: &[Partition]) -> Option<Disk> {
    let entries = block::gpt(name).unwrap_or_else(|error| {
        log::warning(&format!("{error:#}"));
        None
    })?;
    let part = |entry: &gpt::Entry| {
        let partition = partitions.iter().find(|one| one.disk == name && one.number == entry.number)?;
        let (name, device_number) = (partition.name.clone(), partition.device_number.clone());
        Some(Part { name, device_number, label: entry.label.clone(), uuid: entry.uuid })
    };
    let parts = entries.iter().filter_map(part).collect();
    Some(Disk { name: name.to_owned(), is_unfinished: gpt::is_unfinished(&entries), partitions: parts })
}

fn has_answer(partition: &str) -> Result<bool> {
    let source = format!("/dev/{partition}");
    let flags = MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    Mount { source: &source, target: ESP_TARGET, fstype: "vfat", flags, data: "" }.mount()?;
    let found = Path::new(ESP_TARGET).join(paths::ESP_ANSWER).exists();
    mount::unmount(Path::new(ESP_TARGET))?;
    fs::remove_dir(ESP_TARGET).with_context(|| format!("removing {ESP_TARGET}"))?;
    Ok(found)
}
