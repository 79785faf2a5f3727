//! Everything together: one queue of events and one clock.
//!
//! | file | what |
//! |---|---|
//! | `simulation/center.rs` | the center's events |
//! | `simulation/node.rs` | a node's events |
//! | `simulation/faults.rs` | what happens to them, and what operators ask for |

mod center;
mod faults;
mod node;

use std::sync::{Arc, Mutex};

use anyhow::{Context as _, Result};
use lodge_center::environments::pools;
use lodge_center::flow::refresh_all;
use lodge_center::records::{Machine as MachineRecord, NameClaim, Node as NodeRecord};
use lodge_center::templates::{State as TemplateState, Template};
use lodge_model::environment::order::{TemplateMeta, TemplateRef};
use lodge_model::environment::view::Pool;
use lodge_model::ids::{BootId, Digest, EnvironmentId};
use lodge_model::layout::{GIB, MIB};
use lodge_model::node::Role;

use crate::center::{Center, Reply, Request};
use crate::clock::{Millis, Queue, timestamp};
use crate::machine::Node;
use crate::network::Weather;
use crate::record::Record;
use crate::share::Share;
use crate::signer::signer;

/// Something broke, and when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    /// What.
    pub what: String,
    /// Everything that happened.
    pub log: String,
}

/// A cluster.
pub struct Simulation {
    /// The time.
    pub now: Millis,
    pub(crate) random: fastrand::Rng,
    pub(crate) weather: Weather,
    pub(crate) center: Center,
    pub(crate) nodes: Vec<Node>,
    pub(crate) share: Arc<Mutex<Share>>,
    pub(crate) record: Record,
    pub(crate) broken: Option<String>,
    queue: Queue<Event>,
    center_at: Millis,
    exchanges: u64,
    boots: u128,
    runs: Vec<(EnvironmentId, usize, u64)>,
    _dir: tempfile::TempDir,
}

/// What happens.
enum Event {
    /// A request reaches the center.
    Ask { node: usize, boot: BootId, exchange: u64, request: Request },
    /// An answer reaches a node.
    Answer { node: usize, boot: BootId, run: u64, exchange: u64, reply: Reply },
    /// A node looks at everything.
    Look { node: usize, boot: BootId },
    /// The second is over: environments write, the share is proved, what goes down goes on.
    Second { node: usize, boot: BootId },
    /// The agent is started by init.
    Agent { node: usize, boot: BootId },
    /// The machine is switched on, or starts again.
    Boot { node: usize },
    /// The center looks at what is due.
    Center,
}

/// A machine takes so long from power to agent.
const BOOT: Millis = 8000;
/// init starts an agent that has ended after so long.
const AGENT: Millis = 1000;

impl Simulation {
    /// A center with the share, and workers of so many bytes of memory; all of them on.
    pub fn new(seed: u64, workers: &[u64], is_recorded: bool) -> Result<Self> {
        let signer = signer()?;
        let dir = match std::path::Path::new("/dev/shm") {
            memory if memory.is_dir() => tempfile::tempdir_in(memory),
            _ => tempfile::tempdir(),
        };
        let dir = dir.context("making a directory for the nodes' files")?;
        let share: Arc<Mutex<Share>> = Arc::default();
        let at =
            |number: usize, name: &str, roles: Vec<Role>, memory| Node::new(number, name, roles, memory, &share, dir.path());
        let mut nodes = vec![at(0, "center1", vec![Role::Center, Role::Share], 4 * GIB)];
        nodes.extend(
            workers
                .iter()
                .enumerate()
                .map(|(number, memory)| at(number + 1, &format!("n{}", number + 1), vec![Role::Worker], *memory)),
        );
        let mut simulation = Self {
            now: 0,
            random: fastrand::Rng::with_seed(seed),
            weather: Weather::GOOD,
            center: Center::new(signer.ca.path(), signer.der.clone())?,
            nodes,
            share,
            record: Record::new(is_recorded),
            broken: None,
            queue: Queue::new(),
            center_at: Millis::MAX,
            exchanges: 0,
            boots: 0x9000,
            runs: Vec::new(),
            _dir: dir,
        };
        simulation.admit()?;
        for node in 0..simulation.nodes.len() {
            simulation.boot(node)?;
        }
        simulation.plan_center(1);
        Ok(simulation)
    }

