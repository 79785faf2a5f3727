//! Golden texts of environments, templates, pools and users.

use super::super::*;
use super::{at, golden, setting};
use lodge_model::environment::order::{DiskCheck, TaskOutcome, Usage, Verdict};
use lodge_model::environment::view::{
    DiskCheckView, EnvironmentView, Phase, PoolView, RepairView, SnapshotView, TaskView, TemplateView, UserToken, UserView,
};

fn list() -> Vec<EnvironmentView> {
    let sample = samples::environment;
    vec![
        sample("web1"),
        EnvironmentView {
            phase: Phase::Waiting,
            reason: "no node has 1 GiB of memory left:\u{1b}[2J node1 has 200 MiB".into(),
            node: None,
            usage: None,
            started: None,
            owner: Some("ann".into()),
            ..sample("web2")
        },
        EnvironmentView { phase: Phase::Ended, last_exit: "powered off by itself".into(), usage: None, ..sample("mail") },
        EnvironmentView {
            tasks: vec![TaskView { what: "snapshot before-upgrade".into(), outcome: TaskOutcome::Running { percent: 40 } }],
            ..sample("db")
        },
    ]
}

fn snapshot(outcome: TaskOutcome) -> SnapshotView {
    SnapshotView { name: "before-upgrade".into(), created: at("2026-11-22T09:30:00Z"), outcome }
}

#[test]
fn the_list_of_environments() {
    golden("environments.txt", &environments(&list(), &setting()));
    golden("environments-none.txt", &environments(&[], &setting()));
    let lines: String = list().iter().map(|view| environment_line(view) + "\n").collect();
    golden("environment-lines.txt", &lines);
}

#[test]
fn everything_about_an_environment() {
    let mut view = list().remove(3);
    view.spec.anti_affinity = Some("db".into());
    view.spec.node_labels = [("rack".to_owned(), "a".to_owned())].into();
    view.last_exit = "killed: out of memory".into();
    let done = snapshot(TaskOutcome::Done { bytes: 3 << 20, template: None });
    golden("environment.txt", &environment_page(&view, &[done], &setting()));
}

#[test]
fn an_environment_under_repair() {
    let mut view = samples::environment("web1");
    let repair = RepairView {
        name: "web1-repair".into(),
        template: "debian-13".into(),
        snapshot: Some("before-repair-20261122-093000".into()),
        since: at("2026-11-22T09:30:00Z"),
        open: true,
        ends: false,
        mended: "Superblock invalid, trying backup blocks...\n\n***** FILE SYSTEM WAS MODIFIED *****\n".into(),
    };
    view.repair = Some(repair);
    let found = DiskCheck { verdict: Verdict::Damaged, has_journal: true, text: String::new() };
    view.disk_check = Some(DiskCheckView { at: at("2026-11-22T09:20:00Z"), found });
    golden("environment-repair.txt", &environment_page(&view, &[], &setting()));
    assert_eq!(environment_line(&view), "web1 is running (repair) on node1 at 192.0.2.50");
    assert!(environments(&[view], &setting()).contains("running (repair)"));
}

#[test]
fn snapshots_of_every_outcome() {
    let all = [
        snapshot(TaskOutcome::Running { percent: 40 }),
        snapshot(TaskOutcome::Done { bytes: 3 << 20, template: None }),
        snapshot(TaskOutcome::Failed { error: "no room on the share".into() }),
    ];
    golden("snapshots.txt", &snapshots(&all, &setting()));
}

#[test]
fn use_is_told_since_the_look_before_or_in_all() {
    golden("stats.txt", &stats(&list(), None, &setting()));
    let before = Before::new(at("2026-11-22T09:59:58Z"), &list());
    let mut now = list();
    if let Some(usage) = &mut now[0].usage {
        *usage = Usage { cpu_usec: usage.cpu_usec + 2_999_000, ..usage.clone() };
    }
    golden("stats-watched.txt", &stats(&now[..1], Some(&before), &setting()));
}

#[test]
fn templates_pools_and_users() {
    let template: TemplateView = serde_json::from_value(serde_json::json!({
        "name": "debian-13", "digest": format!("sha256:{}", "ab".repeat(32)), "size": 123_u64 << 20,
        "meta": { "description": "Debian 13 with systemd and sshd", "movable": true },
        "created": "2026-11-22T08:00:00Z", "outcome": { "outcome": "done", "bytes": 0 }, "environments": 3
    }))
    .unwrap();
    let failed = TemplateView {
        name: "broken".into(),
        digest: None,
        size: 0,
        outcome: TaskOutcome::Failed { error: "entry ../etc/passwd leads out of the archive".into() },
        ..template.clone()
    };
    golden("templates.txt", &templates(&[template.clone(), failed], &setting()));
    golden("template.txt", &template_page(&template, &setting()));
    let pool: PoolView = serde_json::from_value(serde_json::json!({
        "name": "office", "first": "192.0.2.50", "last": "192.0.2.99", "prefix": 24, "gateway": "192.0.2.1",
        "dns": ["192.0.2.1", "192.0.2.2"], "used": 3, "size": 50
    }))
    .unwrap();
    golden("pools.txt", &pools(&[pool], &setting()));
    let user: UserView = serde_json::from_value(serde_json::json!({
        "name": "ann", "quota": { "environments": 5, "memory": 4_u64 << 30 },
        "used": { "environments": 2, "memory": 2_u64 << 30, "disk": 20_u64 << 30, "cpu-millis": 1500 }
    }))
    .unwrap();
    golden("users.txt", &users(std::slice::from_ref(&user), &setting()));
    let token = UserToken { user, token: "user-abc".into() };
    golden("user-token.txt", &user_token(&token, "lodge login https://10.77.0.10:8443 --ca sha256:01 --token user-abc"));
}

#[test]
fn a_plan_says_what_is_made_changed_and_kept() {
    use crate::apply::Step;
    use lodge_model::environment::spec::Change;
    let steps = [
        Step::Create { spec: samples::environment("web1").spec },
        Step::Change {
            name: "web2".into(),
            change: Change::default(),
            words: vec!["disk 1 GiB -> 10 GiB".into(), "cpus 1 -> 2".into()],
        },
        Step::Keep { name: "web3".into() },
    ];
    golden("plan.txt", &plan(&steps));
}
