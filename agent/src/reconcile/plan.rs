//! The decision: from what is ordered and what is, to what is done now and what is reported. Pure; time is an argument.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use lodge_model::answer::CenterAnswer;
use lodge_model::api::{Orders, ShareHealth, ShareMount};
use lodge_model::fence::{Ban, Fenced};
use lodge_model::ids::TaskId;
use lodge_model::node::Role;
use lodge_model::paths;

use crate::exports::{self, Export};
use crate::fence::plan as fence;

/// A share that answers is proved again after this long.
pub const PROBE_EVERY: Duration = Duration::from_secs(10);
/// A share that failed is tried again after this long.
pub const SHARE_RETRY: Duration = Duration::from_secs(1);
/// Any other step that failed is tried again after this long.
pub const STEP_RETRY: Duration = Duration::from_secs(5);
/// A share that has not answered for this long is reported as failed. The kernel goes on trying.
pub const PATIENCE: Duration = Duration::from_secs(5);
/// init accepted a restart but the machine still runs: ask again.
pub const RESTART_AGAIN: Duration = Duration::from_secs(600);

/// What is.
#[derive(Clone, Debug, Default)]
pub struct Observed {
    /// Time since the kernel started.
    pub now: Duration,
    /// Roles of this node.
    pub roles: Vec<Role>,
    /// Where this node proves the share.
    pub probe_dir: PathBuf,
    /// What is mounted at `paths::SHARE`.
    pub mounted: Mounted,
    /// The NFS server of this node, where it has that role.
    pub server: Option<Server>,
    /// What the helper is doing.
    pub busy: Option<(Job, Duration)>,
    /// How the last mount or unmount that failed ended, and when.
    pub mount_failure: Option<(String, Duration)>,
    /// The last proof: when it ended, and how.
    pub probe: Option<(Duration, Result<u32, ProbeFailure>)>,
    /// Steps that failed last time they were tried.
    pub failures: BTreeMap<Step, Failure>,
    /// The newest generation that was carried out.
    pub carried_out: u64,
    /// The answer that has been left on the ESP.
    pub left: Option<CenterAnswer>,
    /// When init was asked for a restart.
    pub restart_asked: Option<Duration>,
    /// The boot entry has been marked good.
    pub blessed: bool,
}

/// What is at the share's mount point.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Mounted {
    /// Nothing.
    #[default]
    No,
    /// The share of this server.
    From(IpAddr),
    /// This node's own share data.
    Own,
    /// Something else.
    Foreign(String),
}

/// The NFS server of a share node.
#[derive(Clone, Debug, Default)]
pub struct Server {
    /// Its threads; none means that it does not serve.
    pub threads: u32,
    /// Who is cut from it.
    pub fence: fence::Facts,
    /// When each ban was first seen in force, in seconds since 1970.
    pub fenced_at: BTreeMap<TaskId, i64>,
    /// The same clock's time now.
    pub wall: i64,
}

/// What may hang, and is therefore done by the helper.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Job {
    /// Mount the share of this server.
    Mount(IpAddr),
    /// Unmount, whatever is there, in bounded time.
    Unmount,
    /// Write, fsync, read and unlink in this directory.
    Probe(PathBuf),
}

/// A proof that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeFailure {
    /// For people.
    pub text: String,
    /// Only a new mount helps.
    pub stale: bool,
}

/// What can fail and be tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// Cutting a node from the share, or letting one in again.
    Fence,
    /// Changing the exports.
    Exports,
    /// Showing a share node's own data at the mount point.
    Bind,
    /// Leaving an answer on the ESP.
    LeaveAnswer,
    /// Asking init for a restart.
    Restart,
    /// Marking the boot entry good.
    Bless,
}

/// A step that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// When, since the kernel started.
    pub at: Duration,
    /// For people.
    pub text: String,
}

/// What is done now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Cut nodes from the share, or let one in again.
    Fence(fence::Step),
    /// Change the exports: removals first.
    Export {
        /// Taken away.
        remove: Vec<Export>,
        /// Let in.
        add: Vec<Export>,
    },
    /// Show this node's own share data at the mount point.
    Bind,
    /// Give the helper something to do.
    Start(Job),
    /// Leave this answer on the ESP, so that the next boot reinstalls.
    LeaveAnswer(CenterAnswer),
    /// Ask init for a restart.
    Restart,
    /// Mark the boot entry good.
    Bless,
}

/// What the center is told.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// The share as this node sees it.
    pub share: ShareHealth,
    /// The newest generation that has been carried out.
    pub generation: u64,
    /// What keeps an order from being carried out.
    pub problem: Option<String>,
    /// Of a share node: how the bans stand.
    pub fenced: Vec<Fenced>,
}

/// What to do, what to tell, and when to look again if nothing happens before.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// In order.
    pub actions: Vec<Action>,
    /// For the center.
    pub report: Report,
    /// Time since the kernel started.
    pub look_again: Duration,
}

