use std::sync::Mutex;

use lodge_model::environment::order::{TaskKind, TaskOutcome, TemplateMeta, TemplateRef, Want};
use lodge_model::ids::{Digest, TaskId};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use uuid::Uuid;

use super::*;
use crate::environment::exits::Exits;
use crate::environment::fake::Fake;
use crate::environment::host::{Action, Host as _, Progress};
use crate::environment::notes::Book;
use crate::environment::stage::{BOOT, ID, order};
use crate::moments::since_boot;

const SOON: Duration = Duration::from_secs(20);

struct Silent;

impl Progress for Silent {
    fn percent(&self, _: u8) {}
}

/// A node whose agent can be started again.
struct Node {
    fake: Arc<Fake>,
    dir: tempfile::TempDir,
}

/// One run of the agent on it.
struct Agent {
    orders: watch::Sender<Option<Orders>>,
    leaving: watch::Sender<Option<Duration>>,
    share: watch::Sender<bool>,
    exits: tokio_mpsc::UnboundedSender<i32>,
    told: Arc<Mutex<Exits>>,
    reports: watch::Receiver<Reports>,
    keeper: JoinHandle<Result<()>>,
}

impl Node {
    fn new() -> Self {
        Self { fake: Arc::default(), dir: tempfile::tempdir().unwrap() }
    }

    fn start(&self, has_share: &Arc<Mutex<bool>>) -> Agent {
        self.start_leaving(has_share, None)
    }

    fn start_leaving(&self, has_share: &Arc<Mutex<bool>>, by: Option<Duration>) -> Agent {
        let (orders, ordered) = watch::channel(None);
        let (leaving, is_leaving) = watch::channel(by);
        let (share, is_share_well) = watch::channel(false);
        let (exits, ended) = tokio_mpsc::unbounded_channel();
        let (say, events) = tokio_mpsc::unbounded_channel();
        let (report, reports) = watch::channel(Reports::default());
        let told: Arc<Mutex<Exits>> = Arc::default();
        let has_share = Arc::clone(has_share);
        let around = Surroundings {
            host: self.fake.clone(),
            boot: BOOT,
            book: Book::new(self.dir.path().join("notes")),
            exits: Arc::clone(&told),
            say: Arc::new(move |event| drop(say.send(event))),
            clock: Arc::new(since_boot),
            has_share: Arc::new(move || *has_share.lock().unwrap()),
            fetching: Arc::default(),
        };
        let kept = Kept { tasks: self.dir.path().join("tasks"), assignments: self.dir.path().join("assignments.json") };
        let import: Import = Arc::new(|upload, progress| {
            progress.percent(50);
            Ok(TemplateRef { digest: upload.clone(), size: 3, meta: TemplateMeta::default() })
        });
        let crew = Crew::threads(&around, import).unwrap();
        let keeper = Keeper::new(around, crew, &kept);
        let wakers = Wakers { orders: ordered, leaving: is_leaving, share: is_share_well, exits: ended, events };
        Agent { orders, leaving, share, exits, told, reports, keeper: tokio::spawn(keeper.run(wakers, report)) }
    }
}

impl Agent {
    fn order(&self, environments: Vec<Assignment>, tasks: Vec<Task>) {
        self.orders.send_replace(Some(Orders { environments, tasks, ..orders() }));
    }

    async fn until(&mut self, is_so: impl FnMut(&Reports) -> bool) -> Reports {
        let reports = self.reports.clone();
        match timeout(SOON, self.reports.wait_for(is_so)).await {
            Ok(reports) => reports.unwrap().clone(),
            Err(_) => panic!("waited in vain; last said: {:?}", *reports.borrow()),
        }
    }

    fn init_tells(&self, node: &Node) {
        for (pid, status) in node.fake.inner().exits.drain(..) {
            self.told.lock().unwrap().tell(pid, status);
            self.exits.send(pid).unwrap();
        }
    }
}

fn orders() -> Orders {
    Orders { generation: 1, ..Orders::none("n1") }
}

