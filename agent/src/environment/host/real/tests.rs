//! The whole way of an environment on this machine's own kernel: loop devices, ext4, erofs, overlay, crun. They need root and crun; without
//! control groups of version 2 everything but limits is tried.

mod crafted;
mod disks;
mod life;
mod repair;
mod worker;

use std::fs::{self, File};
use std::io::Read as _;
use std::net::IpAddr;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};
use lodge_model::environment::order::{Address, Assignment, IDS, TemplateMeta, TemplateRef, Want};
use lodge_model::environment::share;
use lodge_model::environment::spec::Restart;
use lodge_model::ids::{BootId, Digest, EnvironmentId, NodeId};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use sha2::Digest as _;
use uuid::Uuid;

use super::layout::Layout;
use super::*;

const MIB: u64 = 1 << 20;

struct Silent;

impl Progress for Silent {
    fn percent(&self, percent: u8) {
        assert!(percent <= 100);
    }
}

/// A share, and nodes that have it.
struct Site {
    dir: tempfile::TempDir,
    template: TemplateRef,
}

/// Run with root's rights where mounts are nobody else's; skipped for others.
fn on_site(test: impl FnOnce(&Site) + Send) {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    std::thread::scope(|scope| {
        let run = || {
            unshare(CloneFlags::CLONE_NEWNS).unwrap();
            mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>).unwrap();
            // As on a node: control groups of version 2 alone.
            mount(Some("cgroup2"), "/sys/fs/cgroup", Some("cgroup2"), MsFlags::empty(), None::<&str>).unwrap();
            test(&Site::new());
        };
        if let Err(panic) = scope.spawn(run).join() {
            std::panic::resume_unwind(panic);
        }
    });
}

impl Site {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        // As /run is: environments find their way through it.
        run("/bin/chmod", &["0711", text(dir.path())]);
        let tree = dir.path().join("tree");
        make_tree(&tree);
        let image = dir.path().join("template");
        run("/usr/bin/mkfs.erofs", &["--quiet", text(&image), text(&tree)]);
        let bytes = fs::read(&image).unwrap();
        let digest = Digest::from_digest(sha2::Sha256::digest(&bytes).into());
        let name = dir.path().join("share").join(share::template(&digest));
        fs::create_dir_all(name.parent().unwrap()).unwrap();
        fs::rename(&image, name).unwrap();
        let meta = TemplateMeta { stop_signal: 15, ..TemplateMeta::default() };
        Self { dir, template: TemplateRef { digest, size: bytes.len() as u64, meta } }
    }

    /// A node of this number.
    fn node(&self, number: u128) -> Real {
        Self::node_in(self.dir.path(), number)
    }

    fn node_in(dir: &Path, number: u128) -> Real {
        let own = dir.join(format!("node{number}"));
        fs::create_dir_all(own.join("run")).unwrap();
        let layout = Layout {
            share: dir.join("share"),
            run: own.join("run/environments"),
            template_mounts: own.join("run/templates"),
            cache: own.join("cache"),
            crun: own.join("crun"),
            cgroups: own.join("cgroup"),
            lxcfs: own.join("lxcfs"),
            cgroup_manager: "disabled",
            console: listen,
            hook: "/usr/lib/lodge/agent".into(),
        };
        Real::with(layout, NodeId(Uuid::from_u128(number)), BootId(Uuid::from_u128(number)))
    }

    fn order(&self, epoch: u64) -> Assignment {
        Self::order_of(self.template.clone(), epoch)
    }

    fn order_of(template: TemplateRef, epoch: u64) -> Assignment {
        // No two tests have the same one: consoles are found by id.
        let id = EnvironmentId(Uuid::new_v4());
        Assignment {
            id,
            name: "web1".into(),
            epoch,
            boot: BootId(Uuid::from_u128(1)),
            want: Want::Running,
            template,
            disk: 64 * MIB,
            memory: 64 * MIB,
            cpu_millis: 500,
            tasks_max: 100,
            id_base: IDS * 50,
            mac: "02:00:00:00:00:01".into(),
            addresses: vec![Address { ip: IpAddr::from([10, 1, 0, 7]), prefix: 16, gateway: None }],
            dns: vec![IpAddr::from([10, 1, 0, 1])],
            ssh_keys: vec!["ssh-ed25519 AAAA ann".into()],
            restart: Restart::default(),
            restarts_asked: 0,
            resume: None,
            beside: None,
        }
    }
}

