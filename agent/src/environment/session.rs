//! `exec` and `console`: the node's side of `lodge_model::environment::session`. The center says in the orders which sessions wait; each
//! is joined once, over a WebSocket of its own, and served to its end.
//!
//! A session lives no longer than this process: its program is hung up on when the agent ends, as it is when its client goes. The
//! environment and its console notice nothing of that.

mod exec;
mod relay;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, bail};
use lodge_client::{Center, Error, SessionReceiver, SessionSender};
use lodge_model::api::Orders;
use lodge_model::environment::session::{Frame, Session, SessionKind};
use lodge_model::ids::SessionId;
use lodge_model::paths;
use tokio::sync::watch;

pub use exec::{Crun, Engine};

const DIR: &str = "/run/lodge/sessions";
/// Sessions that are served at once; more are refused.
const MOST: usize = 64;
/// How long the center may take to close a session that is over.
const CLOSE: Duration = Duration::from_secs(10);
/// Tries to join, and the pause between two: the center may be starting.
const TRIES: u32 = 3;
const PAUSE: Duration = Duration::from_secs(1);

/// What sessions are served with.
pub struct Node {
    /// Runs programs.
    pub engine: Box<dyn Engine>,
    /// Socket of the console holder.
    pub consoles: PathBuf,
    /// Directory of what sessions need while they go on.
    pub dir: PathBuf,
}

impl Node {
    /// This machine.
    pub fn here() -> Self {
        Self { engine: Box::new(Crun), consoles: paths::CONSOLES_SOCKET.into(), dir: DIR.into() }
    }
}

/// Join what the center asks to be joined, until the orders end.
pub async fn serve(center: Center, mut orders: watch::Receiver<Option<Orders>>, node: Node) -> Result<()> {
    let node = Arc::new(node);
    let mut joined = BTreeSet::new();
    let mut going_on = tokio::task::JoinSet::new();
    loop {
        let asked = orders.borrow_and_update().as_ref().map(|orders| orders.sessions.clone()).unwrap_or_default();
        for session in news(&asked, &mut joined) {
            while going_on.try_join_next().is_some() {}
            let (center, node, full) = (center.clone(), Arc::clone(&node), going_on.len() >= MOST);
            going_on.spawn(async move {
                if let Err(error) = join(&center, &node, &session, full).await {
                    tracing::info!("session {} with {}: {error:#}", session.id, session.environment);
                }
            });
        }
        orders.changed().await?;
    }
}

/// Those that have not been joined yet. What is asked for no more is forgotten.
fn news(asked: &[Session], joined: &mut BTreeSet<SessionId>) -> Vec<Session> {
    joined.retain(|id| asked.iter().any(|session| session.id == *id));
    asked.iter().filter(|session| joined.insert(session.id)).cloned().collect()
}

async fn join(center: &Center, node: &Node, session: &Session, full: bool) -> Result<()> {
    let mut tries = 1..TRIES;
    let open = loop {
        match center.join_session(session.id).await {
            Ok(open) => break open,
            Err(error @ Error::Refused { .. }) => return Err(error.into()),
            Err(error) if tries.next().is_none() => return Err(error.into()),
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    };
    let (mut sender, mut receiver) = open.split();
    let served = match full {
        true => Err(anyhow::anyhow!("this node serves {MOST} sessions already; end one of them")),
        false => serve_one(node, session, &mut sender, &mut receiver).await,
    };
    let last = match served {
        Ok(Some(status)) => Frame::Exit(status),
        // The client has gone: there is nobody to tell.
        Ok(None) => return Ok(()),
        Err(error) => Frame::Error(format!("{error:#}")),
    };
    sender.send(&last).await?;
    // Closed from the other side, so that everything has arrived there.
    let closing = async { while let Ok(Some(_)) = receiver.next().await {} };
    if tokio::time::timeout(CLOSE, closing).await.is_err() {
        bail!("the center did not close it");
    }
    Ok(())
}

/// How it ended; `None` when the client went away.
async fn serve_one(
    node: &Node,
    session: &Session,
    sender: &mut SessionSender,
    receiver: &mut SessionReceiver,
) -> Result<Option<i32>> {
    match &session.what {
        SessionKind::Exec { command, tty } => {
            let program = exec::Program { environment: session.environment, command, tty: *tty };
            exec::run(node, &session.id.to_string(), &program, sender, receiver).await
        }
        SessionKind::Console => relay::console(&node.consoles, session.environment, sender, receiver).await,
        SessionKind::Log => relay::log(&node.consoles, session.environment, sender).await,
    }
}
