//! `agent run`: what the agent does, from its start on.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use lodge_client::Center;
use lodge_model::node::BootFile;
use lodge_model::paths;
use tokio::sync::watch;

use crate::console;
use crate::identity::{self, Files, Identity, Standing};
use crate::join;
use crate::login1::Service;
use crate::login1::locks::{self, Locks};
use crate::moments::{self, Moments};
use crate::reconcile::World;
use crate::reconcile::plan::Report;
use crate::session::Session;
use crate::shutdown::Shutdown;
use crate::uplink;
use crate::watch::FileWatch;

/// Run until something that the agent cannot do without fails; init starts it again.
pub async fn run() -> Result<()> {
    let moments = Moments::new(moments::DIR);
    moments.record(moments::AGENT)?;
    let boot = boot_file()?;
    let (going_down, is_going_down) = watch::channel(false);
    let (center_sender, center) = watch::channel(None);
    // From the first moment on: a node that cannot reach its center can still be shut down in order.
    follow_shutdown(Locks::open(Path::new(locks::DIR))?, going_down, is_going_down.clone(), center);
    let identity = identity().await?;
    let center = identity.center()?;
    center_sender.send_replace(Some(center.clone()));
    reconcile(identity, center, boot, moments, is_going_down).await
}

/// The bus object and init's announcements; neither ever ends.
fn follow_shutdown(
    locks: Arc<Locks>,
    going_down: watch::Sender<bool>,
    is_going_down: watch::Receiver<bool>,
    center: watch::Receiver<Option<Center>>,
) {
    let init = Path::new(paths::INIT_SOCKET).to_owned();
    tokio::spawn(Service { locks: Arc::clone(&locks), going_down: is_going_down, init: init.clone() }.run());
    tokio::spawn(Shutdown { init, locks, going_down, center }.run());
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

async fn reconcile(
    identity: Identity,
    center: Center,
    boot: BootFile,
    moments: Moments,
    going_down: watch::Receiver<bool>,
) -> Result<()> {
    let (orders, ordered) = watch::channel(None);
    let (report_sender, report) = watch::channel(Report::default());
    let world = World::new(identity.file.clone(), identity.node, boot.clone(), moments.clone())?;
    let mut session = Session { center: center.clone(), file: identity.file, boot, moments, orders, report, going_down };
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
    }
}

fn boot_file() -> Result<BootFile> {
    let text = std::fs::read_to_string(paths::BOOT_FILE).with_context(|| format!("reading {}", paths::BOOT_FILE))?;
    serde_json::from_str(&text).with_context(|| format!("reading {}", paths::BOOT_FILE))
}
