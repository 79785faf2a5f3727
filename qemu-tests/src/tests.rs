//! The VM tests: each a promise of Lodge, shown on machines that boot what is shipped.
//!
//! They run one after the other in one process. The first installs a site from bare machines; those after it go on with that site, and
//! install one of their own when it is not there (`--vm NAME`) or was left in disorder by a failure.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use lodge_model::api::{NodeDetail, NodeState};

use crate::{
    artifacts::Artifacts,
    rack::{self, Options, Rack},
    scenario::{self, Site},
};

mod agent_killed;
mod center_away;
mod cluster_reboot;
mod crowd;
mod drain;
mod drain_load;
mod drain_trouble;
mod env_debian;
mod env_input;
mod env_live;
mod env_many;
mod environments;
mod exits;
mod failover;
mod install;
mod isolation;
mod node_loss;
mod noise;
mod records;
mod refusals;
mod reinstall;
mod repair;
mod share_restart;
mod shutdown;
mod two_owners;

/// A VM test.
pub struct VmTest {
    /// Its name, for `--vm`.
    pub name: &'static str,
    /// What it shows.
    pub about: &'static str,
    /// Whether it runs without `--matrix`.
    pub in_default: bool,
    run: fn(&mut Bench) -> Result<()>,
}

/// All of them, in the order they run in.
pub const TESTS: &[VmTest] = &[
    VmTest {
        name: "install",
        about: "center from the ISO, nodes by HTTP Boot and PXE, virtio and NVMe: ready without a key; sizes and memory",
        in_default: true,
        run: install::run,
    },
    VmTest {
        name: "environments",
        about: "servers on two nodes: HTTP, ssh, exec, forging, reboot and poweroff inside, snapshots; then nothing is left",
        in_default: true,
        run: environments::run,
    },
    VmTest {
        name: "isolation",
        about: "root in one environment reaches nothing of the node, its kernel or a neighbour; mounts are the agent's alone, and its next one's",
        in_default: true,
        run: isolation::run,
    },
    VmTest {
        name: "env-input",
        about: "wrong names, sizes, addresses, orders and archives through `lodge`: told, with an exit status, and nothing is left",
        in_default: true,
        run: env_input::run,
    },
    VmTest {
        name: "drain",
        about: "by an operator and by the power button: all environments run elsewhere, nothing acknowledged is lost, counted zeros",
        in_default: true,
        run: drain::run,
    },
    VmTest {
        name: "env-live",
        about: "moved live under an open ssh session and a TCP connection, twice; debian-13 by a drain, with who is logged in; what cannot be, by a restart",
        in_default: false,
        run: env_live::run,
    },
    VmTest {
        name: "repair",
        about: "no init, a full disk, bytes of ext4 overwritten, a lost password: repaired by ssh from the other node, all data there",
        in_default: false,
        run: repair::run,
    },
    VmTest {
        name: "failover-dead",
        about: "a node loses power, a kernel crashes, while an environment writes: it serves elsewhere by itself, timeline, nothing lost",
        in_default: true,
        run: failover::dead,
    },
    VmTest {
        name: "failover-native",
        about: "a node loses power, at the patience of machines that are not emulated: its environment answers elsewhere within 15 s",
        in_default: false,
        run: failover::native,
    },
    VmTest {
        name: "failover-frozen",
        about: "a node stops for a minute and goes on, an agent hangs: not one byte after the fence, let in only after a restart",
        in_default: false,
        run: failover::frozen,
    },
    VmTest {
        name: "failover-cut",
        about: "a node is cut from everybody, from the center alone, from the share alone: told apart, no two copies, back by itself",
        in_default: false,
        run: failover::cut,
    },
    VmTest {
        name: "failover-bmc",
        about: "a node hangs: its BMC switches it off and on; where the share node cannot cut it off, that alone frees what it ran",
        in_default: false,
        run: failover::bmc,
    },
    VmTest {
        name: "failover-center",
        about: "the center is killed between the order to fence and its confirmation: taken over once, by the center's next start",
        in_default: false,
        run: failover::center,
    },
    VmTest {
        name: "failover-power",
        about: "the share is restarted: nobody is fenced; all power goes at once and comes back: everything runs again, nothing lost",
        in_default: false,
        run: failover::power,
    },
    VmTest {
        name: "node-loss",
        about: "a node loses power while an environment writes: started elsewhere on the operator's word, no acknowledged record lost",
        in_default: true,
        run: node_loss::run,
    },
    VmTest {
        name: "center-away",
        about: "center frozen for two minutes: nodes stay up, and are ready again at once with the same agent",
        in_default: true,
        run: center_away::run,
    },
    VmTest {
        name: "shutdown",
        about: "login1 on the bus, block and delay inhibitors, the power button: an ordered shutdown, and back again",
        in_default: true,
        run: shutdown::run,
    },
    VmTest {
        name: "refusals",
        about: "wrong answers, certificates, tokens, disks and bundles on one machine: told, nothing written, goes on when mended",
        in_default: true,
        run: refusals::run,
    },
    VmTest {
        name: "reinstall",
        about: "a registered node is installed again by order alone, and stays the node it was",
        in_default: true,
        run: reinstall::run,
    },
    VmTest {
        name: "noisy-neighbour",
        about: "processor, memory, forks, log, disk, files: one takes all it can get, a neighbour's answers take twice as long at most",
        in_default: false,
        run: noise::run,
    },
    VmTest {
        name: "env-stream",
        about: "100 MB through `lodge env exec` and back, unchanged",
        in_default: false,
        run: environments::run_long_stream,
    },
    VmTest {
        name: "env-debian",
        about: "a whole Debian: apt, compiler, web, mail, FTP and X servers, firewall, users, cron, reboot and poweroff inside",
        in_default: false,
        run: env_debian::run,
    },
    VmTest {
        name: "nothing-to-install",
        about: "an installed node that asks the network first gets no boot file, and starts its disk",
        in_default: false,
        run: reinstall::network_first,
    },
    VmTest {
        name: "refusals-by-bus",
        about: "a disk that holds something is refused on virtio and NVMe, every signature",
        in_default: false,
        run: refusals::by_bus,
    },
    VmTest {
        name: "share-restart",
        about: "the share's server restarted, its helpers killed, frozen, while two environments write: they stall, nothing is lost",
        in_default: false,
        run: share_restart::run,
    },
    VmTest {
        name: "two-owners",
        about: "forged orders for an environment that runs elsewhere; late writes of a node that lost its lock; what a wrong lock costs",
        in_default: true,
        run: two_owners::run,
    },
    VmTest {
        name: "agent-killed-briefly",
        about: "agents killed at a few random moments while environments come and go",
        in_default: true,
        run: agent_killed::run_briefly,
    },
    VmTest {
        name: "agent-killed",
        about: "agents killed at twenty random moments while environments come and go: in the end all is as asked, nothing is left",
        in_default: false,
        run: agent_killed::run,
    },
    VmTest {
        name: "env-many",
        about: "ten environments, then twenty, on a node of 2 GiB: all run, stop, start, and leave nothing; memory of an idle one",
        in_default: false,
        run: env_many::run,
    },
    VmTest {
        name: "exits",
        about: "power button, Ctrl-Alt-Del, SIGPWR, busctl, lodge node reboot and poweroff: each drains, on console and timeline",
        in_default: false,
        run: exits::run,
    },
    VmTest {
        name: "drain-no-room",
        about: "no room anywhere: nothing is stopped, the plan says why; at a deadline clean stops, and a start as soon as there is room",
        in_default: false,
        run: drain_trouble::no_room,
    },
    VmTest {
        name: "drain-center-gone",
        about: "switched off while the center is away: its word on the share lets its environments start elsewhere when it is back",
        in_default: false,
        run: drain_trouble::center_gone,
    },
    VmTest {
        name: "drain-center-killed",
        about: "the center killed at five moments of a drain: every drain ends, nothing runs twice",
        in_default: false,
        run: drain_trouble::center_killed,
    },
    VmTest {
        name: "drain-share-frozen",
        about: "the share's server frozen while a node is switched off: off within its deadline and 30 s",
        in_default: false,
        run: drain_trouble::share_frozen,
    },
    VmTest {
        name: "drain-middle",
        about: "on three nodes a drain is cancelled, its target dies, its source dies: all run in the end, nothing ran twice",
        in_default: false,
        run: drain_trouble::middle,
    },
    VmTest {
        name: "drain-load",
        about: "ten environments under load drained to two nodes: no acknowledged commit lost, every address answers, an ssh session's end",
        in_default: false,
        run: drain_load::ten,
    },
    VmTest {
        name: "cluster-reboot",
        about: "four nodes with twelve environments restarted in turn: each moved twice at most, all running in the end",
        in_default: false,
        run: cluster_reboot::run,
    },
    VmTest {
        name: "drain-hundred",
        about: "a hundred small environments drained: none lost; time, and how the gaps are distributed",
        in_default: false,
        run: drain_load::hundred,
    },
];

