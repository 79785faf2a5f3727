//! The rack: a site with a switch, a router and machines, and an operator.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    net::Ipv4Addr,
    path::{Path, PathBuf},
    sync::mpsc::Sender,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg},
};

use crate::{
    accel::Host,
    api::{Login, Operator},
    artifacts::Artifacts,
    bmc::{Bmcs, Board},
    console::RackLine,
    machine::{
        Machine,
        spec::{Bus, DiskSpec, MachineSpec, Netboot},
    },
    router::{self, Router},
    shell,
    switch::Switch,
    web::Web,
};

/// Name of the center machine.
pub const CENTER: &str = "center1";
/// Serial number of its disk.
pub const CENTER_DISK: &str = "CENTER0";
/// An installation of one machine, from power-on to ready, on the reference machine, with room for three at once.
pub const INSTALL_LIMIT: Duration = Duration::from_secs(600);

/// A rack. Dropped, it is gone: no process of it stays.
pub struct Rack {
    // Machines go first: they are plugged into what follows.
    machines: BTreeMap<String, Machine>,
    router: Router,
    switch: Switch,
    /// Its files.
    pub dir: PathBuf,
    /// What the host can do.
    pub host: Host,
    /// What it boots.
    pub artifacts: Artifacts,
    followers: Option<Sender<RackLine>>,
    _lock: Flock<File>,
}

/// How a rack is set up.
#[derive(Default)]
pub struct Options {
    /// Where its files go; `out/rack/NAME` where it is left out. What is there from before is removed.
    pub dir: Option<PathBuf>,
    /// Write every frame to `switch.pcap`.
    pub capture: bool,
    /// Gets every console line.
    pub followers: Option<Sender<RackLine>>,
}

impl Rack {
    /// An empty rack.
    pub fn new(name: &str, artifacts: Artifacts, options: Options) -> Result<Self> {
        let artifacts = artifacts.checked()?;
        let host = Host::probe(&artifacts.out.join("rack"))?;
        let dir = options.dir.unwrap_or_else(|| artifacts.rack(name));
        let lock = lock(&dir)?;
        if dir.exists() {
            fs::remove_dir_all(&dir).with_context(|| format!("clearing {}", dir.display()))?;
        }
        let site = dir.join("site");
        fs::create_dir_all(&site).with_context(|| format!("making {}", site.display()))?;
        let capture = site.join("switch.pcap");
        let switch = Switch::start(options.capture.then_some(capture.as_path()))?;
        let router = Router::start(&site, &switch)?;
        Ok(Self { machines: BTreeMap::new(), router, switch, dir, host, artifacts, followers: options.followers, _lock: lock })
    }

    /// Put a machine into the rack. It stays off.
    pub fn add(&mut self, spec: MachineSpec) -> Result<&mut Machine> {
        let name = spec.name.clone();
        let machine = Machine::build(spec, &self.artifacts, &self.dir, self.host, &self.switch, self.followers.clone())
            .with_context(|| format!("building machine {name}"))?;
        Ok(self.machines.entry(name).or_insert(machine))
    }

    /// A machine.
    pub fn machine(&self, name: &str) -> Result<&Machine> {
        self.machines.get(name).with_context(|| format!("there is no machine {name} in the rack"))
    }

    /// A machine, to switch or plug something.
    pub fn machine_mut(&mut self, name: &str) -> Result<&mut Machine> {
        self.machines.get_mut(name).with_context(|| format!("there is no machine {name} in the rack"))
    }

    /// All machines, by name.
    pub fn machines(&self) -> impl Iterator<Item = &Machine> {
        self.machines.values()
    }

    /// The switch, to cut and mend cables.
    pub fn switch(&self) -> &Switch {
        &self.switch
    }

    /// Port of 127.0.0.1 that leads to the center's API.
    pub fn api_port(&self) -> u16 {
        self.router.api_port
    }

    /// A port of 127.0.0.1 that leads to a TCP port of an address of the site, an environment's for example, until the rack is gone.
    pub fn forward(&self, address: Ipv4Addr, port: u16) -> Result<u16> {
        self.router.forward(address, port)
    }

    /// Start the site's web server at 10.77.0.5.
    pub fn start_web(&self) -> Result<Web> {
        let dir = self.dir.join("web-server");
        fs::create_dir_all(&dir).with_context(|| format!("making {}", dir.display()))?;
        Web::start(&dir, &self.router)
    }

    /// Start the BMCs of all machines that there are, at https://10.77.0.6.
    pub fn start_bmcs(&self) -> Result<Bmcs> {
        let boards = self.machines.values().map(|machine| (machine.spec.name.clone(), Board::of(machine)));
        Bmcs::start(boards.collect(), self.router.bmc_port)
    }

