//! Disks and templates that somebody has made with bad intent: they are refused, mended, or cost their own environment its disk; what
//! they hold is nobody's and nothing on the node.

use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, symlink};

use super::*;
use crate::environment::host::Disk;

const DEBUGFS: &str = "/usr/sbin/debugfs";

/// The device of a disk that was made, used and let go of properly, held again and not looked at yet.
fn held(node: &Real, order: &Assignment) -> String {
    bring_up(node, order);
    write(node, order, "var/file", "text");
    let_go(node, order);
    twice(node, order.id, &Action::Hold(order.clone().into()));
    assert_eq!(node.look(order.id, &[]).unwrap().disk, Disk::Unchecked);
    node.loop_of(order.id).unwrap().unwrap().path.display().to_string()
}

/// Write a file in a mounted root as the environment's own root.
fn write(node: &Real, order: &Assignment, file: &str, content: &str) {
    let path = node.layout.on_node(order.id).join("root").join(file);
    lodge_sys::idmap::with_file_owner(order.id_base, || Ok(fs::write(path, content)?)).unwrap();
}

fn debugfs(device: &str, commands: &[&str]) {
    for command in commands {
        run(DEBUGFS, &["-w", "-R", command, device]);
    }
}

type Craft = fn(&str);

#[test]
fn a_disk_that_lodge_would_not_make_is_left_alone() {
    let crafts: [(&str, Craft); 6] = [
        ("features", |device| debugfs(device, &["feature mmp"])),
        ("features", |device| debugfs(device, &["feature inline_data"])),
        ("journal", |device| debugfs(device, &["ssv journal_inum 0", "ssv journal_dev 0x0801"])),
        ("mount options", |device| run("/usr/sbin/tune2fs", &["-E", "mount_opts=errors=panic", device])),
        ("claims", |device| debugfs(device, &["ssv blocks_count 9999999"])),
        ("blocks have 2^20", |device| debugfs(device, &["ssv log_block_size 10"])),
    ];
    on_site(|site| {
        for (word, craft) in crafts {
            let node = site.node(1);
            let order = site.order(1);
            craft(&held(&node, &order));
            let before = fs::read(node.layout.disk(order.id)).unwrap();
            match node.perform(order.id, &Action::CheckDisk, &Silent) {
                Err(StepError::Refused(why)) => assert!(why.contains(word) && why.contains("left alone"), "{word}: {why}"),
                other => panic!("{word}: {other:?}"),
            }
            assert!(fs::read(node.layout.disk(order.id)).unwrap() == before, "{word}: nothing is written to it");
            let mount = node.perform(order.id, &Action::Mount(order.clone().into()), &Silent).unwrap_err();
            assert!(mount.to_string().contains("has not been checked"), "{word}: {mount}");
            let_go(&node, &order);
        }
    });
}

#[test]
fn a_disk_of_unknown_origin_is_checked_as_a_whole_and_a_known_one_is_not() {
    on_site(|site| {
        let node = site.node(1);
        let order = site.order(1);
        let device = held(&node, &order);
        let uuid = || super::super::superblock::Superblock::read(Path::new(&device)).unwrap().unwrap().uuid();
        let is_whole = || Command::new("/usr/sbin/e2fsck").args(["-f", "-n", &device]).output().unwrap().status.success();
        assert_eq!(uuid(), order.id.0.as_u128(), "mkfs gave it the environment's id");
        // Wrong inside, and marked clean.
        let damage = || debugfs(&device, &["sif <12> links_count 77", "ssv free_blocks_count 7"]);
        damage();
        twice(&node, order.id, &Action::CheckDisk);
        assert!(!is_whole(), "the quick check believes the mark: that is why others are checked as a whole");
        // tune2fs wants it freshly checked.
        assert!(Command::new("/usr/sbin/e2fsck").args(["-f", "-y", &device]).status().unwrap().code() == Some(1));
        run("/usr/sbin/tune2fs", &["-U", "random", &device]);
        damage();
        twice(&node, order.id, &Action::CheckDisk);
        assert!(is_whole());
        assert_eq!(uuid(), order.id.0.as_u128(), "from now on it is this environment's");
        twice(&node, order.id, &Action::Mount(order.clone().into()));
        let_go(&node, &order);
    });
}

#[test]
fn damage_that_only_the_kernel_meets_costs_the_environment_its_disk_and_is_mended_next_time() {
    on_site(|site| {
        let node = site.node(1);
        let order = site.order(1);
        let device = held(&node, &order);
        // What the superblock wants to be done about errors is to stop the machine.
        run("/usr/sbin/tune2fs", &["-e", "panic", &device]);
        twice(&node, order.id, &Action::CheckDisk);
        debugfs(&device, &["zap_block -f /up/var -p 0x55 0"]);
        twice(&node, order.id, &Action::Mount(order.clone().into()));
        let private = node.layout.on_node(order.id).join("private");
        let options = || {
            let table = fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
            table.lines().find(|line| line.contains(text(&private))).unwrap().rsplit_once(' ').unwrap().1.to_owned()
        };
        assert!(!options().contains("errors=panic"), "{}", options());
        assert!(options().starts_with("rw"), "{}", options());
        let root = node.layout.on_node(order.id).join("root");
        assert!(fs::read_dir(root.join("var")).and_then(|entries| entries.collect::<std::io::Result<Vec<_>>>()).is_err());
        let refused = lodge_sys::idmap::with_file_owner(order.id_base, || Ok(fs::write(root.join("new"), "text")?));
        assert!(format!("{:#}", refused.unwrap_err()).contains("Read-only"), "{}", options());
        let_go(&node, &order);
        twice(&node, order.id, &Action::Hold(order.clone().into()));
        twice(&node, order.id, &Action::CheckDisk);
        twice(&node, order.id, &Action::Mount(order.clone().into()));
        write(&node, &order, "new", "text");
        let_go(&node, &order);
    });
}

