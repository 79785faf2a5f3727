//! The reconciler: look at what is, decide with `plan`, do it, tell the center; again whenever something happens or the plan says so.
//!
//! A trigger carries no data: orders, ends of jobs and time only wake it, and it looks at everything again. That is also why a
//! restart of the agent loses nothing.

mod apply;
pub mod helper;
mod observe;
pub mod plan;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use lodge_model::answer::CenterAnswer;
use lodge_model::api::Orders;
use lodge_model::fence::{FenceOutcome, Fenced};
use lodge_model::ids::{NodeId, TaskId};
use lodge_model::node::{BootFile, NodeFile, Role};
use lodge_model::paths;
use tokio::sync::watch;

use crate::fence::marks::Marks;
use crate::moments::{self, Moments, since_boot};
use helper::{Helper, Outcome};
use plan::{Failure, Job, ProbeFailure, Report, Step, plan};

/// The node as the reconciler knows it: what does not change, and what it remembers of its own doing.
pub struct World {
    file: NodeFile,
    boot: BootFile,
    moments: Moments,
    probe_dir: PathBuf,
    marks: Option<Marks>,
    helper: Helper,
    mount_failure: Option<(String, Duration)>,
    probe: Option<(Duration, Result<u32, ProbeFailure>)>,
    failures: BTreeMap<Step, Failure>,
    fenced_at: BTreeMap<TaskId, i64>,
    carried_out: u64,
    left: Option<CenterAnswer>,
    restart_asked: Option<Duration>,
    blessed: bool,
}

impl World {
    /// Nothing is done yet. The node that serves the share sees the heartbeat files.
    pub fn new(file: NodeFile, node: NodeId, boot: BootFile, moments: Moments, marks: Option<Marks>) -> Result<Self> {
        let root = if file.roles.contains(&Role::Share) { paths::SHARE_DATA } else { paths::SHARE };
        Ok(Self {
            probe_dir: PathBuf::from(format!("{root}/nodes/{node}")),
            file,
            boot,
            moments,
            marks,
            helper: Helper::start(helper::proof)?,
            mount_failure: None,
            probe: None,
            failures: BTreeMap::new(),
            fenced_at: BTreeMap::new(),
            carried_out: 0,
            left: None,
            restart_asked: None,
            blessed: false,
        })
    }

    /// Reconcile until the agent ends.
    pub async fn run(mut self, mut orders: watch::Receiver<Option<Orders>>, report: watch::Sender<Report>) -> Result<()> {
        loop {
            let ordered = orders.borrow_and_update().clone();
            let plan = plan(&self.observe()?, ordered.as_ref());
            self.carried_out = plan.report.generation;
            self.fenced_at = fenced_at(&plan.report);
            report.send_if_modified(|last| std::mem::replace(last, plan.report.clone()) != plan.report);
            let acted = !plan.actions.is_empty();
            for action in plan.actions {
                self.apply(action).await;
            }
            if acted {
                continue;
            }
            let pause = plan.look_again.saturating_sub(since_boot());
            tokio::select! {
                changed = orders.changed() => changed?,
                outcome = self.helper.ended() => self.took(outcome),
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Remember how a job ended.
    fn took(&mut self, outcome: Option<Outcome>) {
        let Some(Outcome { job, at, result }) = outcome else { return };
        match (job, result) {
            (Job::Probe(_), Ok(millis)) => {
                let first = self.moments.record(moments::SHARE).unwrap_or(false);
                if first || self.probe.as_ref().is_some_and(|(_, last)| last.is_err()) {
                    tracing::info!("the share answers ({millis} ms)");
                }
                self.probe = Some((at, Ok(millis)));
            }
            (Job::Probe(_), Err(error)) => {
                let failure = ProbeFailure { text: error.text, stale: error.stale };
                let news = self.probe.as_ref().is_none_or(|(_, last)| last.as_ref() != Err(&failure));
                if news {
                    tracing::warn!("the share fails: {}", failure.text);
                }
                self.probe = Some((at, Err(failure)));
            }
            (Job::Mount(_) | Job::Unmount, Ok(_)) => {
                self.mount_failure = None;
                self.probe = None;
            }
            (Job::Mount(_) | Job::Unmount, Err(error)) => {
                if self.mount_failure.as_ref().is_none_or(|(last, _)| *last != error.text) {
                    tracing::warn!("{}", error.text);
                }
                self.mount_failure = Some((error.text, at));
            }
        }
    }
}

/// When each ban was first seen in force: told the same way as long as it is.
fn fenced_at(report: &Report) -> BTreeMap<TaskId, i64> {
    let at = |fenced: &Fenced| match fenced.outcome {
        FenceOutcome::Confirmed { at, .. } => Some((fenced.id, at)),
        FenceOutcome::Failed { .. } => None,
    };
    report.fenced.iter().filter_map(at).collect()
}
