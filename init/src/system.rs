//! The second stage: from the verified root to the services.

use std::{convert::Infallible, fs, path::PathBuf};

use anyhow::{Context as _, Result};
use lodge_model::{
    node::{BootFile, NodeFile, Role},
    paths,
};
use lodge_sys::module::Modules;
use nix::sys::resource::{Resource, setrlimit};

mod etc;
mod state;
mod var;

use crate::{
    engine::{Engine, Setup},
    log, services,
    step::{Failure, may_degrade, required},
    tables, watchdog,
};

/// Run the stage. It ends with the machine or in a failure.
pub fn run() -> Result<Infallible, Failure> {
    watchdog::inherit();
    tables::mount_kernel_file_systems()?;
    tables::mount_efi_variables();
    tables::apply_sysctls();
    may_degrade("raising the limit of open files", raise_limits);
    let boot = required("reading what the initrd found", "boot the machine from its own disk", read_boot_file)?;
    log::notice(&format!("Lodge {} in slot {:?} of {}", boot.version, boot.slot, boot.disk));
    state::mount(&boot.disk)?;
    let advice = "`cat /state/node/node.json`; where it is lost, reinstall the node: `lodge node reinstall NAME`";
    let node = required("reading what this node is", advice, read_node_file)?;
    required("making /var", "look at /state: is it full or read-only?", || var::mount(&node.roles))?;
    may_degrade("making /etc", || etc::mount(&node));
    if node.roles.contains(&Role::Share) {
        var::mount_share_server();
    }
    if node.roles.contains(&Role::Worker) {
        may_degrade("loading modules for environments", || load_modules(&MODULES));
    }
    if node.roles.contains(&Role::Share) {
        may_degrade("loading modules for the share", || load_modules(&SHARE_MODULES));
    }
    log::notice(&format!("this is {} ({})", node.name, roles(&node.roles)));
    required("running the services", "this is a fault in Lodge; `reboot` tries again", || {
        let (services, log_dir) = (services::for_roles(&node.roles), Some(PathBuf::from(paths::LOG_DIR)));
        let command_line = fs::read_to_string("/proc/cmdline").ok();
        Engine::new(Setup { services, log_dir, command_line, ..Setup::default() })?.run()
    })
}

/// Modules of which an environment cannot ask for itself, because their device or their file system comes from the node; or that
/// have to be there before a program asks what is there: name, reason.
const MODULES: [(&str, &str); 11] = [
    ("loop", "environments' disks"),
    ("overlay", "their roots"),
    ("tun", "their VPNs"),
    ("veth", "their network links"),
    ("bridge", "the node's side of them"),
    ("nf_tables", "their firewalls and the node's guard"),
    ("tcp_diag", "live moves look at sockets: TCP"),
    ("udp_diag", "the same: UDP"),
    ("unix_diag", "the same: Unix"),
    ("netlink_diag", "the same: netlink"),
    ("af_packet_diag", "the same: raw"),
];

/// The same for the machine that serves the share.
const SHARE_MODULES: [(&str, &str); 1] = [("nf_tables", "banning nodes from the share")];

fn load_modules(wanted: &[(&str, &str)]) -> Result<()> {
    let command_line = fs::read_to_string("/proc/cmdline").context("reading /proc/cmdline")?;
    let mut modules = Modules::open(&command_line)?;
    for (name, reason) in wanted {
        if let Err(error) = modules.load(name) {
            log::warning(&format!("{reason}: {error:#}"));
        }
    }
    Ok(())
}

/// Programs that do not ask for more get what old interfaces (select) can bear; those that ask get what a busy server needs.
fn raise_limits() -> Result<()> {
    setrlimit(Resource::RLIMIT_NOFILE, 1024, 524_288).context("setting RLIMIT_NOFILE")
}

fn read_boot_file() -> Result<BootFile> {
    let text = fs::read(paths::BOOT_FILE).with_context(|| format!("reading {}", paths::BOOT_FILE))?;
    serde_json::from_slice(&text).with_context(|| format!("reading {}", paths::BOOT_FILE))
}

fn read_node_file() -> Result<NodeFile> {
    let text = fs::read(paths::NODE_FILE).with_context(|| format!("reading {}", paths::NODE_FILE))?;
    serde_json::from_slice(&text).with_context(|| format!("reading {}", paths::NODE_FILE))
}

fn roles(roles: &[Role]) -> String {
    roles.iter().map(Role::to_string).collect::<Vec<_>>().join(", ")
}
