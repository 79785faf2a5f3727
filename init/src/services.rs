//! Every service of a Lodge machine, as one table: for whom it is, after what it starts, when it counts as ready.

use lodge_model::{node::Role, paths, timing};
use lodge_sys::program::Program;

/// One service.
#[derive(Debug, PartialEq, Eq)]
pub struct Service {
    /// Name, of its log and its cgroup too.
    pub name: &'static str,
    /// Program.
    pub program: Program,
    /// Its arguments.
    pub arguments: &'static [&'static str],
    /// An option that is given once more for each console, the console's device as its value.
    pub per_console: Option<&'static str>,
    /// For nodes with one of these roles; empty: for every node.
    pub roles: &'static [Role],
    /// Services that are ready before this one starts; those that this node does not run do not count.
    pub after: &'static [&'static str],
    /// When it is ready.
    pub ready: Ready,
    /// Where it mounts a file system of its own: what a dead one left there is let go of before a start.
    pub mounts: Option<&'static str>,
    /// What undoes it at shutdown, where the process itself has long ended.
    pub stop: Option<(Program, &'static [&'static str])>,
    /// Whether it may hold files on the share open: it is stopped before the share is unmounted.
    pub uses_share: bool,
    /// Whether its lines are for every console.
    pub loud: bool,
}

/// When a service is ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ready {
    /// As soon as it runs.
    Started,
    /// As soon as this path exists. It is removed before a start, so that it cannot be an old one.
    PathExists(&'static str),
    /// When it has ended with one of these exit statuses; it is not started again then.
    Exit(&'static [i32]),
    /// Never; its exit status says how the machine goes down (`initproto::EXIT_REBOOT`, `EXIT_POWEROFF`).
    Decides,
}

const SERVICE: Service = Service {
    name: "",
    program: Program::Busybox,
    arguments: &[],
    per_console: None,
    roles: &[],
    after: &[],
    ready: Ready::Started,
    mounts: None,
    stop: None,
    uses_share: false,
    loud: false,
};

/// Where the agent says how the machine is connected.
const NETWORK_FILE: &str = "/run/lodge/network.json";

/// The services of a node, in the order they are thought of; `after` rules.
pub const NODE: [Service; 14] = [
    Service { name: "udevd", program: Program::SystemdUdevd, ready: Ready::PathExists("/run/udev/control"), ..SERVICE },
    Service {
        name: "udev-trigger",
        program: Program::Udevadm,
        arguments: &["trigger", "--type=all", "--action=add"],
        after: &["udevd"],
        ready: Ready::Exit(&[0]),
        ..SERVICE
    },
    Service {
        name: "udev-settle",
        program: Program::Udevadm,
        arguments: &["settle", "--timeout=30"],
        after: &["udev-trigger"],
        // 1 is a device that takes longer: nobody waits for it here.
        ready: Ready::Exit(&[0, 1]),
        ..SERVICE
    },
    Service {
        name: "dbus",
        program: Program::DbusDaemon,
        arguments: &["--system", "--nofork", "--nopidfile"],
        ready: Ready::PathExists("/run/dbus/system_bus_socket"),
        ..SERVICE
    },
    Service {
        name: "network",
        program: Program::Agent,
        arguments: &["network"],
        after: &["udev-settle"],
        ready: Ready::PathExists(NETWORK_FILE),
        ..SERVICE
    },
    Service {
        name: "chronyd",
        program: Program::Chronyd,
        // In the foreground, logging to standard error.
        arguments: &["-d"],
        after: &["network"],
        ..SERVICE
    },
    Service {
        name: "nfsdcld",
        program: Program::Nfsdcld,
        arguments: &["-F"],
        roles: &[Role::Share],
        after: &["udev-settle"],
        ..SERVICE
    },
    Service {
        name: "fence",
        program: Program::Agent,
        // Whoever was banned from the share stays so until the center has spoken.
        arguments: &["fence"],
        roles: &[Role::Share],
        after: &["udev-settle"],
        ready: Ready::Exit(&[0]),
        ..SERVICE
    },
    Service {
        name: "nfsd",
        program: Program::RpcNfsd,
        // Only 4.2; lease and grace are set before the threads start. A test holds the two numbers against `timing`.
        arguments: &["-N", "3", "-N", "4.0", "-N", "4.1", "-V", "4.2", "-L", "12", "-G", "12", "16"],
        roles: &[Role::Share],
        // It asks nfsdcld for the clients of the time before, so that one must be there.
        after: &["nfsdcld", "network", "fence"],
        ready: Ready::Exit(&[0]),
        stop: Some((Program::RpcNfsd, &["0"])),
        ..SERVICE
    },
    Service {
        name: "exportd",
        program: Program::RpcMountd,
        arguments: &["-F", "-N", "3"],
        roles: &[Role::Share],
        after: &["nfsd"],
        ..SERVICE
    },
    Service {
        name: "center",
        program: Program::Center,
        // The boot address is where nodes get their bundle, whether the site boots over the network or not.
        arguments: &[
            "--data",
            paths::CENTER_DATA,
            "--node-file",
            paths::NODE_FILE,
            "--local-join",
            paths::LOCAL_JOIN,
            "--boot-listen",
            "0.0.0.0:80",
        ],
        per_console: Some("--announce"),
        roles: &[Role::Center],
        after: &["network"],
        ..SERVICE
    },
    Service {
        name: "lxcfs",
        program: Program::Lxcfs,
        // Its runtime directory is /run: mounted there, it waits for itself.
        arguments: &["--foreground", "--enable-loadavg", "--enable-cfs", "/var/lib/lxcfs"],
        roles: &[Role::Worker],
        // Written just before it mounts; an environment has a longer way to its start.
        ready: Ready::PathExists("/run/lxcfs.pid"),
        mounts: Some("/var/lib/lxcfs"),
        ..SERVICE
    },
    Service {
        name: "consoles",
        program: Program::Agent,
        arguments: &["consoles"],
        roles: &[Role::Worker],
        ready: Ready::PathExists(paths::CONSOLES_SOCKET),
        ..SERVICE
    },
    Service {
        name: "agent",
        program: Program::Agent,
        arguments: &["run"],
        after: &["dbus", "network", "exportd", "center", "lxcfs", "consoles"],
        uses_share: true,
        ..SERVICE
    },
];

/// What runs when the machine is being installed.
pub const INSTALL: [Service; 1] = [Service {
    name: "installer",
    program: Program::Installer,
    ready: Ready::Decides,
    uses_share: true,
    loud: true,
    ..SERVICE
}];

/// The services of a node with these roles.
pub fn for_roles(roles: &[Role]) -> Vec<&'static Service> {
    static TABLE: [Service; 14] = NODE;
    TABLE.iter().filter(|service| service.roles.is_empty() || service.roles.iter().any(|role| roles.contains(role))).collect()
}

