//! The first stage: from the kernel's hand-over to the verified root, or to the installer.

use std::{convert::Infallible, fs, path::Path, time::Duration};

use anyhow::{Context as _, Result};
use lodge_model::keywords::Keywords;
use lodge_sys::{module::Modules, uevent::Uevents};

mod facts;
mod mode;
mod root;

use self::mode::{Decision, Facts, decide};
use crate::{
    engine::{Engine, Setup},
    log, services,
    step::{Failure, may_degrade, required},
    tables, watchdog,
};

/// How long the disk that this was loaded from may take to show up.
const DISK_PATIENCE: Duration = Duration::from_secs(30);

/// Modules that no device asks for: name, reason.
const MODULES: [(&str, &str); 12] = [
    ("erofs", "root file system"),
    ("dm-verity", "its verification"),
    ("sha256-ssse3", "at the processor's speed"),
    ("ext4", "state file system"),
    ("vfat", "EFI system partition"),
    ("nls_cp437", "its short names"),
    ("nls_ascii", "its long names, as Debian's kernel wants them"),
    ("nls_utf8", "its long names, as media made elsewhere want them"),
    ("overlay", "/etc of the running system"),
    ("efivarfs", "how the machine was booted"),
    ("evdev", "power button"),
    ("button", "power button"),
];
/// When no device has a watchdog: the kernel's own timer, which at least notices that PID 1 hangs.
const SOFT_WATCHDOG: &str = "softdog";

/// Run the stage. It ends in the next program or in a failure.
pub fn run() -> Result<Infallible, Failure> {
    let init_at = log::uptime();
    tables::mount_kernel_file_systems()?;
    tables::apply_sysctls();
    let command_line = may_degrade("reading the kernel command line", command_line).unwrap_or_default();
    let mut modules = may_degrade("reading the module indexes", || Modules::open(&command_line));
    may_degrade("loading modules", || load_modules(modules.as_mut()));
    tables::mount_efi_variables();
    arm_watchdog(modules.as_mut());
    let decision = wait_for_decision(&command_line, modules.as_mut())?;
    match decision {
        Decision::Node { slot, root, verity, roothash, rootsize, version, why } => {
            log::notice(&format!("starting Lodge {version} from slot {slot:?} of {} ({why})", root.disk));
            let found = root::Found { slot, root, verity, roothash, rootsize, version };
            root::switch(&found, init_at)
        }
        Decision::Install { why } => {
            log::notice(&format!("starting the installer: {why}"));
            install(modules, command_line)
        }
        Decision::Rescue { what, why, advice } => Err(Failure { what, why, advice }),
        Decision::Wait { for_what } => Err(Failure {
            what: "deciding what to do".into(),
            why: format!("still waiting for {for_what}"),
            advice: "this is a fault in Lodge; `reboot` tries again".into(),
        }),
    }
}

fn command_line() -> Result<String> {
    fs::read_to_string("/proc/cmdline").context("reading /proc/cmdline")
}

fn load_modules(modules: Option<&mut Modules>) -> Result<()> {
    let modules = modules.context("there are no module indexes")?;
    for (name, reason) in MODULES {
        if let Err(error) = modules.load(name) {
            log::warning(&format!("{reason}: {error:#}"));
        }
    }
    coldplug(modules);
    Ok(())
}

/// Drivers for all devices; a driver makes new devices, so again until there are none.
fn coldplug(modules: &mut Modules) {
    loop {
        let (devices, errors) = modules.coldplug(&mut watchdog::pulse);
        for error in errors {
            log::warning(&format!("{error:#}"));
        }
        if devices == 0 {
            return;
        }
    }
}

fn arm_watchdog(modules: Option<&mut Modules>) {
    if !Path::new(lodge_sys::watchdog::DEVICE).exists()
        && let Some(modules) = modules
    {
        may_degrade("loading the software watchdog", || modules.load(SOFT_WATCHDOG));
    }
    may_degrade("arming the watchdog", watchdog::arm);
}

/// Look and decide, again whenever a device comes, until there is a decision or patience is over.
fn wait_for_decision(command_line: &str, mut modules: Option<&mut Modules>) -> Result<Decision, Failure> {
    let advice = "this is a fault of the boot file; boot another version";
    let uevents = required("listening for devices", advice, Uevents::open)?;
    let until = log::uptime() + DISK_PATIENCE;
    let words = Keywords::parse(command_line, "the kernel command line").map_err(|error| error.to_string());
    let mut told = None;
    loop {
        watchdog::pulse();
        let left = until.saturating_sub(log::uptime());
        let facts = Facts { words: words.clone(), is_last_look: left.is_zero(), ..facts::look(&words) };
        let Decision::Wait { for_what } = decide(&facts) else { return Ok(decide(&facts)) };
        if told.as_ref() != Some(&for_what) {
            log::notice(&format!("waiting up to {} s for {for_what}", left.as_secs()));
            told = Some(for_what);
        }
        // Whatever comes may be what is waited for, or have it behind a driver that is still missing.
        required("waiting for devices", advice, || uevents.wait(left.min(Duration::from_secs(5))))?;
        if let Some(modules) = modules.as_deref_mut() {
            coldplug(modules);
        }
    }
}

/// Install mode: the installer is the one service; its exit status says how the machine goes down.
fn install(modules: Option<Modules>, command_line: String) -> Result<Infallible, Failure> {
    let advice = "`reboot` tries again; /usr/lib/lodge/installer can be started by hand";
    required("running the installer", advice, || {
        let (services, command_line) = (services::for_install(), Some(command_line));
        Engine::new(Setup { services, modules, command_line, ..Setup::default() })?.run()
    })
}
