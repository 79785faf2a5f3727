//! With real mounts in a mount namespace of the test's own thread: they need root.

use super::*;
use std::{
    fs::{self, File},
    io::Write as _,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    process::Command,
    time::Duration,
};

use crate::{
    freeze::{Frozen, thaw},
    idmap::{IdMap, IdRange, with_file_owner},
    lock::{Locked, exclusive},
    loopdev::{self, Options},
};
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};

const BASE: u32 = 65_536 * 40;

/// Run with root's rights where mounts are nobody else's; skipped for others.
fn in_namespace(test: impl FnOnce(&Path) + Send) {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    std::thread::scope(|scope| {
        let run = || {
            unshare(CloneFlags::CLONE_NEWNS).unwrap();
            mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>).unwrap();
            let dir = tempfile::tempdir().unwrap();
            test(dir.path());
        };
        scope.spawn(run).join().unwrap();
    });
}

fn make(path: &Path) {
    fs::create_dir_all(path).unwrap();
}

fn run(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn an_environment_root_is_made_of_template_and_disk_with_ids_mapped() {
    in_namespace(|dir| {
        // A template with files of its root, a directory of user 33, and a file of an id that no environment has.
        let tree = dir.join("tree");
        make(&tree.join("etc"));
        fs::write(tree.join("etc/passwd"), "root").unwrap();
        fs::write(tree.join("etc/motd"), "hello").unwrap();
        fs::write(tree.join("stranger"), "").unwrap();
        std::os::unix::fs::chown(tree.join("stranger"), Some(65_536), None).unwrap();
        make(&tree.join("var"));
        std::os::unix::fs::chown(tree.join("var"), Some(33), Some(33)).unwrap();
        let (template, disk) = (dir.join("t.erofs"), dir.join("disk.img"));
        run("/usr/bin/mkfs.erofs", &["--quiet", text(&template), text(&tree)]);
        File::create(&disk).unwrap().set_len(32 << 20).unwrap();
        run("/usr/sbin/mkfs.ext4", &["-q", "-F", text(&disk)]);

        let attached = loopdev::attach(
            &File::open(&template).unwrap(),
            Options { read_only: true, autoclear: true, ..Options::default() },
        )
        .unwrap();
        let shared = dir.join("shared");
        make(&shared);
        let source = text(&attached.device.path).to_owned();
        Tree::new("erofs", &[("source", &source)], true, Trust::Data).unwrap().attach(&shared).unwrap();
        drop(attached);

        let file = File::options().read(true).write(true).open(&disk).unwrap();
        let Locked::Yes(file) = exclusive(file, Duration::from_secs(5)).unwrap() else { panic!("not locked") };
        let attached = loopdev::attach(&file, Options { direct_io: true, ..Options::default() }).unwrap();
        let device = attached.device.path.clone();
        drop((file, attached));

        let map = IdMap::new(IdRange { base: BASE, count: 65_536 }).unwrap();
        let (lower, private, root) = (dir.join("lower"), dir.join("private"), dir.join("root"));
        for path in [&lower, &private, &root] {
            make(path);
        }
        Tree::clone_of(&shared).unwrap().map_ids(&map).unwrap().attach(&lower).unwrap();
        let options = [("source", text(&device))];
        Tree::new("ext4", &options, false, Trust::Data).unwrap().map_ids(&map).unwrap().attach(&private).unwrap();
        let (upper, work) = (private.join("up"), private.join("work"));
        let options = [("lowerdir", text(&lower)), ("upperdir", text(&upper)), ("workdir", text(&work))];
        with_file_owner(BASE, || {
            make(&upper);
            make(&work);
            Tree::new("overlay", &options, false, Trust::SetId)?.attach(&root)
        })
        .unwrap();

        assert_eq!(fs::metadata(root.join("etc/passwd")).unwrap().uid(), BASE);
        assert_eq!(fs::metadata(root.join("var")).unwrap().uid(), BASE + 33);
        let stranger = fs::metadata(root.join("stranger")).unwrap().uid();
        assert_eq!(stranger, 65_534, "an id outside of the map is nobody's, above all not the host's root's");

        // Its root writes: copy-up, a new file, a removal.
        with_file_owner(BASE, || {
            File::options().append(true).open(root.join("etc/passwd")).unwrap().write_all(b" ann").unwrap();
            fs::write(root.join("var/new"), "x").unwrap();
            fs::remove_file(root.join("etc/motd")).unwrap();
            // It cannot even remove what is of an id that it does not have.
            assert!(fs::remove_file(root.join("stranger")).is_err());
            Ok(())
        })
        .unwrap();
        assert_eq!(fs::read_to_string(root.join("etc/passwd")).unwrap(), "root ann");
        assert_eq!(fs::metadata(root.join("var/new")).unwrap().uid(), BASE);
        assert!(!root.join("etc/motd").exists() && root.join("stranger").exists());
        let host = File::create(root.join("host")).unwrap_err();
        assert_eq!(host.raw_os_error(), Some(nix::libc::EOVERFLOW), "the host's root has no id in there");

        // Held still, then unmounted: nothing of it is left, and on the disk the ids are small.
        let frozen = Frozen::hold(&private).unwrap();
        frozen.release().unwrap();
        assert!(!thaw(&private).unwrap());
        drop(Frozen::hold(&private).unwrap());
        run("/usr/sbin/fsfreeze", &["-f", text(&private)]);
        assert!(thaw(&private).unwrap(), "what a dead process has left frozen can be thawed");
        for path in [&root, &private, &lower, &shared] {
            crate::mount::unmount(path).unwrap();
        }
        let plain = dir.join("plain");
        make(&plain);
        Tree::new("ext4", &options_of(&device), true, Trust::Data).unwrap().attach(&plain).unwrap();
        assert_eq!(fs::metadata(plain.join("up/var/new")).unwrap().uid(), 0);
        assert_eq!(fs::metadata(plain.join("up/var")).unwrap().uid(), 33);
        crate::mount::unmount(&plain).unwrap();
        loopdev::detach(&device, Duration::from_secs(20)).unwrap();
        let left: Vec<_> = loopdev::list().unwrap().into_iter().filter(|one| one.backing.starts_with(dir)).collect();
        assert_eq!(left, []);
    });
}

fn options_of(device: &Path) -> [(&str, &str); 1] {
    [("source", text(device))]
}

#[test]
fn layers_know_no_devices_and_no_programs() {
    in_namespace(|dir| {
        let target = dir.join("data");
        make(&target);
        Tree::new("tmpfs", &[("mode", "0755")], false, Trust::Data).unwrap().attach(&target).unwrap();
        run("/bin/mknod", &[text(&target.join("null")), "c", "1", "3"]);
        assert!(File::open(target.join("null")).is_err());
        fs::copy("/bin/true", target.join("true")).unwrap();
        fs::set_permissions(target.join("true"), fs::Permissions::from_mode(0o755)).unwrap();
        assert!(Command::new(target.join("true")).status().is_err());
    });
}

#[test]
fn a_refused_mount_says_what_the_kernel_said() {
    in_namespace(|dir| {
        let error = Tree::new("overlay", &[("lowerdir", text(&dir.join("none")))], false, Trust::Data).unwrap_err();
        let error = format!("{error:#}");
        assert!(error.contains("mounting overlay") && error.contains("none"), "{error}");
        assert!(Tree::clone_of(&dir.join("none")).is_err());
        assert!(Tree::new("nofs", &[], false, Trust::Data).is_err());
    });
}