impl Default for Report {
    fn default() -> Self {
        Self { share: ShareHealth::Unknown, generation: 0, problem: None, fenced: Vec::new() }
    }
}

/// Decide.
pub fn plan(observed: &Observed, orders: Option<&Orders>) -> Plan {
    let mut problems = Vec::new();
    let mut actions = Vec::new();
    let (late, banned) = banned(observed, orders);
    let banned = banned.as_slice();
    actions.extend(cut(observed, banned));
    if actions.is_empty() {
        actions.extend(orders.and_then(|orders| export(observed, orders, banned, &mut problems)));
    }
    actions.extend(share(observed, orders, &mut problems));
    let done =
        actions.is_empty() && problems.is_empty() && observed.failures.is_empty() && is_mounted_as_ordered(observed, orders);
    actions.extend(orders.and_then(|orders| reinstall(observed, orders)));
    let health = health(observed);
    if orders.is_some() && matches!(health, ShareHealth::Serving | ShareHealth::Mounted { .. }) {
        actions.extend((!observed.blessed && may_try(observed, Step::Bless)).then_some(Action::Bless));
    }
    problems.extend(observed.failures.values().map(|failure| failure.text.clone()));
    let generation = match orders {
        Some(orders) if done && orders.reinstall.is_none() => orders.generation,
        _ => observed.carried_out,
    };
    let problem = (!problems.is_empty()).then(|| problems.join("; "));
    let report = Report { share: health, generation, problem, fenced: fenced(observed, banned, &late) };
    Plan { actions, report, look_again: look_again(observed) }
}

fn serves(observed: &Observed) -> bool {
    observed.roles.contains(&Role::Share)
}

/// The bans that come too late, and those that are carried out. Before the first orders: what was in force.
fn banned(observed: &Observed, orders: Option<&Orders>) -> (Vec<Ban>, Vec<Ban>) {
    let Some(server) = &observed.server else { return (Vec::new(), Vec::new()) };
    let all = orders.map_or(&server.fence.kept, |orders| &orders.fence.banned);
    all.iter().cloned().partition(|ban| fence::is_late(&server.fence, ban))
}

/// Before anything else of the share.
fn cut(observed: &Observed, banned: &[Ban]) -> Option<Action> {
    let step = fence::next(&observed.server.as_ref()?.fence, banned)?;
    may_try(observed, Step::Fence).then_some(Action::Fence(step))
}

fn fenced(observed: &Observed, banned: &[Ban], late: &[Ban]) -> Vec<Fenced> {
    let Some(server) = &observed.server else { return Vec::new() };
    let failure = observed.failures.get(&Step::Fence).map(|failure| failure.text.as_str());
    let at = |ban: &Ban| server.fenced_at.get(&ban.id).copied().unwrap_or(server.wall);
    let outcomes = fence::outcomes(&server.fence, banned, failure, at);
    outcomes.into_iter().chain(late.iter().map(fence::late)).collect()
}

/// Remove what is not wanted, then let in who is. A ban is stronger than any order to export.
fn export(observed: &Observed, orders: &Orders, banned: &[Ban], problems: &mut Vec<String>) -> Option<Action> {
    let server = observed.server.as_ref()?;
    let cut = fence::addresses(banned);
    let wanted: BTreeSet<Export> = match exports::wanted(&orders.exports) {
        Ok(wanted) => wanted.into_iter().filter(|export| !cut.iter().any(|address| export.is_for(*address))).collect(),
        Err(problem) => {
            problems.push(problem);
            return None;
        }
    };
    let remove: Vec<Export> = server.fence.exports.difference(&wanted).cloned().collect();
    let add: Vec<Export> = wanted.difference(&server.fence.exports).cloned().collect();
    if (remove.is_empty() && add.is_empty()) || !may_try(observed, Step::Exports) {
        return None;
    }
    Some(Action::Export { remove, add })
}

/// One thing at a time for the helper: unmount what is wrong, mount what is ordered, prove what is there.
fn share(observed: &Observed, orders: Option<&Orders>, problems: &mut Vec<String>) -> Option<Action> {
    if observed.busy.is_some() {
        return None;
    }
    let probe = || is_probe_due(observed).then(|| Action::Start(Job::Probe(observed.probe_dir.clone())));
    if serves(observed) {
        let bind = observed.roles.contains(&Role::Worker) && observed.mounted == Mounted::No && may_try(observed, Step::Bind);
        return if bind { Some(Action::Bind) } else { probe() };
    }
    let wanted = match wanted_server(orders) {
        Ok(wanted) => wanted,
        Err(problem) => {
            problems.push(problem);
            None
        }
    };
    let stale = matches!(&observed.probe, Some((_, Err(failure))) if failure.stale);
    match (&observed.mounted, wanted) {
        (Mounted::From(_), _) if stale && may_mount(observed) => Some(Action::Start(Job::Unmount)),
        (Mounted::From(server), Some(wanted)) if *server != wanted => {
            may_mount(observed).then_some(Action::Start(Job::Unmount))
        }
        // Without an order the mount stays: a center that has lost its memory takes nothing away.
        (Mounted::From(_), _) => probe(),
        (Mounted::No, Some(wanted)) => may_mount(observed).then_some(Action::Start(Job::Mount(wanted))),
        (Mounted::Foreign(what), Some(_)) => {
            problems.push(format!("{} holds {what}, not the share; unmount it on the node", paths::SHARE));
            None
        }
        (Mounted::No | Mounted::Foreign(_) | Mounted::Own, _) => None,
    }
}

