use super::*;
use lodge_model::fence::FenceOutcome;
use proptest::prelude::*;

const SERVER: &str = "10.77.0.10";

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn server() -> IpAddr {
    SERVER.parse().unwrap()
}

fn orders() -> Orders {
    Orders { generation: 7, share: Some(ShareMount::Nfs { server: SERVER.into() }), ..Orders::none("node1") }
}

fn answer() -> CenterAnswer {
    CenterAnswer {
        url: "https://10.77.0.10:8443".into(),
        ca: lodge_model::ids::Fingerprint::from_digest([1; 32]),
        token: "t".into(),
    }
}

fn worker(now: u64) -> Observed {
    Observed { now: seconds(now), roles: vec![Role::Worker], probe_dir: "/share/nodes/n".into(), ..Observed::default() }
}

fn mounted(now: u64) -> Observed {
    let probe = Some((seconds(now), Ok(3)));
    Observed { mounted: Mounted::From(server()), probe, blessed: true, ..worker(now) }
}

fn share_node(now: u64) -> Observed {
    let server = Server { threads: 8, ..Server::default() };
    let roles = vec![Role::Center, Role::Share];
    Observed { roles, server: Some(server), probe: Some((seconds(now), Ok(1))), blessed: true, ..worker(now) }
}

fn exporting<const N: usize>(exports: [Export; N]) -> Server {
    let fence = fence::Facts { exports: BTreeSet::from(exports), ..fence::Facts::default() };
    Server { threads: 8, fence, ..Server::default() }
}

#[test]
fn a_worker_mounts_proves_and_becomes_ready() {
    let mut observed = worker(5);
    assert_eq!(plan(&observed, None).actions, []);
    let first = plan(&observed, Some(&orders()));
    assert_eq!(first.actions, [Action::Start(Job::Mount(server()))]);
    assert_eq!((first.report.share, first.report.generation), (ShareHealth::Unknown, 0));

    observed.mounted = Mounted::From(server());
    let second = plan(&observed, Some(&orders()));
    assert_eq!(second.actions, [Action::Start(Job::Probe("/share/nodes/n".into()))]);

    observed.probe = Some((observed.now, Ok(4)));
    let third = plan(&observed, Some(&orders()));
    assert_eq!(third.actions, [Action::Bless]);
    assert_eq!(third.report, Report { share: ShareHealth::Mounted { probe_ms: 4 }, generation: 7, ..Report::default() });
    assert_eq!(third.look_again, observed.now + PROBE_EVERY);
}

#[test]
fn a_good_share_is_proved_again_after_ten_seconds_and_not_before() {
    let mut observed = mounted(100);
    observed.now = seconds(109);
    assert_eq!(plan(&observed, Some(&orders())).actions, []);
    observed.now = seconds(110);
    assert_eq!(plan(&observed, Some(&orders())).actions, [Action::Start(Job::Probe("/share/nodes/n".into()))]);
}

#[test]
fn a_ban_comes_before_the_exports_and_no_order_to_export_undoes_it() {
    let (ban, stays) = (crate::fence::plan::tests::ban(1, &["10.77.0.51"]), Export::share_for("10.77.0.52".parse().unwrap()));
    let mut orders = Orders { exports: vec!["10.77.0.51".into(), "10.77.0.52".into()], ..orders() };
    orders.fence.banned = vec![ban.clone()];
    let mut observed = share_node(100);
    observed.server = Some(exporting([Export::share_for("10.77.0.51".parse().unwrap())]));
    assert_eq!(plan(&observed, Some(&orders)).actions, [Action::Fence(fence::Step::Keep(vec![ban.clone()]))]);

    let server = observed.server.as_mut().unwrap();
    server.fence.kept = vec![ban.clone()];
    server.fence.dropped = BTreeSet::from(["10.77.0.51".parse().unwrap()]);
    server.fence.exports.clear();
    server.wall = 50;
    let add = vec![stays.clone()];
    let exporting_others = plan(&observed, Some(&orders));
    assert_eq!(exporting_others.actions, [Action::Export { remove: Vec::new(), add }]);
    assert!(matches!(exporting_others.report.fenced[0].outcome, FenceOutcome::Confirmed { at: 50, .. }));
    observed.server.as_mut().unwrap().fenced_at = BTreeMap::from([(ban.id, 40)]);
    assert!(matches!(plan(&observed, Some(&orders)).report.fenced[0].outcome, FenceOutcome::Confirmed { at: 40, .. }));
    assert_eq!(plan(&observed, None).report.fenced.len(), 1, "what was banned stays banned before the first orders");
}

