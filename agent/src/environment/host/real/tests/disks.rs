//! Who may have a disk, and what is done with disks that nobody runs.

use super::*;
use crate::environment::host::Disk;

fn refused(node: &Real, id: EnvironmentId, action: &Action) -> String {
    match node.perform(id, action, &Silent) {
        Err(StepError::Refused(why)) => why,
        other => panic!("{action:?}: {other:?}"),
    }
}

fn failed(node: &Real, id: EnvironmentId, action: &Action) -> String {
    match node.perform(id, action, &Silent) {
        Err(StepError::Failed(error)) => format!("{error:#}"),
        other => panic!("{action:?}: {other:?}"),
    }
}

#[test]
fn one_node_has_a_disk_whatever_others_are_told() {
    on_site(|site| {
        let (first, second) = (site.node(1), site.node(2));
        let order = site.order(1);
        let id = order.id;
        bring_up(&first, &order);
        // A forged order with the same epoch, and an honest one with the next while the disk is in use.
        assert!(refused(&second, id, &Action::Hold(order.clone().into())).contains("belongs to"));
        let next = Assignment { epoch: 2, ..order.clone() };
        assert!(failed(&second, id, &Action::Hold(next.clone().into())).contains("still mounted"));
        // Its mounts and its lock are gone; then another machine has the lock.
        let_go(&first, &order);
        let lock = super::super::disk::lock_file(&first.layout.disk(id)).unwrap();
        assert!(failed(&second, id, &Action::Hold(next.clone().into())).contains("somebody else has it"));
        assert_eq!(second.owner(id).unwrap().unwrap().epoch, 1, "without the lock nothing was written");
        assert!(failed(&second, id, &Action::Destroy { epoch: 2 }).contains("somebody else has it"));
        drop(lock);
        twice(&second, id, &Action::Hold(next.clone().into()));
        assert!(refused(&first, id, &Action::Hold(order.clone().into())).contains("is over"));
        assert!(refused(&first, id, &Action::Destroy { epoch: 1 }).contains("is over"));
        // What the first one says late does not touch the second one's record.
        first.perform(id, &Action::Release { epoch: 1 }, &Silent).unwrap();
        assert!(!second.owner(id).unwrap().unwrap().released);
        // A device that is left while somebody else had the disk is not trusted: its lock is gone.
        twice(&second, id, &Action::Hold(next.clone().into()));
        second.write_owner(&first.record(id, 3)).unwrap();
        let device = second.loop_of(id).unwrap();
        twice(&second, id, &Action::Hold(Assignment { epoch: 4, ..next }.into()));
        assert_eq!(second.owner(id).unwrap().unwrap(), second.record(id, 4));
        // A sequential reader waits for the share once in 4 MiB.
        let name = device.unwrap().path.file_name().unwrap().to_owned();
        let queue = Path::new("/sys/block").join(name).join("queue/read_ahead_kb");
        assert_eq!(fs::read_to_string(queue).unwrap().trim(), "4096");
        twice(&second, id, &Action::Release { epoch: 4 });
        // A disk that is lost is not replaced by a blank one.
        fs::remove_file(second.layout.disk(id)).unwrap();
        assert!(refused(&second, id, &Action::Hold(Assignment { epoch: 5, ..order.clone() }.into())).contains("is gone"));
    });
}

#[test]
fn a_disk_that_was_not_finished_is_made_from_the_start() {
    on_site(|site| {
        let node = site.node(1);
        let order = site.order(1);
        let (disk, new) = (node.layout.disk(order.id), node.layout.new_disk(order.id));
        node.perform(order.id, &Action::Hold(order.clone().into()), &Silent).unwrap();
        twice(&node, order.id, &Action::Release { epoch: 1 });
        // As it is left by an agent that was killed before the disk had its name.
        fs::remove_file(&disk).unwrap();
        fs::write(&new, "half of a file system").unwrap();
        bring_up(&node, &order);
        assert!(disk.exists() && !new.exists());
        assert_eq!(node.look(order.id, &[]).unwrap().disk, Disk::Ready { size: order.disk });
        let_go(&node, &order);
    });
}

