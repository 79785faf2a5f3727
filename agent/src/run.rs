//! `agent run`: what the agent does, from its start on.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use lodge_client::Center;
use lodge_model::api::ShareHealth;
use lodge_model::ids::TaskId;
use lodge_model::live::Capability;
use lodge_model::node::{BootFile, Role};
use lodge_model::paths;
use tokio::sync::watch;

use crate::console;
use crate::environment::report::Reports;
use crate::environment::{self, Setting};
use crate::farewell::{self, Farewell};
use crate::fence::marks::Marks;
use crate::fence::{Witness, peers};
use crate::identity::{self, Files, Identity, Standing};
use crate::join;
use crate::lifeline;
use crate::login1::Service;
use crate::login1::locks::{self, Locks};
use crate::machine1;
use crate::moments::{self, Moments, since_boot};
use crate::outlook;
use crate::reconcile::World;
use crate::reconcile::plan::Report;
use crate::session::{self, Session};
use crate::shutdown::Shutdown;
use crate::shutdown::drain::LeavingNode;
use crate::uplink;
use crate::watch::FileWatch;

/// Run until something that the agent cannot do without fails; init starts it again.
pub async fn run() -> Result<()> {
    let moments = Moments::new(moments::DIR);
    moments.record(moments::AGENT)?;
    let boot = boot_file()?;
    let (center_sender, center) = watch::channel(None);
    // From the first moment on: a node that cannot reach its center can still be shut down in order.
    let ends = follow_shutdown(Locks::open(Path::new(locks::DIR))?, center);
    let identity = identity().await?;
    let center = identity.center()?;
    center_sender.send_replace(Some(center.clone()));
    reconcile(identity, center, boot, moments, ends).await
}

/// What the rest of the agent has to do with a shutdown.
struct Ends {
    leaving: watch::Receiver<Option<Duration>>,
    environments: watch::Sender<Reports>,
    silent: watch::Receiver<bool>,
    told: watch::Sender<Reports>,
    issued: watch::Sender<Option<TaskId>>,
    farewell: watch::Sender<Option<Arc<Farewell>>>,
}

/// The bus objects and init's announcements; none of them ever ends.
fn follow_shutdown(locks: Arc<Locks>, center: watch::Receiver<Option<Center>>) -> Ends {
    let (going_down, is_going_down) = watch::channel(false);
    let (leaving_sender, leaving) = watch::channel(farewell::is_said().then(since_boot));
    let (reports, environments) = watch::channel(Reports::default());
    let (silent_sender, silent) = watch::channel(false);
    let (told_sender, told) = watch::channel(Reports::default());
    let (issued_sender, issued) = watch::channel(None);
    let (farewell_sender, farewell) = watch::channel(None);
    let init = Path::new(paths::INIT_SOCKET).to_owned();
    tokio::spawn(Service { locks: Arc::clone(&locks), going_down: is_going_down, init: init.clone() }.run());
    tokio::spawn(machine1::run(environments.clone()));
    let leaving_node = LeavingNode { init: init.clone(), center: center.clone(), issued };
    let shutdown = Shutdown {
        init,
        locks,
        going_down,
        leaving: leaving_sender,
        environments,
        told,
        silent: silent_sender,
        center,
        farewell,
        leaving_node,
    };
    tokio::spawn(shutdown.run());
    Ends { leaving, environments: reports, silent, told: told_sender, issued: issued_sender, farewell: farewell_sender }
}

/// Who this node is; a new center's machine is admitted by its own center first.
async fn identity() -> Result<Identity> {
    let files = Files::default();
    match identity::read(&files)? {
        Standing::Admitted(identity) => Ok(identity),
        Standing::New(file) => {
            let address = address().await?;
            let identity = join::enrol(&files, &file, Path::new(paths::LOCAL_JOIN), &address).await?;
            tracing::info!("admitted by the center on this machine as node {}", identity.node);
            Ok(identity)
        }
    }
}

/// The node's address, once it has one.
async fn address() -> Result<String> {
    let mut watch = FileWatch::new(Path::new(uplink::FILE))?;
    while !Path::new(uplink::FILE).exists() {
        watch.changed().await?;
    }
    Ok(uplink::read()?.ip().to_owned())
}

