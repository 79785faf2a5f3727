//! Making, starting and ending the processes of an environment, by crun; its limits, by its control group.
//!
//! crun leaves no process behind: the environment's init is a child of this machine's init, which alone sees how it ends.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, anyhow, bail};
use lodge_model::environment::order::{Assignment, Beside};
use lodge_model::ids::EnvironmentId;
use lodge_sys::cgroup::Cgroup;
use lodge_sys::process::{self, PidFd};
use lodge_sys::program::{Call, Program};
use nix::libc;
use serde::{Deserialize, Serialize};

use super::config::{self, CPU_PERIOD};
use super::layout::{BUNDLE, EXEC_FIFO, Note, Notes, PRIVATE, ROOT, SCRATCH};
use super::{Real, guest, look};
use crate::environment::host::{Container, Limits};

/// Where crun keeps what it knows (`crun --root`).
pub const CRUN_ROOT: &str = "/run/lodge/crun";

/// How long crun may take for anything.
const CRUN_LIMIT: Duration = Duration::from_secs(60);
/// How long killed processes may take to end: they may wait for the share.
const KILL_LIMIT: Duration = Duration::from_secs(60);
/// What an environment's control group can limit.
const CONTROLLERS: [&str; 5] = ["cpuset", "cpu", "io", "memory", "pids"];
/// What it must be able to limit.
const NEEDED: [&str; 3] = ["cpu", "memory", "pids"];

/// An environment's init: the start time tells it from a later process with the same id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Init {
    pub(super) pid: i32,
    pub(super) ticks: u64,
}

impl Real {
    /// Its control group, its namespaces: everything but the start. Its files are on their way from here on.
    pub(super) fn create(&self, order: &Assignment) -> Result<()> {
        let id = order.id;
        match self.container(id) {
            Container::Created { .. } | Container::Running { .. } => return Ok(()),
            Container::Ended { .. } => bail!("what is left of an earlier container is still there"),
            Container::No => {}
        }
        if !self.is_mounted(id, ROOT)? {
            bail!("its root is not mounted");
        }
        self.begin_files(order);
        let on_node = self.layout.on_node(id);
        self.delegate()?;
        let console = self.need_bundle(order)?;
        let pid_file = on_node.join("pid");
        let call = self
            .crun(["create", "--bundle"])
            .arguments([on_node.join(BUNDLE)])
            .arguments(["--pid-file"])
            .arguments([&pid_file]);
        call.arguments(["--console-socket"]).arguments([console]).arguments([id.to_string()]).run()?;
        let pid = fs::read_to_string(&pid_file).with_context(|| format!("reading {}", pid_file.display()))?;
        let pid = pid.trim().parse().with_context(|| format!("reading {}", pid_file.display()))?;
        let ticks = process::started(pid).ok_or_else(|| anyhow!("its init ended before it was started"))?;
        let notes = self.layout.notes(id);
        notes.write(Note::Limits, &look::noted(Limits::from(order)))?;
        notes.write(Note::Init, &Init { pid, ticks })
    }

    /// Write its files while other things are done: most of that is waiting for the share.
    fn begin_files(&self, order: &Assignment) {
        let (dir, notes, order) = (self.layout.on_node(order.id), self.layout.notes(order.id), order.clone());
        self.files.begin(order.id, move || write_files(&dir, &notes, &order));
    }

    /// Its files are written, as it was begun or now.
    pub(super) fn need_files(&self, id: EnvironmentId) -> Result<()> {
        match self.files.end(id) {
            Some(written) => written,
            None => {
                let notes = self.layout.notes(id);
                let order: Assignment = notes.read(Note::Order).context("it is not held")?;
                write_files(&self.layout.on_node(id), &notes, &order)
            }
        }
    }

