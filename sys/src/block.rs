//! Disks and partitions as the kernel has them (sysfs); what it does not tell of a partition is in the GPT itself.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

/// A partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partition {
    /// Kernel name, as `nvme0n1p3`.
    pub name: String,
    /// Kernel name of its disk.
    pub disk: String,
    /// Number in the table.
    pub number: u32,
    /// GPT partition name, empty where there is none.
    pub label: String,
    /// `MAJOR:MINOR`.
    pub device_number: String,
}

impl Partition {
    /// Its device file.
    pub fn device(&self) -> PathBuf {
        Path::new("/dev").join(&self.name)
    }
}

/// All partitions that the kernel knows now.
pub fn partitions() -> Result<Vec<Partition>> {
    partitions_in(Path::new("/sys/class/block"))
}

fn partitions_in(class: &Path) -> Result<Vec<Partition>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(class).with_context(|| format!("listing {}", class.display()))? {
        let entry = entry.with_context(|| format!("listing {}", class.display()))?;
        // A device that goes away while it is looked at is not there.
        if let Some(partition) = partition(&entry.path()) {
            found.push(partition);
        }
    }
    found.sort_by(|one, other| (&one.disk, one.number).cmp(&(&other.disk, other.number)));
    Ok(found)
}

fn partition(path: &Path) -> Option<Partition> {
    let number = fs::read_to_string(path.join("partition")).ok()?.trim().parse().ok()?;
    let target = fs::canonicalize(path).ok()?;
    let uevent = fs::read_to_string(path.join("uevent")).ok()?;
    Some(Partition {
        name: path.file_name()?.to_str()?.to_owned(),
        disk: target.parent()?.file_name()?.to_str()?.to_owned(),
        number,
        label: uevent.lines().find_map(|line| line.strip_prefix("PARTNAME=")).unwrap_or_default().to_owned(),
        device_number: fs::read_to_string(path.join("dev")).ok()?.trim().to_owned(),
    })
}

/// The entries of a disk's GPT; `None` when it has none.
pub fn gpt(disk: &str) -> Result<Option<Vec<crate::gpt::Entry>>> {
    let path = Path::new("/dev").join(disk);
    let size = Path::new("/sys/class/block").join(disk).join("queue/logical_block_size");
    let block_size = fs::read_to_string(&size).with_context(|| format!("reading {}", size.display()))?;
    let block_size = block_size.trim().parse().with_context(|| format!("reading {}", size.display()))?;
    let mut file = File::open(&path).with_context(|| format!("opening {}", path.display()))?;
    crate::gpt::read(&mut file, block_size).with_context(|| format!("reading the partition table of {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn partitions_are_found_with_disk_and_label() {
        let sys = tempfile::tempdir().unwrap();
        let part = sys.path().join("devices/virtual/block/vda/vda3");
        fs::create_dir_all(&part).unwrap();
        fs::write(part.join("partition"), "3\n").unwrap();
        fs::write(part.join("dev"), "254:3\n").unwrap();
        fs::write(part.join("uevent"), "MAJOR=254\nDEVTYPE=partition\nPARTN=3\nPARTNAME=root-a\n").unwrap();
        let class = sys.path().join("class");
        fs::create_dir(&class).unwrap();
        symlink(&part, class.join("vda3")).unwrap();
        symlink(part.parent().unwrap(), class.join("vda")).unwrap();
        let found = partitions_in(&class).unwrap();
        let expected = Partition {
            name: "vda3".into(),
            disk: "vda".into(),
            number: 3,
            label: "root-a".into(),
            device_number: "254:3".into(),
        };
        assert_eq!(found, [expected]);
    }
}
