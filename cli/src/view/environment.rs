//! Environments, for people.

use std::collections::BTreeMap;

use lodge_model::environment::order::{Address, DiskCheck, TaskOutcome, Usage, Verdict};
use lodge_model::environment::spec::Restart;
use lodge_model::environment::view::{EnvironmentView, Phase, RepairView, SnapshotView};
use lodge_model::live::MoveBy;

use super::{Setting, ago, or_dash, pairs, plain, table, time};
use crate::amount::{cpus, size};
use crate::apply::Step;

/// `lodge env ls`.
pub fn environments(environments: &[EnvironmentView], setting: &Setting) -> String {
    if environments.is_empty() {
        return "no environment yet: `lodge env create NAME --template TEMPLATE` makes one\n".into();
    }
    let header = ["NAME", "STATE", "NODE", "ADDRESS", "TEMPLATE", "MEMORY", "DISK", "CPUS", "OWNER", ""];
    let rows = environments.iter().map(|view| {
        [
            view.spec.name.clone(),
            state(view),
            or_dash(view.node.as_deref()),
            view.addresses.first().map_or_else(|| "-".into(), |address| address.ip.to_string()),
            short(&view.spec.template),
            size(view.spec.memory),
            size(view.spec.disk),
            cpus(view.spec.cpu_millis),
            or_dash(view.owner.as_deref()),
            about(view),
        ]
    });
    table(header, rows, setting)
}

/// One line: how one stands.
pub fn environment_line(view: &EnvironmentView) -> String {
    let verb = if matches!(view.phase, Phase::Ended | Phase::Failed) { "has" } else { "is" };
    let mut line = format!("{} {verb} {}", view.spec.name, state(view));
    if let Some(node) = &view.node {
        line += &format!(" on {node}");
    }
    let addresses: Vec<String> = view.addresses.iter().map(|address| address.ip.to_string()).collect();
    if view.phase == Phase::Running && !addresses.is_empty() {
        line += &format!(" at {}", addresses.join(" "));
    }
    match about(view) {
        about if about.is_empty() => plain(&line),
        about => plain(&format!("{line}: {about}")),
    }
}

/// `lodge env show`.
pub fn environment_page(view: &EnvironmentView, snapshots: &[SnapshotView], setting: &Setting) -> String {
    let spec = &view.spec;
    let mut rows = vec![("name", spec.name.clone()), ("state", state(view))];
    if !view.reason.is_empty() {
        rows.push(("reason", view.reason.clone()));
    }
    rows.push(("node", or_dash(view.node.as_deref())));
    rows.extend(view.addresses.iter().map(|address| ("address", self::address(address))));
    rows.push(("mac", view.mac.clone()));
    rows.push(("template", spec.template.clone()));
    rows.push(("memory", used(view.usage.as_ref().map(|usage| size(usage.memory)), &size(spec.memory))));
    rows.push(("disk", used(view.usage.as_ref().map(|usage| size(usage.disk)), &size(spec.disk))));
    rows.push(("cpus", cpus(spec.cpu_millis)));
    rows.push(("priority", spec.priority.to_string()));
    if let Some(group) = &spec.anti_affinity {
        rows.push(("apart from", format!("others of {group}")));
    }
    if let Some(node) = &spec.node {
        rows.push(("only on", node.clone()));
    }
    if !spec.node_labels.is_empty() {
        let labels: Vec<String> = spec.node_labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
        rows.push(("only where", labels.join(", ")));
    }
    rows.push(("restart", restart(spec.restart).to_owned()));
    if spec.move_by != MoveBy::Cluster {
        rows.push(("move", spec.move_by.word().to_owned()));
    }
    rows.push(("ssh keys", spec.ssh_keys.len().to_string()));
    rows.push(("owner", or_dash(view.owner.as_deref())));
    rows.push(("created", time(view.created, setting)));
    if let Some(started) = view.started {
        rows.push(("started", format!("{} ({})", time(started, setting), ago(started, setting.now))));
    }
    if !view.last_exit.is_empty() {
        rows.push(("last end", view.last_exit.clone()));
    }
    match (&view.moving, &view.way) {
        (Some(moving), _) => rows.push(("moves", super::would_move(moving))),
        (None, Some(way)) => rows.push(("would move", super::by_way(&way.way, &way.because))),
        (None, None) => {}
    }
    rows.extend(view.moves.iter().filter_map(|done| {
        let at = done.at.map(|at| time(at, setting))?;
        Some(("move", format!("{at}: {}", super::moved(done))))
    }));
    if let Some(old) = &view.old {
        let snapshot = old.snapshot.as_ref().map(|name| format!("; snapshot {name} is the old system")).unwrap_or_default();
        rows.push((
            "reinstalled",
            format!("{}: what was made from {} is at /old{snapshot}", time(old.since, setting), old.template),
        ));
    }
    if let Some(check) = &view.disk_check {
        rows.push(("disk check", format!("{}: {}", time(check.at, setting), verdict(&check.found))));
    }
    if let Some(repair) = &view.repair {
        rows.extend(self::repair(view, repair, setting));
    }
    rows.push(("epoch", view.epoch.to_string()));
    rows.push(("id", view.id.to_string()));
    rows.extend(view.tasks.iter().map(|task| ("task", format!("{}: {}", task.what, outcome(&task.outcome)))));
    rows.extend(
        snapshots.iter().map(|snapshot| ("snapshot", format!("{}, {}", snapshot.name, time(snapshot.created, setting)))),
    );
    pairs("", &rows)
}

