//! Facts and goal in, plan out: which disk, which slot, which steps in which order. Pure: no clock, no disk, no network.
//!
//! The order holds the promise that power may fail at any instant. A blank disk gets its boot entry last, so until then the firmware
//! goes on to where this installer came from. A disk that can start already first gets a request file, by which every start from it
//! comes back to the installer, and loses that file last.

use std::fmt;

use lodge_model::{
    bundle::Manifest,
    disk::{DiskRule, Refusal},
    facts::{Disk, Facts, Firmware, human_bytes},
    ids::NodeId,
    layout::{self, Slot},
    node::Role,
    ticket::{Ticket, TicketError},
};

use crate::installed::Found;

/// What the machine is to become, and by whose word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Goal {
    /// Host name.
    pub name: String,
    /// Roles.
    pub roles: Vec<Role>,
    /// Whose word it is.
    pub permission: Permission,
}

/// By whose word a disk is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Permission {
    /// The center's.
    Ticket(Box<Ticket>),
    /// Of whoever put a `[disk]` into this machine.
    InHand {
        /// The disk that is meant.
        rule: DiskRule,
        /// Where it says so.
        place: String,
    },
}

/// What will be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Host name.
    pub name: String,
    /// Roles.
    pub roles: Vec<Role>,
    /// The node, where the center gave it an identity already.
    pub node: Option<NodeId>,
    /// The disk that is written.
    pub disk: Disk,
    /// Why it may be.
    pub because: String,
    /// Version that is installed.
    pub version: String,
    /// Root hash of its base OS.
    pub roothash: String,
    /// The slot it goes to.
    pub slot: Slot,
    /// What is done, in order.
    pub steps: Vec<Step>,
}

/// One step. Each can be repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Read the whole bundle and verify it before anything is written.
    VerifyBundle,
    /// Let every start from this disk come back to the installer.
    Request,
    /// Partition table.
    Partition,
    /// State file system; all that was on it is gone.
    FormatState,
    /// Verity tree into the slot.
    WriteVerity(Slot),
    /// Root file system into the slot.
    WriteRoot(Slot),
    /// Read the slot back from the disk and compare.
    ReadBack(Slot),
    /// The bundle itself, for a center to give to others.
    StoreBundle,
    /// Key, certificate request, certificate.
    Enrol,
    /// What the node is.
    NodeFiles,
    /// Mount the share and write to it.
    ProveShare,
    /// EFI system partition and boot entry: from here on the disk starts.
    BootEntry,
    /// A start from this disk no longer comes back to the installer.
    ClearRequest,
}

impl Step {
    /// The stable name, in events, on consoles and in documents.
    pub const fn name(self) -> &'static str {
        match self {
            Step::VerifyBundle => "verify-bundle",
            Step::Request => "request",
            Step::Partition => "partition",
            Step::FormatState => "format-state",
            Step::WriteVerity(_) => "write-verity",
            Step::WriteRoot(_) => "write-root",
            Step::ReadBack(_) => "read-back",
            Step::StoreBundle => "store-bundle",
            Step::Enrol => "enrol",
            Step::NodeFiles => "node-files",
            Step::ProveShare => "prove-share",
            Step::BootEntry => "boot-entry",
            Step::ClearRequest => "clear-request",
        }
    }

    fn describe(self, plan: &Plan) -> String {
        let disk = &plan.disk.name;
        let partition = |label: &str| format!("partition {label} of {disk}");
        match self {
            Step::VerifyBundle => format!("read bundle {} once and verify all of it", plan.version),
            Step::Request => format!("let every start from {disk} come back to the installer"),
            Step::Partition => format!("make the partition table of {disk} Lodge's; one that is already is kept"),
            Step::FormatState => format!("make a new ext4 on {}", partition(layout::STATE)),
            Step::WriteVerity(slot) => format!("write the verity tree to {}", partition(slot.verity_label())),
            Step::WriteRoot(slot) => format!("write the base OS to {}", partition(slot.root_label())),
            Step::ReadBack(slot) => format!("read slot {slot:?} back from {disk} and compare"),
            Step::StoreBundle => "keep the bundle for the nodes that this center will install".to_owned(),
            Step::Enrol => "make a key and have the center certify it".to_owned(),
            Step::NodeFiles => format!("write down that this is {} ({})", plan.name, roles(&plan.roles)),
            Step::ProveShare => "mount the share, write, read and remove a file".to_owned(),
            Step::BootEntry => format!("make {disk} start version {}", plan.version),
            Step::ClearRequest => "a start no longer comes back to the installer".to_owned(),
        }
    }
}