async fn reconcile(identity: Identity, center: Center, boot: BootFile, moments: Moments, ends: Ends) -> Result<()> {
    let (orders, ordered) = watch::channel(None);
    let (report_sender, report) = watch::channel(Report::default());
    let serves = identity.file.roles.contains(&Role::Share);
    let marks = if serves { Some(Marks::follow(Path::new(paths::SHARE_DATA))?) } else { None };
    let world = World::new(identity.file.clone(), identity.node, boot.clone(), moments.clone(), marks.clone())?;
    let environments = environment::run(Setting {
        share: share_of(&identity.file.roles).into(),
        node: identity.node,
        boot: session::boot_id()?,
        center: center.clone(),
        is_share_well: is_share_well(report.clone()),
        orders: ordered.clone(),
        leaving: ends.leaving,
        reports: ends.environments.clone(),
        key: identity.key(),
        certificate: identity.certificate().to_owned(),
        farewell: ends.farewell,
        issued: ends.issued,
    });
    let (peer_words, peers) = watch::channel(Vec::new());
    let asking = peers::follow(ordered.clone(), peer_words);
    let (heard, hearing) = watch::channel(None);
    let (lease_sender, lease) = watch::channel(None);
    let is_worker = identity.file.roles.contains(&Role::Worker);
    let lifeline = lifeline::Setting {
        share: (!serves).then(|| paths::SHARE.into()),
        node: identity.node,
        boot: session::boot_id()?,
        center: center.url().to_owned(),
        init: paths::INIT_SOCKET.into(),
        environments: environment::host::real::cgroup_of_all(),
        orders: ordered.clone(),
        heard: hearing,
        lease: lease_sender,
    };
    // Where nothing can run there is nothing to answer for.
    let lifeline = async { if is_worker { lifeline::run(lifeline).await } else { std::future::pending().await } };
    let (outlook, looking) = outlook::follow(ordered.clone(), Path::new(share_of(&identity.file.roles)));
    let mut session = Session {
        center: center.clone(),
        file: identity.file,
        boot,
        moments,
        orders,
        report,
        environments: ends.environments.subscribe(),
        silent: ends.silent,
        told: ends.told,
        witness: Witness { marks, peers, lease: is_worker.then_some(lease) },
        outlook,
        criu: capability(is_worker),
        heard,
    };
    tokio::spawn(async move {
        if let Err(error) = console::run(center).await {
            tracing::warn!("the console is no longer sent to the center: {error:#}");
        }
    });
    let talk = async {
        session.run().await?;
        // Going down: the share is still looked after, nothing more is said.
        std::future::pending().await
    };
    tokio::select! {
        ended = talk => ended,
        ended = world.run(ordered, report_sender) => ended,
        ended = environments => ended.context("looking after the environments"),
        ended = asking => ended,
        ended = looking => ended,
        ended = lifeline => ended.context("holding the lifeline"),
    }
}

/// What criu can do here, looked for beside everything else where environments run.
fn capability(is_worker: bool) -> watch::Receiver<Option<Capability>> {
    let (sender, receiver) = watch::channel(None);
    if is_worker {
        tokio::task::spawn_blocking(move || sender.send_replace(Some(environment::live::node::capability())));
    }
    receiver
}

/// Whether the share is in order, as the reconciler's reports say.
fn is_share_well(mut reports: watch::Receiver<Report>) -> watch::Receiver<bool> {
    let (sender, receiver) = watch::channel(false);
    tokio::spawn(async move {
        loop {
            let is_well = matches!(reports.borrow_and_update().share, ShareHealth::Serving | ShareHealth::Mounted { .. });
            sender.send_if_modified(|last| std::mem::replace(last, is_well) != is_well);
            if reports.changed().await.is_err() {
                return;
            }
        }
    });
    receiver
}

/// A share node does what is asked of it on its own data: its tasks need no mount.
fn share_of(roles: &[Role]) -> &'static str {
    if roles.contains(&Role::Share) { paths::SHARE_DATA } else { paths::SHARE }
}

fn boot_file() -> Result<BootFile> {
    let text = std::fs::read_to_string(paths::BOOT_FILE).with_context(|| format!("reading {}", paths::BOOT_FILE))?;
    serde_json::from_str(&text).with_context(|| format!("reading {}", paths::BOOT_FILE))
}