/// A repair, in `lodge env show`.
fn repair(view: &EnvironmentView, repair: &RepairView, setting: &Setting) -> Vec<(&'static str, String)> {
    let stands = match (repair.ends, repair.open) {
        (true, _) => "it is being ended",
        (false, false) => "its disk is about to be opened",
        (false, true) => "its files are at /repair",
    };
    let mut rows = vec![
        ("repair", format!("since {} by {}, a clean {}: {stands}", time(repair.since, setting), repair.name, repair.template)),
        ("end it by", format!("lodge env repair {} --finish", view.spec.name)),
    ];
    if let Some(snapshot) = &repair.snapshot {
        rows.push(("undo it by", format!("lodge env repair {} --finish --rollback (to snapshot {snapshot})", view.spec.name)));
    }
    rows.extend(repair.mended.lines().filter(|line| !line.trim().is_empty()).map(|line| ("e2fsck", line.to_owned())));
    rows
}

/// What a check of a disk has found, in a sentence.
pub fn verdict(found: &DiskCheck) -> String {
    let words = match found.verdict {
        Verdict::InOrder => "it is in order",
        Verdict::Mended => "it was damaged, and is in order again",
        Verdict::Damaged => "it is damaged",
    };
    match found.has_journal {
        true => format!(
            "{words}; it was not shut down, and its journal is played back at its next start, which may mend some of that"
        ),
        false => words.to_owned(),
    }
}

/// Its phase; one under repair says so.
fn state(view: &EnvironmentView) -> String {
    match &view.repair {
        Some(_) => format!("{} (repair)", view.phase.word()),
        None => view.phase.word().to_owned(),
    }
}

/// `lodge env snapshots`.
pub fn snapshots(snapshots: &[SnapshotView], setting: &Setting) -> String {
    if snapshots.is_empty() {
        return "no snapshot yet: `lodge env snapshot NAME` makes one\n".into();
    }
    let rows = snapshots.iter().map(|snapshot| {
        let bytes = match snapshot.outcome {
            TaskOutcome::Done { bytes, .. } => size(bytes),
            _ => "-".into(),
        };
        [snapshot.name.clone(), time(snapshot.created, setting), bytes, outcome(&snapshot.outcome)]
    });
    table(["SNAPSHOT", "CREATED", "SIZE", "STATE"], rows, setting)
}

