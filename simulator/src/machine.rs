//! A machine, and the agent on it: the real keeper and its real workers, each turn of which is an event.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Result, ensure};
use lodge_agent::environment::exits::Exits;
use lodge_agent::environment::host::Host as _;
use lodge_agent::environment::keeper::{Crew, Keeper, Kept};
use lodge_agent::environment::notes::Book;
use lodge_agent::environment::report::Reports;
use lodge_agent::environment::warm;
use lodge_agent::environment::worker::{Event, Message, Surroundings, Turn, Worker};
use lodge_agent::session::Generation;
use lodge_model::api::{Orders, ShareHealth};
use lodge_model::environment::order::{Task, TemplateRef};
use lodge_model::ids::{BootId, Digest, EnvironmentId, MachineId, NodeId};
use lodge_model::node::Role;

use crate::clock::Millis;
use crate::host::{Machine, open};
use crate::leave::{Certifying, Going};
use crate::share::{Client, Share};
use crate::talk::Talk;

/// A machine.
pub struct Node {
    /// Its name.
    pub name: String,
    /// Who it is.
    pub id: NodeId,
    /// The machine.
    pub machine: MachineId,
    /// What it does.
    pub roles: Vec<Role>,
    /// Bytes.
    pub memory: u64,
    /// It has power.
    pub is_on: bool,
    /// It stands still.
    pub is_paused: bool,
    /// It reaches the center.
    pub reaches_center: bool,
    /// It reaches the share.
    pub reaches_share: bool,
    /// When this boot began.
    pub since: Millis,
    /// When the center last answered it.
    pub heard: Millis,
    /// When it last wrote its heartbeat file.
    pub marked: Millis,
    /// When it looks at everything next; later than ever where nothing is planned.
    pub look_at: Millis,
    /// What this boot has.
    pub host: Arc<Machine>,
    /// The agent, while it is alive.
    pub agent: Option<Agent>,
    /// It is going down.
    pub going: Option<Going>,
    /// Agents that have been started in all boots.
    pub runs: u64,
    /// Where its files are.
    pub dir: PathBuf,
}

/// One run of the agent.
pub struct Agent {
    /// Which.
    pub run: u64,
    /// The talk with the center.
    pub talk: Talk,
    /// The newest orders.
    pub orders: Option<Orders>,
    /// The share as it finds it.
    pub health: ShareHealth,
    /// Since when the share has not answered.
    pub unanswered: Option<Millis>,
    /// A certificate that is wanted.
    pub certifying: Certifying,
    /// What there is to say.
    pub reports: Reports,
    keeper: Keeper,
    around: Surroundings,
    generation: Generation,
    time: Arc<AtomicU64>,
    has_share: Arc<AtomicBool>,
    said: Arc<Mutex<Vec<Event>>>,
    told_exits: usize,
    employed: Receiver<(EnvironmentId, Worker, Receiver<Message>)>,
    to_fetch: Receiver<TemplateRef>,
    _tasks: Receiver<Task>,
    hands: BTreeMap<EnvironmentId, Hand>,
}

/// A worker.
struct Hand {
    worker: Worker,
    inbox: Receiver<Message>,
    /// Its next turn.
    due: Option<Millis>,
    /// It is at a step until then.
    busy: Millis,
    /// Its step waits for the share.
    hangs: bool,
}

impl Node {
    /// A machine that is off.
    pub fn new(number: usize, name: &str, roles: Vec<Role>, memory: u64, share: &Arc<Mutex<Share>>, dir: &Path) -> Self {
        let id = NodeId(uuid::Uuid::from_u128(0x1000 + number as u128));
        let client = Client { node: id, boot: BootId(uuid::Uuid::from_u128(0)) };
        Self {
            name: name.to_owned(),
            id,
            machine: MachineId(uuid::Uuid::from_u128(0x100 + number as u128)),
            roles,
            memory,
            is_on: false,
            is_paused: false,
            reaches_center: true,
            reaches_share: true,
            since: 0,
            heard: 0,
            marked: 0,
            look_at: Millis::MAX,
            host: Arc::new(Machine::new(client, Arc::clone(share), BTreeSet::new())),
            agent: None,
            going: None,
            runs: 0,
            dir: dir.join(name),
        }
    }

