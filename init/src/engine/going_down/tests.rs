use super::*;

#[test]
fn a_share_that_hangs_takes_the_time_from_what_hangs_with_it_and_from_nothing_else() {
    let begun = |share_hangs| GoingDown {
        shutdown: Shutdown::begin(Duration::ZERO, Down::Poweroff, Cause::Button, &[]),
        entered: false,
        may_proceed: false,
        killed: false,
        share_hangs,
        until: Duration::ZERO,
        targets: VecDeque::new(),
        child: None,
    };
    let (well, hung) = (begun(false), begun(true));
    let (namespace, state) = (Path::new(paths::AGENT_NAMESPACE), Path::new("/state"));
    assert_eq!(well.patience_of(Path::new(paths::SHARE)), timing::SHARE_UNMOUNT);
    assert_eq!((well.patience_of(namespace), well.patience(KILL_PATIENCE)), (UNMOUNT_PATIENCE, KILL_PATIENCE));
    assert_eq!((hung.patience_of(namespace), hung.patience_of(state)), (HUNG_PATIENCE, UNMOUNT_PATIENCE));
    // From the agent's end on: it does not end, then everything that may hang after it.
    let agent = STOP_TIMEOUT + Duration::from_secs(5);
    let rest = hung.patience_of(Path::new(paths::SHARE)) + hung.patience(KILL_PATIENCE) * 2 + hung.patience_of(namespace);
    assert!(agent + rest + hung.patience(SYNC_PATIENCE) < Duration::from_secs(30));
    let agent_ends = timing::SHARE_UNMOUNT + rest + hung.patience(SYNC_PATIENCE);
    assert!(agent_ends < Duration::from_secs(30));
}

#[test]
fn only_what_keeps_data_is_unmounted() {
    let mount = |source: &str, target: &str, fstype: &str| MountPoint {
        source: source.into(),
        target: target.into(),
        fstype: fstype.into(),
    };
    assert!(is_worth_unmounting(&mount("/dev/vda7", "/state", "ext4")));
    assert!(is_worth_unmounting(&mount("10.0.0.1:/", "/mnt", "nfs4")));
    assert!(is_worth_unmounting(&mount("nsfs", paths::AGENT_NAMESPACE, "nsfs")));
    assert!(!is_worth_unmounting(&mount("/dev/dm-0", "/", "erofs")));
    assert!(!is_worth_unmounting(&mount("tmpfs", "/run", "tmpfs")));
    assert!(!is_worth_unmounting(&mount("overlay", "/etc", "overlay")));
}
