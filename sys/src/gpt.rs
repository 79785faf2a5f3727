//! The GUID partition table: read as it is, or made as `lodge_model::layout` says. Format: UEFI specification, 5.3; both copies are
//! written by `gptman`, the backup first, so that a power cut leaves one that is whole.
//!
//! It assumes a disk that nobody else writes. It never decides whether a table may be replaced.

use std::io::{Read, Seek, SeekFrom, Write};

use anyhow::{Context as _, Result, bail};
use gptman::{GPT, GPTPartitionEntry};
use lodge_model::layout::{self, ALIGNMENT, PARTITIONS};
use uuid::Uuid;

/// A partition as a table has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Number, from 1; the kernel's device name ends in it.
    pub number: u32,
    /// GPT partition name.
    pub label: String,
    /// GPT type GUID.
    pub type_guid: Uuid,
    /// Unique GUID (`PARTUUID`).
    pub uuid: Uuid,
    /// First byte.
    pub start: u64,
    /// Bytes.
    pub size: u64,
    /// Attribute bits.
    pub attributes: u64,
}

/// Attribute bit of the state partition while an installation has been begun and not completed. Bits 48 to 63 belong to the
/// partition's type (UEFI 5.3.3); the Discoverable Partitions Specification uses 59, 60 and 63.
pub const UNFINISHED: u64 = 1 << 48;

/// Whether something had to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ensured {
    /// All was there already.
    Identity,
    /// It was made.
    Created,
}

/// The partitions of a disk; `None` when it has no valid table. Where the first copy is damaged the backup is read.
pub fn read<D: Read + Seek>(disk: &mut D, block_size: u32) -> Result<Option<Vec<Entry>>> {
    disk.seek(SeekFrom::Start(0)).context("going to the start of the disk")?;
    let gpt = match GPT::read_from(disk, block_size.into()) {
        Ok(gpt) => gpt,
        Err(gptman::Error::Io(error)) if error.kind() != std::io::ErrorKind::UnexpectedEof => {
            return Err(error).context("reading the partition table");
        }
        Err(_) => return Ok(None),
    };
    let entries = gpt.iter().filter(|(_, entry)| entry.is_used());
    Ok(Some(entries.map(|(number, entry)| read_entry(number, entry, block_size)).collect()))
}

/// Where Lodge's partitions are on a disk of this size, as label, first byte and bytes. `None` when the disk is too small.
pub fn places(disk_size: u64) -> Option<Vec<(&'static str, u64, u64)>> {
    if disk_size < layout::min_disk_size() {
        return None;
    }
    let mut at = ALIGNMENT;
    // The backup table takes less than the last mebibyte.
    let end = (disk_size - ALIGNMENT) / ALIGNMENT * ALIGNMENT;
    let mut places = Vec::with_capacity(PARTITIONS.len());
    for partition in &PARTITIONS {
        let size = partition.size.unwrap_or(end - at);
        places.push((partition.label, at, size));
        at += size;
    }
    Some(places)
}

/// Whether these partitions are Lodge's layout for a disk of this size: types, labels, places, nothing else.
pub fn is_lodge(entries: &[Entry], disk_size: u64) -> bool {
    let Some(places) = places(disk_size) else { return false };
    entries.len() == places.len()
        && entries.iter().zip(places).zip(&PARTITIONS).zip(1..).all(|(((entry, place), partition), number)| {
            entry.number == number
                && entry.type_guid == partition.type_guid
                && (entry.label.as_str(), entry.start, entry.size) == place
        })
}

/// Whether the table says that an installation has been begun and not completed.
pub fn is_unfinished(entries: &[Entry]) -> bool {
    entries.iter().any(|entry| entry.label == layout::STATE && entry.attributes & UNFINISHED != 0)
}

/// Make the disk's table Lodge's, with these unique GUIDs (by label) where they are given: all other GUIDs stay as they are, or are
/// made up; with the mark of an unfinished installation or without. The medium is synced by the caller.
pub fn ensure_lodge<D: Read + Write + Seek>(
    disk: &mut D,
    disk_size: u64,
    block_size: u32,
    uuids: &[(&str, Uuid)],
    unfinished: bool,
) -> Result<Ensured> {
    let found = read(disk, block_size)?.filter(|entries| is_lodge(entries, disk_size));
    let wanted = |label: &str| uuids.iter().find(|(of, _)| *of == label).map(|(_, uuid)| *uuid);
    if let Some(entries) = &found
        && entries.iter().all(|entry| wanted(&entry.label).is_none_or(|uuid| uuid == entry.uuid))
        && is_unfinished(entries) == unfinished
        && has_both_copies(disk, block_size)
    {
        return Ok(Ensured::Identity);
    }
    let Some(places) = places(disk_size) else { bail!("the disk is too small for Lodge's layout") };
    disk.seek(SeekFrom::Start(0)).context("going to the start of the disk")?;
    let mut gpt = match &found {
        Some(_) => GPT::read_from(disk, block_size.into()).context("reading the partition table")?,
        None => GPT::new_from(disk, block_size.into(), Uuid::new_v4().to_bytes_le()).context("laying out a partition table")?,
    };
    for ((number, partition), (label, start, size)) in (1..).zip(&PARTITIONS).zip(places) {
        let old = found.as_ref().and_then(|entries| entries.iter().find(|entry| entry.label == label)).map(|entry| entry.uuid);
        let uuid = wanted(label).or(old).unwrap_or_else(Uuid::new_v4);
        gpt[number] = GPTPartitionEntry {
            partition_type_guid: partition.type_guid.to_bytes_le(),
            unique_partition_guid: uuid.to_bytes_le(),
            starting_lba: start / u64::from(block_size),
            ending_lba: (start + size) / u64::from(block_size) - 1,
            attribute_bits: if unfinished && label == layout::STATE { UNFINISHED } else { 0 },
            partition_name: label.into(),
        };
    }
    if found.is_none() {
        GPT::write_protective_mbr_into(disk, block_size.into()).context("writing the protective MBR")?;
    }
    gpt.write_into(disk).context("writing the partition table")?;
    Ok(Ensured::Created)
}

