//! A machine of the rack: switched on and off, waited for, looked at through its console.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Arc, mpsc::Sender},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use lodge_model::progress::Progress;
use serde_json::json;

use crate::{
    accel::Host,
    artifacts::Artifacts,
    console::{Console, Line, RackLine},
    feed::Waited,
    media,
    shell::Shell,
    sockets,
    switch::Switch,
};

mod power;
pub mod spec;

pub use power::Power;
use power::Running;
use spec::{DiskSpec, MachineSpec};

/// A machine, on or off.
pub struct Machine {
    /// What it is.
    pub spec: MachineSpec,
    /// Its files.
    pub dir: PathBuf,
    /// Its console, over all its boots.
    pub console: Console,
    /// Its power.
    pub power: Power,
    host: Host,
    firmware: PathBuf,
    /// When it was switched on for the first time.
    pub first_on: Option<Instant>,
}

/// Something on the console that no wait survives.
const FATAL: [&str; 2] = ["Kernel panic - not syncing", "Lodge: rescue ===="];

impl Machine {
    /// Put a machine into the rack, switched off, with blank disks and a firmware that has never run; files that are there already stay.
    pub fn build(
        spec: MachineSpec,
        artifacts: &Artifacts,
        rack: &Path,
        host: Host,
        switch: &Switch,
        followers: Option<Sender<RackLine>>,
    ) -> Result<Self> {
        let dir = rack.join(&spec.name);
        fs::create_dir_all(&dir).with_context(|| format!("making {}", dir.display()))?;
        let console = Console::new(&dir, &spec.name, followers)?;
        let variables = dir.join(spec::VARIABLES);
        if !variables.exists() {
            fs::copy(&artifacts.variables, variables).context("copying the firmware's variables")?;
        }
        for disk in spec.disks.iter().filter(|disk| !dir.join(disk.file()).exists()) {
            media::blank_disk(&dir.join(disk.file()), disk.size)?;
        }
        switch.add_port(&spec.name, sockets::listen(&dir, spec::NET_SOCKET)?)?;
        let firmware = artifacts.firmware.clone();
        let power = Power::new(&spec.name, dir.clone(), console.clone());
        Ok(Self { spec, dir, console, power, host, firmware, first_on: None })
    }

    /// Press the power button of a machine that is off.
    pub fn switch_on(&mut self) -> Result<()> {
        self.switch_off();
        if let Some(answer) = &self.spec.answer {
            media::answer_stick(&self.dir.join(spec::STICK), answer)?;
        }
        self.first_on.get_or_insert_with(Instant::now);
        self.power.on(self.spec.arguments(&self.host, &self.firmware))
    }

    /// Pull the plug.
    pub fn switch_off(&mut self) {
        self.power.off();
    }

    /// Whether it is on.
    pub fn is_on(&self) -> bool {
        self.power.is_on()
    }

    /// Press the power button of a machine that runs.
    pub fn press_power_button(&self) -> Result<()> {
        self.monitor("system_powerdown", json!({}))
    }

    /// Press the reset button.
    pub fn reset(&self) -> Result<()> {
        self.monitor("system_reset", json!({}))
    }

    /// Stop its processor: to everybody else it is as if it hung.
    pub fn freeze(&self) -> Result<()> {
        self.monitor("stop", json!({}))
    }

    /// Let it go on.
    pub fn thaw(&self) -> Result<()> {
        self.monitor("cont", json!({}))
    }

    /// Plug a disk in while it runs, with what its file holds; a blank one when there is no file yet.
    pub fn plug_disk(&mut self, disk: DiskSpec) -> Result<()> {
        let file = self.dir.join(disk.file());
        if !file.exists() {
            media::blank_disk(&file, disk.size)?;
        }
        self.monitor("blockdev-add", disk.contents())?;
        self.monitor("device_add", disk.device(Some(spec::SPARE_SLOT), self.spec.disks.len() + 1))?;
        self.spec.disks.push(disk);
        Ok(())
    }

    /// Pull out a disk that was plugged in while it ran, and wait until the machine has let go of it.
    pub fn unplug_disk(&mut self, serial: &str) -> Result<()> {
        self.unplug(serial, &format!("disk-{serial}"))?;
        self.spec.disks.retain(|disk| disk.serial != serial);
        Ok(())
    }

