//! Whether the processes of an environment can be written down: they share its namespaces, come from its init, hold nothing open that criu
//! (4.1) knows nothing of, and are not too large. It is looked while they run, every now and then and once more before criu is called; what
//! else criu cannot do it says itself, and they run on.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use anyhow::Result;
use lodge_sys::cgroup::Cgroup;

/// Kinds of namespaces that criu restores one of each.
const NAMESPACES: [&str; 7] = ["user", "pid_for_children", "net", "mnt", "ipc", "uts", "cgroup"];
/// Bytes of memory of its own. They are written while it stands still: with more, a restart is shorter.
const LARGEST: u64 = 1 << 30;

/// The PAM session of a user's systemd. Its program is one that systemd holds open by name alone (`O_PATH`); criu 4.1 takes both for the
/// same open file, and the kernel refuses that as a program.
const PAM_SESSION: &str = "(sd-pam)";
const PAM_WORDS: &str = "somebody's systemd --user holds a PAM session, which criu cannot let go on; without PAMName= in user@.service, as in \
                         the template debian-13, it can";

/// Open files that criu has no image for, by what `/proc/PID/fd` says, and what they are.
const OPEN: [(&str, &str); 9] = [
    ("/dev/fuse", "serves a file system (/dev/fuse)"),
    ("/dev/net/tun", "has a tunnel open (/dev/net/tun)"),
    ("anon_inode:[io_uring]", "uses io_uring"),
    ("anon_inode:[perf_event]", "counts events (perf)"),
    ("anon_inode:[userfaultfd]", "uses userfaultfd"),
    ("anon_inode:[fscontext]", "is about to mount a file system"),
    ("anon_inode:bpf-prog", "holds a BPF program"),
    ("anon_inode:bpf_link", "holds a BPF program"),
    ("anon_inode:seccomp notify", "answers for system calls of others (seccomp)"),
];

/// What matters of an environment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Its processes.
    pub processes: BTreeMap<i32, Process>,
    /// Bytes of memory of its own.
    pub memory: u64,
    /// Somebody pings, with a socket of the kind that needs no privilege.
    pub pings: bool,
}

/// What matters of one process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Process {
    /// Its program's name.
    pub name: String,
    /// Its parent.
    pub parent: i32,
    /// A debugger has it.
    pub is_traced: bool,
    /// Its namespaces, by kind.
    pub namespaces: BTreeMap<&'static str, String>,
    /// Something of `OPEN` that it has open.
    pub open: Option<&'static str>,
}

/// Why they cannot be written down; `None` where nothing speaks against it. Nothing in it changes without need: it is told to the center.
pub fn obstacle(init: i32, seen: &Seen) -> Option<String> {
    if seen.memory > LARGEST {
        return Some(format!("its processes have more than {} MiB of memory, which take longer than a restart", LARGEST >> 20));
    }
    let Some(own) = seen.processes.get(&init) else { return Some("its init has ended".into()) };
    let of_processes = seen.processes.iter().find_map(|(pid, process)| {
        let comes_from_inside = *pid == init || seen.processes.contains_key(&process.parent);
        of_one(process, own, comes_from_inside).map(|why| match process.name.as_str() {
            PAM_SESSION => why,
            name => format!("{name} (process {pid} of the node) {why}"),
        })
    });
    of_processes.or_else(|| seen.pings.then(|| "somebody pings, and criu has no image for such a socket".to_owned()))
}

fn of_one(process: &Process, own: &Process, comes_from_inside: bool) -> Option<String> {
    if process.name == PAM_SESSION {
        return Some(PAM_WORDS.to_owned());
    }
    if let Some(kind) = NAMESPACES.into_iter().find(|kind| process.namespaces.get(kind) != own.namespaces.get(kind)) {
        return Some(format!("is in a namespace of its own ({})", kind.trim_end_matches("_for_children")));
    }
    if !comes_from_inside {
        return Some("was started from outside: lodge env exec".to_owned());
    }
    if process.is_traced {
        return Some("is being debugged".to_owned());
    }
    process.open.map(str::to_owned)
}

/// Look at everything in a control group. Processes that end meanwhile are left out.
pub fn look(init: i32, cgroup: &Cgroup) -> Result<Seen> {
    let memory = ["anon", "shmem"].map(|key| cgroup.read_key("memory.stat", key));
    let memory = memory.into_iter().sum::<Result<Option<u64>>>()?.unwrap_or(0);
    let pids: BTreeSet<i32> = cgroup.all_processes()?.into_iter().collect();
    let processes = pids.into_iter().filter_map(|pid| Some((pid, process(pid)?))).collect();
    let pings = ["icmp", "icmp6"].iter().any(|table| {
        let table = fs::read_to_string(format!("/proc/{init}/net/{table}")).unwrap_or_default();
        // The first line is a heading.
        table.lines().nth(1).is_some()
    });
    Ok(Seen { processes, memory, pings })
}

