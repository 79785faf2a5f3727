//! The firmware's boot options (UEFI specification, 3.1): variables `Boot####` and their order in `BootOrder`.

use std::{
    fs::{self, File},
    path::Path,
};

use anyhow::{Context as _, Result};
use lodge_model::layout;
use lodge_sys::{
    efivar::{self, GLOBAL, NON_VOLATILE},
    gpt::{self, Entry},
};

/// The loader, on the EFI system partition: where firmware looks by itself, too.
pub const LOADER: &str = "EFI/BOOT/BOOTX64.EFI";
const DESCRIPTION: &str = "Lodge";
/// LOAD_OPTION_ACTIVE.
const ACTIVE: u32 = 1;

/// Let the firmware start this disk of ours before all others from now on.
pub fn put_first(disk: &Path, block_size: u32) -> Result<()> {
    let number = ensure(disk, block_size)?;
    let order = efivar::read(GLOBAL, "BootOrder")?.unwrap_or_default();
    let first = with_first(&order, number);
    if order != first {
        efivar::write(GLOBAL, "BootOrder", NON_VOLATILE, &first).context("writing BootOrder")?;
    }
    Ok(())
}

/// Let the next start go to this disk of ours, whatever the order. Some firmware drops options that it did not make: it is made anew.
pub fn start_next(disk: &Path, block_size: u32) -> Result<()> {
    let number = ensure(disk, block_size)?;
    efivar::write(GLOBAL, "BootNext", NON_VOLATILE, &number.to_le_bytes()).context("writing BootNext")
}

/// The boot option of this disk's loader; the one that is there already is used again.
fn ensure(disk: &Path, block_size: u32) -> Result<u16> {
    let mut file = File::open(disk).with_context(|| format!("opening {}", disk.display()))?;
    let entries = gpt::read(&mut file, block_size)?.unwrap_or_default();
    let esp = entries.iter().find(|entry| entry.label == layout::ESP).context("finding the EFI system partition")?;
    let option = encode(esp, block_size, LOADER)?;
    let number = match ours()? {
        Some(number) => number,
        None => free()?,
    };
    let name = variable(number);
    if efivar::read(GLOBAL, &name)?.as_deref() != Some(&option) {
        efivar::write(GLOBAL, &name, NON_VOLATILE, &option).with_context(|| format!("writing {name}"))?;
    }
    Ok(number)
}

fn variable(number: u16) -> String {
    format!("Boot{number:04X}")
}

fn numbers() -> Result<Vec<u16>> {
    let entries = fs::read_dir(efivar::DIR).with_context(|| format!("reading {}", efivar::DIR))?;
    let number = |name: &str| u16::from_str_radix(name.strip_prefix("Boot")?.strip_suffix(GLOBAL)?.strip_suffix('-')?, 16).ok();
    Ok(entries.filter_map(|entry| number(&entry.ok()?.file_name().to_string_lossy())).collect())
}

fn ours() -> Result<Option<u16>> {
    for number in numbers()? {
        let option = efivar::read(GLOBAL, &variable(number))?.unwrap_or_default();
        if option.get(6..).is_some_and(|rest| rest.starts_with(&efivar::utf16(DESCRIPTION))) {
            return Ok(Some(number));
        }
    }
    Ok(None)
}

fn free() -> Result<u16> {
    let taken = numbers()?;
    (0..=u16::MAX).find(|number| !taken.contains(number)).context("the firmware has no boot option left")
}

fn with_first(order: &[u8], number: u16) -> Vec<u8> {
    let others = order.chunks_exact(2).filter(|other| **other != number.to_le_bytes());
    number.to_le_bytes().into_iter().chain(others.flatten().copied()).collect()
}

/// EFI_LOAD_OPTION: attributes, length of the path, description, device path of a hard drive node (10.3.5.1), a file node (10.3.5.4)
/// and the end (10.3.1).
fn encode(esp: &Entry, block_size: u32, file: &str) -> Result<Vec<u8>> {
    let block = u64::from(block_size);
    let mut drive = Vec::from(esp.number.to_le_bytes());
    drive.extend((esp.start / block).to_le_bytes());
    drive.extend((esp.size / block).to_le_bytes());
    drive.extend(esp.uuid.to_bytes_le());
    drive.extend([2, 2]); // GPT, signature is a GUID
    let file = efivar::utf16(&format!("\\{}", file.replace('/', "\\")));
    let path = [node(4, 1, &drive)?, node(4, 4, &file)?, node(0x7f, 0xff, &[])?].concat();
    let mut option = Vec::from(ACTIVE.to_le_bytes());
    option.extend(u16::try_from(path.len()).context("the device path is too long")?.to_le_bytes());
    option.extend(efivar::utf16(DESCRIPTION));
    option.extend(path);
    Ok(option)
}

fn node(kind: u8, subtype: u8, data: &[u8]) -> Result<Vec<u8>> {
    let length = u16::try_from(data.len() + 4).context("a device path node is too long")?;
    Ok([&[kind, subtype], &length.to_le_bytes()[..], data].concat())
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    #[test]
    fn an_option_is_what_the_specification_says() {
        let uuid = Uuid::from_u128(0x00112233_4455_6677_8899_aabbccddeeff);
        let esp = Entry {
            number: 1,
            label: "esp".into(),
            type_guid: Uuid::nil(),
            uuid,
            start: 1 << 20,
            size: 2 << 30,
            attributes: 0,
        };
        let option = encode(&esp, 512, LOADER).unwrap();
        assert_eq!(option[..4], 1u32.to_le_bytes());
        assert_eq!(option[6..18], efivar::utf16("Lodge"));
        let path = &option[18..];
        assert_eq!(usize::from(u16::from_le_bytes([option[4], option[5]])), path.len());
        assert_eq!(path[..4], [4, 1, 42, 0]);
        assert_eq!(path[8..16], 2048u64.to_le_bytes());
        assert_eq!(path[24..28], [0x33, 0x22, 0x11, 0x00]);
        assert_eq!(path[40..42], [2, 2]);
        assert_eq!(path[42..44], [4, 4]);
        assert_eq!(path[path.len() - 4..], [0x7f, 0xff, 4, 0]);
    }

    #[test]
    fn ours_goes_first_and_stays_single() {
        assert_eq!(with_first(&[1, 0, 2, 0, 3, 0], 2), [2, 0, 1, 0, 3, 0]);
        assert_eq!(with_first(&[], 7), [7, 0]);
    }
}