/// `lodge env stats`: what each uses; of processors the share since the look before, or the time in all where there was none.
pub fn stats(now: &[EnvironmentView], before: Option<&Before>, setting: &Setting) -> String {
    if now.is_empty() {
        return "no environment\n".into();
    }
    let rows = now.iter().map(|view| {
        let dash = || "-".to_owned();
        let Some(usage) = &view.usage else {
            let name = view.spec.name.clone();
            return [name, view.phase.word().into(), dash(), dash(), dash(), dash(), dash(), dash(), String::new()];
        };
        [
            view.spec.name.clone(),
            view.phase.word().to_owned(),
            before.and_then(|before| before.cpu(view, setting)).unwrap_or_else(|| cpu_time(usage.cpu_usec)),
            format!("{} of {}", size(usage.memory), size(view.spec.memory)),
            format!("{} of {}", size(usage.disk), size(view.spec.disk)),
            usage.tasks.to_string(),
            size(usage.rx),
            size(usage.tx),
            String::new(),
        ]
    });
    table(["NAME", "STATE", "CPU", "MEMORY", "DISK", "TASKS", "RECEIVED", "SENT", ""], rows, setting)
}

/// What was seen at the look before.
pub struct Before {
    at: jiff::Timestamp,
    usage: BTreeMap<String, Usage>,
}

impl Before {
    /// Remember.
    pub fn new(at: jiff::Timestamp, views: &[EnvironmentView]) -> Self {
        let usage = views.iter().filter_map(|view| Some((view.id.to_string(), view.usage.clone()?)));
        Self { at, usage: usage.collect() }
    }

    /// Percent of one processor; `None` where nothing can be said, as after a start in between.
    fn cpu(&self, view: &EnvironmentView, setting: &Setting) -> Option<String> {
        let used = view.usage.as_ref()?.cpu_usec.checked_sub(self.usage.get(&view.id.to_string())?.cpu_usec)?;
        let passed = u64::try_from(setting.now.duration_since(self.at).as_micros()).ok().filter(|passed| *passed > 0)?;
        let thousandths = used.saturating_mul(1000) / passed;
        Some(format!("{}.{} %", thousandths / 10, thousandths % 10))
    }
}

/// The plan of `lodge apply`.
pub fn plan(steps: &[Step]) -> String {
    let line = |step: &Step| match step {
        Step::Create { spec } => format!(
            "+ {}: from {}, disk {}, memory {}, cpus {}",
            spec.name,
            spec.template,
            size(spec.disk),
            size(spec.memory),
            cpus(spec.cpu_millis)
        ),
        Step::Change { name, words, .. } => format!("~ {name}: {}", words.join(", ")),
        Step::Keep { name } => format!("= {name}"),
    };
    steps.iter().map(|step| plain(&line(step)) + "\n").collect()
}

/// How a task stands.
pub fn outcome(outcome: &TaskOutcome) -> String {
    match outcome {
        TaskOutcome::Running { percent } => format!("{percent} %"),
        TaskOutcome::Done { .. } | TaskOutcome::Checked(_) => "done".into(),
        TaskOutcome::Failed { error } => format!("failed: {error}"),
    }
}

/// As on the command line.
pub fn restart(restart: Restart) -> &'static str {
    match restart {
        Restart::OnFailure => "on-failure",
        Restart::Never => "never",
    }
}

/// What it waits for, what is being done to it, how it ended.
fn about(view: &EnvironmentView) -> String {
    let mut parts: Vec<String> = Vec::new();
    parts.extend(Some(view.reason.clone()).filter(|reason| !reason.is_empty()));
    parts.extend(view.tasks.iter().map(|task| format!("{} {}", task.what, outcome(&task.outcome))));
    if parts.is_empty() && matches!(view.phase, Phase::Ended | Phase::Failed) {
        parts.extend(Some(view.last_exit.clone()).filter(|exit| !exit.is_empty()));
    }
    parts.join("; ")
}

fn address(address: &Address) -> String {
    let gateway = address.gateway.map(|gateway| format!(" by {gateway}")).unwrap_or_default();
    format!("{}/{}{gateway}", address.ip, address.prefix)
}

fn used(used: Option<String>, of: &str) -> String {
    used.map_or_else(|| of.to_owned(), |used| format!("{used} of {of} in use"))
}

/// A digest in place of a name is too long for a table.
fn short(template: &str) -> String {
    match template.strip_prefix("sha256:") {
        Some(hex) => hex.chars().take(12).collect(),
        None => template.to_owned(),
    }
}

fn cpu_time(microseconds: u64) -> String {
    let seconds = microseconds / 1_000_000;
    match seconds {
        0..600 => format!("{seconds}.{} s", microseconds / 100_000 % 10),
        _ => format!("{} min", seconds / 60),
    }
}
