//! Repair: the files of an environment, opened to a clean system on any node.
//!
//! A repair environment is the environment itself in a later epoch, made differently: its own root is a clean template whose changes stay in
//! memory, and what the disk holds is beside it. So there is one right to run, one disk and one lock as ever, the broken one cannot run
//! meanwhile, and whatever is done about environments (places, moves, drains, failover, quotas, capacity) is done about it without a word.
//!
//! 1. `request::begin` notes the repair. The environment is stopped, or its node ends; then its disk is kept as a snapshot.
//! 2. The epoch after that is the repair environment's, and so are all that follow.
//! 3. `request::finish` has it stopped and, if asked, the disk put back; then `follow` drops the note, and the next epoch is the
//!    environment's own.

pub mod reinstall;
pub mod request;

use std::collections::BTreeSet;
use std::net::IpAddr;

use jiff::Timestamp;
use lodge_model::environment::order::{Address, Beside, TaskKind, TaskOutcome, TemplateMeta, TemplateRef};
use lodge_model::environment::view::RepairView;
use lodge_model::ids::EnvironmentId;
use serde::{Deserialize, Serialize};

use super::records::{Environment, Goal, Task};
use super::settle::Cluster;
pub use reinstall::Old;

/// What the host name of a repair environment ends with.
const SUFFIX: &str = "-repair";
/// Longest host name (RFC 1123).
const LONGEST: usize = 63;

/// An environment is repaired.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Repair {
    /// The clean system.
    pub template: TemplateRef,
    /// Its name.
    pub template_name: String,
    /// The only node for it.
    pub node: Option<String>,
    /// Addresses of its own.
    pub addresses: Option<Addresses>,
    /// Who else may log in.
    pub ssh_keys: Vec<String>,
    /// The snapshot that is taken first.
    pub snapshot: Option<String>,
    /// When it was asked for.
    pub since: Timestamp,
    /// The last epoch of the environment itself: greater ones are the repair environment's.
    pub after: u64,
    /// What was to become of the environment before.
    pub was: Goal,
    /// It is to end.
    pub ends: bool,
    /// What was mended of the file system, as the node tells.
    pub mended: String,
}

/// Addresses, and the name servers that go with them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Addresses {
    /// The addresses.
    pub addresses: Vec<Address>,
    /// Name servers.
    pub dns: Vec<IpAddr>,
}

impl Environment {
    /// The repair whose environment has, or had last, the right to run.
    pub fn repair_now(&self) -> Option<&Repair> {
        self.repair.as_ref().filter(|repair| self.epoch > repair.after)
    }

    /// What its root is made from. What is shown another root besides is never moved live: that root is no part of a checkpoint, nor is what
    /// a repair environment has in memory.
    pub fn template_now(&self) -> TemplateRef {
        let template = self.repair_now().map_or(&self.template, |repair| &repair.template);
        let movable = template.meta.movable && self.beside().is_none();
        TemplateRef { meta: TemplateMeta { movable, ..template.meta.clone() }, ..template.clone() }
    }

    /// What it is shown besides its root.
    pub fn beside(&self) -> Option<Beside> {
        let old = || self.old.as_ref().map(|old| Beside::Old { template: old.template.clone(), generation: old.generation });
        self.repair_now().map(|_| Beside::Repair { template: self.template.clone() }).or_else(old)
    }

    /// Every template that it needs, or may need again.
    pub fn templates(&self) -> impl Iterator<Item = &TemplateRef> {
        let repair = self.repair.iter().map(|repair| &repair.template);
        let systems = self.snapshots.iter().filter_map(|kept| kept.system.as_ref());
        let old = self.old.iter().chain(systems.clone().filter_map(|system| system.old.as_ref())).map(|old| &old.template);
        std::iter::once(&self.template).chain(repair).chain(systems.map(|system| &system.template)).chain(old)
    }

    /// Its addresses in this epoch, and the name servers that go with them.
    pub fn addresses_now(&self) -> (&[Address], &[IpAddr]) {
        match self.repair_now().and_then(|repair| repair.addresses.as_ref()) {
            Some(own) => (&own.addresses, &own.dns),
            None => (&self.addresses, &self.dns),
        }
    }

