//! The node of a bench, and what is run on it and in its environments by the program on the bench's disk.

use std::{
    net::Ipv4Addr,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use lodge_model::environment::view::EnvironmentView;
use lodge_qemu_tests::{
    api::Operator,
    artifacts::Artifacts,
    hosting::{Hosting, TINY},
    machine::{
        Machine,
        spec::{Bus, DiskSpec, MachineSpec},
    },
    rack::{self, Options, Rack, node_name},
    scenario,
    shell::Shell,
};
use serde_json::Value;

use super::disk::Disk;

/// Where the bench's disk is mounted on the node.
const MOUNT: &str = "/run/bench/disk";
/// Its serial number.
const SERIAL: &str = "BENCH";
/// The node: a hundred small servers live there at the same time. No server has one processor alone: there, what goes on beside a start
/// would all be taken from it.
const NODE: Shape = Shape { memory_mib: 4096, cpus: 2 };
/// What runs on the node ends within this on the reference machine.
const LIMIT: Duration = Duration::from_secs(400);
/// Where the bench's program is in an environment.
const INSIDE: &str = "/run/bench";
/// Addresses of environments begin here, those of peers there; the site gives neither to anybody else.
const ENVIRONMENTS: u8 = 130;
const PEERS: u8 = 200;

/// A site with one node, the bench's disk in it.
pub struct Guest {
    rack: Rack,
    operator: Operator,
    hosting: Hosting,
    template: String,
}

/// Who starts a peer, as the bench's program names them.
#[derive(Clone, Copy)]
pub enum Engine {
    /// `crun run`.
    Crun,
    /// `lxc-start`.
    Lxc,
}

impl Engine {
    fn word(self) -> &'static str {
        match self {
            Engine::Crun => "crun",
            Engine::Lxc => "lxc",
        }
    }
}

impl Guest {
    /// Install the site and plug the disk in.
    pub fn install(artifacts: Artifacts, disk: &Disk) -> Result<Self> {
        let (mut rack, operator) = site("bench-env", artifacts, 1, NODE)?;
        let hosting = Hosting::prepare(&rack, &operator)?;
        let templates = operator.templates()?;
        let tiny = templates.iter().find(|template| template.name == TINY).context("looking for the template")?;
        let digest = tiny.digest.as_ref().context("the template was not imported")?.hex();
        let plugged = DiskSpec { bus: Bus::Virtio, serial: SERIAL.into(), size: 0 };
        let machine = rack.machine_mut(&node_name(1))?;
        std::fs::copy(&disk.image, machine.disk_file(SERIAL)).context("copying the bench's disk")?;
        machine.plug_disk(plugged)?;
        machine.run(&format!(
            "until [ -e /dev/disk/by-id/virtio-{SERIAL} ]; do udevadm settle; done; \
             mkdir -p {MOUNT} /share/bench /state/bench && mount -o ro /dev/disk/by-id/virtio-{SERIAL} {MOUNT}"
        ))?;
        Ok(Self { rack, operator, hosting, template: format!("/state/templates/{digest}.erofs") })
    }