impl Drop for Site {
    /// After a failure its devices go with the mount namespace.
    fn drop(&mut self) {
        for device in lodge_sys::loopdev::list().unwrap_or_default() {
            if device.backing.starts_with(self.dir.path()) {
                let _ = lodge_sys::loopdev::detach(&device.path, std::time::Duration::ZERO);
            }
        }
    }
}

/// Do one step twice: the second time there is nothing left to do.
fn twice(node: &Real, id: EnvironmentId, action: &Action) {
    for _ in 0..2 {
        node.perform(id, action, &Silent).unwrap_or_else(|error| panic!("{action:?}: {error}"));
    }
}

/// Its disk is taken and mounted.
fn bring_up(node: &Real, order: &Assignment) {
    for template in order.templates() {
        twice(node, order.id, &Action::FetchTemplate(template.clone()));
    }
    twice(node, order.id, &Action::Hold(order.clone().into()));
    twice(node, order.id, &Action::Mount(order.clone().into()));
}

/// It is let go of, and nothing is left.
fn let_go(node: &Real, order: &Assignment) {
    twice(node, order.id, &Action::Unmount);
    twice(node, order.id, &Action::Release { epoch: order.epoch });
    assert_eq!(node.look(order.id, &[&order.template]).unwrap().left, Vec::<String>::new());
    assert!(!node.list().unwrap().contains(&order.id));
}

/// A small system: a shell, a few programs and their libraries, and an init that writes down what it sees.
fn make_tree(tree: &Path) {
    for dir in ["bin", "sbin", "etc", "root", "proc", "sys", "dev", "run", "tmp", "var"] {
        fs::create_dir_all(tree.join(dir)).unwrap();
    }
    for program in ["sh", "cat", "id", "mount", "mknod", "sleep", "ls", "touch", "dmesg"] {
        copy_program(tree, &Path::new("/bin").join(program));
    }
    let init = tree.join("sbin/init");
    fs::write(&init, INIT).unwrap();
    run("/bin/chmod", &["0755", text(&init)]);
    fs::write(tree.join("etc/hostname"), "template\n").unwrap();
}

const INIT: &str = r#"#!/bin/sh
trap 'echo bye > /var/end; exit 0' TERM
says() { if "$@" > /dev/null 2>&1; then echo yes; else echo no; fi; }
{
    echo "id $(id -u)"
    echo "hostname $(cat /proc/sys/kernel/hostname)"
    echo "map $(cat /proc/self/uid_map)"
    echo "container $container"
    echo "tmpfs $(says mount -t tmpfs none /tmp)"
    echo "device $(says mknod /var/sda b 8 0)"
    echo "null $(says cat /dev/null)"
    echo "fuse $(says sh -c ': < /dev/fuse')"
    echo "dmesg $(says dmesg)"
    echo "kcore $(says cat /proc/kcore)"
    echo "clock $(says sh -c 'echo 1 > /proc/sys/kernel/sysrq')"
    echo "seccomp $(while read key value; do [ "$key" = Seccomp: ] && echo "$value"; done < /proc/self/status)"
    echo "score $(cat /proc/self/oom_score_adj)"
} > /var/seen.new
echo hello from the console
touch /var/seen
cat /var/seen.new > /var/seen
while :; do sleep 0.2; done
"#;

fn copy_program(tree: &Path, program: &Path) {
    let copy = |from: &Path| {
        let to = tree.join(from.strip_prefix("/").unwrap());
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(from, to).unwrap();
    };
    copy(program);
    let output = Command::new("/usr/bin/ldd").arg(program).output().unwrap();
    for word in String::from_utf8_lossy(&output.stdout).split_whitespace().filter(|word| word.starts_with('/')) {
        copy(Path::new(word));
    }
}

fn run(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Take the console that crun hands over, and keep what is printed on it. As with the real one, asking again is harmless.
fn listen(id: EnvironmentId) -> Result<PathBuf> {
    let path = std::env::temp_dir().join(format!("lodge-{id}.sock"));
    if path.exists() {
        return Ok(path);
    }
    let listener = UnixListener::bind(&path).context("listening for a console")?;
    let (socket, output) = (path.clone(), console_of(id));
    std::thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        fs::remove_file(socket).unwrap();
        let mut console = File::from(lodge_sys::pty::receive(&stream).unwrap());
        let mut printed = Vec::new();
        let mut piece = [0; 1024];
        while let Ok(length @ 1..) = console.read(&mut piece) {
            printed.extend_from_slice(&piece[..length]);
        }
        fs::write(output, printed).unwrap();
    });
    Ok(path)
}

/// What was printed, once the console is hung up.
fn console_of(id: EnvironmentId) -> PathBuf {
    std::env::temp_dir().join(format!("lodge-{id}.console"))
}
