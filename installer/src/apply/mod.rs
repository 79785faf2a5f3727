//! Carries a plan out, one exhaustive match. Decides nothing. Every step can be repeated.

mod boot;
mod disk;
mod node;
mod slot;
mod storage;

use std::path::PathBuf;

use anyhow::Result;
use lodge_client::Center;
use lodge_model::{
    answer::{Answer, NetworkAnswer, SiteAnswer},
    api::ShareMount,
    bundle::Manifest,
    facts::{Disk, Signature},
    ids::MachineId,
    node::CenterRef,
    ticket::Ticket,
};
use lodge_network::Uplink;
use tokio::runtime::Runtime;

use crate::{
    bundle::{ReleaseKey, Source},
    mounted::Mounted,
    plan::{Plan, Step},
    report::Report,
};

/// Everything a plan is carried out with.
pub struct Apply<'a> {
    /// The plan.
    pub plan: &'a Plan,
    /// The machine.
    pub machine: MachineId,
    /// What was on the disk when the plan was made.
    pub seen: Vec<Signature>,
    /// Where progress goes.
    pub report: &'a mut Report,
    /// The bundle.
    pub source: Source,
    /// Its verified manifest.
    pub manifest: Manifest,
    /// Who must have signed it.
    pub key: ReleaseKey,
    /// Left on the disk while it is being reinstalled.
    pub answer: Answer,
    /// Fixed uplink of the node.
    pub network: Option<NetworkAnswer>,
    /// First settings of a new center.
    pub site: Option<SiteAnswer>,
    /// The center and how this machine reaches it; absent where the machine is to be one itself.
    pub enrolment: Option<Enrolment<'a>>,
    /// What the machine has that a test has otherwise.
    pub host: Host,
}

/// The center, for the steps that need it.
pub struct Enrolment<'a> {
    /// The center.
    pub center: &'a Center,
    /// The runtime its calls run in.
    pub runtime: &'a Runtime,
    /// By its word.
    pub ticket: Ticket,
    /// How it is known.
    pub center_ref: CenterRef,
    /// How this machine reaches it.
    pub uplink: Uplink,
}

/// Where things are on this machine.
#[derive(Clone, Debug)]
pub struct Host {
    /// The boot loader that goes to the ESP.
    pub boot_loader: PathBuf,
    /// File system of the ESP. FAT; a kernel without FAT can only be tested with another one.
    pub esp_fstype: &'static str,
    /// Look at a disk again.
    pub look: fn(&str) -> Result<Disk>,
    /// Whether a boot entry is written to the firmware.
    pub firmware: bool,
}

impl Default for Host {
    fn default() -> Self {
        Self {
            boot_loader: "/usr/lib/lodge/systemd-bootx64.efi".into(),
            esp_fstype: "vfat",
            look: lodge_sys::facts::disks::disk,
            firmware: true,
        }
    }
}

/// What steps hand to later ones.
#[derive(Default)]
struct Progress {
    state: Option<Mounted>,
    stream: Option<slot::Parts>,
    share: Option<ShareMount>,
}

/// Carry the plan out.
pub fn run(mut apply: Apply) -> Result<()> {
    let mut progress = Progress::default();
    for step in apply.plan.steps.clone() {
        apply.report.begin(step.name());
        apply.step(step, &mut progress)?;
        apply.report.end();
    }
    Ok(())
}

impl Apply<'_> {
    fn step(&mut self, step: Step, progress: &mut Progress) -> Result<()> {
        match step {
            Step::VerifyBundle => self.verify_bundle(),
            Step::Request => self.request(),
            Step::Partition => self.partition(),
            Step::FormatState => self.format_state(progress),
            Step::WriteVerity(slot) => self.write_verity(slot, progress),
            Step::WriteRoot(slot) => self.write_root(slot, progress),
            Step::ReadBack(slot) => self.read_back(slot),
            Step::StoreBundle => self.store_bundle(progress),
            Step::Enrol => self.enrol(progress),
            Step::NodeFiles => self.node_files(progress),
            Step::ProveShare => self.prove_share(progress),
            Step::BootEntry => self.boot_entry(progress),
            Step::ClearRequest => self.clear_request(),
        }
    }
}

#[cfg(test)]
mod tests;