/// `None` for one that is ending or has ended: it has no namespaces any more, and holds nothing that would have to be kept.
fn process(pid: i32) -> Option<Process> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let field = |key: &str| status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':')).map(str::trim);
    let link = |kind: &str| fs::read_link(format!("/proc/{pid}/ns/{kind}")).ok();
    let namespaces = NAMESPACES.into_iter().map(|kind| Some((kind, link(kind)?.to_string_lossy().into_owned())));
    Some(Process {
        name: field("Name")?.to_owned(),
        parent: field("PPid")?.parse().ok()?,
        is_traced: field("TracerPid").is_some_and(|tracer| tracer != "0"),
        namespaces: namespaces.collect::<Option<_>>()?,
        open: open(Path::new(&format!("/proc/{pid}/fd"))),
    })
}

fn open(files: &Path) -> Option<&'static str> {
    let mut links = fs::read_dir(files).ok()?.flatten().filter_map(|file| fs::read_link(file.path()).ok());
    links.find_map(|link| OPEN.iter().find(|(name, _)| link == Path::new(name)).map(|(_, words)| *words))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen() -> Seen {
        let namespaces: BTreeMap<_, _> = NAMESPACES.into_iter().map(|kind| (kind, format!("{kind}:[1]"))).collect();
        let process =
            |name: &str, parent| Process { name: name.into(), parent, namespaces: namespaces.clone(), ..Process::default() };
        let processes = [(70, process("init", 1)), (71, process("sshd", 70)), (72, process("bash", 71))];
        Seen { processes: processes.into(), memory: 1 << 20, pings: false }
    }

    #[test]
    fn whatever_criu_cannot_keep_is_named_with_who_has_it() {
        let said = |change: &dyn Fn(&mut Seen)| {
            let mut seen = seen();
            change(&mut seen);
            obstacle(70, &seen)
        };
        let bash = |change: fn(&mut Process)| said(&|seen| change(seen.processes.get_mut(&72).unwrap())).unwrap();
        assert_eq!(said(&|_| ()), None);
        let nested = bash(|bash| drop(bash.namespaces.insert("net", "net:[2]".into())));
        assert_eq!(nested, "bash (process 72 of the node) is in a namespace of its own (net)");
        assert!(bash(|bash| bash.parent = 4).contains("lodge env exec"));
        assert!(bash(|bash| bash.is_traced = true).contains("debugged"));
        assert!(bash(|bash| bash.open = Some("uses io_uring")).ends_with("uses io_uring"));
        assert!(bash(|bash| bash.name = "(sd-pam)".into()).starts_with("somebody's systemd --user"));
        assert!(said(&|seen| drop(seen.processes.remove(&70))).unwrap().contains("init has ended"));
        assert!(said(&|seen| seen.memory = 2 << 30).unwrap().contains("1024 MiB"));
        assert!(said(&|seen| seen.pings = true).unwrap().contains("pings"));
    }

    #[test]
    fn a_process_is_read() {
        let own = process(i32::try_from(std::process::id()).unwrap()).unwrap();
        assert!(own.parent > 0 && own.namespaces.len() == NAMESPACES.len() && own.open.is_none(), "{own:?}");
    }

    #[test]
    fn one_that_has_ended_and_is_not_waited_for_is_in_nobodys_way() {
        let mut child = std::process::Command::new("/bin/true").spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        lodge_sys::process::PidFd::open(child.id()).unwrap().wait(std::time::Duration::from_secs(10)).unwrap();
        assert!(fs::read_to_string(format!("/proc/{pid}/status")).unwrap().contains("zombie"));
        assert_eq!(process(pid).map(|process| process.name), None);
        child.wait().unwrap();
    }

    #[test]
    fn what_is_open_is_read_from_links() {
        let dir = tempfile::tempdir().unwrap();
        for (number, file) in ["/dev/null", "anon_inode:[pidfd]", "socket:[7]"].into_iter().enumerate() {
            std::os::unix::fs::symlink(file, dir.path().join(number.to_string())).unwrap();
        }
        assert_eq!(open(dir.path()), None);
        std::os::unix::fs::symlink("anon_inode:[io_uring]", dir.path().join("7")).unwrap();
        assert_eq!(open(dir.path()), Some("uses io_uring"));
    }
}
