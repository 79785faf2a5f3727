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
mod list;
mod node_loss;
mod noise;
mod records;
mod refusals;
mod reinstall;
mod repair;
mod share_restart;
mod shutdown;
mod two_owners;

pub use list::TESTS;

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

    /// A site of a center and two nodes at least, all ready.
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

    /// A site of two nodes and no more: one that others have made wider is given up for a new one.
    fn pair(&mut self) -> Result<&mut Site> {
        self.site = self.site.take().filter(|site| site.nodes.len() == usize::from(NODES));
        self.site()
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
