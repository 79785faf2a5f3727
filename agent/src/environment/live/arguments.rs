//! What criu is told. Pure.
//!
//! Mounts and terminals that come from the node are *external*: criu does not look into them and is given others in their place. criu names
//! a mount by a word of ours, which is its name inside.

use std::path::Path;

use super::Record;

/// The end of an environment's cable inside.
const CABLE: &str = "eth0";
/// Where devices are, on nodes and inside.
pub const DEV: &str = "/dev/";
/// The console, as the container engine mounts it.
pub const CONSOLE: &str = "/dev/console";
/// Devices of the node that may be mounted into an environment.
const DEVICES: [&str; 9] =
    [CONSOLE, "/dev/full", "/dev/fuse", "/dev/net/tun", "/dev/null", "/dev/random", "/dev/tty", "/dev/urandom", "/dev/zero"];
/// Where watched files are looked for by number, when the overlay cannot tell their names.
/// The time zones are among them because a watch on the link `/etc/localtime` is one on the file behind it after the first move.
const SCANNED: [&str; 6] =
    ["/etc", "/usr/share/zoneinfo", "/usr/share/dbus-1", "/usr/local/share", "/usr/lib/systemd", "/var/lib"];
/// Seconds until all processes must have stopped.
const STOP_LIMIT: &str = "60";

/// Where everything is on this node.
#[derive(Clone, Copy, Debug)]
pub struct Places<'a> {
    /// The checkpoint.
    pub images: &'a Path,
    /// Logs and other files of this run.
    pub work: &'a Path,
    /// The environment's root.
    pub root: &'a Path,
    /// The program that criu calls.
    pub hook: &'a Path,
}

/// Its processes are to be written down and ended.
#[derive(Clone, Copy, Debug)]
pub struct Dump<'a> {
    /// Its init.
    pub init: i32,
    /// Its control group.
    pub cgroup: &'a Path,
}

/// Its processes are to go on.
#[derive(Clone, Copy, Debug)]
pub struct Restore<'a> {
    /// The node's end of its cable.
    pub port: &'a str,
    /// The bridge that it is a port of.
    pub bridge: &'a str,
    /// Where lxcfs shows its files.
    pub lxcfs: &'a Path,
    /// Where `devices` are to be found, each by its name below `/dev`; its new console is among them, and criu's descriptor 0.
    pub devices: &'a Path,
    /// Where the number of its init is written.
    pub pid_file: &'a Path,
}

/// Of all mount points inside, those that come from the node.
pub fn external_mounts<'a>(inside: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    let is_lxcfs = |name: &str| name.strip_prefix("/proc/").is_some_and(|file| super::super::host::real::LXCFS.contains(&file));
    let mut mounts: Vec<String> =
        inside.into_iter().filter(|name| is_device(name) || is_lxcfs(name)).map(str::to_owned).collect();
    mounts.sort();
    mounts.dedup();
    mounts
}

/// Those of them that are devices, by their names below `/dev`.
pub fn devices(mounts: &[String]) -> impl Iterator<Item = &str> {
    mounts.iter().filter(|name| is_device(name)).filter_map(|name| name.strip_prefix(DEV))
}

fn is_device(name: &str) -> bool {
    DEVICES.contains(&name)
}

/// The name of a terminal, as criu has it.
pub fn terminal(device: u64, file_system: u64) -> String {
    format!("tty[{device:x}:{file_system:x}]")
}

/// `criu dump`.
pub fn dump(places: &Places<'_>, dump: &Dump<'_>, record: &Record) -> Vec<String> {
    let mut arguments = words(&["dump", "--tree"]);
    arguments.push(dump.init.to_string());
    arguments.extend(common(places, "dump.log"));
    arguments.extend(words(&[
        "--link-remap",
        "--skip-in-flight",
        "--network-lock",
        "nftables",
        "--timeout",
        STOP_LIMIT,
        "--freeze-cgroup",
    ]));
    arguments.push(text(dump.cgroup));
    for mount in &record.mounts {
        arguments.extend(words(&["--external", &format!("mnt[{mount}]:{mount}")]));
    }
    if let Some(console) = &record.console {
        arguments.extend(words(&["--external", console]));
    }
    for path in SCANNED {
        arguments.extend(words(&["--irmap-scan-path", path]));
    }
    arguments
}

/// `criu restore`.
pub fn restore(places: &Places<'_>, restore: &Restore<'_>, record: &Record) -> Vec<String> {
    let mut arguments = words(&["restore", "--restore-detached", "--pidfile", &text(restore.pid_file)]);
    arguments.extend(common(places, "restore.log"));
    arguments.extend(words(&["--external", &format!("veth[{CABLE}]:{}@{}", restore.port, restore.bridge)]));
    for mount in &record.mounts {
        arguments.extend(words(&["--external", &format!("mnt[{mount}]:{}", text(&outside(mount, restore)))]));
    }
    if let Some(console) = &record.console {
        arguments.extend(words(&["--inherit-fd", &format!("fd[0]:{console}")]));
    }
    arguments
}

