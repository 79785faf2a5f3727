//! What may be asked for when an environment is created or changed. Checked here once, for the command line, the API and files alike.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::layout::{GIB, MIB};
use crate::live::MoveBy;

/// Least and greatest size of a disk, in bytes.
pub const DISK: std::ops::RangeInclusive<u64> = 256 * MIB..=16 * 1024 * GIB;
/// Least and greatest memory, in bytes.
pub const MEMORY: std::ops::RangeInclusive<u64> = 32 * MIB..=4 * 1024 * GIB;
/// Least and greatest share of processors, in thousandths of one.
pub const CPU_MILLIS: std::ops::RangeInclusive<u32> = 50..=1_024_000;
/// Bytes of memory for each process or thread that may be there: about what a shell takes with its stack and page tables in the kernel.
const MEMORY_PER_TASK: u64 = 256 << 10;
/// Least and greatest number of processes and threads that are allowed.
const TASKS: std::ops::RangeInclusive<u64> = 256..=32_768;
/// Priority where none is asked for; greater is more important.
pub const PRIORITY: u32 = 100;

/// How many processes and threads an environment with so much memory may have. A fork bomb ends there, before the kernel runs out of
/// the environment's memory and ends its sshd and its init.
pub fn tasks_max(memory: u64) -> u32 {
    let tasks = (memory / MEMORY_PER_TASK).clamp(*TASKS.start(), *TASKS.end());
    u32::try_from(tasks).unwrap_or(u32::MAX)
}

/// Everything that can be asked for. Sizes are bytes in JSON; the command line takes `10G`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Spec {
    /// Unique in the cluster; also its host name.
    pub name: String,
    /// Name of a template, or the digest of one.
    pub template: String,
    /// Bytes of its disk: what it may store.
    pub disk: u64,
    /// Bytes of memory it may use.
    pub memory: u64,
    /// Thousandths of a processor it may use.
    pub cpu_millis: u32,
    /// Lines for root's `authorized_keys`.
    #[serde(default)]
    pub ssh_keys: Vec<String>,
    /// Addresses from the pools; where it is empty, the next free one of each family (IPv4, IPv6) that there are pools of.
    #[serde(default)]
    #[schema(value_type = Vec<String>)]
    pub addresses: Vec<IpAddr>,
    /// Greater is started first and moved first.
    #[serde(default = "priority")]
    pub priority: u32,
    /// Environments of one group are kept on different nodes.
    #[serde(default)]
    pub anti_affinity: Option<String>,
    /// The only node it may run on.
    #[serde(default)]
    pub node: Option<String>,
    /// Labels that a node must have.
    #[serde(default)]
    pub node_labels: BTreeMap<String, String>,
    /// What happens when its init ends.
    #[serde(default)]
    pub restart: Restart,
    /// How it moves to another node.
    #[serde(default)]
    pub move_by: MoveBy,
}

fn priority() -> u32 {
    PRIORITY
}

/// What happens when an environment's init ends without having been told to. `reboot` inside always starts it again, `poweroff` inside
/// never does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Restart {
    /// Started again, with growing pauses.
    #[default]
    OnFailure,
    /// Left as it is.
    Never,
}

/// Changes to an environment that exists; what is absent stays.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Change {
    /// New name.
    pub name: Option<String>,
    /// New size of the disk; it only grows.
    pub disk: Option<u64>,
    /// New memory limit; at once.
    pub memory: Option<u64>,
    /// New processor limit; at once.
    pub cpu_millis: Option<u32>,
    /// New priority.
    pub priority: Option<u32>,
    /// New group; an empty text takes it out of its group.
    pub anti_affinity: Option<String>,
    /// New restart policy.
    pub restart: Option<Restart>,
    /// How it is to move from now on. Said anew, what became of its moves before does not count any more.
    pub move_by: Option<MoveBy>,
}

/// Why a value cannot be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {why}")]
pub struct SpecError {
    /// The field, as in JSON.
    pub field: &'static str,
    /// For people.
    pub why: String,
}

impl Spec {
    /// Check what can be checked without knowing the cluster.
    pub fn check(&self) -> Result<(), SpecError> {
        check_name("name", &self.name)?;
        if self.template.is_empty() {
            return Err(error("template", "name one; `lodge template ls` shows them"));
        }
        check_sizes(Some(self.disk), Some(self.memory), Some(self.cpu_millis))?;
        if let Some(group) = &self.anti_affinity {
            check_name("anti-affinity", group)?;
        }
        self.ssh_keys.iter().try_for_each(|key| check_ssh_key(key))
    }
}