#[test]
fn a_ban_that_comes_after_the_next_boot_is_not_begun_and_one_in_force_stays() {
    let ban = crate::fence::plan::tests::ban(1, &["10.77.0.51"]);
    let mut orders = Orders { exports: vec!["10.77.0.51".into()], ..orders() };
    orders.fence.banned = vec![ban.clone()];
    let mut observed = share_node(100);
    observed.server = Some(exporting([Export::share_for("10.77.0.51".parse().unwrap())]));
    let next = lodge_model::ids::BootId(uuid::Uuid::from_u128(2));
    observed.server.as_mut().unwrap().fence.living = BTreeMap::from([(ban.node, next)]);
    let late = plan(&observed, Some(&orders));
    assert_eq!(late.actions, []);
    assert!(matches!(&late.report.fenced[0].outcome, FenceOutcome::Failed { error } if error.contains("has been replaced")));
    let server = observed.server.as_mut().unwrap();
    server.fence.kept = vec![ban.clone()];
    assert!(matches!(plan(&observed, Some(&orders)).actions.as_slice(), [Action::Fence(_)]), "it has been begun");
    let server = observed.server.as_mut().unwrap();
    (server.fence.kept, server.fence.living) = (Vec::new(), BTreeMap::from([(ban.node, ban.boot)]));
    assert!(matches!(plan(&observed, Some(&orders)).actions.as_slice(), [Action::Fence(_)]), "its own boot writes");
}

#[test]
fn a_fence_that_fails_is_told_tried_again_and_holds_nobody_else_up() {
    let mut orders = Orders { exports: vec!["10.77.0.52".into()], ..orders() };
    orders.fence.banned = vec![crate::fence::plan::tests::ban(1, &["10.77.0.51"])];
    let mut observed = share_node(100);
    let failure = Failure { at: seconds(99), text: "no nft".into() };
    observed.failures = BTreeMap::from([(Step::Fence, failure)]);
    let waiting = plan(&observed, Some(&orders));
    assert!(matches!(waiting.actions.as_slice(), [Action::Export { .. }]), "{:?}", waiting.actions);
    assert!(matches!(&waiting.report.fenced[0].outcome, FenceOutcome::Failed { error } if error == "no nft"));
    assert_eq!(waiting.look_again, seconds(99) + STEP_RETRY);
    observed.now = seconds(99) + STEP_RETRY;
    assert!(matches!(plan(&observed, Some(&orders)).actions.as_slice(), [Action::Fence(_)]));
}

#[test]
fn a_frozen_share_is_told_with_the_seconds_and_nothing_is_piled_up() {
    let mut observed = mounted(100);
    observed.busy = Some((Job::Probe("/share/nodes/n".into()), seconds(110)));
    observed.now = seconds(112);
    assert_eq!(plan(&observed, Some(&orders())).report.share, ShareHealth::Mounted { probe_ms: 3 });
    assert_eq!(plan(&observed, Some(&orders())).look_again, seconds(115));
    observed.now = seconds(140);
    let plan = plan(&observed, Some(&orders()));
    let ShareHealth::Failed { error } = plan.report.share else { panic!("not failed") };
    assert!(error.contains("no answer for 30 s") && error.contains(SERVER), "{error}");
    assert_eq!(plan.actions, []);
}

#[test]
fn a_mount_that_failed_is_told_and_tried_again() {
    let mut observed = worker(10);
    observed.mount_failure = Some(("mounting 10.77.0.10:/ on /share: Connection refused".into(), seconds(10)));
    let refused = plan(&observed, Some(&orders()));
    assert_eq!(refused.actions, []);
    assert!(matches!(refused.report.share, ShareHealth::Failed { error } if error.contains("refused")));
    assert_eq!(refused.look_again, seconds(11));
    observed.now = refused.look_again;
    assert_eq!(plan(&observed, Some(&orders())).actions, [Action::Start(Job::Mount(server()))]);
}

#[test]
fn another_server_and_a_stale_mount_are_unmounted_first() {
    let mut moved = mounted(10);
    moved.mounted = Mounted::From("10.77.0.11".parse().unwrap());
    assert_eq!(plan(&moved, Some(&orders())).actions, [Action::Start(Job::Unmount)]);
    let mut stale = mounted(10);
    stale.probe = Some((seconds(10), Err(ProbeFailure { text: "stale".into(), stale: true })));
    assert_eq!(plan(&stale, Some(&orders())).actions, [Action::Start(Job::Unmount)]);
}

#[test]
fn a_center_that_orders_no_share_takes_none_away() {
    let orders = Orders { share: None, ..orders() };
    assert_eq!(plan(&mounted(10), Some(&orders)).actions, []);
    assert_eq!(plan(&mounted(10), None).actions, []);
}

#[test]
fn exports_are_changed_to_what_is_wanted_and_to_nothing_wider() {
    let mut observed = share_node(10);
    let wide = Export { path: "/state/share".into(), client: "*".into() };
    let kept = Export::share_for("10.77.0.51".parse().unwrap());
    observed.server = Some(exporting([wide.clone(), kept.clone()]));
    let orders = Orders { exports: vec!["10.77.0.51".into(), "10.77.0.52".into()], ..orders() };
    let new = Export::share_for("10.77.0.52".parse().unwrap());
    let changing = plan(&observed, Some(&orders));
    assert_eq!(changing.actions, [Action::Export { remove: vec![wide], add: vec![new.clone()] }]);
    assert_eq!(changing.report.generation, 0);
    observed.server = Some(exporting([kept, new]));
    let done = plan(&observed, Some(&orders));
    assert_eq!((done.actions, done.report.generation, done.report.share), (Vec::new(), 7, ShareHealth::Serving));
}

