//! A cluster of two nodes whose agents are played by the test: the center's own machine with the share, and a worker.

use std::time::Duration;

use lodge_client::{Center, SessionReceiver, SessionSender};
use lodge_model::api::{MachineEvent, Orders, ShareHealth};
use lodge_model::environment::order::{
    Assignment, Report, State, Task, TaskKind, TaskOutcome, TaskReport, TemplateMeta, TemplateRef, Want,
};
use lodge_model::environment::session::Session;
use lodge_model::environment::spec::Spec;
use lodge_model::environment::view::{EnvironmentView, Pool};
use lodge_model::fence::Signs;
use lodge_model::ids::Digest;
use lodge_model::layout::{GIB, MIB, Slot};
use lodge_model::node::Role;

use super::{Enrolled, Running, disk, heartbeat, register};

/// How often a node asks for what a test waits for; the center holds each answer for 2 s at most.
const ASKED: u32 = 20;

/// An agent, as the test plays it.
pub struct Node {
    pub center: Center,
    pub enrolled: Enrolled,
    pub boot: u128,
    pub share: ShareHealth,
    pub orders: Orders,
    pub environments: Vec<Report>,
    pub tasks: Vec<TaskReport>,
    pub signs: Signs,
}

/// The center's own machine and one worker, both ready.
pub async fn two_nodes(center: &Running) -> (Node, Node) {
    let own = center.own_machine().await;
    let own_agent = center.as_node(&own);
    let roles = vec![Role::Center, Role::Share];
    let orders = own_agent.register(&register(1, 100, "CENTER0", "10.77.0.10", roles)).await.unwrap();
    let mut share = Node::new(own_agent, own, 100, ShareHealth::Serving, orders);
    share.beat().await;

    let machine = center.new_machine(2).await;
    let ticket = machine.ticket(machine.hello(vec![disk("vda", "S1")]).await);
    let (enrolled, ()) = tokio::join!(machine.enrol(&ticket, "10.77.0.51"), async {
        share.until(|orders| !orders.exports.is_empty()).await;
        share.beat().await;
    });
    let enrolled = enrolled.unwrap();
    let installed = MachineEvent::Installed { version: "0.1.0".into(), slot: Slot::A, disk_serial: "S1".into() };
    machine.center.machine_events(machine.id, &[installed]).await.unwrap();
    let agent = center.as_node(&enrolled);
    let orders = agent.register(&register(2, 200, "S1", "10.77.0.51", vec![Role::Worker])).await.unwrap();
    let mut worker = Node::new(agent, enrolled, 200, ShareHealth::Mounted { probe_ms: 2 }, orders);
    worker.beat().await;
    (share, worker)
}

/// One more worker.
pub async fn another(center: &Running, share: &mut Node, number: u128) -> Node {
    let machine = center.new_machine(number).await;
    let serial = format!("S{number}");
    let address = format!("10.77.0.5{number}");
    let ticket = machine.ticket(machine.hello(vec![disk("vda", &serial)]).await);
    let (enrolled, ()) = tokio::join!(machine.enrol(&ticket, &address), async {
        share.until(|orders| orders.exports.contains(&address)).await;
        share.beat().await;
    });
    let enrolled = enrolled.unwrap();
    let installed = MachineEvent::Installed { version: "0.1.0".into(), slot: Slot::A, disk_serial: serial.clone() };
    machine.center.machine_events(machine.id, &[installed]).await.unwrap();
    let agent = center.as_node(&enrolled);
    let boot = number * 100;
    let orders = agent.register(&register(number, boot, &serial, &address, vec![Role::Worker])).await.unwrap();
    let share = ShareHealth::Mounted { probe_ms: 2 };
    let mut worker = Node::new(agent, enrolled, boot, share, orders);
    worker.beat().await;
    worker
}

impl Node {
    fn new(center: Center, enrolled: Enrolled, boot: u128, share: ShareHealth, orders: Orders) -> Self {
        Self { center, enrolled, boot, share, orders, environments: vec![], tasks: vec![], signs: Signs::default() }
    }

    /// One heartbeat.
    pub async fn beat(&mut self) {
        let mut said = heartbeat(self.boot, self.share.clone(), &self.orders);
        said.environments.clone_from(&self.environments);
        said.tasks.clone_from(&self.tasks);
        said.signs.clone_from(&self.signs);
        self.orders = self.center.heartbeat(&said).await.unwrap();
    }

    /// Heartbeats until the orders are as wanted.
    pub async fn until(&mut self, is_it: impl Fn(&Orders) -> bool) {
        for _ in 0..ASKED {
            if is_it(&self.orders) {
                return;
            }
            self.beat().await;
        }
        panic!("it was not ordered: {:?}", self.orders);
    }

