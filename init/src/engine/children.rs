//! Starting the programs of services, and listening to them.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{ErrorKind, Read as _},
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result};
use lodge_sys::{
    cgroup::Cgroup,
    mount,
    process::{Home, prepare, set_nonblocking},
    program::Program,
};
use nix::{fcntl::OFlag, unistd::pipe2};

use super::{
    output::{BoundedLog, Lines, level},
    poller::{Poller, Source},
};
use crate::{
    console, log,
    services::{Ready, Service},
};

/// The group of all services' groups.
const CGROUP: &str = "lodge";
/// Resources that services and environments are given shares of.
const CONTROLLERS: [&str; 5] = ["cpu", "cpuset", "io", "memory", "pids"];
/// Where programs of services find others. They start with this environment and no more.
const ENVIRONMENT: [(&str, &str); 3] = [("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"), ("HOME", "/root"), ("LANG", "C.UTF-8")];

/// The programs that services run, and what they say.
#[derive(Debug)]
pub struct Children {
    log_dir: Option<PathBuf>,
    logs: BTreeMap<&'static str, BoundedLog>,
    outputs: BTreeMap<u32, Output>,
    next: u32,
}

#[derive(Debug)]
struct Output {
    service: &'static Service,
    pipe: File,
    lines: Lines,
}

impl Children {
    /// With logs in a directory, or in the kernel's log alone.
    pub fn new(log_dir: Option<PathBuf>) -> Self {
        if let Err(error) = prepare_cgroups() {
            log::warning(&format!("services run without control groups: {error:#}"));
        }
        Self { log_dir, logs: BTreeMap::new(), outputs: BTreeMap::new(), next: 0 }
    }

    /// Start a service; its process.
    pub fn start(&mut self, service: &'static Service, poller: &Poller) -> Result<i32> {
        if let Ready::PathExists(path) = service.ready {
            // An old one would make it ready before it is.
            let _ = fs::remove_file(path);
        }
        if let Some(path) = service.mounts {
            // Nothing is mounted there at the first start; whatever else is wrong the service says itself.
            let _ = mount::detach(Path::new(path));
        }
        let mut arguments: Vec<String> = service.arguments.iter().map(|argument| (*argument).to_owned()).collect();
        if let Some(option) = service.per_console {
            let consoles = console::paths();
            arguments.extend(consoles.iter().flat_map(|path| [option.to_owned(), path.display().to_string()]));
        }
        self.spawn(service, service.program, &arguments, poller)
    }

    /// Start the command that undoes a service; its process.
    pub fn start_stop(&mut self, service: &'static Service, poller: &Poller) -> Result<i32> {
        let (program, arguments) = service.stop.with_context(|| format!("{} has no stop command", service.name))?;
        let arguments: Vec<String> = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        self.spawn(service, program, &arguments, poller)
    }

    /// Kill everything that a service has started.
    pub fn kill_group(&self, service: &Service) {
        let killed = cgroup(service).and_then(|group| group.kill());
        if let Err(error) = killed {
            log::warning(&format!("killing {}: {error:#}", service.name));
        }
    }

    /// A child said something, or will say no more.
    pub fn listen(&mut self, id: u32, poller: &Poller) {
        let Some(output) = self.outputs.get_mut(&id) else { return };
        let service = output.service;
        let mut piece = [0; 4096];
        let (lines, is_over) = match output.pipe.read(&mut piece) {
            Ok(0) => (output.lines.finish().into_iter().collect(), true),
            Ok(read) => (output.lines.feed(piece.get(..read).unwrap_or_default()), false),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => (Vec::new(), false),
            Err(_) => (output.lines.finish().into_iter().collect(), true),
        };
        if is_over {
            poller.remove(&output.pipe);
            self.outputs.remove(&id);
        }
        for line in lines {
            self.write(service, &line);
        }
    }

    /// Let go of the log files, so that their file system can be unmounted.
    pub fn close_logs(&mut self) {
        self.log_dir = None;
        self.logs.clear();
    }

    fn write(&mut self, service: &'static Service, line: &str) {
        let (level, text) = level(line, service.loud);
        log::log(service.name, level, text);
        let Some(dir) = &self.log_dir else { return };
        let log = self.logs.entry(service.name).or_insert_with(|| BoundedLog::new(dir, service.name));
        if let Err(error) = log.write(text) {
            // Once, and then no more: the kernel's log has the lines, and a full disk would repeat this for each of them.
            log::warning(&format!("writing logs to {} failed, they stay in the kernel's log: {error}", dir.display()));
            self.close_logs();
        }
    }

    fn spawn(&mut self, service: &'static Service, program: Program, arguments: &[String], poller: &Poller) -> Result<i32> {
        let (ours, theirs) = pipe2(OFlag::O_CLOEXEC).context("making a pipe")?;
        set_nonblocking(&ours)?;
        let pid = spawn(service, program, arguments, theirs).with_context(|| format!("starting {}", program.path()))?;
        let id = self.next;
        self.next = self.next.wrapping_add(1);
        poller.add(&ours, Source::Output(id))?;
        self.outputs.insert(id, Output { service, pipe: File::from(ours), lines: Lines::default() });
        Ok(pid)
    }
}

fn spawn(service: &Service, program: Program, arguments: &[String], output: OwnedFd) -> Result<i32> {
    // Without control groups a service still runs; only what it leaves behind cannot be found.
    let entrance = cgroup(service).and_then(|group| group.entrance()).ok();
    let errors = output.try_clone().context("duplicating a pipe")?;
    let mut command = Command::new(program.path());
    command.args(arguments).env_clear().envs(ENVIRONMENT);
    command.current_dir("/").stdin(Stdio::null()).stdout(output).stderr(errors);
    prepare(&mut command, &Home { cgroup: entrance.as_ref(), session: true, terminal: false })?;
    let child = command.spawn()?;
    i32::try_from(child.id()).context("reading a process id")
}

fn cgroup(service: &Service) -> Result<Cgroup> {
    Cgroup::ensure(&format!("{CGROUP}/{}", service.name))
}

fn prepare_cgroups() -> Result<()> {
    for name in ["", CGROUP] {
        let refused = Cgroup::ensure(name)?.delegate(&CONTROLLERS);
        if !refused.is_empty() {
            log::info(&format!("control groups cannot share out {}", refused.join(", ")));
        }
    }
    Ok(())
}
