use super::*;
use std::os::unix::fs::symlink;

fn root_of(dir: &Path) -> OwnedFd {
    rustix::fs::open(dir, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).unwrap()
}

fn hostname(text: &str) -> Wanted {
    Wanted { dir: "etc", name: "hostname", mode: 0o644, text: text.into() }
}

#[test]
fn a_file_is_written_until_its_user_changes_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("etc/hostname");
    fs::create_dir(dir.path().join("etc")).unwrap();
    fs::write(&path, "template\n").unwrap();
    let (root, mut record) = (root_of(dir.path()), Record::default());
    for name in ["one", "two"] {
        write_one(&root, &hostname(name), &mut record).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), name);
    }
    fs::write(&path, "mine").unwrap();
    write_one(&root, &hostname("three"), &mut record).unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), "mine");
    fs::remove_file(&path).unwrap();
    write_one(&root, &hostname("three"), &mut record).unwrap();
    assert!(!path.exists(), "a user may also remove it");
    assert_eq!(fs::read_dir(dir.path().join("etc")).unwrap().count(), 0, "no other file is left");
}

#[test]
fn links_lead_nowhere_outside() {
    let dir = tempfile::tempdir().unwrap();
    let (inside, outside) = (dir.path().join("root"), dir.path().join("outside"));
    for path in [&inside, &outside, &inside.join("real")] {
        fs::create_dir(path).unwrap();
    }
    fs::write(outside.join("hostname"), "host").unwrap();
    let root = root_of(&inside);
    // A directory that leads out, by a relative and by an absolute name.
    for target in ["../outside", outside.to_str().unwrap()] {
        symlink(target, inside.join("etc")).unwrap();
        assert!(write_one(&root, &hostname("forged"), &mut Record::default()).is_err());
        fs::remove_file(inside.join("etc")).unwrap();
    }
    // One that stays inside is followed; a file that leads out is replaced, not followed.
    symlink("/real", inside.join("etc")).unwrap();
    symlink(outside.join("hostname"), inside.join("real/hostname")).unwrap();
    write_one(&root, &hostname("new"), &mut Record::default()).unwrap();
    assert_eq!(fs::read_to_string(inside.join("real/hostname")).unwrap(), "new");
    assert_eq!(fs::read_to_string(outside.join("hostname")).unwrap(), "host");
}

#[test]
fn what_is_no_plain_file_is_not_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("etc")).unwrap();
    nix::unistd::mkfifo(&dir.path().join("etc/hostname"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let root = root_of(dir.path());
    write_one(&root, &hostname("one"), &mut Record::default()).unwrap();
    assert_eq!(fs::read_to_string(dir.path().join("etc/hostname")).unwrap(), "one");
    fs::remove_file(dir.path().join("etc/hostname")).unwrap();
    fs::create_dir(dir.path().join("etc/hostname")).unwrap();
    assert!(write_one(&root, &hostname("one"), &mut Record::default()).is_err());
    File::create(dir.path().join("etc/hosts")).unwrap().set_len(LONGEST + 1).unwrap();
    let hosts = Wanted { name: "hosts", ..hostname("x") };
    assert!(write_one(&root, &hosts, &mut Record::default()).unwrap_err().to_string().contains("bytes"));
}

#[test]
fn keys_are_added_once_and_removed_ones_stay_away() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("root")).unwrap();
    let (root, mut record) = (root_of(dir.path()), Record::default());
    let path = dir.path().join("root/.ssh/authorized_keys");
    let (ann, bob) = ("ssh-ed25519 AAAA ann".to_owned(), "ssh-ed25519 BBBB bob".to_owned());
    write_keys(&root, std::slice::from_ref(&ann), &mut record).unwrap();
    write_keys(&root, std::slice::from_ref(&ann), &mut record).unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), format!("{ann}\n"));
    // The user removes the key, adds one of her own without an end of line, and a new one is ordered.
    fs::write(&path, "own").unwrap();
    write_keys(&root, &[ann.clone(), bob.clone()], &mut record).unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), format!("own\n{bob}\n"));
    assert_eq!(add_keys(format!(" {ann} \n").as_bytes(), &[&ann]), format!(" {ann} \n").as_bytes());
}
