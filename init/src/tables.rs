//! Mounts and kernel settings as tables, the reason beside each value.

use std::fs;

use anyhow::{Context as _, Result};
use lodge_sys::mount::{Mount, MsFlags};

use crate::{
    log,
    step::{Failure, may_degrade, required},
};

const NO_PROGRAMS: MsFlags = MsFlags::MS_NOSUID.union(MsFlags::MS_NODEV).union(MsFlags::MS_NOEXEC);

/// Whether the boot can go on without a mount.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Need {
    Required,
    MayDegrade,
}

const fn mount(
    need: Need,
    source: &'static str,
    target: &'static str,
    fstype: &'static str,
    flags: MsFlags,
    data: &'static str,
) -> (Need, Mount<'static>) {
    (need, Mount { source, target, fstype, flags, data })
}

/// The kernel's own file systems, in both stages. The second stage finds the first ones moved to it and adds what is missing.
const KERNEL: [(Need, Mount<'static>); 8] = [
    mount(Need::Required, "proc", "/proc", "proc", NO_PROGRAMS, ""),
    mount(Need::Required, "sysfs", "/sys", "sysfs", NO_PROGRAMS, ""),
    // Device nodes come from the kernel; programs have no business there.
    mount(Need::Required, "devtmpfs", "/dev", "devtmpfs", MsFlags::MS_NOSUID.union(MsFlags::MS_NOEXEC), "mode=0755"),
    // gid 5 is Debian's tty group: write(1) and friends expect it.
    mount(Need::MayDegrade, "devpts", "/dev/pts", "devpts", MsFlags::MS_NOSUID.union(MsFlags::MS_NOEXEC), "gid=5,mode=0620"),
    mount(Need::MayDegrade, "tmpfs", "/dev/shm", "tmpfs", MsFlags::MS_NOSUID.union(MsFlags::MS_NODEV), "mode=1777"),
    // A fifth of memory at most, so that a runaway log or socket directory cannot take it all.
    mount(Need::Required, "tmpfs", "/run", "tmpfs", MsFlags::MS_NOSUID.union(MsFlags::MS_NODEV), "mode=0755,size=20%"),
    // nsdelegate: a container's own cgroup is a border; memory_recursiveprot: protection given to a group holds for those below.
    mount(Need::MayDegrade, "cgroup2", "/sys/fs/cgroup", "cgroup2", NO_PROGRAMS, "nsdelegate,memory_recursiveprot"),
    mount(Need::MayDegrade, "tmpfs", "/tmp", "tmpfs", MsFlags::MS_NOSUID.union(MsFlags::MS_NODEV), "mode=1777,size=20%"),
];

const EFIVARS: Mount<'static> =
    Mount { source: "efivarfs", target: lodge_sys::efivar::DIR, fstype: "efivarfs", flags: NO_PROGRAMS, data: "" };

/// Directories below /run that services put their sockets and files in. The last is how programs of systemd know (sd_booted(3)) that
/// there is a bus with its interfaces to ask; without it `machinectl` refuses to.
const RUN_DIRS: [&str; 5] = ["/run/lodge", "/run/dbus", "/run/udev", "/run/lock", "/run/systemd/system"];

/// Mount what the kernel offers, unless it is mounted already.
pub fn mount_kernel_file_systems() -> Result<(), Failure> {
    let advice = "this is a fault of the boot file or of the machine's memory; boot another version";
    required("mounting the kernel's file systems", advice, || {
        for (need, row) in &KERNEL {
            match (need, row.ensure()) {
                (_, Ok(_)) => {}
                (Need::Required, Err(error)) => return Err(error),
                (Need::MayDegrade, Err(error)) => log::warning(&format!("going on without {}: {error:#}", row.target)),
            }
        }
        RUN_DIRS.iter().try_for_each(|dir| fs::create_dir_all(dir).with_context(|| format!("making {dir}")))
    })
}

/// Mount the firmware's variables, on a UEFI machine. Needs its module.
pub fn mount_efi_variables() {
    if lodge_sys::efivar::is_uefi() {
        may_degrade("mounting the EFI variables", || EFIVARS.ensure());
    }
}

/// Kernel settings: name, value, reason.
const SYSCTLS: [(&str, &str, &str); 25] = [
    ("kernel/printk_devkmsg", "on", "services log through /dev/kmsg; the default rate limit would drop their lines"),
    ("kernel/printk", "6 4 1 7", "consoles show notices and worse; services' chatter (info) stays in the log"),
    ("kernel/panic", "10", "a kernel panic restarts the machine after people had time to photograph it"),
    ("kernel/panic_on_oops", "1", "after an oops locks may be held forever: better restart and be fenced than half alive"),
    (
        "kernel/sysrq",
        "176",
        "sync (16), remount read-only (32) and restart (128) from the keyboard, nothing that shows or kills",
    ),
    ("kernel/pid_max", "4194304", "hundreds of environments share one number space"),
    ("kernel/kptr_restrict", "1", "kernel addresses are for root only"),
    ("kernel/dmesg_restrict", "1", "the log holds lines of every service: for root only"),
    ("kernel/core_pattern", "|/bin/false", "nowhere to put core dumps, and they hold keys"),
    ("fs/protected_hardlinks", "1", "no links to other people's files in shared directories"),
    ("fs/protected_symlinks", "1", "the same for symbolic links"),
    ("fs/protected_fifos", "1", "the same for pipes"),
    ("fs/protected_regular", "2", "the same for files, group-writable directories too"),
    ("vm/panic_on_oom", "0", "one greedy process is killed, not the machine"),
    ("vm/oom_dump_tasks", "0", "environments that are out of memory must not fill the consoles"),
    ("kernel/unprivileged_bpf_disabled", "2", "no way into the kernel's verifier for users of environments"),
    // What follows are sums over all environments, which nobody inside can raise.
    ("fs/inotify/max_user_instances", "65536", "each systemd takes dozens, and all of them count for the node's root, too"),
    ("fs/inotify/max_user_watches", "4194304", "the same for watches"),
    ("fs/aio-max-nr", "1048576", "databases of many environments"),
    ("kernel/pty/max", "65536", "consoles and logins of many environments"),
    ("kernel/keys/maxkeys", "20000", "keys of the node's users are few, those of environments many"),
    ("vm/max_map_count", "1048576", "search engines and games ask for more than the default; Debian's own value"),
    (
        "net/ipv4/neigh/default/gc_thresh3",
        "16384",
        "one table of neighbours for all environments: the default fills with a thousand",
    ),
    ("net/ipv6/neigh/default/gc_thresh3", "16384", "the same for IPv6"),
    ("net/ipv4/neigh/default/gc_thresh2", "8192", "where it begins to forget them"),
];

/// Apply the kernel settings; each one may fail.
pub fn apply_sysctls() {
    for (name, value, _reason) in SYSCTLS {
        let path = format!("/proc/sys/{name}");
        // With a line end: printk_devkmsg refuses a value without one.
        if let Err(error) = fs::write(&path, format!("{value}\n")) {
            log::warning(&format!("going on without {path} = {value}: {error}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_target_comes_after_its_parent() {
        let targets: Vec<&str> = KERNEL.iter().map(|(_, row)| row.target).collect();
        for (at, target) in targets.iter().enumerate() {
            let later = targets.iter().skip(at + 1);
            assert!(
                later.into_iter().all(|other| !target.starts_with(&format!("{other}/"))),
                "{target} comes before its parent"
            );
        }
    }

    #[test]
    fn every_setting_is_given_once_and_has_a_reason() {
        for (at, (name, value, reason)) in SYSCTLS.iter().enumerate() {
            assert!(!value.is_empty() && !reason.is_empty(), "{name}");
            assert!(SYSCTLS.iter().skip(at + 1).all(|(other, ..)| other != name), "{name}");
        }
    }
}
