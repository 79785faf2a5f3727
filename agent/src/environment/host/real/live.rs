//! Checkpoints, made and gone on from, by criu.
//!
//! To go on, an environment is made as ever (`Create`): so its control group has its limits and its devices. Then the init that waits
//! there to be started is ended, and the processes of the checkpoint come in its place.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use lodge_model::environment::order::Assignment;
use lodge_model::environment::share;
use lodge_model::ids::EnvironmentId;
use lodge_model::live::Probe;
use lodge_network::{BRIDGE, NO_PING_GROUPS, PING_GROUPS};
use lodge_sys::process;
use lodge_sys::program::{Call, Program};
use lodge_sys::pty;

use super::container::Init;
use super::devices::Devices;
use super::layout::{DEVICES, EXEC_FIFO, Note, ROOT, private_dir, remove_file};
use super::link::connect;
use super::{Container, Real, StepError};
use crate::durable;
use crate::environment::live::arguments::{self, CONSOLE, Dump, Places, Restore};
use crate::environment::live::hook::{Here, read};
use crate::environment::live::{DRAFT, GROUPS, HERE, RECORD, Record, groups, probe};

/// How long writing down, or going on, may take before it is given up.
const LIMIT: Duration = Duration::from_secs(180);
/// A checkpoint that somebody goes on from, beside the disk on the share.
const TAKEN: &str = "checkpoint.taken";
/// Group of terminals, inside.
const TTY: u32 = 5;

impl Real {
    /// Write its processes down and end them.
    pub(super) fn checkpoint(&self, order: &Assignment) -> Result<(), StepError> {
        let id = order.id;
        let Container::Running { pid, since } = self.container(id) else { return Err(anyhow!("it does not run").into()) };
        let cgroup = self.layout.cgroup(id);
        if let Some(why) = probe::obstacle(pid, &probe::look(pid, &cgroup)?) {
            return Err(StepError::Refused(why));
        }
        self.forget_checkpoint(id)?;
        let record = record(order, pid, since)?;
        let written = self.write_down(id, pid, &record);
        if written.is_err() {
            // They run on: the checkpoint is of no use, and what was changed for it is changed back.
            self.forget_checkpoint(id)?;
            cgroup.write("cgroup.freeze", "0")?;
            carry_settings(pid, &record)?;
        }
        Ok(written?)
    }

    fn write_down(&self, id: EnvironmentId, pid: i32, record: &Record) -> Result<()> {
        let images = self.layout.checkpoint(id);
        private_dir(&images)?;
        // Processes that go on read them as themselves. Only root comes as far as here by name.
        let open = fs::set_permissions(&images, fs::Permissions::from_mode(0o711));
        open.with_context(|| format!("opening {}", images.display()))?;
        let cgroup = self.layout.cgroups.join(id.to_string());
        write(&images.join(GROUPS), &groups::look(&cgroup)?)?;
        write(&images.join(DRAFT), record)?;
        self.prepare(id, &images)?;
        criu(["cpuinfo", "dump", "--images-dir"]).arguments([&images]).run()?;
        // criu 4.1 reads them as ids of the node and sets them as the environment's own.
        lodge_network::set_setting(pid.unsigned_abs(), PING_GROUPS, NO_PING_GROUPS)?;
        let (work, root) = (self.work(id), self.layout.on_node(id).join(ROOT));
        let places = Places { images: &images, work: &work, root: &root, hook: &self.layout.hook };
        let arguments = arguments::dump(&places, &Dump { init: pid, cgroup: &cgroup }, record);
        criu(arguments).run().map_err(|error| explain(error, &work.join("dump.log")))?;
        Ok(())
    }

    /// Whether its processes could be written down, while it runs.
    pub(super) fn probe_of(&self, id: EnvironmentId) -> Result<Option<Probe>> {
        let Container::Running { pid, .. } = self.container(id) else { return Ok(None) };
        let why = probe::obstacle(pid, &probe::look(pid, &self.layout.cgroup(id))?);
        Ok(Some(why.map_or(Probe::Clear, |why| Probe::Obstacle { why })))
    }

    /// Its processes have run on: a checkpoint of them is of no use, whole or not.
    pub(super) fn forget_checkpoint(&self, id: EnvironmentId) -> Result<()> {
        for name in [share::CHECKPOINT, TAKEN] {
            remove(&self.layout.on_share(id).join(name))?;
        }
        self.layout.notes(id).remove(Note::Kept)
    }

