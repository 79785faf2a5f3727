//! What Lodge puts on a disk. The installer writes it, init finds it, the image definitions are tested against it.
//!
//! Type GUIDs and the rule for the root partitions' UUIDs come from the Discoverable Partitions Specification
//! (uapi-group.org, "discoverable_partitions_specification").

use uuid::{Uuid, uuid};

/// One mebibyte, in bytes.
pub const MIB: u64 = 1 << 20;
/// One gibibyte, in bytes.
pub const GIB: u64 = 1 << 30;

/// One partition of the layout, in disk order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Partition {
    /// GPT partition name, also what init and the installer look for.
    pub label: &'static str,
    /// GPT type GUID.
    pub type_guid: Uuid,
    /// Size in bytes; `None` takes what is left (only the last one).
    pub size: Option<u64>,
}

/// The whole layout, in disk order.
pub const PARTITIONS: [Partition; 7] = [
    Partition { label: ESP, type_guid: uuid!("c12a7328-f81f-11d2-ba4b-00a0c93ec93b"), size: Some(2 * GIB) },
    Partition { label: BIOS, type_guid: uuid!("21686148-6449-6e6f-744e-656564454649"), size: Some(MIB) },
    Partition { label: Slot::A.root_label(), type_guid: ROOT_TYPE, size: Some(ROOT_SIZE) },
    Partition { label: Slot::A.verity_label(), type_guid: VERITY_TYPE, size: Some(VERITY_SIZE) },
    Partition { label: Slot::B.root_label(), type_guid: ROOT_TYPE, size: Some(ROOT_SIZE) },
    Partition { label: Slot::B.verity_label(), type_guid: VERITY_TYPE, size: Some(VERITY_SIZE) },
    Partition { label: STATE, type_guid: uuid!("0fc63daf-8483-4772-8e79-3d69d8477de4"), size: None },
];

/// Label of the EFI system partition (FAT32).
pub const ESP: &str = "esp";
/// Label of the BIOS loader's partition.
pub const BIOS: &str = "bios";
/// Label of the state partition (ext4): the node's only writable file system.
pub const STATE: &str = "state";
/// Bytes of one root slot.
pub const ROOT_SIZE: u64 = GIB;
/// Bytes of one verity slot: a SHA-256 tree over `ROOT_SIZE` with 4 KiB blocks needs less than 9 MiB.
pub const VERITY_SIZE: u64 = 16 * MIB;
/// Least bytes of the state partition.
pub const STATE_MIN: u64 = GIB;
/// Partitions start and end on this boundary, in bytes.
pub const ALIGNMENT: u64 = MIB;

const ROOT_TYPE: Uuid = uuid!("4f68bce3-e8cd-4db1-96e7-fbcaf984b709");
const VERITY_TYPE: Uuid = uuid!("2c7357ed-ebd2-46d9-aec1-23d437ec2bf5");

/// The least disk that Lodge can be installed on, in bytes: the fixed parts, the least state, and 2 MiB for the two tables.
pub fn min_disk_size() -> u64 {
    let fixed: u64 = PARTITIONS.iter().filter_map(|partition| partition.size).sum();
    fixed + STATE_MIN + 2 * MIB
}

/// One of the two places for the base OS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Slot {
    /// The first pair of root and verity partitions.
    A,
    /// The second pair.
    B,
}

impl Slot {
    /// GPT label of the slot's root partition.
    pub const fn root_label(self) -> &'static str {
        match self {
            Slot::A => "root-a",
            Slot::B => "root-b",
        }
    }

    /// GPT label of the slot's verity partition.
    pub const fn verity_label(self) -> &'static str {
        match self {
            Slot::A => "root-a-verity",
            Slot::B => "root-b-verity",
        }
    }
}

/// The UUIDs of the root and the verity partition that hold the system with this verity root hash: the first and the last
/// 128 bits of the hash, as the specification says. `None` when the hash has not 32 bytes.
pub fn slot_uuids(roothash: &str) -> Option<(Uuid, Uuid)> {
    let hash: [u8; 32] = crate::ids::unhex(roothash)?.try_into().ok()?;
    let (first, last) = hash.split_at(16);
    Some((Uuid::from_slice(first).ok()?, Uuid::from_slice(last).ok()?))
}

/// File name of a version's UKI in `EFI/Linux` on the ESP, with its boot tries left
/// (Boot Loader Specification, "boot counting").
pub fn uki_name(version: &str, tries: Option<u8>) -> String {
    match tries {
        Some(tries) => format!("lodge_{version}+{tries}.efi"),
        None => format!("lodge_{version}.efi"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_last_partition_takes_the_rest() {
        let (last, others) = PARTITIONS.split_last().unwrap();
        assert_eq!(last.size, None);
        assert!(others.iter().all(|partition| partition.size.is_some_and(|size| size % ALIGNMENT == 0)));
    }

    #[test]
    fn the_verity_slot_holds_the_tree_of_a_full_root_slot() {
        let mut blocks = ROOT_SIZE / 4096;
        let mut tree = 1; // superblock
        while blocks > 1 {
            blocks = blocks.div_ceil(128); // 4096-byte block of 32-byte digests
            tree += blocks;
        }
        assert!(tree * 4096 <= VERITY_SIZE);
    }

    #[test]
    fn slot_uuids_are_the_two_halves_of_the_hash() {
        let hash = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";
        let (root, verity) = slot_uuids(hash).unwrap();
        assert_eq!(root.to_string(), "00010203-0405-0607-0809-0a0b0c0d0e0f");
        assert_eq!(verity.to_string(), "10111213-1415-1617-1819-1a1b1c1d1e1f");
        assert_eq!(slot_uuids("00"), None);
    }
}
