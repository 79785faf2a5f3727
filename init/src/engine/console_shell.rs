//! A root shell on a serial port, for who stands before the machine and asked for it with `lodge.console-shell=` on the kernel's
//! command line. It is started again when it ends, and is one of the processes that a shutdown ends.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use lodge_model::keywords::Keywords;

use super::shells::start_shell;
use crate::log;

/// The shell and its port.
#[derive(Debug)]
pub struct ConsoleShell {
    port: PathBuf,
    pid: i32,
}

impl ConsoleShell {
    /// Start it, if it is asked for.
    pub fn start(command_line: &str) -> Result<Option<Self>> {
        let words = Keywords::parse(command_line, "the kernel command line")?;
        let Some(name) = words.console_shell else { return Ok(None) };
        let port = Path::new("/dev").join(name);
        let pid =
            start_shell(&port).with_context(|| format!("starting the shell of lodge.console-shell on {}", port.display()))?;
        log::notice(&format!("a root shell is on {}, as lodge.console-shell asks", port.display()));
        Ok(Some(Self { port, pid }))
    }

    /// A process ended; whether it was the shell. Another one takes its place; `None` in it when that fails.
    pub fn ended(shell: &mut Option<Self>, pid: i32) -> bool {
        let Some(running) = shell.as_mut().filter(|shell| shell.pid == pid) else { return false };
        match start_shell(&running.port) {
            Ok(pid) => running.pid = pid,
            Err(error) => {
                log::warning(&format!("no more shell on {}: {error:#}", running.port.display()));
                *shell = None;
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_started_unless_asked_for() {
        assert!(ConsoleShell::start("quiet console=ttyS0").unwrap().is_none());
        assert!(ConsoleShell::start("lodge.console-shell=../etc").is_err());
    }
}