    /// Say how the task stands that is in the orders.
    pub async fn tell(&mut self, outcome: TaskOutcome) {
        self.tasks = self.orders.tasks.iter().map(|task| TaskReport { id: task.id, outcome: outcome.clone() }).collect();
        self.beat().await;
    }

    /// Run whatever is assigned.
    pub async fn run_all(&mut self) {
        self.until(|orders| !orders.environments.is_empty()).await;
        self.obey().await;
    }

    /// One heartbeat, and everything is as it was ordered.
    pub async fn obey(&mut self) {
        self.environments = self.orders.environments.iter().map(done).collect();
        self.beat().await;
    }

    /// The session that the node is asked to join next.
    pub async fn called(&mut self) -> Session {
        self.until(|orders| !orders.sessions.is_empty()).await;
        std::mem::take(&mut self.orders.sessions).remove(0)
    }

    /// Join it.
    pub async fn joined(&mut self) -> (Session, SessionSender, SessionReceiver) {
        let session = self.called().await;
        let (sender, receiver) = self.center.join_session(session.id).await.unwrap().split();
        (session, sender, receiver)
    }
}

/// The node of the two that has a task, and the task.
pub async fn asked(nodes: [&mut Node; 2]) -> (&mut Node, Task) {
    for _ in 0..ASKED {
        if let Some(at) = nodes.iter().position(|node| !node.orders.tasks.is_empty()) {
            let node = nodes.into_iter().nth(at).unwrap();
            let task = node.orders.tasks[0].clone();
            return (node, task);
        }
        nodes[0].beat().await;
        nodes[1].beat().await;
    }
    panic!("no node was asked to do anything");
}

/// The image that every import in these tests makes.
pub fn image() -> TemplateRef {
    TemplateRef { digest: Digest::from_digest([7; 32]), size: 1234, meta: TemplateMeta::default() }
}

/// A template that is ready, by name.
pub async fn with_template(center: &Running, share: &mut Node, worker: &mut Node, name: &str) {
    upload(&center.as_operator(), name, b"an archive".to_vec()).await.unwrap();
    let (node, task) = asked([share, worker]).await;
    assert!(matches!(task.what, TaskKind::ImportTemplate { .. }), "{task:?}");
    node.tell(TaskOutcome::Done { bytes: 0, template: Some(image()) }).await;
    node.until(|orders| orders.tasks.is_empty()).await;
    node.tasks.clear();
}

/// Send bytes as a template.
pub async fn upload(operator: &Center, name: &str, bytes: Vec<u8>) -> Result<(), lodge_client::Error> {
    let size = bytes.len() as u64;
    operator.import_template(name, lodge_client::Upload { from: std::io::Cursor::new(bytes), size, progress: |_| {} }).await
}

pub fn spec(name: &str, template: &str) -> Spec {
    serde_json::from_value(serde_json::json!({
        "name": name, "template": template, "disk": GIB, "memory": 128 * MIB, "cpu-millis": 500
    }))
    .unwrap()
}

pub fn pool() -> Pool {
    serde_json::from_value(serde_json::json!({
        "name": "site", "first": "10.77.0.100", "last": "10.77.0.120", "prefix": 24, "gateway": "10.77.0.2"
    }))
    .unwrap()
}

/// An environment that runs on the worker.
pub async fn running(center: &Running, owner: &Center, worker: &mut Node, name: &str) {
    if center.as_operator().pools().await.unwrap().is_empty() {
        center.as_operator().add_pool(&pool()).await.unwrap();
    }
    owner.create_environment(&spec(name, "tiny"), false).await.unwrap();
    worker.run_all().await;
}

/// At most so long for what is at once, as a rule.
pub async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), what).await.unwrap()
}

pub fn report(assigned: &Assignment, state: State) -> Report {
    Report {
        id: assigned.id,
        epoch: assigned.epoch,
        state,
        problem: String::new(),
        usage: None,
        starts: 0,
        last_exit: String::new(),
        restarts_done: assigned.restarts_asked,
        checkpoint: None,
        mended: String::new(),
        probe: None,
    }
}

/// What a good agent says as soon as it has done what was ordered.
fn done(assigned: &Assignment) -> Report {
    let state = match assigned.want {
        Want::Running => State::Running { since: 1_800_000_000 },
        Want::Suspended | Want::Stopped | Want::Killed => State::Released,
        Want::Destroyed => State::Destroyed,
    };
    report(assigned, state)
}

/// The view of an environment once it is as wanted: the center tells of every change.
pub async fn environment(operator: &Center, name: &str, is_it: impl Fn(&EnvironmentView) -> bool) -> EnvironmentView {
    soon(async {
        let mut view = operator.environment(name).await.unwrap();
        while !is_it(&view) {
            view = operator.environment_after(name, view.version).await.unwrap();
        }
        view
    })
    .await
}