/// Why there is no plan.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// Installed disks start by UEFI.
    #[error(
        "this machine was started by BIOS, and an installed disk starts by UEFI in this version; switch the firmware to UEFI and \
         start again; nothing was written"
    )]
    Bios,
    /// The ticket does not allow it.
    #[error(transparent)]
    Ticket(#[from] TicketError),
    /// The rule in hand allows no disk.
    #[error("by the [disk] of {place}: {refusal}")]
    Disk {
        /// Where the rule stands.
        place: String,
        /// Why no disk is taken.
        refusal: Refusal,
    },
    /// The base OS is for another machine than this.
    #[error("{0:?} is not a root hash")]
    RootHash(String),
}

/// The disk that may be written at this time (seconds since 1970).
pub fn choose<'a>(facts: &'a Facts, goal: &Goal, now: i64) -> Result<&'a Disk, PlanError> {
    if facts.firmware == Firmware::Bios {
        return Err(PlanError::Bios);
    }
    match &goal.permission {
        Permission::Ticket(ticket) => Ok(ticket.disk(facts, now)?),
        Permission::InHand { rule, place } => {
            rule.choose(&facts.disks).map_err(|refusal| PlanError::Disk { place: place.clone(), refusal })
        }
    }
}

/// The plan for a disk that was chosen and looked at.
pub fn make(disk: &Disk, goal: &Goal, found: &Found, manifest: &Manifest) -> Result<Plan, PlanError> {
    let (root, _) = layout::slot_uuids(&manifest.roothash).ok_or_else(|| PlanError::RootHash(manifest.roothash.clone()))?;
    let holds_root = |label: &str| found.entries.iter().flatten().any(|entry| entry.label == label && entry.uuid == root);
    // The same version goes where it is already.
    let slot = if holds_root(Slot::B.root_label()) { Slot::B } else { Slot::A };
    let (node, because) = match &goal.permission {
        Permission::Ticket(ticket) => (Some(ticket.node), format!("ticket {}", ticket.id)),
        Permission::InHand { place, .. } => (None, format!("the [disk] of {place}")),
    };
    Ok(Plan {
        name: goal.name.clone(),
        roles: goal.roles.clone(),
        node,
        disk: disk.clone(),
        because,
        version: manifest.version.clone(),
        roothash: manifest.roothash.clone(),
        slot,
        steps: steps(goal, found.bootable, slot),
    })
}

fn steps(goal: &Goal, bootable: bool, slot: Slot) -> Vec<Step> {
    let enrols = matches!(goal.permission, Permission::Ticket(_));
    let serves_bundles = goal.roles.contains(&Role::Center);
    let mut steps = vec![Step::VerifyBundle];
    steps.extend(bootable.then_some(Step::Request));
    steps.extend([Step::Partition, Step::FormatState, Step::WriteVerity(slot), Step::WriteRoot(slot), Step::ReadBack(slot)]);
    steps.extend(serves_bundles.then_some(Step::StoreBundle));
    steps.extend(enrols.then_some(Step::Enrol));
    steps.push(Step::NodeFiles);
    // A share node cannot mount what it will serve only after its first start.
    steps.extend((enrols && !goal.roles.contains(&Role::Share)).then_some(Step::ProveShare));
    steps.push(Step::BootEntry);
    steps.extend(bootable.then_some(Step::ClearRequest));
    steps
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "Plan: install version {} as {} ({})", self.version, self.name, roles(&self.roles))?;
        writeln!(f, "  on disk {} (by {})", self.disk.describe(), self.because)?;
        for signature in &self.disk.signatures {
            let label = if signature.label.is_empty() { String::new() } else { format!(" {:?}", signature.label) };
            writeln!(f, "  overwriting {}{label} on {}", signature.kind, signature.device)?;
        }
        for (number, step) in (1..).zip(&self.steps) {
            writeln!(f, "  {number:>2}. {:<14} {}", step.name(), step.describe(self))?;
        }
        write!(f, "  the base OS takes {} of each slot at most, the state the rest", human_bytes(layout::ROOT_SIZE))
    }
}

fn roles(roles: &[Role]) -> String {
    roles.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
pub mod tests;
