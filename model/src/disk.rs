//! Which disk may be written. One rule, applied by the center when it makes a ticket and by the installer when it uses one.
//!
//! It never guesses: no match, two matches, a small disk or a disk that holds something is a refusal in words.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::facts::{Disk, Transport, human_bytes};
use crate::layout;

/// What the wanted disk looks like. Every key that is given must hold; an empty rule matches every disk that could be meant
/// (not removable, not read-only).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct DiskRule {
    /// Exact serial number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub serial: Option<String>,
    /// Text contained in the model.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Attachment.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub transport: Option<Transport>,
    /// Least size, in GiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_gib: Option<u64>,
    /// Greatest size, in GiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_gib: Option<u64>,
    /// A disk that already holds something may be overwritten. Without it only a blank disk is taken.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub wipe: bool,
}

/// Why no disk is written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The machine has no disk that could be meant.
    #[error("this machine has no disk that could be installed on; attach one, it is looked for again")]
    NoDisk,
    /// Disks are there, none matches.
    #[error("no disk matches the rule ({rule}); there are: {disks}; change the rule or the disks")]
    NoMatch {
        /// The rule, for people.
        rule: String,
        /// The disks, for people.
        disks: String,
    },
    /// More than one matches.
    #[error("{count} disks match the rule ({rule}): {disks}; name one by its serial")]
    Ambiguous {
        /// How many.
        count: usize,
        /// The rule, for people.
        rule: String,
        /// The disks, for people.
        disks: String,
    },
    /// Too small for the layout.
    #[error("disk {disk} is too small: it needs at least {needed}")]
    TooSmall {
        /// The disk, for people.
        disk: String,
        /// The least size, for people.
        needed: String,
    },
    /// Not blank, and nobody said that it may be overwritten.
    #[error("disk {disk} already holds {found}; nothing was written; allow it by name (`wipe`) or blank the disk")]
    NotBlank {
        /// The disk, for people.
        disk: String,
        /// What was found, for people.
        found: String,
    },
    /// The disk cannot be told apart from another: it has no serial number.
    #[error("disk {disk} has no serial number, so no ticket can name it")]
    NoSerial {
        /// The disk, for people.
        disk: String,
    },
}

impl DiskRule {
    /// The rule that names exactly one disk.
    pub fn by_serial(serial: &str) -> Self {
        Self { serial: Some(serial.to_owned()), ..Self::default() }
    }

    /// The one disk that this rule allows to be written, or why there is none.
    pub fn choose<'a>(&self, disks: &'a [Disk]) -> Result<&'a Disk, Refusal> {
        let candidates: Vec<&Disk> = disks.iter().filter(|disk| !disk.removable && !disk.read_only).collect();
        if candidates.is_empty() {
            return Err(Refusal::NoDisk);
        }
        let matching: Vec<&Disk> = candidates.iter().copied().filter(|disk| self.matches(disk)).collect();
        let disk = match matching.as_slice() {
            [] => {
                return Err(Refusal::NoMatch { rule: self.describe(), disks: describe_all(&candidates) });
            }
            [disk] => *disk,
            several => {
                let (count, disks) = (several.len(), describe_all(several));
                return Err(Refusal::Ambiguous { count, rule: self.describe(), disks });
            }
        };
        self.check(disk)?;
        Ok(disk)
    }

    fn check(&self, disk: &Disk) -> Result<(), Refusal> {
        let name = disk.describe();
        if disk.size < layout::min_disk_size() {
            return Err(Refusal::TooSmall { disk: name, needed: human_bytes(layout::min_disk_size()) });
        }
        if disk.serial.is_empty() {
            return Err(Refusal::NoSerial { disk: name });
        }
        if !disk.signatures.is_empty() && !self.wipe {
            return Err(Refusal::NotBlank { disk: name, found: describe_signatures(disk) });
        }
        Ok(())
    }

    fn matches(&self, disk: &Disk) -> bool {
        self.serial.as_ref().is_none_or(|serial| *serial == disk.serial)
            && self.model.as_ref().is_none_or(|model| disk.model.contains(model.as_str()))
            && self.transport.is_none_or(|transport| transport == disk.transport)
            && self.min_gib.is_none_or(|gib| u128::from(disk.size) >= u128::from(gib) * u128::from(layout::GIB))
            && self.max_gib.is_none_or(|gib| u128::from(disk.size) <= u128::from(gib) * u128::from(layout::GIB))
    }

    /// The rule for people: `serial = "X", min-gib = 8`, or `any disk`.
    pub fn describe(&self) -> String {
        let text = toml::to_string(self).unwrap_or_default().trim().replace('\n', ", ");
        if text.is_empty() { "any disk".to_owned() } else { text }
    }
}

fn describe_all(disks: &[&Disk]) -> String {
    disks.iter().map(|disk| disk.describe()).collect::<Vec<_>>().join(", ")
}

fn describe_signatures(disk: &Disk) -> String {
    let one = |signature: &crate::facts::Signature| {
        let label = if signature.label.is_empty() { String::new() } else { format!(" {:?}", signature.label) };
        format!("{}{label} on {}", signature.kind, signature.device)
    };
    disk.signatures.iter().map(one).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests;