/// What is mounted there on this node.
fn outside(mount: &str, restore: &Restore<'_>) -> std::path::PathBuf {
    match (mount.strip_prefix("/proc/"), mount.strip_prefix(DEV)) {
        (Some(file), _) => restore.lxcfs.join("proc").join(file),
        (_, Some(device)) => restore.devices.join(device),
        _ => mount.into(),
    }
}

fn common(places: &Places<'_>, log: &str) -> Vec<String> {
    let Places { images, work, root, hook } = places;
    words(&[
        "--images-dir",
        &text(images),
        "--work-dir",
        &text(work),
        "--log-file",
        log,
        "-v2",
        "--root",
        &text(root),
        "--action-script",
        &text(hook),
        "--tcp-established",
        "--ext-unix-sk",
        "--file-locks",
        "--manage-cgroups=soft",
    ])
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use lodge_model::ids::EnvironmentId;
    use std::collections::BTreeMap;
    use uuid::Uuid;

    fn record() -> Record {
        Record {
            environment: EnvironmentId(Uuid::from_u128(7)),
            epoch: 3,
            since: 1,
            mounts: external_mounts(["/", "/proc/stat", "/dev", "/dev/null", "/dev/console", "/proc", "/proc/stat", "/home"]),
            console: Some(terminal(0x8803, 0x1e)),
            settings: BTreeMap::new(),
        }
    }

    const PLACES: fn() -> Places<'static> = || Places {
        images: Path::new("/share/environments/7/checkpoint"),
        work: Path::new("/run/lodge/environments/7/live"),
        root: Path::new("/run/lodge/environments/7/root"),
        hook: Path::new("/usr/lib/lodge/agent"),
    };

    #[test]
    fn what_comes_from_the_node_is_told_from_what_is_the_environments_own() {
        assert_eq!(record().mounts, ["/dev/console", "/dev/null", "/proc/stat"]);
        assert_eq!(devices(&record().mounts).collect::<Vec<_>>(), ["console", "null"]);
    }

    #[test]
    fn criu_is_told_to_write_down() {
        let dump = dump(&PLACES(), &Dump { init: 815, cgroup: Path::new("/sys/fs/cgroup/env/7") }, &record());
        assert_eq!(
            dump.join(" "),
            "dump --tree 815 --images-dir /share/environments/7/checkpoint --work-dir /run/lodge/environments/7/live --log-file \
             dump.log -v2 --root /run/lodge/environments/7/root --action-script /usr/lib/lodge/agent --tcp-established --ext-unix-sk \
             --file-locks --manage-cgroups=soft --link-remap --skip-in-flight --network-lock nftables --timeout 60 --freeze-cgroup \
             /sys/fs/cgroup/env/7 --external mnt[/dev/console]:/dev/console --external mnt[/dev/null]:/dev/null --external \
             mnt[/proc/stat]:/proc/stat --external tty[8803:1e] --irmap-scan-path /etc --irmap-scan-path /usr/share/zoneinfo \
             --irmap-scan-path /usr/share/dbus-1 --irmap-scan-path /usr/local/share --irmap-scan-path /usr/lib/systemd \
             --irmap-scan-path /var/lib"
        );
    }

    #[test]
    fn criu_is_told_to_go_on() {
        let restore = Restore {
            port: "env000000000000",
            bridge: "br0",
            lxcfs: Path::new("/var/lib/lxcfs"),
            devices: Path::new("/run/lodge/environments/7/devices"),
            pid_file: Path::new("/run/lodge/environments/7/live/pid"),
        };
        assert_eq!(
            super::restore(&PLACES(), &restore, &record()).join(" "),
            "restore --restore-detached --pidfile /run/lodge/environments/7/live/pid --images-dir \
             /share/environments/7/checkpoint --work-dir /run/lodge/environments/7/live --log-file restore.log -v2 --root \
             /run/lodge/environments/7/root --action-script /usr/lib/lodge/agent --tcp-established --ext-unix-sk --file-locks \
             --manage-cgroups=soft --external veth[eth0]:env000000000000@br0 --external \
             mnt[/dev/console]:/run/lodge/environments/7/devices/console --external \
             mnt[/dev/null]:/run/lodge/environments/7/devices/null --external \
             mnt[/proc/stat]:/var/lib/lxcfs/proc/stat --inherit-fd fd[0]:tty[8803:1e]"
        );
    }
}