    /// Pull the stick out and plug in one with this answer.
    pub fn swap_stick(&mut self, answer: &str) -> Result<()> {
        if self.spec.answer.take().is_some() {
            self.unplug("stick", "stick")?;
        }
        media::answer_stick(&self.dir.join(spec::STICK), answer)?;
        self.monitor("blockdev-add", spec::stick_contents())?;
        self.monitor("device_add", spec::stick_device())?;
        self.spec.answer = Some(answer.to_owned());
        Ok(())
    }

    fn unplug(&self, device: &str, contents: &str) -> Result<()> {
        let running = self.running()?;
        let events = &running.monitor.events;
        let from = events.end();
        self.monitor("device_del", json!({"id": device}))?;
        let gone = events.wait(from, self.limit(60), |event| {
            (event.name == "DEVICE_DELETED" && event.data["device"] == device).then_some(())
        });
        if !matches!(gone, Waited::Found(..)) {
            bail!("{} did not let go of {device}", self.spec.name);
        }
        self.monitor("blockdev-del", json!({"node-name": contents}))
    }

    /// Wait until it is off.
    pub fn wait_off(&self, limit: Duration) -> Result<()> {
        let Some(running) = self.power.running() else { return Ok(()) };
        match running.process.wait(self.host.scale(limit)) {
            Some(_) => Ok(()),
            None => bail!("{} is still on after {:.0} s", self.spec.name, self.host.scale(limit).as_secs_f64()),
        }
    }

    /// Wait for the first console line from position `from` on that `find` takes, and give what it makes of it and the position after
    /// it. `what` says what is waited for, for people; `limit` is scaled to the host.
    pub fn wait_from<R>(
        &self,
        from: usize,
        what: &str,
        limit: Duration,
        find: impl Fn(&Line) -> Option<R>,
    ) -> Result<(R, usize)> {
        let limit = self.host.scale(limit);
        let name = &self.spec.name;
        let found = self.console.lines.wait(from, limit, |line| match find(line) {
            Some(found) => Some(Ok(found)),
            None if FATAL.iter().any(|word| line.text.contains(word)) => Some(Err(line.text.clone())),
            None => None,
        });
        match found {
            Waited::Found(Ok(found), at) => Ok((found, at)),
            Waited::Found(Err(line), _) => bail!("waiting for {what}, {name} said: {line}"),
            Waited::TimedOut | Waited::Closed => bail!("{name} did not show {what} within {:.0} s", limit.as_secs_f64()),
        }
    }

    /// Wait for a console line that contains a text.
    pub fn wait_text(&self, from: usize, text: &str, limit: Duration) -> Result<usize> {
        let (_, at) = self.wait_from(from, &format!("{text:?}"), limit, |line| line.text.contains(text).then_some(()))?;
        Ok(at)
    }

    /// Wait until the console says that the node is ready.
    pub fn wait_ready(&self, from: usize, limit: Duration) -> Result<usize> {
        let ready = |line: &Line| matches!(line.progress(), Some(Progress::Ready(_))).then_some(());
        Ok(self.wait_from(from, "that it is ready", limit, ready)?.1)
    }

    /// The debug shell, once it answers.
    pub fn shell(&self) -> Result<Arc<Shell>> {
        let shell = Arc::clone(&self.running()?.shell);
        shell.wait(self.limit(60)).with_context(|| format!("asking {} for a shell", self.spec.name))?;
        Ok(shell)
    }

    /// Run a command on it; its failure is an error.
    pub fn run(&self, command: &str) -> Result<String> {
        self.shell()?.run(command, self.limit(60)).with_context(|| format!("running a command on {}", self.spec.name))
    }

    /// The file of a disk.
    pub fn disk_file(&self, serial: &str) -> PathBuf {
        self.dir.join(format!("disk-{serial}.raw"))
    }

    /// The position after the console's newest line.
    pub fn now(&self) -> usize {
        self.console.lines.end()
    }

    /// Do something on its monitor.
    pub fn monitor(&self, command: &str, arguments: serde_json::Value) -> Result<()> {
        let done = self.running()?.monitor.run(command, arguments);
        done.map(drop).with_context(|| format!("at machine {}", self.spec.name))
    }

    fn limit(&self, seconds: u64) -> Duration {
        self.host.scale(Duration::from_secs(seconds))
    }

    fn running(&self) -> Result<Arc<Running>> {
        self.power.running().with_context(|| format!("{} is off", self.spec.name))
    }
}
