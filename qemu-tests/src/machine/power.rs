//! What switches a machine on and off, for everybody who has a hand on it: the test, and its BMC.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use anyhow::{Context, Result};

use super::spec;
use crate::{console::Console, process::Process, qmp::Qmp, shell::Shell, sockets};

/// A machine's power. Clones share it.
#[derive(Clone)]
pub struct Power {
    shared: Arc<Shared>,
}

struct Shared {
    name: String,
    dir: PathBuf,
    console: Console,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    running: Option<Arc<Running>>,
    /// As it was switched on last.
    arguments: Vec<String>,
}

/// A machine that is on.
pub struct Running {
    /// Its QEMU.
    pub process: Process,
    /// Its monitor.
    pub monitor: Qmp,
    /// Its debug shell.
    pub shell: Arc<Shell>,
}

impl Power {
    /// Of a machine that is off.
    pub fn new(name: &str, dir: PathBuf, console: Console) -> Self {
        let shared = Shared { name: name.to_owned(), dir, console, state: Mutex::default() };
        Self { shared: Arc::new(shared) }
    }

    /// Switch it on, as this QEMU command line says.
    pub fn on(&self, arguments: Vec<String>) -> Result<()> {
        self.off();
        let Shared { name, dir, console, .. } = &*self.shared;
        let mut state = self.state();
        let names = [spec::SERIAL_SOCKET, spec::SHELL_SOCKET, spec::MONITOR_SOCKET];
        let [serial, shell, monitor] = names.map(|name| sockets::listen(dir, name));
        let (serial, shell, monitor) = (serial?, shell?, monitor?);
        let process = Process::spawn(name, dir, "qemu-system-x86_64", &arguments, &names)?;
        console.attach(process.accept(&serial)?)?;
        let shell = Arc::new(Shell::new(process.accept(&shell)?)?);
        let monitor = Qmp::new(process.accept(&monitor)?).with_context(|| process.last_words())?;
        *state = State { running: Some(Arc::new(Running { process, monitor, shell })), arguments };
        Ok(())
    }

    /// Switch it on, as it was the last time.
    pub fn on_again(&self) -> Result<()> {
        let arguments = self.state().arguments.clone();
        self.on(arguments)
    }

    /// Take its power away. It is off when this returns.
    pub fn off(&self) {
        if let Some(running) = self.state().running.take() {
            running.process.kill();
        }
    }

    /// Whether it is on: its QEMU runs.
    pub fn is_on(&self) -> bool {
        self.state().running.as_ref().is_some_and(|running| running.process.is_running())
    }

    /// What there is of it while it is on, or just was.
    pub fn running(&self) -> Option<Arc<Running>> {
        self.state().running.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