fn with_share() -> Arc<Mutex<bool>> {
    Arc::new(Mutex::new(true))
}

fn state(reports: &Reports) -> Option<&State> {
    reports.environments.first().map(|report| &report.state)
}

fn is_running(reports: &Reports) -> bool {
    matches!(state(reports), Some(State::Running { .. }))
}

#[tokio::test]
async fn an_environment_lives_from_its_order_to_its_destruction() {
    let node = Node::new();
    let mut agent = node.start(&with_share());
    agent.order(vec![order(Want::Running, 1)], Vec::new());
    agent.until(is_running).await;
    node.fake.end(ID, 1);
    agent.init_tells(&node);
    agent.until(|reports| is_running(reports) && reports.environments[0].starts == 1).await;
    agent.order(vec![order(Want::Destroyed, 1)], Vec::new());
    agent.until(|reports| state(reports) == Some(&State::Destroyed)).await;
    agent.order(Vec::new(), Vec::new());
    agent.until(|reports| reports.environments.is_empty()).await;
    assert!(Book::new(node.dir.path().join("notes")).list().is_empty());
}

#[tokio::test]
async fn an_agent_that_is_started_again_goes_on_without_the_center() {
    let node = Node::new();
    let mut agent = node.start(&with_share());
    agent.order(vec![order(Want::Running, 1)], Vec::new());
    agent.until(is_running).await;
    agent.keeper.abort();
    node.fake.end(ID, 1);
    let mut agent = node.start(&with_share());
    agent.init_tells(&node);
    let reports = agent.until(is_running).await;
    assert_eq!(reports.environments[0].last_exit, "rebooted by itself");
    agent.keeper.abort();
    let mut agent = node.start(&with_share());
    agent.until(is_running).await;
    agent.order(Vec::new(), Vec::new());
    agent.until(|reports| reports.is_kept && reports.environments.is_empty()).await;
    assert!(node.fake.list().unwrap().is_empty());
}

#[tokio::test]
async fn templates_are_fetched_before_they_are_needed_and_again_when_that_failed() {
    let node = Node::new();
    let has_share = Arc::new(Mutex::new(false));
    let mut agent = node.start(&has_share);
    let template = order(Want::Running, 1).template;
    let warm = |generation| Orders { generation, warm: vec![template.clone()], ..orders() };
    agent.orders.send_replace(Some(warm(1)));
    agent.until(|reports| reports.is_kept).await;
    *has_share.lock().unwrap() = true;
    let mut generation = 1;
    // The first try fails for want of a share; each change of the orders tries again.
    while agent.reports.borrow().warm.is_empty() {
        generation += 1;
        agent.orders.send_replace(Some(warm(generation)));
        let _ = timeout(Duration::from_millis(50), agent.reports.changed()).await;
        assert!(generation < 200, "it was never fetched");
    }
    assert!(agent.reports.borrow().warm == vec![template.digest.clone()]);
    agent.orders.send_replace(Some(orders()));
    agent.until(|reports| reports.warm.is_empty()).await;
}

#[tokio::test]
async fn what_is_found_and_not_assigned_is_taken_down() {
    let node = Node::new();
    let mut agent = node.start(&with_share());
    agent.order(vec![order(Want::Running, 1)], Vec::new());
    agent.until(is_running).await;
    agent.keeper.abort();
    std::fs::remove_dir_all(node.dir.path().join("notes")).unwrap();
    std::fs::remove_file(node.dir.path().join("assignments.json")).unwrap();
    let mut agent = node.start(&with_share());
    agent.order(Vec::new(), Vec::new());
    agent.until(|reports| state(reports) == Some(&State::Stopping)).await;
    agent.until(|reports| reports.environments.is_empty()).await;
    assert!(node.fake.list().unwrap().is_empty());
}

