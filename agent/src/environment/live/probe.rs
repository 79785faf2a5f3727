//! Whether the processes of an environment can be written down: they share its namespaces, come from its init, and are not too large.
//! What else criu cannot do it says itself, and they run on.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

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

/// What matters of one process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Process {
    /// Its program's name.
    pub name: String,
    /// Its parent.
    pub parent: i32,
    /// Its namespaces, by kind.
    pub namespaces: BTreeMap<&'static str, String>,
}

/// Why they cannot be written down; `None` where nothing speaks against it.
pub fn obstacle(init: i32, processes: &BTreeMap<i32, Process>, memory: u64) -> Option<String> {
    if memory > LARGEST {
        let mib = |bytes: u64| bytes >> 20;
        return Some(format!("its processes have {} MiB of memory; up to {} MiB are moved live", mib(memory), mib(LARGEST)));
    }
    let Some(own) = processes.get(&init) else { return Some("its init has ended".into()) };
    processes.iter().filter(|(pid, _)| **pid != init).find_map(|(pid, process)| {
        let name = &process.name;
        if name == PAM_SESSION {
            return Some(PAM_WORDS.to_owned());
        }
        if let Some(kind) = NAMESPACES.into_iter().find(|kind| process.namespaces.get(kind) != own.namespaces.get(kind)) {
            let kind = kind.trim_end_matches("_for_children");
            return Some(format!("{name} (process {pid} of the node) is in a namespace of its own ({kind})"));
        }
        let comes_from_inside = processes.contains_key(&process.parent);
        (!comes_from_inside).then(|| format!("{name} (process {pid} of the node) was started from outside: lodge env exec"))
    })
}

/// Look at everything in a control group. Processes that end meanwhile are left out.
pub fn look(cgroup: &Cgroup) -> Result<BTreeMap<i32, Process>> {
    let pids: BTreeSet<i32> = cgroup.all_processes()?.into_iter().collect();
    Ok(pids.into_iter().filter_map(|pid| Some((pid, process(pid)?))).collect())
}

fn process(pid: i32) -> Option<Process> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let field = |key: &str| status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':')).map(str::trim);
    let link = |kind: &str| fs::read_link(format!("/proc/{pid}/ns/{kind}")).ok();
    let namespaces = NAMESPACES.into_iter().filter_map(|kind| Some((kind, link(kind)?.to_string_lossy().into_owned())));
    Some(Process { name: field("Name")?.to_owned(), parent: field("PPid")?.parse().ok()?, namespaces: namespaces.collect() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn processes() -> BTreeMap<i32, Process> {
        let namespaces: BTreeMap<_, _> = NAMESPACES.into_iter().map(|kind| (kind, format!("{kind}:[1]"))).collect();
        let process = |name: &str, parent| Process { name: name.into(), parent, namespaces: namespaces.clone() };
        [(70, process("init", 1)), (71, process("sshd", 70)), (72, process("bash", 71))].into()
    }

    #[test]
    fn a_namespace_of_its_own_a_guest_and_too_much_memory_are_named() {
        let said = |change: &dyn Fn(&mut BTreeMap<i32, Process>), memory| {
            let mut processes = processes();
            change(&mut processes);
            obstacle(70, &processes, memory)
        };
        assert_eq!(said(&|_| (), 1 << 20), None);
        let nested = said(&|all| drop(all.get_mut(&72).unwrap().namespaces.insert("net", "net:[2]".into())), 0).unwrap();
        assert!(nested.contains("bash (process 72") && nested.contains("(net)"), "{nested}");
        assert!(said(&|all| all.get_mut(&71).unwrap().parent = 4, 0).unwrap().contains("lodge env exec"));
        assert!(said(&|all| drop(all.remove(&70)), 0).unwrap().contains("init has ended"));
        assert!(said(&|all| all.get_mut(&72).unwrap().name = "(sd-pam)".into(), 0).unwrap().contains("PAMName="));
        assert!(said(&|_| (), 2 << 30).unwrap().contains("2048 MiB"));
    }

    #[test]
    fn a_process_is_read() {
        let own = process(i32::try_from(std::process::id()).unwrap()).unwrap();
        assert!(own.parent > 0 && own.namespaces.len() == NAMESPACES.len(), "{own:?}");
    }
}