    /// What an operator has done before: nodes are admitted, there is a template and a pool of addresses.
    fn admit(&mut self) -> Result<()> {
        let nodes: Vec<_> =
            self.nodes.iter().map(|node| (node.id, node.machine, node.name.clone(), node.roles.clone())).collect();
        let signer = signer()?;
        let done = self.center.transact(|tx, _| {
            let at = timestamp(0);
            for (id, machine, name, roles) in &nodes {
                let node = NodeRecord {
                    certificate: Some(signer.digest.clone()),
                    ..NodeRecord::new(*id, *machine, name, roles.clone(), at)
                };
                tx.put(&NameClaim { name: name.clone(), node: *id })?;
                tx.put(&machine_record(*machine, *id))?;
                tx.put(&node)?;
            }
            refresh_all(tx, at)?;
            let meta = TemplateMeta { stop_seconds: 20, ..TemplateMeta::default() };
            let image = TemplateRef { digest: Digest::from_digest([7; 32]), size: 64 * MIB, meta };
            tx.put(&Template { name: "tiny".to_owned(), created: at, state: TemplateState::Ready { image }, version: 1 })?;
            pools::add(tx, &pool(), at).map(drop)
        });
        done.map_err(anyhow::Error::msg)
    }

    /// Go on until this time, or until something breaks.
    pub fn run_until(&mut self, end: Millis) -> Result<()> {
        while self.broken.is_none() && self.queue.next_at().is_some_and(|at| at <= end) {
            let Some((at, event)) = self.queue.pop() else { break };
            self.now = at;
            self.happens(event).with_context(|| format!("at {at} ms"))?;
            if self.broken.is_none() {
                self.broken = self.center.failure.take();
            }
        }
        self.now = self.now.max(end);
        Ok(())
    }

    /// What broke, if anything did.
    pub fn broken(&self) -> Option<Broken> {
        let what = self.broken.clone()?;
        Some(Broken { log: self.record.text() + &what + "\n", what })
    }

    fn happens(&mut self, event: Event) -> Result<()> {
        match event {
            Event::Ask { node, boot, exchange, request } => self.asked(node, boot, exchange, &request),
            Event::Answer { node, boot, run, exchange, reply } => self.answered(node, boot, run, exchange, reply),
            Event::Look { node, boot } if self.nodes[node].look_at == self.now => {
                self.nodes[node].look_at = Millis::MAX;
                self.look(node, boot)
            }
            Event::Look { .. } => Ok(()),
            Event::Second { node, boot } => self.second(node, boot),
            Event::Agent { node, boot } => self.start_agent(node, boot),
            Event::Boot { node } => self.boot(node),
            Event::Center => {
                if self.center_at == self.now {
                    self.center_at = Millis::MAX;
                    self.attend();
                }
                Ok(())
            }
        }
    }
}

fn machine_record(id: lodge_model::ids::MachineId, node: lodge_model::ids::NodeId) -> MachineRecord {
    MachineRecord {
        id,
        facts: None,
        asked_name: None,
        order: None,
        node: Some(node),
        ticket: None,
        reason: String::new(),
        step: None,
        install: Vec::new(),
        seen: timestamp(0),
    }
}

fn pool() -> Pool {
    let ip = |last: u8| std::net::IpAddr::from([10, 0, 1, last]);
    Pool { name: "v4".to_owned(), first: ip(1), last: ip(250), prefix: 24, gateway: None, dns: Vec::new() }
}
