//! From nothing to a running init and back.

use std::time::{Duration, Instant};

use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};

use super::*;
use crate::environment::host::{Disk, Limits, Mounts};

#[test]
fn an_environment_starts_sees_only_itself_and_leaves_nothing() {
    on_site(|site| {
        let node = site.node(1);
        let order = site.order(1);
        let id = order.id;
        let look = || node.look(id, &[&order.template]).unwrap();
        assert_eq!(look(), Found::default());

        twice(&node, id, &Action::FetchTemplate(order.template.clone()));
        assert_eq!(look().templates, [order.template.digest.clone()].into());
        twice(&node, id, &Action::Hold(order.clone().into()));
        assert_eq!((look().held.as_ref(), look().disk), (Some(&order), Disk::Ready { size: order.disk }));
        assert!(node.list().unwrap().contains(&id));
        let has_the_expected_effect = |action: Action| {
            let expected = look().after(&action).unwrap();
            twice(&node, id, &action);
            assert_eq!(look(), Found { left: look().left, ..expected });
        };
        twice(&node, id, &Action::CheckDisk);
        has_the_expected_effect(Action::Mount(order.clone().into()));
        assert_eq!(look().mounts, Mounts::Whole);
        twice(&node, id, &Action::Create(order.clone().into()));
        let Container::Created { pid } = look().container else { panic!("{:?}", look()) };

        let seen = node.layout.on_node(id).join("root/var/seen");
        twice(&node, id, &Action::Start);
        assert!(matches!(look().container, Container::Running { pid: now, .. } if now == pid), "{:?}", look());
        let text = wait_for(&seen, "score");
        let said = |key: &str| text.lines().find_map(|line| line.strip_prefix(key)).unwrap_or_default().trim().to_owned();
        assert_eq!((said("id"), said("hostname"), said("container")), ("0".into(), "web1".into(), "lodge".into()), "{text}");
        assert_eq!(said("map").split_whitespace().collect::<Vec<_>>(), ["0", &order.id_base.to_string(), "65536"]);
        assert_eq!((said("tmpfs"), said("null")), ("yes".into(), "yes".into()), "{text}");
        assert_eq!(said("fuse") == "yes", Path::new("/dev/fuse").exists(), "{text}");
        for forbidden in ["device", "dmesg", "kcore", "clock"] {
            assert_eq!(said(forbidden), "no", "{text}");
        }
        assert_eq!((said("seccomp"), said("score")), ("2".into(), "0".into()), "a filter is in force");
        let root = node.layout.on_node(id).join("root");
        assert_eq!(fs::read_to_string(root.join("etc/hostname")).unwrap(), "web1\n");
        assert!(fs::read_to_string(root.join("etc/hosts")).unwrap().contains("10.1.0.7 web1"));
        assert_eq!(fs::read_to_string(root.join("root/.ssh/authorized_keys")).unwrap(), "ssh-ed25519 AAAA ann\n");
        assert!(node.usage(id).unwrap().disk > 0);

        twice(&node, id, &Action::Signal(15));
        assert_eq!(wait_for(&root.join("var/end"), "bye"), "bye\n");
        ended(pid);
        assert_eq!(look().container, Container::Ended { pid });
        twice(&node, id, &Action::Kill);
        twice(&node, id, &Action::Delete);
        assert_eq!(look().container, Container::No);
        let_go(&node, &order);
        assert!(wait_for(&console_of(id), "console").contains("hello from the console"));
        fs::remove_file(console_of(id)).unwrap();
        let owner = node.owner(id).unwrap().unwrap();
        assert!(owner.released && owner.epoch == 1);

        // What it wrote is there the next time; a file that its user changed stays, and a new name arrives.
        let renamed =
            Assignment { name: "web2".into(), epoch: 2, ssh_keys: vec!["ssh-ed25519 BBBB bob".into()], ..order.clone() };
        twice(&node, id, &Action::Hold(renamed.clone().into()));
        assert_eq!(look().disk, Disk::Unchecked);
        twice(&node, id, &Action::CheckDisk);
        twice(&node, id, &Action::Mount(renamed.clone().into()));
        assert_eq!(fs::read_to_string(root.join("var/end")).unwrap(), "bye\n");
        lodge_sys::idmap::with_file_owner(renamed.id_base, || Ok(fs::write(root.join("etc/hosts"), "mine\n")?)).unwrap();
        twice(&node, id, &Action::Create(renamed.clone().into()));
        assert_eq!(fs::read_to_string(root.join("etc/hostname")).unwrap(), "web2\n");
        assert_eq!(fs::read_to_string(root.join("etc/hosts")).unwrap(), "mine\n");
        let keys = fs::read_to_string(root.join("root/.ssh/authorized_keys")).unwrap();
        assert_eq!(keys, "ssh-ed25519 AAAA ann\nssh-ed25519 BBBB bob\n");
        twice(&node, id, &Action::Start);
        twice(&node, id, &Action::Kill);
        let Container::Ended { .. } = look().container else { panic!("{:?}", look()) };
        twice(&node, id, &Action::Delete);
        let_go(&node, &renamed);
        twice(&node, id, &Action::Destroy { epoch: 2 });
        assert!(!node.layout.on_share(id).exists());
        let _ = fs::remove_file(console_of(id));
    });
}