    /// It starts: nothing of the former boot is left but what is on its disk.
    pub fn boot(&mut self, boot: BootId, now: Millis, share: &Arc<Mutex<Share>>) -> Result<()> {
        let templates: BTreeSet<Digest> = std::mem::take(&mut self.host.kernel().templates);
        self.host = Arc::new(Machine::new(Client { node: self.id, boot }, Arc::clone(share), templates));
        (self.is_on, self.is_paused, self.since, self.going) = (true, false, now, None);
        (self.agent, self.heard, self.marked, self.look_at) = (None, now, now, Millis::MAX);
        match std::fs::remove_dir_all(&self.dir) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// The agent starts, the first time in a boot or again.
    pub fn start_agent(&mut self, now: Millis) -> Result<()> {
        self.runs += 1;
        self.agent = Some(Agent::start(self, now)?);
        Ok(())
    }

    /// Whether anything on it moves.
    pub fn is_alive(&self) -> bool {
        self.is_on && !self.is_paused
    }
}

impl Agent {
    fn start(node: &Node, now: Millis) -> Result<Self> {
        let (employ, employed) = channel();
        let (templates, tasks) = channel();
        let (warm, to_fetch) = channel();
        let said: Arc<Mutex<Vec<Event>>> = Arc::default();
        let (time, has_share) = (Arc::new(AtomicU64::new(now - node.since)), Arc::new(AtomicBool::new(false)));
        let (saying, clock, mounted) = (Arc::clone(&said), Arc::clone(&time), Arc::clone(&has_share));
        let around = Surroundings {
            host: node.host.clone(),
            boot: node.host.client.boot,
            book: Book::new(node.dir.join("notes")),
            exits: Arc::new(Mutex::new(Exits::default())),
            say: Arc::new(move |event| open(&saying).push(event)),
            clock: Arc::new(move || Duration::from_millis(clock.load(Ordering::Relaxed))),
            has_share: Arc::new(move || mounted.load(Ordering::Relaxed)),
            fetching: Arc::default(),
        };
        let employ = Box::new(move |id, worker, inbox| {
            employ.send((id, worker, inbox)).map_err(|_| anyhow::anyhow!("the simulation has ended"))
        });
        let kept = Kept { tasks: node.dir.join("tasks"), assignments: node.dir.join("assignments.json") };
        let mut keeper = Keeper::new(around.clone(), Crew { employ, templates, warm }, &kept);
        keeper.begin(node.host.list()?)?;
        Ok(Self {
            run: node.runs,
            talk: Talk::new(now),
            orders: None,
            health: ShareHealth::Unknown,
            unanswered: None,
            certifying: Certifying::default(),
            reports: keeper.reports(),
            keeper,
            around,
            generation: Generation::read(node.dir.join("generation")),
            time,
            has_share,
            said,
            told_exits: 0,
            employed,
            to_fetch,
            _tasks: tasks,
            hands: BTreeMap::new(),
        })
    }

    /// Take orders, unless newer ones have been seen. Whether they are newer than the newest.
    pub fn take(&mut self, orders: Orders) -> Result<bool> {
        if self.generation.accept(orders.generation)?.is_err() {
            return Ok(false);
        }
        let last = self.orders.as_ref().map(|last| last.generation);
        ensure!(
            last.is_none_or(|last| last <= orders.generation),
            "orders of generation {} are followed after {last:?}",
            orders.generation
        );
        let is_newer = last.is_none_or(|last| last < orders.generation);
        if self.orders.as_ref() != Some(&orders) {
            self.orders = Some(orders.clone());
            self.keeper.ordered(orders)?;
            self.keeper.noticed(self.around.host.list()?)?;
        }
        Ok(is_newer)
    }

    /// The node goes down, by this time of its own.
    pub fn leave(&mut self, by: Duration) -> Result<()> {
        self.keeper.leave(by, self.around.host.list()?)
    }