    /// Take a machine out.
    pub fn remove(&mut self, name: &str) {
        self.machines.remove(name);
    }

    /// The operator, once the center's console has told the token; waits for it.
    pub fn operator(&self, limit: Duration) -> Result<Operator> {
        let center = self.machine(CENTER)?;
        let (login, _) = center.wait_from(0, "how to log in", limit, |line| Login::find(&line.text))?;
        Ok(Operator::new(self.artifacts.cli.clone(), login.at(self.router.api_port)))
    }

    /// The last lines of every console and where the whole ones are, for a failure's report.
    pub fn last_lines(&self, count: usize) -> String {
        let mut text = String::new();
        for machine in self.machines.values() {
            let state = if machine.is_on() { "on" } else { "off" };
            text += &format!("---- {} ({state}), last lines of {}\n", machine.spec.name, machine.console.log.display());
            machine.console.tail(count).iter().for_each(|line| text += &format!("{line}\n"));
        }
        if !self.router.is_running() {
            text += "---- the router has ended\n";
        }
        text + &format!("---- all files of the rack: {}\n", self.dir.display())
    }
}

/// Two racks in one directory would pull each other's disks out: the second one is refused.
fn lock(dir: &Path) -> Result<Flock<File>> {
    let beside = dir.with_extension("lock");
    if let Some(parent) = beside.parent() {
        fs::create_dir_all(parent).with_context(|| format!("making {}", parent.display()))?;
    }
    let file = File::options().create(true).truncate(false).write(true).open(&beside);
    let file = file.with_context(|| format!("opening {}", beside.display()))?;
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => Ok(lock),
        Err((_, Errno::EWOULDBLOCK)) => bail!("a rack is running in {} already; end it first", dir.display()),
        Err((_, error)) => Err(error).with_context(|| format!("locking {}", beside.display())),
    }
}

/// The machine that becomes the center, installed from the ISO without a question.
pub fn center_spec(artifacts: &Artifacts) -> MachineSpec {
    let mut spec = MachineSpec::new(CENTER, 10).disk(DiskSpec::new(Bus::Virtio, CENTER_DISK, 20));
    spec.cdrom = Some(artifacts.iso());
    spec.answer = Some(center_answer());
    spec.kernel_words(shell::KERNEL_WORD)
}

/// A blank machine that boots from the network: odd ones by UEFI HTTP Boot from a virtio disk, even ones by PXE from NVMe.
pub fn node_spec(number: u8) -> MachineSpec {
    let (how, bus) = if number % 2 == 1 { (Netboot::Http, Bus::Virtio) } else { (Netboot::Pxe, Bus::Nvme) };
    let disk = DiskSpec::new(bus, &node_disk(number), 12);
    let mut spec = MachineSpec::new(&node_name(number), 100 + number).disk(disk).netboot(how).kernel_words(shell::KERNEL_WORD);
    // Its wish for a name, so that machine and node are called the same whichever asks first.
    spec.oem_strings.push(format!("lodge.name={}", node_name(number)));
    spec
}

/// Name of a node's machine.
pub fn node_name(number: u8) -> String {
    format!("node{number}")
}

/// Serial number of a node's disk.
pub fn node_disk(number: u8) -> String {
    format!("NODE{number}")
}

/// The `lodge.toml` of the center machine.
fn center_answer() -> String {
    format!(
        "[node]\nname = \"{CENTER}\"\nroles = [\"center\", \"share\"]\n\n[disk]\nserial = \"{CENTER_DISK}\"\n\n\
         [network]\naddress = \"{}\"\ngateway = \"{}\"\n\n[site]\nadmit = \"auto\"\nnetboot = true\n",
        router::CENTER,
        router::ADDRESS,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_holds_one_rack_at_a_time() {
        let temporary = tempfile::tempdir().unwrap();
        let dir = temporary.path().join("rack/demo");
        let first = lock(&dir).unwrap();
        assert!(lock(&dir).unwrap_err().to_string().contains("running"));
        drop(first);
        lock(&dir).unwrap();
    }

    #[test]
    fn the_center_answer_is_one() {
        let answer = lodge_model::answer::Answer::parse(&center_answer(), "the stick").unwrap();
        assert_eq!(answer.node.name.as_deref(), Some(CENTER));
        assert!(answer.site.unwrap().netboot);
    }

    #[test]
    fn two_nodes_boot_both_ways_from_both_kinds_of_disk() {
        let [one, two] = [node_spec(1), node_spec(2)];
        assert_eq!((one.netboot, one.disks[0].bus), (Some(Netboot::Http), Bus::Virtio));
        assert_eq!((two.netboot, two.disks[0].bus), (Some(Netboot::Pxe), Bus::Nvme));
    }
}