    /// Let its init run.
    pub(super) fn start(&self, id: EnvironmentId) -> Result<()> {
        match self.container(id) {
            Container::Running { .. } => return Ok(()),
            Container::Created { .. } => self.need_files(id)?,
            Container::No | Container::Ended { .. } => bail!("there is no container to start"),
        }
        let crun_start = || self.crun(["start"]).arguments([id.to_string()]).run().map(drop);
        if let Err(error) = release(&self.layout.crun.join(id.to_string())).or_else(|_| crun_start()) {
            // The last start may have been cut short before it was noted.
            if self.status(id).as_deref() != Some("running") {
                return Err(error);
            }
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        self.layout.notes(id).write(Note::Started, &now)
    }

    /// What is found of its namespaces and init.
    pub(super) fn container(&self, id: EnvironmentId) -> Container {
        let notes = self.layout.notes(id);
        match notes.read::<Init>(Note::Init) {
            Some(Init { pid, ticks }) if process::started(pid) == Some(ticks) => match notes.read(Note::Started) {
                Some(since) => Container::Running { pid, since },
                None => Container::Created { pid },
            },
            Some(Init { pid, .. }) => Container::Ended { pid },
            None if self.layout.crun.join(id.to_string()).exists() => Container::Ended { pid: 0 },
            None => Container::No,
        }
    }

    /// Its init, while it lives.
    pub(super) fn init_of(&self, id: EnvironmentId) -> Option<Init> {
        self.layout.notes(id).read(Note::Init).filter(|init: &Init| process::started(init.pid) == Some(init.ticks))
    }

    /// A signal to its init; none there is fine.
    pub(super) fn signal(&self, id: EnvironmentId, signal: i32) -> Result<()> {
        self.open_init(id).map_or(Ok(()), |init| init.send(signal))
    }

    /// Its init, while it lives, as something that stays the same process.
    fn open_init(&self, id: EnvironmentId) -> Option<PidFd> {
        let init = self.init_of(id)?;
        let process = PidFd::open(init.pid.unsigned_abs()).ok()?;
        // Looked at again: now the descriptor names it for ever.
        (self.init_of(id) == Some(init)).then_some(process)
    }

    /// Everything in it ends now.
    pub(super) fn kill(&self, id: EnvironmentId) -> Result<()> {
        let cgroup = self.layout.cgroup(id);
        cgroup.kill()?;
        if let Some(init) = self.open_init(id) {
            init.send(nix::libc::SIGKILL)?;
            // All processes of its namespace end before it does.
            if !init.wait(KILL_LIMIT)? {
                bail!("its init does not end: its processes wait for the share");
            }
        }
        if cgroup.wait_empty(KILL_LIMIT)? {
            return Ok(());
        }
        bail!("{} of its processes do not end: they wait for the share", cgroup.count()?)
    }

    /// Remove what is left of it when its processes have ended.
    pub(super) fn delete(&self, id: EnvironmentId) -> Result<()> {
        let cgroup = self.layout.cgroup(id);
        let alive = cgroup.count()?;
        if alive > 0 {
            bail!("{alive} of its processes still run");
        }
        let state = self.layout.crun.join(id.to_string());
        if state.exists() {
            if let Err(error) = self.crun(["delete", "--force"]).arguments([id.to_string()]).run() {
                tracing::warn!("{error:#}");
            }
            remove_dir(state)?;
        }
        cgroup.remove()?;
        self.bundles.end(id);
        remove_dir(self.layout.on_node(id).join(BUNDLE))?;
        let notes = self.layout.notes(id);
        [Note::Limits, Note::Started, Note::Init].into_iter().try_for_each(|note| notes.remove(note))
    }

    /// Change its limits while it runs.
    pub(super) fn set_limits(&self, id: EnvironmentId, limits: Limits) -> Result<()> {
        let cgroup = self.layout.cgroup(id);
        cgroup.write("memory.max", &limits.memory.to_string())?;
        cgroup.write("cpu.max", &format!("{} {CPU_PERIOD}", config::cpu_quota(limits.cpu_millis)))?;
        cgroup.write("cpu.weight", &config::cpu_weight(limits.cpu_millis).to_string())?;
        cgroup.write("pids.max", &limits.tasks_max.to_string())?;
        self.layout.notes(id).write(Note::Limits, &look::noted(limits))
    }

    /// Environments get shares of everything that can be shared.
    fn delegate(&self) -> Result<()> {
        if self.layout.cgroup_manager != "cgroupfs" {
            return Ok(());
        }
        let dir = &self.layout.cgroups;
        fs::create_dir_all(dir).with_context(|| format!("making {}", dir.display()))?;
        let above = dir.parent().map(Cgroup::at);
        let refused: Vec<_> =
            above.into_iter().chain([Cgroup::at(dir)]).flat_map(|group| group.delegate(&CONTROLLERS)).collect();
        match refused.iter().find(|controller| NEEDED.contains(controller)) {
            Some(controller) => bail!("the kernel does not let {} limit its environments' {controller}", dir.display()),
            None => Ok(()),
        }
    }

    /// What crun says of it: `created`, `running`, `stopped`.
    fn status(&self, id: EnvironmentId) -> Option<String> {
        let said = self.crun(["state"]).arguments([id.to_string()]).run().ok()?;
        let state: serde_json::Value = serde_json::from_slice(&said.stdout).ok()?;
        Some(state.get("status")?.as_str()?.to_owned())
    }

    fn crun<const N: usize>(&self, arguments: [&str; N]) -> Call {
        let root = self.layout.crun.to_string_lossy();
        let manager = self.layout.cgroup_manager;
        Program::Crun.call(["--root", &*root, "--cgroup-manager", manager]).arguments(arguments).deadline(CRUN_LIMIT)
    }
}

/// What `crun start` does, without a program more for each start: the init of a container waits for somebody to write to the pipe in
/// crun's directory of it (crun, `libcrun_status_write_exec_fifo`). An error where none waits there.
fn release(status: &Path) -> std::io::Result<()> {
    let fifo = status.join(EXEC_FIFO);
    let mut waiting = OpenOptions::new().write(true).custom_flags(libc::O_NONBLOCK).open(&fifo)?;
    fs::remove_file(&fifo)?;
    waiting.write_all(b"0")
}

/// Write what is to be written into an environment with this directory.
fn write_files(dir: &Path, notes: &Notes, order: &Assignment) -> Result<()> {
    let own = if matches!(order.beside, Some(Beside::Repair { .. })) { SCRATCH } else { PRIVATE };
    let mended: String = notes.read(Note::Mended).unwrap_or_default();
    guest::write(&dir.join(own), &dir.join(ROOT), order, &mended)
}

fn remove_dir(dir: PathBuf) -> Result<()> {
    match fs::remove_dir_all(&dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("removing {}", dir.display()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::stat::Mode;
    use std::io::Read as _;

    #[test]
    fn whoever_waits_at_the_pipe_is_let_go_on_and_nobody_is_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let fifo = dir.path().join(EXEC_FIFO);
        assert_eq!(release(dir.path()).unwrap_err().kind(), std::io::ErrorKind::NotFound);
        nix::unistd::mkfifo(&fifo, Mode::S_IRWXU).unwrap();
        assert_eq!(release(dir.path()).unwrap_err().raw_os_error(), Some(libc::ENXIO));
        assert!(fifo.exists(), "it stays for crun");
        let mut waiting = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(&fifo).unwrap();
        release(dir.path()).unwrap();
        let mut heard = String::new();
        waiting.read_to_string(&mut heard).unwrap();
        assert_eq!((heard.as_str(), fifo.exists()), ("0", false));
    }
}