#[test]
fn a_new_disk_is_cached_until_it_has_been_of_use_and_an_old_one_never_is() {
    on_site(|site| {
        let node = site.node(1);
        let order = site.order(1);
        let id = order.id;
        // Whether the device passes the cache, and what is found of it.
        let is = || {
            let device = node.loop_of(id).unwrap().unwrap().path;
            let dio = Path::new("/sys/block").join(device.file_name().unwrap()).join("loop/dio");
            (fs::read_to_string(dio).unwrap().trim() == "1", node.look(id, &[]).unwrap().cached)
        };
        twice(&node, id, &Action::Hold(order.clone().into()));
        assert_eq!(is(), (false, true));
        twice(&node, id, &Action::PassCache);
        assert_eq!(is(), (true, false));
        twice(&node, id, &Action::Release { epoch: 1 });
        twice(&node, id, &Action::Hold(order.clone().into()));
        assert_eq!(is(), (true, false));
        let left = fs::read_dir(node.layout.on_node(id)).unwrap().flatten().map(|entry| entry.file_name());
        let left: Vec<_> = left.filter(|name| name.to_string_lossy().starts_with("form")).collect();
        assert!(left.is_empty(), "what was begun for a new disk is gone: {left:?}");
        twice(&node, id, &Action::Release { epoch: 1 });
    });
}

#[test]
fn a_disk_grows_with_or_without_its_mount_and_never_shrinks() {
    on_site(|site| {
        let node = site.node(1);
        let order = site.order(1);
        let id = order.id;
        bring_up(&node, &order);
        let private = node.layout.on_node(id).join("private");
        let size = || nix::sys::statvfs::statvfs(&private).map(|found| found.blocks() * found.fragment_size()).unwrap();
        let before = size();
        if may_resize() {
            twice(&node, id, &Action::GrowDisk(128 * MIB));
            assert!(size() > before + 50 * MIB, "{} {before}", size());
            assert_eq!(node.look(id, &[]).unwrap().disk, Disk::Ready { size: 128 * MIB });
        }
        assert!(refused(&node, id, &Action::GrowDisk(60 * MIB)).contains("cannot be made smaller"));
        let_go(&node, &order);
        twice(&node, id, &Action::Hold(order.clone().into()));
        twice(&node, id, &Action::CheckDisk);
        twice(&node, id, &Action::GrowDisk(200 * MIB));
        // Cut short after the file had grown: the next check tells the size of the file system, so it is ordered again.
        fs::write(node.layout.growing(id), "").unwrap();
        File::options().write(true).open(node.layout.disk(id)).unwrap().set_len(300 * MIB).unwrap();
        twice(&node, id, &Action::CheckDisk);
        let Disk::Ready { size } = node.look(id, &[]).unwrap().disk else { panic!() };
        assert!(size <= 200 * MIB, "{size}");
        twice(&node, id, &Action::GrowDisk(300 * MIB));
        assert!(!node.layout.growing(id).exists());
        let_go(&node, &order);
    });
}

/// Growing a mounted ext4 needs CAP_SYS_RESOURCE (capabilities(7): 24), which root does not have everywhere.
fn may_resize() -> bool {
    let status = fs::read_to_string("/proc/thread-self/status").unwrap();
    let mask = status.lines().find_map(|line| line.strip_prefix("CapEff:")).unwrap().trim().to_owned();
    u64::from_str_radix(&mask, 16).unwrap() & (1 << 24) != 0
}

