use super::*;
use proptest::prelude::*;

const HASH: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";

/// As `veritysetup format` writes it, by the cryptsetup project's description.
fn superblock() -> [u8; 512] {
    let mut bytes = [0; 512];
    bytes[..6].copy_from_slice(b"verity");
    bytes[8] = 1;
    bytes[12] = 1;
    bytes[32..38].copy_from_slice(b"sha256");
    bytes[64..68].copy_from_slice(&4096u32.to_le_bytes());
    bytes[68..72].copy_from_slice(&4096u32.to_le_bytes());
    bytes[72..80].copy_from_slice(&77u64.to_le_bytes());
    bytes[80] = 2;
    bytes[88..90].copy_from_slice(&[0xab, 0xcd]);
    bytes
}

#[test]
fn a_superblock_becomes_a_table() {
    let parsed = Superblock::parse(&superblock()).unwrap();
    assert_eq!(parsed, Superblock { data_blocks: 77, salt: vec![0xab, 0xcd] });
    let verity = Verity { name: "root", data: "8:3", hash: "8:4", roothash: HASH };
    assert_eq!(verity.table(&parsed).unwrap(), format!("1 8:3 8:4 4096 4096 77 1 sha256 {HASH} abcd"));
    assert!(Verity { roothash: "00", ..verity }.table(&parsed).is_err());
}

#[test]
fn what_is_wrong_with_a_superblock_is_named() {
    for (at, byte, word) in [(0, b'x', "none"), (8, 2, "version 2"), (32, b'm', "mha256"), (65, 0, "blocks"), (81, 9, "salt")] {
        let mut bytes = superblock();
        bytes[at] = byte;
        let error = Superblock::parse(&bytes).unwrap_err().to_string();
        assert!(error.contains(word), "{error}");
    }
}

proptest! {
    #[test]
    fn no_superblock_makes_the_parser_panic(bytes in proptest::collection::vec(any::<u8>(), 512), signed in any::<bool>()) {
        let mut bytes: [u8; 512] = bytes.try_into().unwrap();
        if signed {
            bytes[..80].copy_from_slice(&superblock()[..80]);
        }
        let _ = Superblock::parse(&bytes);
    }
}
