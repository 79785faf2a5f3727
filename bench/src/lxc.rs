//! The peer `lxc-start`: Debian's LXC from the bench's disk, on the node's own libraries, with the same ids, limits and kind of link.

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use lodge_sys::process::PidFd;

use crate::peer::{Peer, WORK, call};

/// Where the bench's disk is mounted; LXC is unpacked in `lxc`.
const DISK: &str = "/run/bench/disk";
/// Bytes of memory that each may use, as environments of the bench may.
const MEMORY: u64 = 96 << 20;
/// Devices that environments may use, too.
const DEVICES: [&str; 11] = ["1:3", "1:5", "1:7", "1:8", "1:9", "5:0", "5:1", "5:2", "10:200", "10:229", "136:*"];

/// How long LXC may take to end.
const LIMIT: Duration = Duration::from_secs(30);

/// Start it.
pub fn start(peer: &Peer) -> Result<()> {
    fs::create_dir_all(format!("{WORK}/lxc/mount")).context("making LXC's mount point")?;
    let path = peer.dir().join("lxc.conf");
    fs::write(&path, config(peer)).with_context(|| format!("writing {}", path.display()))?;
    let mut start = lxc("lxc-start", peer);
    start.arg("--pidfile").arg(monitor(peer));
    call(start.arg("--daemon").arg("--rcfile").arg(&path).arg("--logfile").arg(peer.dir().join("log")))
}

/// End it, and with it what LXC still does when `lxc-stop` has returned: it would be taken from whoever starts next.
pub fn stop(peer: &Peer) -> Result<()> {
    let path = monitor(peer);
    let pid = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    let monitor = PidFd::open(pid.trim().parse().with_context(|| format!("reading {}", path.display()))?)?;
    call(lxc("lxc-stop", peer).arg("--kill"))?;
    if !monitor.wait(LIMIT)? {
        bail!("the monitor of {} is still there after {} s", peer.name, LIMIT.as_secs());
    }
    Ok(())
}

/// Where the process id of its monitor is.
fn monitor(peer: &Peer) -> PathBuf {
    peer.dir().join("monitor")
}

fn lxc(program: &str, peer: &Peer) -> Command {
    let mut command = Command::new(format!("{DISK}/lxc/usr/bin/{program}"));
    command.env("LD_LIBRARY_PATH", format!("{DISK}/lxc/usr/lib/x86_64-linux-gnu"));
    command.args(["--lxcpath", &format!("{WORK}/lxc"), "--name", &peer.name]);
    command
}

/// Its settings (lxc.container.conf(5)).
fn config(peer: &Peer) -> String {
    let (name, base, root) = (&peer.name, peer.base(), peer.dir().join("root"));
    let mut text = String::new();
    let mut set = |key: &str, value: &str| {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "lxc.{key} = {value}");
    };
    set("uts.name", name);
    set("rootfs.path", &format!("dir:{}", root.display()));
    set("rootfs.mount", &format!("{WORK}/lxc/mount"));
    for kind in ["u", "g"] {
        set("idmap", &format!("{kind} 0 {base} 65536"));
    }
    set("init.cmd", "/sbin/init");
    set("apparmor.profile", "unconfined");
    set("mount.auto", "proc:mixed sys:mixed cgroup:mixed");
    for file in lxcfs() {
        set("mount.entry", &format!("/var/lib/lxcfs/proc/{file} proc/{file} none bind,nosuid,nodev 0 0"));
    }
    set("seccomp.profile", &format!("{DISK}/lxc/usr/share/lxc/config/common.seccomp"));
    set("cgroup2.devices.deny", "a");
    for device in DEVICES {
        set("cgroup2.devices.allow", &format!("c {device} rwm"));
    }
    set("cgroup2.memory.max", &MEMORY.to_string());
    set("cgroup2.cpu.max", "100000 100000");
    set("cgroup2.pids.max", "1024");
    set("net.0.type", "veth");
    set("net.0.veth.pair", name);
    set("net.0.link", "br0");
    set("net.0.name", "eth0");
    set("net.0.hwaddr", &peer.mac());
    set("net.0.ipv4.address", &format!("{}/24", peer.address));
    set("net.0.flags", "up");
    text
}

/// What lxcfs shows an environment of itself.
fn lxcfs() -> impl Iterator<Item = &'static str> {
    let files = ["cpuinfo", "diskstats", "loadavg", "meminfo", "stat", "swaps", "uptime"];
    files.into_iter().filter(|file| Path::new("/var/lib/lxcfs/proc").join(file).exists())
}