    /// The share answers, or does not.
    pub fn find_share(&mut self, answers: bool, serves: bool, now: Millis) {
        if answers {
            let was_well = self.unanswered.take().is_none() && self.health != ShareHealth::Unknown;
            self.health = if serves { ShareHealth::Serving } else { ShareHealth::Mounted { probe_ms: 1 } };
            self.has_share.store(true, Ordering::Relaxed);
            if !was_well {
                self.keeper.share_is_back();
            }
        } else {
            let since = *self.unanswered.get_or_insert(now);
            if now >= since + 5000 {
                self.health = ShareHealth::Failed { error: "proving /share: no answer for 5 s".to_owned() };
            }
        }
    }

    /// Let everybody hear what is new, and see what there is to say.
    pub fn settle(&mut self, host: &Machine, now: Millis) -> Result<()> {
        let exits: Vec<(i32, i32)> = host.kernel().exits.iter().skip(self.told_exits).copied().collect();
        self.told_exits += exits.len();
        for (pid, status) in exits {
            open(&self.around.exits).tell(pid, status);
            self.keeper.wake(pid);
        }
        loop {
            let events = std::mem::take(&mut *open(&self.said));
            if events.is_empty() {
                break;
            }
            for event in events {
                self.keeper.heard(event)?;
            }
        }
        for (id, worker, inbox) in self.employed.try_iter() {
            self.hands.insert(id, Hand { worker, inbox, due: None, busy: now, hangs: false });
        }
        for hand in self.hands.values_mut() {
            hand.listen(now);
        }
        self.reports = self.keeper.reports();
        Ok(())
    }

    /// The next turn of any of its workers.
    pub fn next_turn(&self) -> Option<Millis> {
        self.hands.values().filter(|hand| !hand.hangs).filter_map(|hand| hand.due).min()
    }

    /// Every worker that is due has its turn.
    pub fn work(
        &mut self,
        host: &Machine,
        answers: bool,
        now: Millis,
        since: Millis,
        random: &mut fastrand::Rng,
    ) -> Vec<(EnvironmentId, &'static str)> {
        self.time.store(now - since, Ordering::Relaxed);
        host.kernel().now = now;
        let mut steps = Vec::new();
        for (id, hand) in &mut self.hands {
            if hand.hangs && answers {
                (hand.hangs, hand.due) = (false, Some(now));
            }
            if hand.hangs || hand.due.is_none_or(|due| due > now) {
                continue;
            }
            hand.due = None;
            for message in hand.inbox.try_iter() {
                hand.worker.take(message);
            }
            host.kernel().last = None;
            match hand.worker.turn() {
                Turn::Acted => {
                    let (step, hangs) = host.kernel().last.unwrap_or(("nothing", false));
                    hand.busy = now + takes(step, random);
                    (hand.due, hand.hangs) = (Some(hand.busy), hangs);
                    steps.push((*id, step));
                }
                Turn::Wait(until) => {
                    let until = until.map(|until| since + crate::clock::length(until));
                    hand.due = until.map(|until| until.max(now + 1));
                    hand.busy = now;
                }
            }
        }
        steps
    }

    /// Templates that are wanted beforehand.
    pub fn fetch(&mut self) {
        let wanted: Vec<TemplateRef> = self.to_fetch.try_iter().collect();
        for template in wanted {
            let is_here = warm::fetch(&self.around, &template).is_ok();
            open(&self.said).push(Event::Warm { digest: template.digest, is_here });
        }
    }
}

impl Hand {
    /// A message is heard between two steps.
    fn listen(&mut self, now: Millis) {
        let mut is_news = false;
        if self.busy <= now && !self.hangs {
            for message in self.inbox.try_iter() {
                self.worker.take(message);
                is_news = true;
            }
        }
        if is_news {
            self.due = Some(self.due.map_or(now + 1, |due| due.min(now + 1)));
        }
    }
}

/// Milliseconds that a step takes.
fn takes(step: &str, random: &mut fastrand::Rng) -> Millis {
    let usual = match step {
        "fetch-template" => 800,
        "take-disk" | "network" => 200,
        "mount" | "create" | "unmount" | "start" => 100,
        _ => 20,
    };
    usual + random.u64(0..usual)
}