impl Change {
    /// Check what can be checked without knowing the environment.
    pub fn check(&self) -> Result<(), SpecError> {
        if let Some(name) = &self.name {
            check_name("name", name)?;
        }
        if let Some(group) = self.anti_affinity.as_ref().filter(|group| !group.is_empty()) {
            check_name("anti-affinity", group)?;
        }
        check_sizes(self.disk, self.memory, self.cpu_millis)
    }
}

fn check_name(field: &'static str, name: &str) -> Result<(), SpecError> {
    crate::node::check_name(name).map_err(|why| SpecError { field, why })
}

fn check_sizes(disk: Option<u64>, memory: Option<u64>, cpu_millis: Option<u32>) -> Result<(), SpecError> {
    if let Some(disk) = disk.filter(|disk| !DISK.contains(disk)) {
        return Err(error("disk", format!("{disk} bytes; from 256 MiB to 16 TiB is possible")));
    }
    if let Some(memory) = memory.filter(|memory| !MEMORY.contains(memory)) {
        return Err(error("memory", format!("{memory} bytes; from 32 MiB to 4 TiB is possible")));
    }
    if let Some(millis) = cpu_millis.filter(|millis| !CPU_MILLIS.contains(millis)) {
        return Err(error("cpu-millis", format!("{millis}; from 50 (a twentieth of a processor) to 1024000 is possible")));
    }
    Ok(())
}

/// One line, a type of OpenSSH's and base64.
pub fn check_ssh_key(key: &str) -> Result<(), SpecError> {
    const TYPES: [&str; 4] = ["ssh-", "ecdsa-sha2-", "sk-ssh-", "sk-ecdsa-"];
    let wrong = |why: &str| error("ssh-keys", format!("{:?}: {why}", key.chars().take(40).collect::<String>()));
    if key.trim() != key || key.chars().any(char::is_control) {
        return Err(wrong("give each key as one line, without spaces around it"));
    }
    let mut words = key.split(' ');
    let kind = words.next().unwrap_or_default();
    if !TYPES.iter().any(|known| kind.starts_with(known)) || words.next().is_none_or(|blob| blob.len() < 16) {
        return Err(wrong("not a public key; give the contents of a file as ~/.ssh/id_ed25519.pub"));
    }
    Ok(())
}

fn error(field: &'static str, why: impl Into<String>) -> SpecError {
    SpecError { field, why: why.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec() -> Spec {
        serde_json::from_value(serde_json::json!({
            "name": "web1", "template": "tiny", "disk": GIB, "memory": 128 * MIB, "cpu-millis": 500
        }))
        .unwrap()
    }

    #[test]
    fn tasks_are_as_many_as_there_is_memory_for() {
        assert_eq!([32 * MIB, 96 * MIB, GIB, 64 * GIB].map(tasks_max), [256, 384, 4096, 32_768]);
    }

    #[test]
    fn what_is_left_out_has_its_usual_value() {
        let spec = spec();
        assert_eq!((spec.priority, spec.restart, spec.check()), (PRIORITY, Restart::OnFailure, Ok(())));
    }

    #[test]
    fn every_wrong_value_names_its_field() {
        let wrong = |change: &dyn Fn(&mut Spec)| {
            let mut spec = spec();
            change(&mut spec);
            spec.check().unwrap_err().field
        };
        assert_eq!(wrong(&|spec| spec.name = "Web_1".into()), "name");
        assert_eq!(wrong(&|spec| spec.disk = 1), "disk");
        assert_eq!(wrong(&|spec| spec.memory = u64::MAX), "memory");
        assert_eq!(wrong(&|spec| spec.cpu_millis = 0), "cpu-millis");
        assert_eq!(wrong(&|spec| spec.template.clear()), "template");
        assert_eq!(wrong(&|spec| spec.ssh_keys = vec!["secret".into()]), "ssh-keys");
        assert_eq!(wrong(&|spec| spec.ssh_keys = vec!["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAA x\nssh-rsa y".into()]), "ssh-keys");
        assert_eq!(wrong(&|spec| spec.anti_affinity = Some("-".into())), "anti-affinity");
    }
}