    /// Let its processes go on from the checkpoint of the epoch before.
    pub(super) fn restore(&self, order: &Assignment) -> Result<(), StepError> {
        let made = order.resume.ok_or_else(|| StepError::Refused("there is nothing to go on from".into()))?;
        share::may_resume(made, order.epoch).map_err(StepError::Refused)?;
        let images = self.layout.on_share(order.id).join(TAKEN);
        remove(&images)?;
        let whole = self.layout.checkpoint(order.id);
        // From here on nobody else finds it, not this node either.
        fs::rename(&whole, &images).with_context(|| format!("taking {}", whole.display()))?;
        let resumed = self.go_on(order, made, &images);
        if let Err(error) = remove(&images) {
            tracing::warn!("{error:#}");
        }
        Ok(resumed?)
    }

    fn go_on(&self, order: &Assignment, made: u64, images: &Path) -> Result<()> {
        let id = order.id;
        let record: Record = read(&images.join(RECORD))?;
        if (record.environment, record.epoch) != (id, made) {
            bail!("the checkpoint is of environment {}, epoch {}", record.environment, record.epoch);
        }
        self.prepare(id, images)?;
        criu(["cpuinfo", "check", "--images-dir"])
            .arguments([images])
            .run()
            .context("comparing the processors of both nodes")?;
        self.begin_link(order);
        self.create(order)?;
        self.need_files(id)?;
        let guarded = self.need_addresses(order)?;
        self.end_stub(id)?;
        let pid = self.put_back(order, images, &record)?;
        let ticks = process::started(pid).ok_or_else(|| anyhow!("its init ended at once"))?;
        connect(pid, order, guarded)?;
        carry_settings(pid, &record)?;
        let notes = self.layout.notes(id);
        notes.write(Note::Started, &record.since)?;
        let init = Init { pid, ticks };
        tell_engine(&self.layout.crun.join(id.to_string()), init).context("telling the container engine of its init")?;
        // Last: it says that all of it is here.
        notes.write(Note::Init, &init)
    }

    /// By criu; its init.
    fn put_back(&self, order: &Assignment, images: &Path, record: &Record) -> Result<i32> {
        let id = order.id;
        let (work, root) = (self.work(id), self.layout.on_node(id).join(ROOT));
        let pid_file = work.join("pid");
        let console = self.open_console(order)?;
        let devices = Devices::show(self.layout.on_node(id).join(DEVICES), &record.mounts, &console.name)?;
        let places = Places { images, work: &work, root: &root, hook: &self.layout.hook };
        let port = lodge_network::port_name(id);
        let restore =
            Restore { port: &port, bridge: BRIDGE, lxcfs: &self.layout.lxcfs, devices: devices.dir(), pid_file: &pid_file };
        let call = criu(arguments::restore(&places, &restore, record)).stdin(console.other_end);
        let ran = call.run().map_err(|error| explain(error, &work.join("restore.log")));
        devices.hide()?;
        ran?;
        let pid = fs::read_to_string(&pid_file).with_context(|| format!("reading {}", pid_file.display()))?;
        pid.trim().parse().with_context(|| format!("reading {}", pid_file.display()))
    }

    /// The init that `create` left waiting; what it waits in stays.
    fn end_stub(&self, id: EnvironmentId) -> Result<()> {
        self.kill(id)?;
        self.layout.notes(id).remove(Note::Init)
    }

    /// A terminal of this node as its console; the holder takes it as it takes crun's.
    fn open_console(&self, order: &Assignment) -> Result<Terminal> {
        let open = || -> Result<Terminal> {
            let (master, name) = pty::open()?;
            let other_end = pty::other_end(&master)?;
            chown(&name, Some(order.id_base), Some(order.id_base + TTY))?;
            pty::send(&UnixStream::connect((self.layout.console)(order.id)?)?, &master)?;
            Ok(Terminal { name, other_end })
        };
        open().context("opening its console")
    }

    /// What criu and its hook need on this node.
    fn prepare(&self, id: EnvironmentId, images: &Path) -> Result<()> {
        let work = self.work(id);
        remove(&work)?;
        private_dir(&work)?;
        let cgroup = self.layout.cgroups.join(id.to_string());
        write(&images.join(HERE), &Here { cgroup, kept: self.layout.notes(id).path(Note::Kept) })
    }

