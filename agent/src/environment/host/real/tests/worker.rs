//! What is decided, done by this machine's kernel: a worker on the real node, with nobody but the center's orders to help it.

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use lodge_model::environment::order::{Report, State};
use lodge_sys::process::PidFd;

use super::*;
use crate::environment::notes::Book;
use crate::environment::worker::{Event, Message, Surroundings, Worker};
use crate::moments::since_boot;

const LIMIT: Duration = Duration::from_secs(60);

/// One run of the agent, as far as one environment goes.
struct Agent {
    inbox: Sender<Message>,
    events: Receiver<Event>,
    watched: Option<i32>,
    steps: Vec<String>,
}

impl Agent {
    fn start(site: &Site, order: &Assignment) -> Self {
        let (say, events) = channel();
        let say = Mutex::new(say);
        let around = Surroundings {
            host: Arc::new(site.node(1)),
            boot: order.boot,
            book: Book::new(site.dir.path().join("notes")),
            exits: Arc::default(),
            say: Arc::new(move |event| drop(say.lock().unwrap().send(event))),
            clock: Arc::new(since_boot),
            has_share: Arc::new(|| true),
            fetching: Arc::default(),
        };
        let worker = Worker::new(order.id, around);
        let (inbox, messages) = channel();
        std::thread::spawn(move || worker.run(&messages));
        Self { inbox, events, watched: None, steps: Vec::new() }
    }

    fn order(&self, order: &Assignment) {
        self.inbox.send(Message::Order(Some(order.clone().into()))).unwrap();
    }

    /// Wait until this is said; the worker is woken when the environment's init ends, as the keeper does.
    fn until(&mut self, what: &str, is_so: impl Fn(&Report) -> bool) -> Report {
        let end = since_boot() + LIMIT;
        let mut last = None;
        loop {
            let event = match self.events.recv_timeout(end.saturating_sub(since_boot())) {
                Ok(event) => event,
                Err(RecvTimeoutError::Timeout) => panic!("waited in vain for {what}; last said: {last:?}"),
                Err(RecvTimeoutError::Disconnected) => panic!("the worker ended while waiting for {what}"),
            };
            let Event::Seen { report: Some(report), init, .. } = event else { continue };
            self.watch(init);
            if let State::Preparing { step } = &report.state {
                self.steps.push(step.clone());
            }
            assert!(report.problem.is_empty() || last.is_some(), "{report:?}");
            if is_so(&report) {
                return report;
            }
            last = Some(report);
        }
    }

    fn watch(&mut self, init: Option<i32>) {
        let Some(pid) = init.filter(|init| self.watched != Some(*init)) else { return };
        self.watched = Some(pid);
        let (process, inbox) = (PidFd::open(pid.unsigned_abs()), self.inbox.clone());
        std::thread::spawn(move || {
            if let Ok(process) = process {
                let _ = process.wait(LIMIT);
            }
            let _ = inbox.send(Message::Wake);
        });
    }

    fn until_running(&mut self, what: &str) -> Report {
        self.until(what, |report| matches!(report.state, State::Running { .. }))
    }

    /// As if the agent were killed between two steps.
    fn end(self) {
        drop(self);
    }
}

#[test]
fn a_worker_brings_it_up_restarts_stops_and_destroys_it() {
    on_site(|site| {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        run("/usr/sbin/ip", &["link", "add", lodge_network::BRIDGE, "type", "bridge"]);
        run("/usr/sbin/ip", &["link", "set", lodge_network::BRIDGE, "up"]);
        let order = site.order(1);
        let mut agent = Agent::start(site, &order);
        agent.order(&order);
        let report = agent.until_running("the first start");
        assert_eq!(agent.steps, ["fetch-template", "take-disk", "mount", "create", "network", "start"]);
        assert_eq!((report.epoch, report.starts), (1, 0));
        assert!(agent.until("usage", |report| report.usage.is_some()).usage.unwrap().disk > 0);
        agent.end();

        let mut agent = Agent::start(site, &order);
        let restarted = Assignment { restarts_asked: 1, ..order.clone() };
        agent.order(&restarted);
        agent.until("the restart", |report| report.restarts_done == 1 && matches!(report.state, State::Running { .. }));
        assert!(!agent.steps.contains(&"mount".to_owned()));
        agent.order(&Assignment { want: Want::Stopped, ..restarted.clone() });
        agent.until("the stop", |report| report.state == State::Released);
        let node = site.node(1);
        assert_eq!(node.look(order.id, &[]).unwrap(), Found::default(), "nothing is left");
        agent.steps.clear();
        agent.order(&Assignment { epoch: 2, ..restarted.clone() });
        agent.until_running("the second start");
        assert_eq!(agent.steps, ["take-disk", "check-disk", "mount", "create", "network", "start"]);
        agent.order(&Assignment { epoch: 2, want: Want::Destroyed, ..restarted });
        agent.until("the end", |report| report.state == State::Destroyed);
        assert!(!node.layout.on_share(order.id).exists());
        assert_eq!((node.look(order.id, &[]).unwrap(), node.list().unwrap().contains(&order.id)), (Found::default(), false));
        agent.end();
        let _ = fs::remove_file(console_of(order.id));
    });
}