fn wanted_server(orders: Option<&Orders>) -> Result<Option<IpAddr>, String> {
    match orders.and_then(|orders| orders.share.as_ref()) {
        Some(ShareMount::Nfs { server }) => match server.parse() {
            Ok(address) => Ok(Some(address)),
            Err(_) => Err(format!("the center's order to mount the share of {server:?} is refused: it is not an address")),
        },
        None => Ok(None),
    }
}

fn is_mounted_as_ordered(observed: &Observed, orders: Option<&Orders>) -> bool {
    match wanted_server(orders) {
        Ok(Some(wanted)) => serves(observed) || observed.mounted == Mounted::From(wanted),
        Ok(None) => true,
        Err(_) => false,
    }
}

/// The answer first, and only when it is on the disk the restart.
fn reinstall(observed: &Observed, orders: &Orders) -> Option<Action> {
    let answer = orders.reinstall.as_ref()?;
    if observed.left.as_ref() != Some(answer) {
        return may_try(observed, Step::LeaveAnswer).then(|| Action::LeaveAnswer(answer.clone()));
    }
    let asked = observed.restart_asked.is_some_and(|at| observed.now < at + RESTART_AGAIN);
    (!asked && may_try(observed, Step::Restart)).then_some(Action::Restart)
}

fn health(observed: &Observed) -> ShareHealth {
    let failed = |error: String| ShareHealth::Failed { error };
    if let Some((job, since)) = &observed.busy
        && observed.now >= *since + PATIENCE
    {
        let seconds = observed.now.saturating_sub(*since).as_secs();
        return failed(format!(
            "{}: no answer for {seconds} s; is the share's server up and reachable?",
            describe(job, observed)
        ));
    }
    if let Some(server) = &observed.server
        && server.threads == 0
    {
        return failed("the NFS server of this node has no threads; look at /state/log/nfsd.log on it".into());
    }
    if let Some((text, _)) = &observed.mount_failure {
        return failed(text.clone());
    }
    match (&observed.probe, &observed.mounted) {
        (Some((_, Err(failure))), _) => failed(failure.text.clone()),
        (Some((_, Ok(_))), _) if serves(observed) => ShareHealth::Serving,
        (Some((_, Ok(probe_ms))), Mounted::From(_)) => ShareHealth::Mounted { probe_ms: *probe_ms },
        _ => ShareHealth::Unknown,
    }
}

fn describe(job: &Job, observed: &Observed) -> String {
    match job {
        Job::Mount(server) => format!("mounting {server}:/ on {}", paths::SHARE),
        Job::Unmount => format!("unmounting {}", paths::SHARE),
        Job::Probe(dir) => match &observed.mounted {
            Mounted::From(server) => format!("proving {} (share of {server})", dir.display()),
            _ => format!("proving {}", dir.display()),
        },
    }
}

fn is_probe_due(observed: &Observed) -> bool {
    observed.now >= next_probe(observed)
}

fn next_probe(observed: &Observed) -> Duration {
    match &observed.probe {
        Some((at, Ok(_))) => *at + PROBE_EVERY,
        Some((at, Err(_))) => *at + SHARE_RETRY,
        None => Duration::ZERO,
    }
}

fn may_mount(observed: &Observed) -> bool {
    observed.mount_failure.as_ref().is_none_or(|(_, at)| observed.now >= *at + SHARE_RETRY)
}

fn may_try(observed: &Observed, step: Step) -> bool {
    observed.failures.get(&step).is_none_or(|failure| observed.now >= failure.at + STEP_RETRY)
}

/// The next instant at which time alone can change the plan.
fn look_again(observed: &Observed) -> Duration {
    let busy = observed.busy.iter().map(|(_, since)| {
        let waited = observed.now.saturating_sub(*since);
        if waited < PATIENCE { *since + PATIENCE } else { observed.now + PATIENCE }
    });
    let probe = observed.busy.is_none().then(|| next_probe(observed));
    let mount = observed.mount_failure.iter().map(|(_, at)| *at + SHARE_RETRY);
    let steps = observed.failures.values().map(|failure| failure.at + STEP_RETRY);
    let restart = observed.restart_asked.map(|at| at + RESTART_AGAIN);
    let future = |at: &Duration| *at > observed.now;
    let all = busy.chain(probe).chain(mount).chain(steps).chain(restart);
    all.filter(future).min().unwrap_or(observed.now + PROBE_EVERY)
}

#[cfg(test)]
mod tests;