#[test]
fn an_order_that_would_let_in_more_than_a_node_is_refused_and_told() {
    let orders = Orders { exports: vec!["10.77.0.51".into(), "0.0.0.0/0".into()], ..orders() };
    let plan = plan(&share_node(10), Some(&orders));
    assert_eq!(plan.actions, []);
    assert!(plan.report.problem.is_some_and(|problem| problem.contains("0.0.0.0/0")));
    assert_eq!(plan.report.generation, 0);
}

#[test]
fn a_share_node_without_threads_does_not_serve() {
    let mut observed = share_node(10);
    observed.server = Some(Server::default());
    assert!(
        matches!(plan(&observed, Some(&orders())).report.share, ShareHealth::Failed { error } if error.contains("threads"))
    );
}

#[test]
fn a_failed_step_is_told_and_waits() {
    let mut observed = share_node(10);
    let failure = Failure { at: seconds(10), text: "running `exportfs`: exit status: 1".into() };
    observed.failures.insert(Step::Exports, failure);
    let orders = Orders { exports: vec!["10.77.0.51".into()], ..orders() };
    let waiting = plan(&observed, Some(&orders));
    assert_eq!(waiting.actions, []);
    assert!(waiting.report.problem.is_some_and(|problem| problem.contains("exportfs")));
    assert_eq!(waiting.look_again, seconds(15));
    observed.now = seconds(15);
    assert!(matches!(plan(&observed, Some(&orders)).actions.as_slice(), [Action::Export { .. }]));
}

#[test]
fn a_reinstall_leaves_the_answer_before_it_restarts() {
    let orders = Orders { reinstall: Some(answer()), ..orders() };
    let mut observed = mounted(10);
    assert_eq!(plan(&observed, Some(&orders)).actions, [Action::LeaveAnswer(answer())]);
    observed.left = Some(answer());
    assert_eq!(plan(&observed, Some(&orders)).actions, [Action::Restart]);
    observed.restart_asked = Some(seconds(10));
    assert_eq!(plan(&observed, Some(&orders)).actions, []);
    // A newer token replaces the answer.
    observed.left = Some(CenterAnswer { token: "old".into(), ..answer() });
    assert_eq!(plan(&observed, Some(&orders)).actions, [Action::LeaveAnswer(answer())]);
}

#[test]
fn a_boot_is_not_good_before_the_node_is_registered() {
    let mut observed = mounted(10);
    observed.blessed = false;
    assert_eq!(plan(&observed, None).actions, []);
}

#[test]
fn a_worker_that_serves_shows_its_own_data_at_the_mount_point() {
    let mut observed = share_node(10);
    observed.roles.push(Role::Worker);
    assert_eq!(plan(&observed, Some(&orders())).actions, [Action::Bind]);
    observed.mounted = Mounted::Own;
    assert_eq!(plan(&observed, Some(&orders())).actions, []);
}

fn any_observed() -> impl Strategy<Value = Observed> {
    let mounted = prop_oneof![
        Just(Mounted::No),
        Just(Mounted::From(server())),
        Just(Mounted::From("10.0.0.9".parse().unwrap())),
        Just(Mounted::Foreign("tmpfs".into())),
    ];
    let job = prop_oneof![Just(Job::Unmount), Just(Job::Mount(server())), Just(Job::Probe("/share".into()))];
    let probe =
        prop_oneof![(0u32..99).prop_map(Ok), any::<bool>().prop_map(|stale| Err(ProbeFailure { text: "EIO".into(), stale })),];
    let at = || (0u64..100).prop_map(seconds);
    (mounted, proptest::option::of((job, at())), proptest::option::of((at(), probe)), proptest::option::of(at()), any::<bool>())
        .prop_map(|(mounted, busy, probe, failed, share)| Observed {
            mounted,
            busy,
            probe,
            mount_failure: failed.map(|at| ("mounting: refused".to_owned(), at)),
            roles: if share { vec![Role::Share] } else { vec![Role::Worker] },
            server: share.then(Server::default),
            ..worker(100)
        })
}

proptest! {
    #[test]
    fn the_helper_gets_one_job_at_a_time_and_the_next_look_is_ahead(observed in any_observed(), ordered in any::<bool>()) {
        let orders = orders();
        let plan = plan(&observed, ordered.then_some(&orders));
        let starts = plan.actions.iter().filter(|action| matches!(action, Action::Start(_))).count();
        prop_assert!(starts <= usize::from(observed.busy.is_none()));
        prop_assert!(plan.look_again > observed.now);
        let failed = matches!(plan.report.share, ShareHealth::Failed { .. } | ShareHealth::Unknown);
        prop_assert!(!failed || !plan.actions.contains(&Action::Bless));
    }
}
