//! Files that are whole or not there: written beside, synced, renamed, the directory synced.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use anyhow::{Context as _, Result, anyhow};

/// Replace a file. Its directory is made when it is not there.
pub fn write(path: &Path, bytes: &[u8], mode: u32) -> Result<()> {
    try_write(path, bytes, mode).with_context(|| format!("writing {}", path.display()))
}

fn try_write(path: &Path, bytes: &[u8], mode: u32) -> Result<()> {
    let (dir, name) = path.parent().zip(path.file_name()).ok_or_else(|| anyhow!("it has no directory"))?;
    let temporary = dir.join(format!(".{}.new", name.to_string_lossy()));
    let open = || OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&temporary);
    // On the share each question and each change is a way there and back.
    let mut file = match open() {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            fs::create_dir_all(dir).with_context(|| format!("making {}", dir.display()))?;
            open()?
        }
        opened => opened?,
    };
    // A file left by an earlier try keeps its mode at open(2).
    if file.metadata()?.permissions().mode() & 0o7777 != mode {
        file.set_permissions(Permissions::from_mode(mode)).or_else(ignore_vfat)?;
    }
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    File::open(dir)?.sync_all()?;
    Ok(())
}

/// FAT has no modes to set.
fn ignore_vfat(error: std::io::Error) -> std::io::Result<()> {
    if error.kind() == ErrorKind::PermissionDenied { Ok(()) } else { Err(error) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_whole_with_its_mode() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("node/key.pem");
        write(&path, b"one", 0o644).unwrap();
        write(&path, b"two", 0o600).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }

    #[test]
    fn a_failure_names_the_file() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("x"), "").unwrap();
        let error = write(&dir.path().join("x/y"), b"", 0o600).unwrap_err();
        assert!(format!("{error:#}").contains("x/y"), "{error:#}");
    }
}