/// What the tests share.
pub struct Bench {
    artifacts: Artifacts,
    site: Option<Site>,
    /// A site that could not be installed is not tried again by every test.
    no_site: Option<String>,
    /// How many were installed.
    sites: u32,
    say: Box<dyn FnMut(&str)>,
}

/// How the tests went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// How many passed.
    pub passed: usize,
    /// How many did not.
    pub failed: usize,
}

/// Nodes of the site, besides the center.
const NODES: u8 = 2;
/// Lines of each console in a failure's report.
const LAST_LINES: usize = 25;

impl Bench {
    /// A bench without a site. `say` is told, line by line, what goes on.
    pub fn new(artifacts: Artifacts, say: impl FnMut(&str) + 'static) -> Result<Self> {
        Ok(Self { artifacts: artifacts.checked()?, site: None, no_site: None, sites: 0, say: Box::new(say) })
    }

    /// Run tests, whatever comes of each.
    pub fn run(&mut self, tests: &[&VmTest]) -> Summary {
        let mut summary = Summary::default();
        for test in tests {
            self.say(&format!("vm test {} ... ({})", test.name, test.about));
            let started = Instant::now();
            let outcome = (test.run)(self);
            let took = started.elapsed().as_secs();
            match outcome {
                Ok(()) => {
                    summary.passed += 1;
                    self.say(&format!("vm test {} ... ok ({took} s)", test.name));
                }
                Err(error) => {
                    summary.failed += 1;
                    self.say(&format!("vm test {} ... FAILED ({took} s)\n{error:#}", test.name));
                    // What a failed test leaves behind is no ground for another.
                    if let Some(site) = self.site.take() {
                        self.say(&site.rack.last_lines(LAST_LINES));
                    }
                }
            }
        }
        summary
    }

