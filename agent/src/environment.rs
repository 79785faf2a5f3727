//! Environments of this node: what the center assigns is brought about step by step, and everything is found again from the node
//! itself.
//!
//! | file | what |
//! |---|---|
//! | `environment/host.rs` | the steps that can be done on a node, and what can be found there: the seam between deciding and doing |
//! | `environment/host/real.rs` | the steps, done by this machine's kernel |
//! | `environment/plan.rs` | the decision about one environment: the next step and the report |
//! | `environment/notes.rs` | what must be remembered and cannot be found: one small file each below `/run` |
//! | `environment/exits.rs` | how an environment's init ended, as init tells it |
//! | `environment/worker.rs` | one environment's thread: look, decide, do one step |
//! | `environment/keeper.rs` | all workers, woken by orders, ends of inits and the node's going down |
//! | `environment/tasks.rs`, `import.rs` | what is done once |
//! | `environment/warm.rs` | templates, fetched before they are needed |
//! | `environment/report.rs` | what the heartbeats say |
//! | `environment/live.rs` | live moves |
//! | `environment/session.rs` | `exec` and `console` |

pub mod exits;
#[cfg(test)]
mod fake;
pub mod host;
mod import;
pub mod keeper;
pub mod live;
pub mod notes;
mod plan;
pub mod report;
pub mod session;
#[cfg(test)]
mod stage;
pub mod tasks;
pub mod warm;
pub mod worker;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use lodge_client::{Center, KeyPem};
use lodge_model::api::Orders;
use lodge_model::ids::{BootId, NodeId, TaskId};
use lodge_model::paths;
use lodge_sys::mount::is_mounted;
use lodge_sys::mountns;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};

use crate::farewell::{self, Farewell};
use crate::leave::{Count, Leaver};
use crate::moments::since_boot;
use host::Host as _;
use host::real::Real;
use keeper::{Crew, Keeper, Kept, Wakers};
use report::Reports;
use worker::Surroundings;

/// What the environments of a node need to know of it.
pub struct Setting {
    /// Where the share is.
    pub share: PathBuf,
    /// The node.
    pub node: NodeId,
    /// This boot.
    pub boot: BootId,
    /// The center.
    pub center: Center,
    /// Whether the share is in order.
    pub is_share_well: watch::Receiver<bool>,
    /// The node's key.
    pub key: KeyPem,
    /// Its certificate (PEM).
    pub certificate: String,
    /// Who says the last word when the node goes down.
    pub farewell: watch::Sender<Option<Arc<Farewell>>>,
    /// The certificate of a drain that has been issued last.
    pub issued: watch::Sender<Option<TaskId>>,
    /// Its orders.
    pub orders: watch::Receiver<Option<Orders>>,
    /// When the node goes down, the time since the kernel started by which nothing may be left.
    pub leaving: watch::Receiver<Option<Duration>>,
    /// What is to be said.
    pub reports: watch::Sender<Reports>,
}

/// Go where environments are mounted: out of sight of everything but the agent and what it starts. This process has no second thread yet.
pub fn enter_namespace() -> Result<()> {
    mountns::enter(Path::new(paths::AGENT_NAMESPACE), Path::new("/run")).map(drop)
}

/// Look after the environments of this node for as long as the agent lives.
pub async fn run(setting: Setting) -> Result<()> {
    let host = Arc::new(Real::new(&setting.share, setting.node, setting.boot));
    let counting = Arc::clone(&host);
    let count: Count = Arc::new(move || counting.count());
    setting.farewell.send_replace(Some(Arc::new(Farewell {
        node: setting.node,
        boot: setting.boot,
        key: setting.key.clone(),
        certificate: setting.certificate,
        share: setting.share.clone(),
        has_share: has_share(&setting.share),
        count: Arc::clone(&count),
        note: farewell::SAID.into(),
    })));
    let (say, events) = mpsc::unbounded_channel();
    let (ended, exits) = mpsc::unbounded_channel();
    let told = Arc::default();
    let around = Surroundings {
        host,
        boot: setting.boot,
        book: notes::Book::new(notes::DIR),
        exits: Arc::clone(&told),
        // Nobody listens any more when the agent ends.
        say: Arc::new(move |event| drop(say.send(event))),
        clock: Arc::new(since_boot),
        has_share: has_share(&setting.share),
        fetching: Arc::default(),
    };
    let sessions = session::serve(setting.center.clone(), setting.orders.clone(), session::Node::here());
    let leaver = Leaver {
        node: setting.node,
        boot: setting.boot,
        key: setting.key,
        center: setting.center.clone(),
        init: paths::INIT_SOCKET.into(),
        count,
        orders: setting.orders.clone(),
        issued: setting.issued,
    };
    let import = import::into_share(&setting.share, setting.center, Handle::current());
    let crew = Crew::threads(&around, import)?;
    let keeper = Keeper::new(around, crew, &Kept::default());
    let wakers = Wakers { orders: setting.orders, leaving: setting.leaving, share: setting.is_share_well, exits, events };
    tokio::select! {
        ended = keeper.run(wakers, setting.reports) => ended,
        ended = sessions => ended,
        ended = leaver.run() => ended,
        ended = exits::follow(Path::new(paths::INIT_SOCKET).to_owned(), told, ended) => ended.map(|never| match never {}),
    }
}

/// A share node's own data are always there.
fn has_share(share: &Path) -> Arc<dyn Fn() -> bool + Send + Sync> {
    let share = share.to_owned();
    Arc::new(move || share == Path::new(paths::SHARE_DATA) || is_mounted(&share).unwrap_or(false))
}