    /// Address of an environment of the bench.
    pub fn address(number: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, 77, 0, ENVIRONMENTS + number)
    }

    /// Order an environment.
    pub fn order(&self, name: &str, number: u8, memory: &str) -> Result<()> {
        let (key, address) = (self.hosting.public_key().display().to_string(), Self::address(number).to_string());
        let create = ["env", "create", name, "--template", TINY, "--disk", "512M", "--memory", memory, "--cpus", "1"];
        self.operator.lodge(&[&create[..], &["--ssh-key", &key, "--address", &address]].concat()).map(drop)
    }

    /// Create an environment: seconds from the command to the answer of its ssh server, and of the parts.
    pub fn start(&self, name: &str, number: u8) -> Result<(f64, Value)> {
        let (watch, shell, limit) = (format!("watch {}", Self::address(number)), self.machine()?.shell()?, self.limit());
        std::thread::scope(|scope| {
            let begin = Instant::now();
            let watcher = scope.spawn(move || run(&shell, &watch, limit).map(|parts| (begin.elapsed(), parts)));
            self.order(name, number, "96M")?;
            let (took, parts) = watcher.join().map_err(|_| anyhow::anyhow!("the watcher panicked"))??;
            Ok((took.as_secs_f64(), parts))
        })
    }

    /// Remove an environment and wait until nothing is left of it.
    pub fn destroy(&self, name: &str) -> Result<()> {
        self.operator.lodge(&["env", "destroy", name, "--yes", "--wait"]).map(drop)
    }

    /// Wait until environments answer.
    pub fn answering(&self, numbers: impl IntoIterator<Item = u8>) -> Result<()> {
        numbers.into_iter().try_for_each(|number| self.on_node(&format!("watch {}", Self::address(number))).map(drop))
    }

    /// Start a peer: seconds from the command to the answer of its ssh server, and of the parts.
    pub fn start_peer(&self, engine: Engine, number: u8) -> Result<(f64, Value)> {
        let config = format!("/run/lodge/environments/{}/bundle/config.json", self.neighbour()?.id);
        let command = format!("start {} {} --template {} --like {config}", engine.word(), peer(number), self.template);
        let shell = self.machine()?.shell()?;
        let begin = Instant::now();
        let parts = run(&shell, &command, self.limit())?;
        Ok((begin.elapsed().as_secs_f64(), parts))
    }

    /// End a peer.
    pub fn stop_peer(&self, engine: Engine, number: u8) -> Result<()> {
        self.on_node(&format!("stop {} {}", engine.word(), peer(number))).map(drop)
    }

    /// Wait until the node has done with what was started before.
    pub fn settle(&self) -> Result<()> {
        self.on_node("settle").map(drop)
    }

    /// Bytes of the node's memory that are in use.
    pub fn memory(&self) -> Result<f64> {
        number(&self.on_node("memory")?, "bytes")
    }

    /// Run the bench's program on the node.
    pub fn on_node(&self, command: &str) -> Result<Value> {
        let shell = self.machine()?.shell()?;
        run(&shell, command, self.limit())
    }

    /// Put the bench's program into an environment.
    pub fn equip(&self, name: &str, disk: &Disk) -> Result<()> {
        let mut child =
            self.operator.spawn(&["env", "exec", name, "--", "sh", "-c", &format!("cat >{INSIDE} && chmod 755 {INSIDE}")])?;
        let mut program = std::fs::File::open(&disk.program).with_context(|| format!("opening {}", disk.program.display()))?;
        let mut input = child.stdin.take().context("no standard input")?;
        std::io::copy(&mut program, &mut input).with_context(|| format!("copying the bench's program into {name}"))?;
        drop(input);
        if !child.wait().context("waiting for exec")?.success() {
            bail!("the bench's program could not be put into {name}");
        }
        Ok(())
    }

    /// Run the bench's program in an environment.
    pub fn inside(&self, name: &str, command: &str) -> Result<Value> {
        last_object(&self.operator.exec(name, &format!("{INSIDE} {command}"))?)
    }

    /// Let the node forget what it has read.
    pub fn forget(&self) -> Result<()> {
        self.machine()?.run("sync; echo 3 >/proc/sys/vm/drop_caches").map(drop)
    }

    /// The environment that runs all the time.
    fn neighbour(&self) -> Result<EnvironmentView> {
        self.operator.environment(NEIGHBOUR)
    }

    fn limit(&self) -> Duration {
        self.rack.host.scale(LIMIT)
    }

    fn machine(&self) -> Result<&Machine> {
        self.rack.machine(&node_name(1))
    }
}

/// What a node of a bench is.
#[derive(Clone, Copy)]
pub struct Shape {
    /// Memory in MiB.
    pub memory_mib: u32,
    /// Processors.
    pub cpus: u8,
}

/// A center and so many nodes, ready.
pub fn site(name: &str, artifacts: Artifacts, nodes: u8, Shape { memory_mib, cpus }: Shape) -> Result<(Rack, Operator)> {
    let mut rack = Rack::new(name, artifacts, Options::default())?;
    let operator = scenario::start_center(&mut rack)?;
    for number in 1..=nodes {
        rack.add(MachineSpec { memory_mib, cpus, ..rack::node_spec(number) })?.switch_on()?;
    }
    for number in 1..=nodes {
        rack.machine(&node_name(number))?.wait_ready(0, rack::INSTALL_LIMIT)?;
    }
    Ok((rack, operator))
}

/// An environment that runs during the whole bench: templates are mounted and warm on a node in use.
pub const NEIGHBOUR: &str = "neighbour";

fn run(shell: &Shell, command: &str, limit: Duration) -> Result<Value> {
    last_object(&shell.run(&format!("{MOUNT}/bench {command}"), limit)?)
}

fn peer(number: u8) -> String {
    format!("peer{number} --number {number} --address 10.77.0.{}", PEERS + number)
}

fn last_object(said: &str) -> Result<Value> {
    let line = said.lines().rev().find(|line| line.starts_with('{')).with_context(|| format!("no figures in {said:?}"))?;
    serde_json::from_str(line).with_context(|| format!("reading {line:?}"))
}

/// A figure of what the bench's program printed.
pub fn number(said: &Value, name: &str) -> Result<f64> {
    said[name].as_f64().with_context(|| format!("looking for {name} in {said}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_found_behind_what_else_is_said() {
        let said = last_object("warning: x\n{\"root\":0.5,\"sshd\":2.0}\n").unwrap();
        assert!((number(&said, "sshd").unwrap() - 2.0).abs() < 1e-9);
        assert!(number(&said, "engine").is_err() && last_object("nothing\n").is_err());
    }
}