/// Both copies are there: the first one is what is read, and its backup has a valid header.
fn has_both_copies<D: Read + Seek>(disk: &mut D, block_size: u32) -> bool {
    let mut valid = |position| disk.seek(position).is_ok_and(|_| gptman::GPTHeader::read_from(disk).is_ok());
    valid(SeekFrom::Start(block_size.into())) && valid(SeekFrom::End(-i64::from(block_size)))
}

fn read_entry(number: u32, entry: &GPTPartitionEntry, block_size: u32) -> Entry {
    let blocks = (entry.ending_lba + 1).saturating_sub(entry.starting_lba);
    Entry {
        number,
        label: entry.partition_name.as_str().to_owned(),
        type_guid: Uuid::from_bytes_le(entry.partition_type_guid),
        uuid: Uuid::from_bytes_le(entry.unique_partition_guid),
        start: entry.starting_lba.saturating_mul(block_size.into()),
        size: blocks.saturating_mul(block_size.into()),
        attributes: entry.attribute_bits,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn blank(size: u64) -> std::fs::File {
        let file = tempfile::tempfile().unwrap();
        file.set_len(size).unwrap();
        file
    }

    #[test]
    fn a_table_is_made_once_and_read_back() {
        for block_size in [512, 4096] {
            let size = layout::min_disk_size() + 12345 * u64::from(block_size);
            let mut disk = blank(size);
            assert_eq!(read(&mut disk, block_size).unwrap(), None);
            let root = Uuid::from_u128(7);
            let uuids = [(layout::Slot::A.root_label(), root)];
            assert_eq!(ensure_lodge(&mut disk, size, block_size, &uuids, false).unwrap(), Ensured::Created);
            assert_eq!(ensure_lodge(&mut disk, size, block_size, &uuids, false).unwrap(), Ensured::Identity);
            let entries = read(&mut disk, block_size).unwrap().unwrap();
            assert!(is_lodge(&entries, size));
            assert_eq!(entries[2].uuid, root);
            let last = entries.last().unwrap();
            assert!(last.start + last.size + 33 * u64::from(block_size) <= size);
        }
    }

    #[test]
    fn a_new_guid_keeps_all_others() {
        let size = layout::min_disk_size();
        let mut disk = blank(size);
        ensure_lodge(&mut disk, size, 512, &[], false).unwrap();
        let before = read(&mut disk, 512).unwrap().unwrap();
        let uuids = [("root-b", Uuid::from_u128(9))];
        assert_eq!(ensure_lodge(&mut disk, size, 512, &uuids, false).unwrap(), Ensured::Created);
        let after = read(&mut disk, 512).unwrap().unwrap();
        for (before, after) in before.iter().zip(&after) {
            assert_eq!(before.uuid == after.uuid, after.label != "root-b");
        }
    }

    #[test]
    fn a_damaged_copy_is_read_from_the_other_and_mended() {
        let size = layout::min_disk_size();
        for (damage, wipe) in [(512, 1024), (size - 512, 512)] {
            let mut disk = blank(size);
            ensure_lodge(&mut disk, size, 512, &[], false).unwrap();
            let before = read(&mut disk, 512).unwrap();
            disk.seek(SeekFrom::Start(damage)).unwrap();
            disk.write_all(&vec![0; wipe]).unwrap();
            assert_eq!(read(&mut disk, 512).unwrap(), before);
            assert_eq!(ensure_lodge(&mut disk, size, 512, &[], false).unwrap(), Ensured::Created);
            assert_eq!(ensure_lodge(&mut disk, size, 512, &[], false).unwrap(), Ensured::Identity);
            assert_eq!(read(&mut disk, 512).unwrap(), before);
        }
    }

    #[test]
    fn the_mark_of_an_unfinished_installation_comes_and_goes() {
        let size = layout::min_disk_size();
        let mut disk = blank(size);
        for unfinished in [true, false, true] {
            assert_eq!(ensure_lodge(&mut disk, size, 512, &[], unfinished).unwrap(), Ensured::Created);
            assert_eq!(is_unfinished(&read(&mut disk, 512).unwrap().unwrap()), unfinished);
        }
    }

    #[test]
    fn a_disk_of_another_size_is_not_ours() {
        let size = layout::min_disk_size();
        let mut disk = blank(size);
        ensure_lodge(&mut disk, size, 512, &[], false).unwrap();
        let entries = read(&mut disk, 512).unwrap().unwrap();
        assert!(!is_lodge(&entries, size + layout::GIB));
        assert!(!is_lodge(&entries[..6], size));
        assert_eq!(places(size - 1), None);
    }

    proptest! {
        #[test]
        fn places_fit_and_are_aligned(size in layout::min_disk_size()..1 << 45) {
            let places = places(size).unwrap();
            let mut at = ALIGNMENT;
            for (label, start, bytes) in places {
                prop_assert_eq!(start, at);
                prop_assert_eq!(start % ALIGNMENT, 0);
                prop_assert!(label != layout::STATE || bytes >= layout::STATE_MIN - ALIGNMENT);
                at = start + bytes;
            }
            prop_assert!(at <= size - 33 * 4096);
        }

        #[test]
        fn no_bytes_make_the_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..2048)) {
            let mut disk = std::io::Cursor::new([vec![0; 512], b"EFI PART".to_vec(), bytes].concat());
            let _ = read(&mut disk, 512);
        }
    }
}