    fn work(&self, id: EnvironmentId) -> PathBuf {
        self.layout.on_node(id).join("live")
    }
}

struct Terminal {
    name: PathBuf,
    other_end: std::os::fd::OwnedFd,
}

/// The container is of another init now, and has been started: crun goes by its own record of it for `exec` and `delete`, `dir/status`
/// (crun 1.21, src/libcrun/status.c).
fn tell_engine(dir: &Path, init: Init) -> Result<()> {
    let path = dir.join("status");
    let text = fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
    let mut status: serde_json::Map<String, serde_json::Value> =
        serde_json::from_slice(&text).with_context(|| format!("understanding {}", path.display()))?;
    status.insert("pid".into(), init.pid.into());
    status.insert("process-start-time".into(), init.ticks.into());
    durable::write(&path, &serde_json::to_vec(&status)?, 0o600)?;
    // Whoever is created and not started waits there.
    remove_file(&dir.join(EXEC_FIFO))
}

/// What is found of a running environment.
fn record(order: &Assignment, pid: i32, since: i64) -> Result<Record> {
    let table = format!("/proc/{pid}/mountinfo");
    let table = fs::read_to_string(&table).with_context(|| format!("reading {table}"))?;
    let mounts = arguments::external_mounts(table.lines().filter_map(|line| line.split(' ').nth(4)));
    let console = format!("/proc/{pid}/root{CONSOLE}");
    let console = match mounts.iter().any(|mount| mount == CONSOLE) {
        true => {
            let found = fs::metadata(&console).with_context(|| format!("looking at {console}"))?;
            Some(arguments::terminal(found.rdev(), found.dev()))
        }
        false => None,
    };
    let settings = lodge_network::settings(pid.unsigned_abs())?;
    Ok(Record { environment: order.id, epoch: order.epoch, since, mounts, console, settings })
}

/// Its network namespace gets the settings that it had.
fn carry_settings(pid: i32, record: &Record) -> Result<()> {
    let refused = lodge_network::set_settings(pid.unsigned_abs(), &record.settings)?;
    if !refused.is_empty() {
        tracing::warn!("environment {}: settings that this node does not take: {}", record.environment, refused.join(", "));
    }
    Ok(())
}

fn criu<I, A>(arguments: I) -> Call
where
    I: IntoIterator<Item = A>,
    A: Into<std::ffi::OsString>,
{
    Program::Criu.call(arguments).deadline(LIMIT)
}

/// criu says why in its log.
fn explain(error: anyhow::Error, log: &Path) -> anyhow::Error {
    let text = fs::read_to_string(log).unwrap_or_default();
    let reasons: Vec<&str> = text.lines().filter(|line| line.contains("Error (") && !line.contains("tables")).take(3).collect();
    tracing::warn!("{error:#}; {}", reasons.join("; "));
    let reason = reasons.first().and_then(|line| line.split_once("): ")).map_or("it does not say why", |(_, reason)| reason);
    anyhow!("criu cannot do it: {reason}")
}

fn write(path: &Path, value: &impl serde::Serialize) -> Result<()> {
    fs::write(path, serde_json::to_vec(value)?).with_context(|| format!("writing {}", path.display()))
}

/// Remove a directory; none there is fine.
fn remove(dir: &Path) -> Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("removing {}", dir.display()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_engine_is_told_of_another_init_and_keeps_what_else_it_knows() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(
            dir.path().join("status"),
            r#"{"pid": 7, "process-start-time": 1, "cgroup-path": "/env/x", "detached": true}"#,
        )
        .unwrap();
        fs::write(dir.path().join("exec.fifo"), "").unwrap();
        tell_engine(dir.path(), Init { pid: 815, ticks: 4711 }).unwrap();
        let status: serde_json::Value = serde_json::from_slice(&fs::read(dir.path().join("status")).unwrap()).unwrap();
        assert_eq!(
            status,
            serde_json::json!({"pid": 815, "process-start-time": 4711, "cgroup-path": "/env/x", "detached": true})
        );
        assert!(!dir.path().join("exec.fifo").exists());
        assert!(tell_engine(&dir.path().join("none"), Init { pid: 1, ticks: 1 }).is_err());
    }
}
