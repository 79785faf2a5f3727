//! A worker on a fake node with a clock of its own, for tests: time passes only when there is nothing else to do.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use lodge_model::environment::order::{Assignment, Report, State, TaskOutcome, TemplateMeta, TemplateRef, Want};
use lodge_model::environment::spec::Restart;
use lodge_model::ids::{BootId, Digest, EnvironmentId, TaskId};
use uuid::Uuid;

use super::fake::{Cut, Fake};
use super::notes::Book;
use super::worker::{Event, Message, Surroundings, Turn, Worker};

/// The environment of the tests.
pub const ID: EnvironmentId = EnvironmentId(Uuid::from_u128(5));
/// The boot of the tests.
pub const BOOT: BootId = BootId(Uuid::from_u128(9));

/// An order for it.
pub fn order(want: Want, epoch: u64) -> Assignment {
    Assignment {
        id: ID,
        name: "web1".into(),
        epoch,
        boot: BOOT,
        want,
        template: TemplateRef {
            digest: Digest::from_digest([1; 32]),
            size: 1 << 20,
            meta: TemplateMeta { stop_seconds: 30, ..TemplateMeta::default() },
        },
        disk: 1 << 30,
        memory: 128 << 20,
        cpu_millis: 500,
        tasks_max: 100,
        id_base: 65_536,
        mac: "02:00:00:00:00:01".into(),
        addresses: Vec::new(),
        dns: Vec::new(),
        ssh_keys: Vec::new(),
        restart: Restart::OnFailure,
        restarts_asked: 0,
        resume: None,
        beside: None,
    }
}

/// The stage.
pub struct Stage {
    /// The node.
    pub fake: Arc<Fake>,
    /// What was said last.
    pub report: Option<Report>,
    /// Tasks that were reported.
    pub tasks: BTreeMap<TaskId, TaskOutcome>,
    /// Nothing of it is left.
    pub is_gone: bool,
    /// Times that the agent was killed.
    pub deaths: u32,
    now: Arc<Mutex<Duration>>,
    said: Arc<Mutex<Vec<Event>>>,
    around: Surroundings,
    worker: Worker,
    order: Option<Assignment>,
    _dir: tempfile::TempDir,
}

impl Stage {
    /// An empty node.
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let fake = Arc::new(Fake::default());
        let now = Arc::new(Mutex::new(Duration::from_secs(100)));
        let said = Arc::new(Mutex::new(Vec::new()));
        let (clock, saying) = (Arc::clone(&now), Arc::clone(&said));
        let around = Surroundings {
            host: fake.clone(),
            boot: BOOT,
            book: Book::new(dir.path()),
            exits: Arc::default(),
            say: Arc::new(move |event| saying.lock().unwrap().push(event)),
            clock: Arc::new(move || *clock.lock().unwrap()),
            has_share: Arc::new(|| true),
            fetching: Arc::default(),
        };
        let worker = Worker::new(ID, around.clone());
        Self {
            fake,
            report: None,
            tasks: BTreeMap::new(),
            is_gone: false,
            deaths: 0,
            now,
            said,
            around,
            worker,
            order: None,
            _dir: dir,
        }
    }

    /// Order something.
    pub fn order(&mut self, order: Option<Assignment>) {
        self.order.clone_from(&order);
        self.worker.take(Message::Order(order.map(Box::new)));
    }

    /// Tell the worker something.
    pub fn tell(&mut self, message: Message) {
        self.worker.take(message);
        self.listen();
    }

    /// The agent is killed, and started again.
    pub fn kill_agent(&mut self) {
        self.deaths += 1;
        self.fake.inner().is_cut = false;
        self.around.exits = Arc::default();
        self.worker = Worker::new(ID, self.around.clone());
        self.worker.take(Message::Order(self.order.clone().map(Box::new)));
    }

    /// The agent will be killed at a step.
    pub fn cut(&self, after: u32, cut: Cut) {
        self.fake.inner().cut = Some((after, cut));
    }

    /// init tells what has ended.
    pub fn tell_exits(&self) {
        let mut exits = self.around.exits.lock().unwrap();
        for (pid, status) in self.fake.inner().exits.iter() {
            exits.tell(*pid, *status);
        }
    }

    /// One turn; the agent is started again where it was cut. The time until which nothing happens by itself.
    pub fn turn(&mut self) -> Option<Option<Duration>> {
        self.tell_exits();
        let turn = self.worker.turn();
        self.listen();
        if self.fake.inner().is_cut {
            self.kill_agent();
            return None;
        }
        match turn {
            Turn::Acted => None,
            Turn::Wait(until) => Some(until),
        }
    }

    /// Go on until nothing happens any more without time passing.
    pub fn act(&mut self) {
        for _ in 0..200 {
            if self.turn().is_some() {
                return;
            }
        }
        panic!("it never comes to rest: {:?}", self.fake.inner().steps);
    }

    /// Go on for so long.
    pub fn pass(&mut self, time: Duration) {
        let end = *self.now.lock().unwrap() + time;
        for _ in 0..2000 {
            let Some(until) = self.turn() else { continue };
            let next = until.unwrap_or(end).min(end);
            *self.now.lock().unwrap() = next;
            if next == end {
                self.act();
                return;
            }
        }
        panic!("it never comes to rest: {:?}", self.fake.inner().steps);
    }

    /// The steps since the last question.
    pub fn steps(&self) -> Vec<&'static str> {
        std::mem::take(&mut self.fake.inner().steps)
    }

    /// The state that was said last.
    pub fn state(&self) -> Option<State> {
        self.report.as_ref().map(|report| report.state.clone())
    }

    /// What keeps it from being as it is wanted.
    pub fn problem(&self) -> String {
        self.report.as_ref().map(|report| report.problem.clone()).unwrap_or_default()
    }

    fn listen(&mut self) {
        for event in self.said.lock().unwrap().drain(..) {
            match event {
                Event::Seen { report, is_gone, .. } => (self.report, self.is_gone) = (report, is_gone),
                Event::Step { .. } | Event::Warm { .. } => {}
                Event::Task { id, outcome } => drop(self.tasks.insert(id, outcome)),
            }
        }
    }
}