    /// Its host name in this epoch.
    pub fn host_name(&self) -> String {
        let name = &self.spec.name;
        match self.repair_now() {
            Some(_) => repair_name(name),
            None => name.clone(),
        }
    }

    /// Who may log in, in this epoch.
    pub fn ssh_keys(&self) -> Vec<String> {
        let more = self.repair_now().map_or(&[][..], |repair| &repair.ssh_keys);
        self.spec.ssh_keys.iter().chain(more).cloned().collect()
    }

    /// The only node that it may be given to.
    pub fn only_on(&self) -> Option<&str> {
        self.repair.as_ref().map_or(&self.spec.node, |repair| &repair.node).as_deref()
    }

    /// Whether this snapshot is the one that is taken between its end and its repair or reinstallation.
    pub fn is_kept_by(&self, wanted: &str) -> bool {
        let repair = self.repair.iter().map(|repair| (repair.after, &repair.snapshot));
        let old = self.old.iter().map(|old| (old.after, &old.snapshot));
        repair.chain(old).any(|(after, snapshot)| after == self.epoch && snapshot.as_deref() == Some(wanted))
    }
}

/// `web1-repair`, as much of it as a host name holds.
fn repair_name(name: &str) -> String {
    let kept = name.get(..LONGEST - SUFFIX.len()).unwrap_or(name).trim_end_matches('-');
    format!("{kept}{SUFFIX}")
}

/// Repairs that are to end, do: nothing of the repair environment is left, and nobody works on the disk any more.
pub fn follow(cluster: &mut Cluster) {
    let busy: BTreeSet<EnvironmentId> = cluster.tasks.values().filter(|task| task.is_open()).flat_map(Task::about).collect();
    for environment in cluster.environments.values_mut() {
        let is_over = environment.repair.as_ref().is_some_and(|repair| repair.ends);
        if is_over && environment.place.is_none() && !busy.contains(&environment.id) {
            environment.repair = None;
        }
    }
}

/// A task about its disk could not be done. Without the snapshot there is no repair, and it goes on as before; without the way back the
/// repair does not end, and nothing is started until somebody has decided.
pub fn has_failed(environment: &mut Environment, what: &TaskKind) {
    match what {
        TaskKind::Snapshot { snapshot, .. } if environment.is_kept_by(snapshot) => match environment.repair.take() {
            Some(repair) => environment.goal = repair.was,
            None => reinstall::has_failed(environment, snapshot),
        },
        TaskKind::Rollback { .. } => {
            if let Some(repair) = environment.repair.as_mut().filter(|repair| repair.ends) {
                repair.ends = false;
                environment.goal = Goal::Stopped;
            }
        }
        _ => {}
    }
}

/// What it waits for next, for people, while it is shut down.
pub fn next(environment: &Environment) -> Option<&'static str> {
    environment.repair.as_ref().map(|repair| match (repair.ends, environment.epoch > repair.after) {
        (true, _) => "its repair has ended; it is started again as soon as the repair environment has shut down",
        (false, false) => "its files are opened for repair as soon as it has shut down",
        (false, true) => "its repair environment is started again as soon as it has shut down",
    })
}

/// For operators and users.
pub fn shown(environment: &Environment) -> Option<RepairView> {
    let repair = environment.repair.as_ref()?;
    Some(RepairView {
        name: repair_name(&environment.spec.name),
        template: repair.template_name.clone(),
        snapshot: repair.snapshot.clone(),
        since: repair.since,
        open: environment.epoch > repair.after,
        ends: repair.ends,
        mended: repair.mended.clone(),
    })
}

/// Whether a snapshot is complete.
fn is_whole(environment: &Environment, name: &str) -> bool {
    let is_it = |kept: &super::records::Snapshot| kept.name == name && matches!(kept.outcome, TaskOutcome::Done { .. });
    environment.snapshots.iter().any(is_it)
}

#[cfg(test)]
mod tests;
