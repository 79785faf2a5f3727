//! With real loop devices: they need root.

use super::*;
use crate::lock::{Locked, exclusive};

const SOON: Duration = Duration::from_secs(20);

fn image(dir: &Path, bytes: u64) -> PathBuf {
    let path = dir.join("disk.img");
    File::create(&path).unwrap().set_len(bytes).unwrap();
    path
}

#[test]
fn layouts_are_the_kernels() {
    assert_eq!(size_of::<LoopInfo64>(), 232);
    assert_eq!(size_of::<LoopConfig>(), 304);
}

#[test]
fn the_lock_lives_exactly_as_long_as_the_device() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = image(dir.path(), 8 << 20);
    let Locked::Yes(file) = exclusive(open(&path).unwrap(), SOON).unwrap() else { panic!("a free file is not locked") };
    let attached = attach(&file, Options { direct_io: true, ..Options::default() }).unwrap();
    let device = attached.device.path.clone();
    drop((file, attached));
    assert!(list().unwrap().iter().any(|one| one.path == device && one.backing == path), "{:?}", list());
    let is_held = || matches!(exclusive(open(&path).unwrap(), SOON).unwrap(), Locked::Held);
    assert!(is_held(), "the device keeps the lock of the open file it was given");

    File::options().write(true).open(&path).unwrap().set_len(16 << 20).unwrap();
    grow(&device).unwrap();
    let sectors = fs::read_to_string(Path::new("/sys/block").join(device.file_name().unwrap()).join("size")).unwrap();
    assert_eq!(sectors.trim(), "32768");
    set_read_ahead(&device, 1 << 20).unwrap();

    let user = File::open(&device).unwrap();
    let error = detach(&device, Duration::from_millis(300)).unwrap_err();
    assert!(format!("{error:#}").contains("still in use"), "{error:#}");
    assert!(is_held(), "a device in use keeps the lock");
    drop(user);
    detach(&device, SOON).unwrap();
    assert!(!is_held(), "a detached device has let go of the lock");
    assert!(!list().unwrap().iter().any(|one| one.backing == path));
}

/// What the lock on the device's own open file prevents: this is the way that does not work, kept so that the test above is known to be
/// able to fail.
#[test]
fn a_lock_on_another_open_file_does_not_follow_the_device() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = image(dir.path(), 8 << 20);
    let Locked::Yes(locked) = exclusive(open(&path).unwrap(), SOON).unwrap() else { panic!("a free file is not locked") };
    let attached = attach(&open(&path).unwrap(), Options::default()).unwrap();
    drop(locked);
    assert!(matches!(exclusive(open(&path).unwrap(), SOON).unwrap(), Locked::Yes(_)), "nothing keeps a second owner out");
    let device = attached.device.path.clone();
    drop(attached);
    detach(&device, SOON).unwrap();
}
