use super::*;

fn capability(kernel: &str, cpu: &[&str]) -> Capability {
    let cpu = cpu.iter().map(|flag| (*flag).to_owned()).collect();
    Capability { problem: String::new(), kernel: kernel.into(), cpu }
}

fn done(second: i64, way: &str, gap_ms: u64, not_live: Option<(&str, bool)>) -> MoveView {
    MoveView {
        from: "n1".into(),
        to: Some("n2".into()),
        way: way.into(),
        because: String::new(),
        not_live: not_live.map(|(why, ended)| NotLive { why: why.into(), ended }),
        at: Some(Timestamp::from_second(second).unwrap()),
        stop_ms: None,
        gap_ms: Some(gap_ms),
        note: String::new(),
        reach: None,
    }
}

fn n1<'a>(criu: Option<&'a Capability>, probe: Option<&'a Probe>) -> Side<'a> {
    Side { name: "n1", criu, probe }
}

fn n2(criu: Option<&Capability>) -> Option<Side<'_>> {
    Some(Side { name: "n2", criu, probe: None })
}

/// Everything speaks for it.
fn facts<'a>(criu: &'a Capability, moves: &'a [MoveView]) -> Facts<'a> {
    Facts {
        asked: MoveBy::Cluster,
        own: MoveBy::Cluster,
        cluster: MoveBy::Auto,
        is_movable: true,
        is_repaired: false,
        source: n1(Some(criu), Some(&Probe::Clear)),
        target: n2(Some(criu)),
        moves,
        counts_from: None,
        hurries: false,
    }
}

fn way(facts: &Facts) -> (bool, String) {
    let way = choose(facts);
    (way.is_live, way.because)
}

#[test]
fn the_nearest_word_counts() {
    let criu = capability("6.12", &["fpu"]);
    let of = |asked, own, cluster| way(&Facts { asked, own, cluster, ..facts(&criu, &[]) });
    let (cluster, auto, live, restart) = (MoveBy::Cluster, MoveBy::Auto, MoveBy::Live, MoveBy::Restart);
    assert_eq!(of(cluster, cluster, auto), (true, "nothing speaks against it".into()));
    assert_eq!(of(cluster, cluster, restart), (false, "the cluster's settings say so".into()));
    assert_eq!(of(cluster, restart, live), (false, "it is set so for it".into()));
    assert_eq!(of(live, restart, restart), (true, "it was asked for".into()));
    assert_eq!(of(restart, live, live).1, "it was asked for");
}

#[test]
fn what_is_known_to_fail_is_not_tried_whoever_asks() {
    let criu = capability("6.12", &[]);
    let nested = Probe::Obstacle { why: "dockerd is in a namespace of its own (net)".into() };
    for asked in [MoveBy::Cluster, MoveBy::Live] {
        let facts = Facts { asked, ..facts(&criu, &[]) };
        assert_eq!(
            way(&Facts { source: n1(Some(&criu), Some(&nested)), ..facts }),
            (false, "dockerd is in a namespace of its own (net)".into())
        );
        assert_eq!(way(&Facts { is_repaired: true, ..facts }).1, "it is being repaired");
        assert!(way(&Facts { is_movable: false, ..facts }).1.contains("its template"));
    }
}

#[test]
fn what_is_not_known_is_tried_only_where_somebody_insists() {
    let (criu, old) = (capability("6.12", &["avx2", "fpu"]), capability("6.12", &["fpu"]));
    let (other, broken) = (capability("6.13", &["avx2", "fpu"]), Capability { problem: "no criu".into(), ..criu.clone() });
    let auto = facts(&criu, &[]);
    let clear = Some(&Probe::Clear);
    for (doubtful, why) in [
        (Facts { source: n1(Some(&criu), None), ..auto }, "n1 has not looked at its processes yet"),
        (Facts { hurries: true, ..auto }, "there is no time to lose"),
        (Facts { source: n1(None, clear), ..auto }, "n1 has not said yet whether it can"),
        (Facts { target: n2(Some(&broken)), ..auto }, "n2: no criu"),
        (Facts { target: n2(Some(&other)), ..auto }, "n2 runs kernel 6.13, n1 6.12"),
        (Facts { target: n2(Some(&old)), ..auto }, "the processor of n2 lacks avx2, which n1 has"),
    ] {
        assert_eq!(way(&doubtful), (false, why.into()));
        assert_eq!(way(&Facts { asked: MoveBy::Live, ..doubtful }), (true, "it was asked for".into()));
    }
    // A better processor is none the worse, and where it goes need not be known.
    assert!(way(&Facts { source: n1(Some(&old), clear), ..auto }).0);
    assert!(way(&Facts { target: None, ..auto }).0);
}

#[test]
fn what_ended_in_the_middle_is_not_tried_again_and_what_was_refused_once_more() {
    let criu = capability("6.12", &[]);
    let refused = |second| done(second, RESTART, 4000, Some(("criu cannot do it: io_uring", false)));
    let ended = done(9, RESTART, 9000, Some(("criu cannot do it: no memory", true)));
    assert!(way(&facts(&criu, &[refused(1)])).0);
    let (is_live, why) = way(&facts(&criu, &[refused(1), refused(2)]));
    assert!(!is_live && why.starts_with("criu refused 2 times in a row (criu cannot do it: io_uring)"), "{why}");
    assert!(way(&facts(&criu, &[refused(1), done(2, LIVE, 900, None), refused(3)])).0, "not in a row");
    let once = [ended];
    let (is_live, why) = way(&facts(&criu, &once));
    assert!(!is_live && why.starts_with("it did not go on the last time (criu cannot do it: no memory)"), "{why}");
    let since = Timestamp::from_second(10).ok();
    assert!(way(&Facts { counts_from: since, ..facts(&criu, &once) }).0, "it has been changed since");
    assert!(way(&Facts { asked: MoveBy::Live, ..facts(&criu, &once) }).0);
}

#[test]
fn the_shorter_gap_wins_once_both_are_known() {
    let criu = capability("6.12", &[]);
    let (restart, live) = (|second, gap| done(second, RESTART, gap, None), |second, gap| done(second, LIVE, gap, None));
    assert_eq!(way(&facts(&criu, &[live(1, 3100)])), (true, "nothing speaks against it; the last time it took 3.1 s".into()));
    assert!(way(&facts(&criu, &[restart(1, 5000), live(2, 3100)])).0);
    let (is_live, why) = way(&facts(&criu, &[restart(1, 2000), live(2, 3100)]));
    assert!(!is_live && why.starts_with("the last live move took 3.1 s, the last restart 2.0 s"), "{why}");
}