#[test]
fn snapshots_go_back_and_copies_stand_alone() {
    on_site(|site| {
        let node = site.node(1);
        let order = site.order(1);
        let id = order.id;
        let task = |task: TaskKind| node.task(&task, &Silent);
        let snapshot = |name: &str| TaskKind::Snapshot { environment: id, snapshot: name.into() };
        let refused = |found: Result<TaskDone, StepError>| match found {
            Err(StepError::Refused(why)) => why,
            other => panic!("{other:?}"),
        };
        assert!(refused(task(snapshot("one"))).contains("no directory"));
        bring_up(&node, &order);
        let file = node.layout.on_node(id).join("root/var/file");
        super::super::guest::write(&node.layout.on_node(id).join("private"), &node.layout.on_node(id).join("root"), &order, "")
            .unwrap();
        assert!(!node.layout.on_node(id).join("root/etc/machine-id").exists());
        let write = |text: &str| lodge_sys::idmap::with_file_owner(order.id_base, || Ok(fs::write(&file, text)?)).unwrap();
        write("one");
        let done = task(snapshot("one")).unwrap();
        assert!(done.bytes > 0);
        assert!(!node.look(id, &[]).unwrap().frozen);
        write("two");
        assert_eq!(task(snapshot("one")).unwrap(), done, "what was done is not done again");
        assert!(refused(task(snapshot("../x"))).contains("../x"));
        let rollback = TaskKind::Rollback { environment: id, snapshot: "one".into() };
        assert!(task(rollback.clone()).unwrap_err().to_string().contains("still holds"));
        // As after a copy that was cut short.
        node.layout.notes(id).write(super::super::layout::Note::Frozen, &true).unwrap();
        run("/usr/sbin/fsfreeze", &["-f", text(&node.layout.on_node(id).join("private"))]);
        assert!(node.look(id, &[]).unwrap().frozen);
        twice(&node, id, &Action::Thaw);
        write("two");
        let copy = EnvironmentId(Uuid::new_v4());
        let clone = TaskKind::Clone { from: id, to: copy };
        task(clone.clone()).unwrap();
        task(clone).unwrap();
        let_go(&node, &order);

        assert!(refused(task(TaskKind::Rollback { environment: id, snapshot: "none".into() })).contains("no snapshot"));
        task(rollback.clone()).unwrap();
        task(rollback).unwrap();
        assert_eq!(content(&node, &order), "one");
        task(TaskKind::RemoveSnapshot { environment: id, snapshot: "one".into() }).unwrap();
        task(TaskKind::RemoveSnapshot { environment: id, snapshot: "one".into() }).unwrap();
        let copied = Assignment { id: copy, ..order.clone() };
        assert_eq!(content(&node, &copied), "two");
        twice(&node, copy, &Action::Hold(copied.clone().into()));
        twice(&node, copy, &Action::CheckDisk);
        twice(&node, copy, &Action::Mount(copied.clone().into()));
        let (private, root) = (node.layout.on_node(copy).join("private"), node.layout.on_node(copy).join("root"));
        super::super::guest::write(&private, &root, &copied, "").unwrap();
        let machine = fs::read_to_string(root.join("etc/machine-id")).unwrap();
        assert_eq!(machine.trim(), copy.0.simple().to_string(), "a copy is another machine");
        let_go(&node, &copied);
        twice(&node, id, &Action::Destroy { epoch: 1 });
        assert!(!node.layout.on_share(id).exists() && node.layout.on_share(copy).exists());
        let remove = TaskKind::RemoveTemplate { digest: order.template.digest.clone() };
        task(remove.clone()).unwrap();
        task(remove).unwrap();
        assert!(node.look(copy, &[&order.template]).unwrap().templates.is_empty());
    });
}

/// What `/var/file` of an environment says that nobody runs.
fn content(node: &Real, order: &Assignment) -> String {
    twice(node, order.id, &Action::Hold(order.clone().into()));
    twice(node, order.id, &Action::CheckDisk);
    twice(node, order.id, &Action::Mount(order.clone().into()));
    let text = fs::read_to_string(node.layout.on_node(order.id).join("root/var/file")).unwrap();
    let_go(node, order);
    text
}

#[test]
fn a_template_that_is_not_what_it_says_is_not_kept() {
    on_site(|site| {
        let node = site.node(1);
        let order = site.order(1);
        let on_share = site.dir.path().join("share").join(share::template(&order.template.digest));
        let good = fs::read(&on_share).unwrap();
        let fetch = Action::FetchTemplate(order.template.clone());
        for bad in [good[..good.len() - 1].to_vec(), [&good[..], b"x"].concat(), [&good[1..], b"x"].concat()] {
            fs::write(&on_share, bad).unwrap();
            assert!(failed(&node, order.id, &fetch).contains("expected"));
            assert_eq!(fs::read_dir(&node.layout.cache).unwrap().count(), 0);
        }
        fs::remove_file(&on_share).unwrap();
        assert!(failed(&node, order.id, &fetch).contains("copying template"));
        fs::write(&on_share, good).unwrap();
        twice(&node, order.id, &fetch);
        assert!(!node.look(order.id, &[&order.template]).unwrap().templates.is_empty());
    });
}

#[test]
fn environments_of_a_template_share_its_mount_and_the_last_one_takes_it_away() {
    on_site(|site| {
        let node = site.node(1);
        let (one, mut two) = (site.order(1), site.order(1));
        two.id_base += IDS;
        bring_up(&node, &one);
        bring_up(&node, &two);
        let templates = || {
            let all = lodge_sys::loopdev::list().unwrap();
            all.into_iter().filter(|device| device.backing.starts_with(&node.layout.cache)).count()
        };
        assert_eq!(templates(), 1);
        let owner = |order: &Assignment| {
            let path = node.layout.on_node(order.id).join("root/etc/hostname");
            std::os::unix::fs::MetadataExt::uid(&fs::metadata(path).unwrap())
        };
        assert_eq!((owner(&one), owner(&two)), (one.id_base, two.id_base));
        let_go(&node, &one);
        assert_eq!(templates(), 1);
        let_go(&node, &two);
        assert_eq!((templates(), fs::read_dir(&node.layout.template_mounts).unwrap().count()), (0, 0));
    });
}