    /// Tell what goes on.
    pub fn say(&mut self, text: &str) {
        (self.say)(text);
    }

    /// A site of a center and two nodes, all ready.
    fn site(&mut self) -> Result<&mut Site> {
        if let Some(why) = &self.no_site {
            bail!("there is no site to test on: {why}");
        }
        if self.site.is_none() {
            let started = Instant::now();
            // Each site has its own files: those of a failed test stay for whoever looks into it.
            self.sites += 1;
            let mut rack = self.rack(&if self.sites == 1 { "site".to_owned() } else { format!("site-{}", self.sites) })?;
            let operator = match scenario::install(&mut rack, NODES) {
                Ok(operator) => operator,
                Err(error) => {
                    self.say(&rack.last_lines(LAST_LINES));
                    self.no_site = Some(format!("{error:#}"));
                    return Err(error);
                }
            };
            let seconds = started.elapsed().as_secs();
            self.say(&format!("site installed from power-on in {seconds} s\n{}", scenario::timelines(&rack)));
            self.site = Some(Site { rack, operator, nodes: (1..=NODES).collect() });
        }
        self.site.as_mut().context("the site is gone")
    }

    /// The same site with so many nodes: those that are missing are installed.
    fn wide(&mut self, nodes: u8) -> Result<&mut Site> {
        let site = self.site()?;
        let missing: Vec<u8> = (1..=nodes).filter(|number| !site.nodes.contains(number)).collect();
        scenario::start_nodes(&mut site.rack, &missing)?;
        for number in missing {
            let name = rack::node_name(number);
            site.rack.machine(&name)?.wait_ready(0, rack::INSTALL_LIMIT)?;
            ready_in_center(site, &name)?;
            site.nodes.push(number);
        }
        self.site()
    }

    /// An empty rack.
    fn rack(&self, name: &str) -> Result<Rack> {
        Rack::new(name, self.artifacts.clone(), Options { capture: true, ..Options::default() })
    }
}

/// Wait until the center shows a machine as ready, which it does a heartbeat after the machine's own console.
fn ready_in_center(site: &Site, name: &str) -> Result<NodeDetail> {
    let limit = site.rack.host.scale(Duration::from_secs(10));
    ask_until(limit, &format!("{name} ready in the center"), || {
        Ok(Some(site.operator.node(name)?).filter(|node| node.node.state == NodeState::Ready))
    })
}

/// Ask until `look` gives something: a bounded retry, because the center's list of nodes is a question and not an event.
fn ask_until<R>(limit: Duration, what: &str, mut look: impl FnMut() -> Result<Option<R>>) -> Result<R> {
    let started = Instant::now();
    loop {
        if let Some(found) = look()? {
            return Ok(found);
        }
        if started.elapsed() > limit {
            bail!("{what} did not come about within {:.0} s", limit.as_secs_f64());
        }
        std::thread::sleep(Duration::from_millis(300));
    }
}