/// The services of install mode.
pub fn for_install() -> Vec<&'static Service> {
    static TABLE: [Service; 1] = INSTALL;
    TABLE.iter().collect()
}

/// How long a service waits for those it starts after, before it starts anyway and says so.
pub const PATIENCE: std::time::Duration = std::time::Duration::from_secs(90);
/// How long a service has between SIGTERM and SIGKILL.
pub const STOP_TIMEOUT: std::time::Duration = timing::STOP_TIMEOUT;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_in_after_comes_earlier_in_the_table() {
        for (at, service) in NODE.iter().enumerate() {
            for after in service.after {
                let place = NODE.iter().position(|other| other.name == *after);
                assert!(place.is_some_and(|place| place < at), "{} after {after}", service.name);
            }
        }
    }

    #[test]
    fn a_worker_serves_nothing() {
        let names: Vec<&str> = for_roles(&[Role::Worker]).iter().map(|service| service.name).collect();
        assert_eq!(names, ["udevd", "udev-trigger", "udev-settle", "dbus", "network", "chronyd", "lxcfs", "consoles", "agent"]);
        assert!(for_roles(&[Role::Center, Role::Share]).iter().any(|service| service.name == "nfsd"));
    }

    #[test]
    fn lease_and_grace_are_those_the_others_count_on() {
        let nfsd = NODE.iter().find(|service| service.name == "nfsd").unwrap();
        let lease = timing::SHARE_LEASE.as_secs().to_string();
        for option in ["-L", "-G"] {
            let at = nfsd.arguments.iter().position(|argument| *argument == option).unwrap();
            assert_eq!(nfsd.arguments[at + 1], lease);
        }
    }
}
