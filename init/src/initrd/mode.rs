//! The mode: a pure decision over what was found. ARCHITECTURE.md, "Boot", has it in words.

use lodge_model::{
    keywords::{Keywords, Mode},
    layout::{self, Slot},
};
use uuid::Uuid;

use crate::rescue;

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// The command line's words, or what is wrong with them.
    pub words: Result<Keywords, String>,
    /// The partition that the boot file was loaded from, where the loader says so.
    pub loaded_from: Option<Uuid>,
    /// Disks with a partition table.
    pub disks: Vec<Disk>,
    /// On the partition that the boot file was loaded from there is an answer for the installer.
    pub has_answer: bool,
    /// Patience is over: no more waiting.
    pub is_last_look: bool,
}

/// A disk with a partition table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disk {
    /// Kernel name.
    pub name: String,
    /// An installation was begun and not completed.
    pub is_unfinished: bool,
    /// Its partitions.
    pub partitions: Vec<Part>,
}

/// A partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// Kernel name.
    pub name: String,
    /// `MAJOR:MINOR`.
    pub device_number: String,
    /// GPT name.
    pub label: String,
    /// GPT unique GUID.
    pub uuid: Uuid,
}

/// A partition together with its disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// Kernel name of the disk.
    pub disk: String,
    /// Kernel name of the partition.
    pub name: String,
    /// `MAJOR:MINOR`.
    pub device_number: String,
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Look again when a device comes.
    Wait {
        /// What is waited for, for people.
        for_what: String,
    },
    /// Start the installer.
    Install {
        /// For people.
        why: String,
    },
    /// Start the installed system.
    Node {
        /// The slot.
        slot: Slot,
        /// Its root partition.
        root: Device,
        /// Its verity partition.
        verity: Device,
        /// The trusted root hash.
        roothash: String,
        /// Bytes of the root file system, where the boot file says so.
        rootsize: Option<u64>,
        /// Version of the base OS.
        version: String,
        /// For people.
        why: String,
    },
    /// Ask a person.
    Rescue {
        /// What failed.
        what: String,
        /// Why.
        why: String,
        /// What to do.
        advice: String,
    },
}

/// Decide.
pub fn decide(facts: &Facts) -> Decision {
    let words = match &facts.words {
        Ok(words) => words,
        // The installer reads the same words, refuses them, and can tell the center.
        Err(why) => return install(why),
    };
    match words.mode {
        Some(Mode::Rescue) => Decision::Rescue {
            what: rescue::ASKED_FOR.into(),
            why: "rescue was asked for by lodge.mode=rescue on the kernel command line".into(),
            advice: "the disks are as they were; nothing is mounted".into(),
        },
        Some(Mode::Install) => install("lodge.mode=install is on the kernel command line"),
        Some(Mode::Node) => forced_node(facts, words),
        None => automatic(facts, words),
    }
}

fn automatic(facts: &Facts, words: &Keywords) -> Decision {
    let Some(roothash) = &words.roothash else { return install("the boot file names no root file system") };
    let Some(loaded_from) = facts.loaded_from else { return install("it was not booted from a disk") };
    let own = facts.disks.iter().find(|disk| disk.partitions.iter().any(|part| part.uuid == loaded_from));
    let Some(disk) = own else {
        return match facts.is_last_look {
            false => {
                Decision::Wait { for_what: format!("the disk with the partition {loaded_from}, which this was loaded from") }
            }
            true => install("the disk it was booted from cannot be found"),
        };
    };
    if facts.has_answer {
        return install("there is an answer for the installer on the EFI system partition");
    }
    if disk.is_unfinished {
        return install("an installation on this disk was begun and not completed");
    }
    match slots(disk, roothash).as_slice() {
        [] => install("the disk it was booted from has no root file system of this version"),
        [slot, ..] => node(slot, words, roothash, "it was loaded from that disk"),
    }
}

fn forced_node(facts: &Facts, words: &Keywords) -> Decision {
    let refuse = |why: String| Decision::Rescue {
        what: "finding the root file system".into(),
        why,
        advice: "boot without lodge.mode=node to reach the installer, or look at the disks with `blkid`".into(),
    };
    let Some(roothash) = &words.roothash else {
        return refuse("lodge.mode=node is on the kernel command line, but no lodge.roothash".into());
    };
    let is_own = |disk: &&Disk| disk.partitions.iter().any(|part| Some(part.uuid) == facts.loaded_from);
    let own = facts.disks.iter().find(is_own).and_then(|disk| slots(disk, roothash).into_iter().next());
    if let Some(slot) = own {
        return node(&slot, words, roothash, "lodge.mode=node, and it was loaded from that disk");
    }
    let mut found: Vec<Found> = facts.disks.iter().filter_map(|disk| slots(disk, roothash).into_iter().next()).collect();
    match (found.len(), found.pop()) {
        (1, Some(slot)) => node(&slot, words, roothash, "lodge.mode=node, and no other disk has it"),
        (0, _) if !facts.is_last_look => Decision::Wait { for_what: format!("a disk with the root file system {roothash}") },
        (0, _) => refuse(format!("no disk has the root file system {roothash}")),
        (count, _) => {
            refuse(format!("{count} disks have the root file system {roothash}, and the loader did not say which one it is"))
        }
    }
}

struct Found {
    slot: Slot,
    root: Device,
    verity: Device,
}

/// The slots of a disk that hold this root, by the partition UUIDs that follow from its hash.
fn slots(disk: &Disk, roothash: &str) -> Vec<Found> {
    let Some((root_uuid, verity_uuid)) = layout::slot_uuids(roothash) else { return Vec::new() };
    let device = |label: &str, uuid: Uuid| {
        let part = disk.partitions.iter().find(|part| part.label == label && part.uuid == uuid)?;
        Some(Device { disk: disk.name.clone(), name: part.name.clone(), device_number: part.device_number.clone() })
    };
    let found = |slot: Slot| {
        let (root, verity) = (device(slot.root_label(), root_uuid)?, device(slot.verity_label(), verity_uuid)?);
        Some(Found { slot, root, verity })
    };
    [Slot::A, Slot::B].into_iter().filter_map(found).collect()
}

fn node(found: &Found, words: &Keywords, roothash: &str, why: &str) -> Decision {
    Decision::Node {
        slot: found.slot,
        root: found.root.clone(),
        verity: found.verity.clone(),
        roothash: roothash.to_owned(),
        rootsize: words.rootsize,
        version: words.version.clone().unwrap_or_else(|| "unknown".into()),
        why: why.to_owned(),
    }
}

fn install(why: &str) -> Decision {
    Decision::Install { why: why.to_owned() }
}

#[cfg(test)]
mod tests;
