//! What the container engine is told: `config.json` of the OCI runtime specification. Pure.
//!
//! An environment is a server: it has all capabilities in its own user namespace (but those for modules and raw hardware), writes its own
//! control groups, and owns its network. What it cannot reach it cannot reach because its ids are nobody's on the host.

use std::path::{Path, PathBuf};

use lodge_model::environment::order::{Assignment, IDS};
use serde_json::{Value, json};

use super::seccomp;

/// What differs from node to node.
#[derive(Clone, Debug)]
pub(super) struct Node<'a> {
    /// The environment's root.
    pub(super) root: &'a Path,
    /// Where lxcfs shows its files.
    pub(super) lxcfs: &'a Path,
    /// Files of `LXCFS` that are there.
    pub(super) lxcfs_files: Vec<&'static str>,
    /// Devices of `DEVICES` that are there.
    pub(super) devices: Vec<(&'static str, u32, u32)>,
    /// A root that it is shown besides, and where.
    pub(super) beside: Option<(&'static str, PathBuf)>,
    /// Greatest number of open files of a process.
    pub(super) open_files: u64,
}

/// What lxcfs shows an environment of its own share of the machine, below `/proc`.
pub const LXCFS: [&str; 7] = ["cpuinfo", "diskstats", "loadavg", "meminfo", "stat", "swaps", "uptime"];

/// Devices that exist once and are safe for everybody, where the node has them: tunnels and file systems in user space.
pub(super) const DEVICES: [(&str, u32, u32); 2] = [("/dev/fuse", 10, 229), ("/dev/net/tun", 10, 200)];

/// `null`, `zero`, `full`, `random`, `urandom`, `tty`, `console`, `ptmx`.
const ALWAYS: [(u32, u32); 8] = [(1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 1), (5, 2)];
/// Pseudo terminals.
const PTS: u32 = 136;

/// Microseconds over which processor time is measured.
pub(super) const CPU_PERIOD: u64 = 100_000;

const CAPABILITIES: [&str; 39] = [
    "AUDIT_CONTROL",
    "AUDIT_READ",
    "AUDIT_WRITE",
    "BLOCK_SUSPEND",
    "BPF",
    "CHECKPOINT_RESTORE",
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "IPC_LOCK",
    "IPC_OWNER",
    "KILL",
    "LEASE",
    "LINUX_IMMUTABLE",
    "MAC_ADMIN",
    "MAC_OVERRIDE",
    "MKNOD",
    "NET_ADMIN",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_RAW",
    "PERFMON",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYSLOG",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_CHROOT",
    "SYS_NICE",
    "SYS_PACCT",
    "SYS_PTRACE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "WAKE_ALARM",
];

/// All new: the network belongs to the environment's own user namespace, so that `nft` works inside.
const NAMESPACES: [&str; 7] = ["pid", "ipc", "uts", "mount", "cgroup", "network", "user"];

/// The whole file.
pub(super) fn config(order: &Assignment, node: &Node<'_>) -> Value {
    let capabilities: Vec<String> = CAPABILITIES.iter().map(|name| format!("CAP_{name}")).collect();
    let ids = json!([{"containerID": 0, "hostID": order.id_base, "size": IDS}]);
    json!({
        "ociVersion": "1.0.2",
        "hostname": order.name,
        "root": {"path": node.root, "readonly": false},
        "process": {
            "terminal": true,
            "user": {"uid": 0, "gid": 0},
            "args": order.template.meta.init,
            "env": environment(order),
            "cwd": "/",
            "capabilities": {"bounding": capabilities, "effective": capabilities, "permitted": capabilities},
            "rlimits": [{"type": "RLIMIT_NOFILE", "hard": node.open_files, "soft": 1024}],
            "noNewPrivileges": false,
            "oomScoreAdj": 0,
        },
        "mounts": mounts(node),
        "linux": {
            "uidMappings": ids,
            "gidMappings": ids,
            "namespaces": NAMESPACES.map(|kind| json!({"type": kind})),
            "cgroupsPath": format!("/{}/{}", super::layout::CGROUPS, order.id),
            "devices": node.devices.iter().map(device).collect::<Vec<_>>(),
            "resources": resources(order, &node.devices),
            "seccomp": seccomp::profile(),
            "maskedPaths": [],
            "readonlyPaths": [],
        },
    })
}

fn device((path, major, minor): &(&str, u32, u32)) -> Value {
    json!({"path": path, "type": "c", "major": major, "minor": minor, "fileMode": 0o666, "uid": 0, "gid": 0})
}

fn environment(order: &Assignment) -> Vec<String> {
    let mut variables = vec![
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned(),
        "HOME=/root".to_owned(),
        "TERM=linux".to_owned(),
        // systemd.io/CONTAINER_INTERFACE: it is in a container, and what its machine id is to be.
        "container=lodge".to_owned(),
        format!("container_uuid={}", order.id),
        // A trigger on memory.pressure does not survive a live move.
        "MEMORY_PRESSURE_WATCH=/dev/null".to_owned(),
    ];
    variables.extend(order.template.meta.environment.iter().cloned());
    variables
}

fn mounts(node: &Node<'_>) -> Vec<Value> {
    let mount = |target: &str, fstype: &str, options: &[&str]| json!({"destination": target, "type": fstype, "source": fstype, "options": options});
    let mut mounts = vec![
        mount("/proc", "proc", &["nosuid", "noexec", "nodev"]),
        mount("/dev", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        mount("/dev/pts", "devpts", &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]),
        mount("/dev/shm", "tmpfs", &["nosuid", "nodev", "mode=1777"]),
        mount("/dev/mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
        // Read-only, which also tells systemd to leave devices alone.
        mount("/sys", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
        mount("/sys/fs/cgroup", "cgroup", &["nosuid", "noexec", "nodev", "rw"]),
        mount("/run", "tmpfs", &["nosuid", "nodev", "mode=755"]),
    ];
    mounts.extend(node.lxcfs_files.iter().map(|file| {
        let source = node.lxcfs.join("proc").join(file);
        // lxcfs's own flags, which may not be taken away.
        json!({"destination": format!("/proc/{file}"), "type": "bind", "source": source, "options": ["bind", "nosuid", "nodev"]})
    }));
    mounts.extend(node.beside.as_ref().map(|(place, root)| {
        // A program of it that changes ids has no such right here.
        json!({"destination": place, "type": "bind", "source": root, "options": ["bind", "nosuid", "nodev"]})
    }));
    mounts
}

fn resources(order: &Assignment, devices: &[(&str, u32, u32)]) -> Value {
    let allow = |major: u32, minor: u32| json!({"allow": true, "type": "c", "major": major, "minor": minor, "access": "rwm"});
    let mut rules = vec![json!({"allow": false, "access": "rwm"})];
    rules.extend(ALWAYS.iter().map(|(major, minor)| allow(*major, *minor)));
    rules.extend(devices.iter().map(|(_, major, minor)| allow(*major, *minor)));
    rules.push(json!({"allow": true, "type": "c", "major": PTS, "access": "rwm"}));
    json!({
        "devices": rules,
        // Memory and swap together: it does not swap.
        "memory": {"limit": order.memory, "swap": order.memory},
        "cpu": {"quota": cpu_quota(order.cpu_millis), "period": CPU_PERIOD, "shares": cpu_shares(order.cpu_millis)},
        "pids": {"limit": order.tasks_max},
    })
}

/// Microseconds of processor time in each period.
pub(super) fn cpu_quota(millis: u32) -> u64 {
    u64::from(millis) * CPU_PERIOD / 1000
}

/// Its weight where processors are short, on the scale of cgroup v1 that the specification has: 1024 is one processor's.
fn cpu_shares(millis: u32) -> u64 {
    (u64::from(millis) * 1024 / 1000).clamp(2, 262_144)
}

/// The same weight on the scale of cgroup v2, as the engine turns one into the other.
pub(super) fn cpu_weight(millis: u32) -> u64 {
    1 + (cpu_shares(millis) - 2) * 9999 / 262_142
}

#[cfg(test)]
mod tests;
