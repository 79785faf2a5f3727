//! Rescue's shells: the text on every console, and a shell where somebody presses Enter, again and again.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{ErrorKind, Read as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result};
use lodge_sys::{
    cgroup::Cgroup,
    process::{Home, prepare},
    program::Program,
};

use super::poller::{Poller, Source};
use crate::{console, log};

/// The group of the shells.
const CGROUP: &str = "rescue";
const PROMPT: &str = "\nPress Enter for a shell (root; whoever sits at the console owns the machine).";

/// Consoles and what runs on them.
#[derive(Debug)]
pub struct Shells {
    consoles: BTreeMap<u32, Console>,
}

#[derive(Debug)]
struct Console {
    path: PathBuf,
    terminal: File,
    shell: Option<i32>,
    hang_ups: u32,
}

/// A line that hangs up more often than this has nobody at its end.
const HANG_UPS: u32 = 8;

impl Shells {
    /// Show the text on every console and wait for somebody.
    pub fn open(text: &str, poller: &Poller) -> Self {
        // After a panic those of the rescue before may still sit on the consoles; nobody else has processes there.
        if let Err(error) = Cgroup::ensure(CGROUP).and_then(|group| group.kill()) {
            log::warning(&format!("{error:#}"));
        }
        let mut consoles = BTreeMap::new();
        for (id, path) in (0..).zip(console::paths()) {
            let opened = console::open(&path).and_then(|terminal| {
                poller.add(&terminal, Source::Console(id))?;
                Ok(terminal)
            });
            match opened {
                Ok(terminal) => {
                    console::print(&terminal, text);
                    console::print(&terminal, PROMPT);
                    consoles.insert(id, Console { path, terminal, shell: None, hang_ups: 0 });
                }
                Err(error) => log::warning(&format!("{error:#}")),
            }
        }
        Self { consoles }
    }

    /// Somebody typed; whether a shell was started for him.
    pub fn typed(&mut self, id: u32, poller: &Poller) -> bool {
        let Some(console) = self.consoles.get_mut(&id) else { return false };
        match console.has_line() {
            Ok(false) => return false,
            Ok(true) => {}
            Err(error) => {
                log::info(&format!("{error:#}"));
                poller.remove(&console.terminal);
                console.hang_ups += 1;
                if console.hang_ups <= HANG_UPS {
                    console.ask_again(id, poller);
                }
                return false;
            }
        }
        match start_shell(&console.path) {
            Ok(pid) => {
                poller.remove(&console.terminal);
                console.shell = Some(pid);
                true
            }
            Err(error) => {
                console::print(&console.terminal, &format!("{error:#}"));
                false
            }
        }
    }

    /// A process ended; whether it was a shell.
    pub fn ended(&mut self, pid: i32, poller: &Poller) -> bool {
        let found = self.consoles.iter_mut().find(|(_, console)| console.shell == Some(pid));
        let Some((id, console)) = found else { return false };
        console.shell = None;
        console.ask_again(*id, poller);
        true
    }
}

impl Console {
    /// A shell hangs its terminal up when it ends: a new opening works, the old one does not.
    fn ask_again(&mut self, id: u32, poller: &Poller) {
        let opened = console::open(&self.path).and_then(|terminal| {
            poller.add(&terminal, Source::Console(id))?;
            Ok(terminal)
        });
        match opened {
            Ok(terminal) => {
                console::print(&terminal, PROMPT);
                self.terminal = terminal;
            }
            Err(error) => log::warning(&format!("{error:#}")),
        }
    }

    fn has_line(&mut self) -> Result<bool> {
        let mut typed = [0; 256];
        match self.terminal.read(&mut typed) {
            Ok(0) => anyhow::bail!("{} hung up", self.path.display()),
            Ok(read) => Ok(typed.get(..read).unwrap_or_default().iter().any(|byte| matches!(byte, b'\n' | b'\r'))),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => Ok(false),
            Err(error) => Err(error).with_context(|| format!("reading {}", self.path.display())),
        }
    }
}

/// busybox's shell prefers its own programs to those of the path. Its `poweroff`, `reboot` and `halt` signal PID 1, which understands; its
/// `init` only says that it is none.
const ALIASES: &str = "alias init=/proc/1/exe\n";
/// Read by every shell that somebody types into.
const ALIASES_FILE: &str = "/run/lodge-shell";

/// A root shell whose terminal is this device; its process.
pub fn start_shell(path: &Path) -> Result<i32> {
    let terminal = || {
        let mut options = File::options();
        options.read(true).write(true).open(path).with_context(|| format!("opening {}", path.display()))
    };
    let mut command = Command::new(Program::Busybox.path());
    command.arg("sh").env("HOME", "/root").env("TERM", "linux").env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin:/usr/lib/lodge");
    command.current_dir("/");
    // Without them it is still a shell.
    match fs::write(ALIASES_FILE, ALIASES) {
        Ok(()) => drop(command.env("ENV", ALIASES_FILE)),
        Err(error) => log::warning(&format!("writing {ALIASES_FILE}: {error}")),
    }
    command.stdin(Stdio::from(terminal()?)).stdout(Stdio::from(terminal()?)).stderr(Stdio::from(terminal()?));
    let entrance = Cgroup::ensure(CGROUP).and_then(|group| group.entrance()).ok();
    prepare(&mut command, &Home { cgroup: entrance.as_ref(), session: true, terminal: true })?;
    let child = command.spawn().with_context(|| format!("starting {}", Program::Busybox.path()))?;
    i32::try_from(child.id()).context("reading a process id")
}
