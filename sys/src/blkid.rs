//! What is on a block device, as libblkid sees it: its low-level probe reads the device itself and knows every signature there is,
//! which no list of ours would.

use std::{fs::File, io::Read as _, path::Path, time::Duration};

use anyhow::{Context as _, Result};
use lodge_model::facts::Signature;

use crate::{partitions, program::Program};

/// blkid's exit status when it found nothing (blkid(8)).
const NOTHING: i32 = 2;
/// blkid's exit status when signatures contradict each other (blkid(8)).
const AMBIVALENT: i32 = 8;
/// A dying disk must not hold the machine for ever.
const DEADLINE: Duration = Duration::from_secs(60);

/// What libblkid says of one device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Probe {
    /// File system, RAID or container (`TYPE`).
    pub content: Option<String>,
    /// Label of the content.
    pub label: String,
    /// Partition table (`PTTYPE`).
    pub table: Option<String>,
    /// GPT name of the partition that the device is.
    pub partition_label: String,
}

/// Probe one device, never from a cache.
pub fn probe(device: &Path) -> Result<Probe> {
    // blkid says "nothing found" of a device it cannot open or read, which must not be taken for a blank one.
    let mut file = File::open(device).with_context(|| format!("opening {}", device.display()))?;
    file.read_exact(&mut [0; 4096]).with_context(|| format!("reading {}", device.display()))?;
    let call = Program::Blkid.call([Path::new("-p"), Path::new("-o"), Path::new("export"), device]);
    let output = call.accept(&[0, NOTHING, AMBIVALENT]).deadline(DEADLINE).run()?;
    let mut probe = parse(&output.text());
    if output.code == AMBIVALENT {
        probe.content = Some("several contradicting signatures".to_owned());
    }
    Ok(probe)
}

/// Everything found on a disk: on the whole of it, and on each partition the kernel knows. A device that cannot be read holds
/// something `unreadable`, so that it never passes for blank.
pub fn signatures(disk: &str) -> Result<Vec<Signature>> {
    let mut found = Vec::new();
    let names = partitions::names(disk)?;
    for name in std::iter::once(disk.to_owned()).chain(names) {
        let signature = |kind: String, label: &str| Signature { device: name.clone(), kind, label: label.to_owned() };
        let probe = match probe(&Path::new("/dev").join(&name)) {
            Ok(probe) => probe,
            Err(error) => {
                found.push(signature("unreadable".to_owned(), &format!("{:#}", error.root_cause())));
                continue;
            }
        };
        if name == disk {
            found.extend(probe.table.map(|kind| signature(kind, "")));
            found.extend(probe.content.map(|kind| signature(kind, &probe.label)));
        } else {
            let label = if probe.label.is_empty() { &probe.partition_label } else { &probe.label };
            let kind = probe.content.or(probe.table).unwrap_or_else(|| "partition".to_owned());
            found.push(signature(kind, label));
        }
    }
    Ok(found)
}

fn parse(text: &str) -> Probe {
    let mut probe = Probe::default();
    for (key, value) in text.lines().filter_map(|line| line.split_once('=')) {
        let value = unescape(value);
        match key {
            "TYPE" => probe.content = Some(value),
            "PTTYPE" => probe.table = Some(value),
            "LABEL" => probe.label = value,
            "PART_ENTRY_NAME" => probe.partition_label = value,
            _ => {}
        }
    }
    probe
}

/// The export format puts a backslash before what a shell would take for its own.
fn unescape(value: &str) -> String {
    let mut text = String::with_capacity(value.len());
    let mut chars = value.chars();
    while let Some(char) = chars.next() {
        text.push(if char == '\\' { chars.next().unwrap_or(char) } else { char });
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_export_format_is_read() {
        let whole = parse("DEVNAME=/dev/sda\nPTUUID=1c\nPTTYPE=gpt\n");
        assert_eq!(whole, Probe { table: Some("gpt".into()), ..Probe::default() });
        let part = parse("DEVNAME=/dev/sda1\nLABEL=my\\ data\nTYPE=ext4\nPART_ENTRY_NAME=root\n");
        assert_eq!((part.content.as_deref(), part.label.as_str()), (Some("ext4"), "my data"));
    }

    #[test]
    fn a_file_system_is_found_and_nothing_is_nothing() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(8 << 20).unwrap();
        assert_eq!(probe(file.path()).unwrap(), Probe::default());
        Program::MkfsExt4.call(["-q", "-L", "some data", &file.path().to_string_lossy()]).run().unwrap();
        let found = probe(file.path()).unwrap();
        assert_eq!((found.content.as_deref(), found.label.as_str()), (Some("ext4"), "some data"));
        assert!(probe(Path::new("/nowhere/disk")).is_err());
    }
}