/// A disk or a tree with what no environment can make: a device, and programs that make others of who runs them.
const STRANGER: u32 = 65_536;

#[test]
fn what_a_disk_holds_means_nothing_on_the_node() {
    on_site(|site| {
        let node = site.node(1);
        let order = site.order(1);
        let device = held(&node, &order);
        let id = site.dir.path().join("tree/bin/id");
        let number = Path::new(&device).file_name().unwrap().to_str().unwrap().strip_prefix("loop").unwrap().to_owned();
        let put = |name: &str| format!("write {} /up/{name}", id.display());
        let commands = [
            "cd /up".to_owned(),
            put("of-root"),
            "sif /up/of-root mode 0104755".into(),
            put("of-stranger"),
            "sif /up/of-stranger mode 0104755".into(),
            format!("sif /up/of-stranger uid {STRANGER}"),
            format!("sif /up/of-stranger gid {STRANGER}"),
            // debugfs makes names in its working directory only.
            format!("mknod disk b 7 {number}"),
            "mknod memory c 1 1".into(),
            "mknod null c 1 3".into(),
        ];
        let script = site.dir.path().join("script");
        fs::write(&script, commands.join("\n")).unwrap();
        run(DEBUGFS, &["-w", "-f", text(&script), &device]);
        for name in ["disk", "memory", "null"] {
            // debugfs takes no path for mknod; what it made at the top is moved into the layer.
            debugfs(&device, &[&format!("ln /{name} /up/{name}"), &format!("unlink /{name}")]);
        }
        holds_nothing(&node, &order);
    });
}

#[test]
fn what_a_template_holds_means_nothing_on_the_node() {
    on_site(|site| {
        let tree = site.dir.path().join("tree");
        for (name, owner) in [("of-root", 0), ("of-stranger", STRANGER)] {
            fs::copy(tree.join("bin/id"), tree.join(name)).unwrap();
            std::os::unix::fs::chown(tree.join(name), Some(owner), Some(owner)).unwrap();
            run("/bin/chmod", &["4755", text(&tree.join(name))]);
        }
        for (name, kind, major, minor) in [("disk", "b", "7", "0"), ("memory", "c", "1", "1"), ("null", "c", "1", "3")] {
            run("/bin/mknod", &[text(&tree.join(name)), kind, major, minor]);
        }
        symlink("/etc/shadow", tree.join("link")).unwrap();
        let image = site.dir.path().join("crafted");
        run("/usr/bin/mkfs.erofs", &["--quiet", text(&image), text(&tree)]);
        let bytes = fs::read(&image).unwrap();
        let digest = Digest::from_digest(sha2::Sha256::digest(&bytes).into());
        fs::rename(&image, site.dir.path().join("share").join(share::template(&digest))).unwrap();
        let template = TemplateRef { digest, size: bytes.len() as u64, ..site.template.clone() };
        let node = site.node(1);
        let order = Assignment { template, ..site.order(1) };
        bring_up(&node, &order);
        let_go(&node, &order);
        twice(&node, order.id, &Action::Hold(order.clone().into()));
        holds_nothing(&node, &order);
    });
}

/// Devices do not open, neither for the node's root nor inside; an id that no environment has is nobody's; set-id makes the environment's
/// root of somebody, and of nobody anybody else.
fn holds_nothing(node: &Real, order: &Assignment) {
    let id = order.id;
    twice(node, id, &Action::CheckDisk);
    twice(node, id, &Action::Mount(order.clone().into()));
    let root = node.layout.on_node(id).join("root");
    for name in ["disk", "memory", "null"] {
        let kind = fs::metadata(root.join(name)).unwrap().file_type();
        assert!(kind.is_block_device() || kind.is_char_device(), "{name} is {kind:?}");
        let error = File::open(root.join(name)).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::PermissionDenied, "{name} opens on the node: {error}");
    }
    let owner = |name: &str| fs::symlink_metadata(root.join(name)).unwrap().uid();
    assert_eq!((owner("of-root"), owner("of-stranger")), (order.id_base, 65_534));

    twice(node, id, &Action::Create(order.clone().into()));
    twice(node, id, &Action::Start);
    // Before its init is itself, nobody may enter.
    life::wait_for(&root.join("var/seen"), "score");
    let said = |user: &str, command: &[&str]| {
        let mut crun = Command::new("/usr/bin/crun");
        crun.args(["--root", text(&node.layout.crun), "--cgroup-manager", "disabled", "exec", "--user", user, &id.to_string()]);
        let output = crun.args(command).output().unwrap();
        (output.status.success(), String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    assert_eq!(said("1000:1000", &["/bin/id", "-u"]), (true, "1000".into()));
    assert_eq!(said("1000:1000", &["/of-root", "-u"]), (true, "0".into()), "su and its like work inside");
    assert_eq!(said("1000:1000", &["/of-stranger", "-u"]), (true, "1000".into()), "nobody becomes an id beyond the range");
    for name in ["/disk", "/memory", "/null"] {
        assert!(!said("0:0", &["/bin/cat", name]).0, "{name} opens inside");
    }
    assert_eq!(said("0:0", &["/bin/cat", "/dev/null"]), (true, String::new()));
    twice(node, id, &Action::Kill);
    twice(node, id, &Action::Delete);
    let_go(node, order);
    let _ = fs::remove_file(console_of(id));
}
