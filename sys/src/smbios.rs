//! What the firmware says of the machine in its SMBIOS tables (DMTF DSP0134), read from the kernel's copies: no module is needed
//! for them, as it would be for `/sys/firmware/dmi/entries`.

use std::{fs, io::ErrorKind, path::Path};

use anyhow::{Context as _, Result};
use uuid::Uuid;

const TABLE: &str = "/sys/firmware/dmi/tables/DMI";
const ID_DIR: &str = "/sys/class/dmi/id";
/// Structure type "OEM Strings" (DSP0134, 7.12).
const OEM_STRINGS: u8 = 11;
/// Structure type "End-of-Table" (DSP0134, 7.45).
const END: u8 = 127;

/// A UUID that many boards carry because nobody filled it in.
const UNFILLED: Uuid = Uuid::from_u128(0x03000200_0400_0500_0006_000700080009);

/// The type 11 strings; none where the machine has no SMBIOS.
pub fn oem_strings() -> Result<Vec<String>> {
    match fs::read(TABLE) {
        Ok(table) => Ok(parse_oem_strings(&table)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error).with_context(|| format!("reading {TABLE}")),
    }
}

/// Vendor and product, for people; empty where the firmware says nothing.
pub fn product() -> String {
    let parts = [id("sys_vendor"), id("product_name")];
    parts.iter().filter(|part| !part.is_empty()).map(String::as_str).collect::<Vec<_>>().join(" ")
}

/// The system's UUID; `None` where there is none or where it is one that cannot tell machines apart.
pub fn system_uuid() -> Option<Uuid> {
    let uuid = Uuid::parse_str(&id("product_uuid")).ok()?;
    (!uuid.is_nil() && !uuid.is_max() && uuid != UNFILLED).then_some(uuid)
}

fn id(name: &str) -> String {
    fs::read_to_string(Path::new(ID_DIR).join(name)).unwrap_or_default().trim().to_owned()
}

/// A table is structures: type, length of the formatted part, two bytes of handle, the rest of the formatted part, then strings
/// that each end in NUL, then one more NUL (DSP0134, 6.1).
fn parse_oem_strings(table: &[u8]) -> Vec<String> {
    let mut found = Vec::new();
    let mut rest = table;
    while let [kind, length, ..] = *rest
        && kind != END
    {
        let Some(strings) = rest.get(usize::from(length.max(4))..) else { break };
        let end = strings.windows(2).position(|pair| pair == [0, 0]).unwrap_or(strings.len());
        let (area, after) = strings.split_at(end);
        if kind == OEM_STRINGS {
            let texts = area.split(|byte| *byte == 0).filter(|text| !text.is_empty());
            found.extend(texts.map(|text| String::from_utf8_lossy(text).into_owned()));
        }
        rest = after.get(2..).unwrap_or_default();
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn structure(kind: u8, strings: &[&str]) -> Vec<u8> {
        let mut bytes = vec![kind, 5, 0, 0, u8::try_from(strings.len()).unwrap()];
        for text in strings {
            bytes.extend_from_slice(text.as_bytes());
            bytes.push(0);
        }
        if strings.is_empty() {
            bytes.push(0);
        }
        bytes.push(0);
        bytes
    }

    #[test]
    fn type_11_strings_are_found_among_others() {
        let table = [
            structure(1, &["QEMU", "Standard PC"]),
            structure(32, &[]),
            structure(11, &["lodge.center=https://10.0.0.1:8443", "second"]),
            structure(END, &[]),
            structure(11, &["after the end"]),
        ]
        .concat();
        assert_eq!(parse_oem_strings(&table), ["lodge.center=https://10.0.0.1:8443", "second"]);
    }

    proptest! {
        #[test]
        fn no_table_makes_the_parser_panic_or_loop(table in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = parse_oem_strings(&table);
        }
    }
}
