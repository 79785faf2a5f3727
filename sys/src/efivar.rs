//! EFI variables through efivarfs (kernel, Documentation/filesystems/efivarfs.rst): four bytes of attributes, then the value. The
//! kernel marks most files immutable against a stray `rm`; the mark is lifted for our own writes.

use std::{
    fs::{self, File, OpenOptions},
    io::{ErrorKind, Write as _},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, anyhow};

/// Where efivarfs is mounted.
pub const DIR: &str = "/sys/firmware/efi/efivars";
/// Vendor GUID of the firmware's own variables (UEFI specification, 3.3): `BootOrder`, `Boot####`, `BootNext`, `SecureBoot`.
pub const GLOBAL: &str = "8be4df61-93ca-11d2-aa0d-00e098032b8c";
/// Vendor GUID of boot loader variables (systemd Boot Loader Interface): `LoaderDevicePartUUID`, `LoaderBootCountPath`.
pub const LOADER: &str = "4a67b082-0a4c-41cf-b6c7-440b29bb8c4f";
/// Attributes of a variable that survives power-off and that the firmware and the system see (UEFI specification, 8.2).
pub const NON_VOLATILE: u32 = 0x7;

/// Whether the machine was started by UEFI.
pub fn is_uefi() -> bool {
    Path::new("/sys/firmware/efi").exists()
}

/// The value of a variable without its attributes; `None` when there is no such variable or no UEFI.
pub fn read(vendor: &str, name: &str) -> Result<Option<Vec<u8>>> {
    let path = path(vendor, name);
    match fs::read(&path) {
        Ok(bytes) => Ok(Some(bytes.get(4..).ok_or_else(|| anyhow!("{} has no attributes", path.display()))?.to_vec())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("reading {}", path.display())),
    }
}

/// The value of a variable as text: UTF-16 with or without a final NUL.
pub fn read_text(vendor: &str, name: &str) -> Result<Option<String>> {
    let Some(bytes) = read(vendor, name)? else { return Ok(None) };
    text(&bytes).with_context(|| format!("reading EFI variable {name}")).map(Some)
}

/// Make or replace a variable. The firmware takes the whole value or none of it.
pub fn write(vendor: &str, name: &str, attributes: u32, value: &[u8]) -> Result<()> {
    let path = path(vendor, name);
    lift_immutable(&path)?;
    let mut bytes = attributes.to_le_bytes().to_vec();
    bytes.extend_from_slice(value);
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .with_context(|| format!("opening {}", path.display()))?;
    // One write call is one SetVariable call.
    let written = file.write(&bytes).with_context(|| format!("writing {}", path.display()))?;
    if written == bytes.len() { Ok(()) } else { Err(anyhow!("the firmware took {written} of {} bytes", bytes.len())) }
}

/// Remove a variable; none there is fine.
pub fn remove(vendor: &str, name: &str) -> Result<()> {
    let path = path(vendor, name);
    lift_immutable(&path)?;
    match fs::remove_file(&path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error).with_context(|| format!("removing {}", path.display())),
        _ => Ok(()),
    }
}

/// UTF-16 (little endian) with a final NUL, as the firmware keeps texts.
pub fn utf16(text: &str) -> Vec<u8> {
    text.encode_utf16().chain([0]).flat_map(u16::to_le_bytes).collect()
}

fn text(bytes: &[u8]) -> Result<String> {
    let units: Vec<u16> = bytes.chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]])).collect();
    let end = units.iter().position(|unit| *unit == 0).unwrap_or(units.len());
    String::from_utf16(units.get(..end).unwrap_or_default()).context("decoding UTF-16")
}

fn path(vendor: &str, name: &str) -> PathBuf {
    Path::new(DIR).join(format!("{name}-{vendor}"))
}

fn lift_immutable(path: &Path) -> Result<()> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error).with_context(|| format!("opening {}", path.display())),
    };
    ioctl::clear_flags(&file, ioctl::IMMUTABLE).with_context(|| format!("making {} writable", path.display()))
}

mod ioctl {
    //! chattr(1)'s two calls (linux/fs.h).
    #![expect(unsafe_code, reason = "ioctl(2)")]
    use std::os::fd::AsRawFd as _;

    use nix::libc::{c_int, c_long};

    /// FS_IMMUTABLE_FL.
    pub const IMMUTABLE: c_int = 0x10;

    nix::ioctl_read!(get, b'f', 1, c_long);
    nix::ioctl_write_ptr!(set, b'f', 2, c_long);

    pub fn clear_flags(file: &std::fs::File, flags: c_int) -> nix::Result<()> {
        let mut now: c_long = 0;
        // SAFETY: the kernel writes an int into the long we own for the call; the descriptor is open.
        unsafe { get(file.as_raw_fd(), &raw mut now) }?;
        let wanted = now & !c_long::from(flags);
        if wanted != now {
            // SAFETY: the kernel reads an int from the long we own for the call; the descriptor is open.
            unsafe { set(file.as_raw_fd(), &raw const wanted) }?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_survive_the_firmwares_form() {
        let bytes = utf16("\\EFI\\Linux\\lodge_1.efi");
        assert_eq!(bytes.len() % 2, 0);
        assert_eq!(text(&bytes).unwrap(), "\\EFI\\Linux\\lodge_1.efi");
        assert_eq!(text(&[0x41, 0]).unwrap(), "A");
        assert!(text(&[0x00, 0xd8]).is_err());
    }
}