#[tokio::test]
async fn what_turns_up_later_is_taken_down_in_the_next_round() {
    let node = Node::new();
    let mut agent = node.start(&with_share());
    agent.order(vec![order(Want::Running, 1)], Vec::new());
    agent.until(is_running).await;
    let stray = Assignment { id: EnvironmentId(Uuid::from_u128(9)), ..order(Want::Running, 1) };
    let taken = node.fake.perform(stray.id, &Action::Hold(Box::new(stray.clone())), &Silent);
    taken.unwrap();
    assert!(node.fake.list().unwrap().contains(&stray.id));
    tokio::time::pause();
    tokio::time::advance(ROUND).await;
    tokio::time::resume();
    agent.until(|_| !node.fake.list().unwrap().contains(&stray.id)).await;
    assert!(is_running(&agent.reports.borrow()), "what is assigned stays");
}

#[tokio::test]
async fn a_node_that_goes_down_says_when_nothing_is_left() {
    let node = Node::new();
    let mut agent = node.start(&with_share());
    let orders = (1..=8).map(|id| Assignment { id: EnvironmentId(Uuid::from_u128(id)), ..order(Want::Running, 1) }).collect();
    agent.order(orders, Vec::new());
    let all_run = |reports: &Reports| {
        reports.environments.iter().filter(|report| matches!(report.state, State::Running { .. })).count() == 8
    };
    agent.until(all_run).await;
    agent.leaving.send_replace(Some(since_boot() + SOON));
    let reports = agent.until(|reports| reports.all_gone).await;
    assert!(reports.environments.iter().all(|report| report.state == State::Released));
    assert!(node.fake.list().unwrap().is_empty());
}

#[tokio::test]
async fn an_agent_that_is_started_again_after_the_last_word_starts_nothing() {
    let node = Node::new();
    let mut agent = node.start(&with_share());
    agent.order(vec![order(Want::Running, 1)], Vec::new());
    agent.until(is_running).await;
    agent.leaving.send_replace(Some(since_boot() + SOON));
    agent.until(|reports| reports.all_gone).await;
    agent.keeper.abort();
    node.fake.inner().steps.clear();
    let mut again = node.start_leaving(&with_share(), Some(since_boot()));
    again.order(vec![order(Want::Running, 1)], Vec::new());
    again.until(|reports| reports.all_gone).await;
    assert!(node.fake.list().unwrap().is_empty() && node.fake.inner().steps.is_empty(), "{:?}", node.fake.inner().steps);
}

#[tokio::test]
async fn nothing_is_written_below_a_mount_point_without_its_share() {
    let node = Node::new();
    let has_share = Arc::new(Mutex::new(false));
    let mut agent = node.start(&has_share);
    agent.order(vec![order(Want::Running, 1)], Vec::new());
    let reports = agent.until(|reports| state(reports) == Some(&State::Failed)).await;
    assert_eq!(reports.environments[0].problem, "fetch-template: the share is not mounted");
    *has_share.lock().unwrap() = true;
    agent.share.send_replace(true);
    agent.until(is_running).await;
}

#[tokio::test]
async fn tasks_are_done_where_they_belong_and_told_once() {
    let node = Node::new();
    let mut agent = node.start(&with_share());
    let task = |id, what| Task { id: TaskId(Uuid::from_u128(id)), what };
    let digest = Digest::from_digest([7; 32]);
    let tasks = vec![
        task(1, TaskKind::ImportTemplate { upload: digest.clone() }),
        task(2, TaskKind::Snapshot { environment: ID, snapshot: "one".into() }),
    ];
    agent.order(Vec::new(), tasks);
    let is_done =
        |reports: &Reports| reports.tasks.iter().filter(|task| matches!(task.outcome, TaskOutcome::Done { .. })).count() == 2;
    let reports = agent.until(is_done).await;
    let template = Some(TemplateRef { digest, size: 3, meta: TemplateMeta::default() });
    assert_eq!(reports.tasks[0].outcome, TaskOutcome::Done { bytes: 0, template });
    agent.order(Vec::new(), Vec::new());
    agent.until(|reports| reports.tasks.is_empty()).await;
}