#[test]
fn what_an_agent_that_was_killed_left_is_found_and_taken_down() {
    on_site(|site| {
        let node = site.node(1);
        let order = site.order(1);
        bring_up(&node, &order);
        twice(&node, order.id, &Action::Create(order.clone().into()));
        // As after a `Create` that was cut short before it was noted.
        let notes = node.layout.notes(order.id);
        let init: super::super::container::Init = notes.read(super::super::layout::Note::Init).unwrap();
        notes.remove(super::super::layout::Note::Init).unwrap();
        let other = site.node(1);
        let found = other.look(order.id, &[&order.template]).unwrap();
        assert_eq!(found.container, Container::Ended { pid: 0 });
        assert!(other.perform(order.id, &Action::Release { epoch: 1 }, &Silent).unwrap_err().to_string().contains("mounted"));
        twice(&other, order.id, &Action::Kill);
        twice(&other, order.id, &Action::Delete);
        ended(init.pid);
        let_go(&other, &order);
        let _ = fs::remove_file(console_of(order.id));
    });
}

/// On plain files: this machine's control groups may be of the older kind.
#[test]
fn limits_are_changed_while_it_runs() {
    let dir = tempfile::tempdir().unwrap();
    let order = Site::order_of(TemplateRef { digest: Digest::from_digest([0; 32]), size: 0, meta: TemplateMeta::default() }, 1);
    let node = Site::node_in(dir.path(), 1);
    let group = node.layout.cgroups.join(order.id.to_string());
    fs::create_dir_all(&group).unwrap();
    let limits = Limits { memory: 96 * MIB, cpu_millis: 1500, tasks_max: 77 };
    node.perform(order.id, &Action::SetLimits(limits), &Silent).unwrap();
    let file = |name: &str| fs::read_to_string(group.join(name)).unwrap();
    assert_eq!(
        (file("memory.max"), file("cpu.max"), file("pids.max")),
        ("100663296".into(), "150000 100000".into(), "77".into())
    );
    assert_eq!(file("cpu.weight"), "59");
    fs::write(group.join("memory.events"), "low 0\noom_kill 3\noom_group_kill 0\n").unwrap();
    let found = node.look(order.id, &[]).unwrap();
    assert_eq!((found.limits, found.oom_kills), (Some(limits), 3));
    assert!(found.left.contains(&"control group".to_owned()));
}

#[test]
fn steps_that_come_too_early_say_so() {
    on_site(|site| {
        let node = site.node(1);
        let order = site.order(1);
        let said = |action: Action| node.perform(order.id, &action, &Silent).unwrap_err().to_string();
        assert!(said(Action::CheckDisk).contains("not attached"));
        assert!(said(Action::Mount(order.clone().into())).contains("not attached"));
        assert!(said(Action::Create(order.clone().into())).contains("not mounted"));
        assert!(said(Action::Start).contains("no container"));
        assert!(said(Action::Attach(order.clone().into())).contains("no namespaces"));
        let limits = Limits { memory: MIB, cpu_millis: 100, tasks_max: 10 };
        assert!(said(Action::SetLimits(limits)).contains("memory.max"));
        for action in [Action::Kill, Action::Delete, Action::Unmount, Action::Signal(9), Action::Thaw] {
            twice(&node, order.id, &action);
        }
    });
}

/// Wait until a process has ended.
fn ended(pid: i32) {
    let Ok(process) = lodge_sys::process::PidFd::open(pid.unsigned_abs()) else { return };
    assert!(process.wait(Duration::from_secs(20)).unwrap(), "process {pid} does not end");
}

/// Wait until a file has this text in it.
pub(super) fn wait_for(path: &Path, wanted: &str) -> String {
    let end = Instant::now() + Duration::from_secs(20);
    let watch = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC).unwrap();
    let flags = AddWatchFlags::IN_CREATE | AddWatchFlags::IN_CLOSE_WRITE | AddWatchFlags::IN_MODIFY;
    watch.add_watch(path.parent().unwrap(), flags).unwrap();
    loop {
        let text = fs::read_to_string(path).unwrap_or_default();
        if text.contains(wanted) {
            return text;
        }
        let left = end.saturating_duration_since(Instant::now());
        assert!(!left.is_zero(), "{} has only {text:?}", path.display());
        // Notices of a copied-up file may be lost: it is looked at again each second.
        let timeout = nix::poll::PollTimeout::try_from(left.min(Duration::from_secs(1))).unwrap();
        let mut fds = [nix::poll::PollFd::new(std::os::fd::AsFd::as_fd(&watch), nix::poll::PollFlags::POLLIN)];
        nix::poll::poll(&mut fds, timeout).unwrap();
        let _ = watch.read_events();
    }
}
