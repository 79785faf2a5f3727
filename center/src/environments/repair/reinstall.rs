//! A new system for an environment, with its old files at `/old`.
//!
//! The intent is a change of its template; what was written above the old one is set aside on the disk by the node that mounts it first
//! in the next epoch. A snapshot remembers what the environment was, so that going back to one brings the old system back.

use jiff::Timestamp;
use lodge_model::environment::order::TemplateRef;
use lodge_model::environment::view::{EnvironmentView, OldView, ReinstallOrder};
use serde::{Deserialize, Serialize};

use super::request::{hand_over, is_idle};
use crate::auth::Caller;
use crate::environments::records::{Environment, Goal};
use crate::environments::{reconcile, request, snapshots};
use crate::fault::Fault;
use crate::flow::World;
use crate::store::Tx;
use crate::templates;

/// What an environment was before it was reinstalled.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Old {
    /// The template below its old files.
    pub template: TemplateRef,
    /// Its name.
    pub template_name: String,
    /// When it was reinstalled.
    pub since: Timestamp,
    /// Number of the reinstallation, from 1.
    pub generation: u32,
    /// The snapshot that was taken before.
    pub snapshot: Option<String>,
    /// The last epoch before.
    pub after: u64,
    /// What was to become of it before.
    pub was: Goal,
}

/// What an environment was when a snapshot of it was taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct System {
    /// Its template.
    pub template: TemplateRef,
    /// Its name.
    pub template_name: String,
    /// What it was before that.
    pub old: Option<Old>,
}

impl System {
    /// What it is now.
    pub fn of(environment: &Environment) -> Self {
        let template_name = environment.spec.template.clone();
        Self { template: environment.template.clone(), template_name, old: environment.old.clone() }
    }

    fn put(self, environment: &mut Environment) {
        environment.template = self.template;
        environment.spec.template = self.template_name;
        environment.old = self.old;
    }
}

impl Old {
    /// For operators and users.
    pub fn shown(&self) -> OldView {
        OldView { template: self.template_name.clone(), since: self.since, snapshot: self.snapshot.clone() }
    }
}

/// Give it a new system. It is stopped, kept as a snapshot, and started anew; `force` as for a start, where it does not run.
pub fn reinstall(
    tx: &Tx,
    world: &World,
    caller: &Caller,
    name: &str,
    (order, force): (&ReinstallOrder, bool),
    now: Timestamp,
) -> Result<EnvironmentView, Fault> {
    let found = snapshots::with_disk(request::find_kept(tx, caller, name)?)?;
    if found.repair.is_some() {
        return Err(Fault::conflict(format!("{name} is under repair; end that first: lodge env repair {name} --finish")));
    }
    is_idle(tx, &found)?;
    let template_name = order.template.clone().unwrap_or_else(|| found.spec.template.clone());
    let template = templates::find(tx, &template_name)?;
    let snapshot = order.snapshot.then(|| format!("before-reinstall-{}", now.strftime("%Y%m%d-%H%M%S")));
    if let Some(snapshot) = &snapshot {
        snapshots::take(tx, caller, name, Some(snapshot), now)?;
    }
    let before = request::find_kept(tx, caller, name)?;
    let mut environment = before.clone();
    environment.reinstalls += 1;
    environment.old = Some(Old {
        template: before.template.clone(),
        template_name: before.spec.template.clone(),
        since: now,
        generation: environment.reinstalls,
        snapshot,
        after: before.epoch,
        was: before.goal,
    });
    environment.template = template;
    environment.spec.template = template_name;
    hand_over(&mut environment);
    request::admit(tx, world, caller, force, (Some(&before), &environment), now)?;
    reconcile::log(tx, &environment, &format!("{name} is to be reinstalled"), now)?;
    request::finish(tx, world, &before, environment, now)
}

/// Its disk is that of a snapshot again: so is its system.
pub fn is_back(environment: &mut Environment, snapshot: &str) {
    let kept = environment.snapshots.iter().find(|kept| kept.name == snapshot);
    if let Some(system) = kept.and_then(|kept| kept.system.clone()) {
        system.put(environment);
    }
}

/// The snapshot that was to be taken first could not be taken: it is as it was.
pub fn has_failed(environment: &mut Environment, snapshot: &str) {
    let was = environment.old.as_ref().map(|old| old.was);
    is_back(environment, snapshot);
    environment.goal = was.unwrap_or(environment.goal);
}
