//! Sessions: a client that wants a program or the console of an environment, and the agent that has it, meet here. Both connect to the
//! center; it splices the two WebSockets and looks at no more than the first byte of each frame.
//!
//! A session waits in memory: it is put into what its node is told (`Sessions::tell`) until the agent joins, the client goes, or
//! `JOIN_LIMIT` is over. It does not outlive the center, as its two connections do not either.
//!
//! | file | what |
//! |---|---|
//! | `sessions/open.rs` | who may have a session, and which node is asked for it |
//! | `sessions/meet.rs` | waiting for the agent |
//! | `sessions/splice.rs` | both directions, until one side ends |

mod meet;
mod open;
mod splice;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::extract::ws::WebSocket;
use axum::http::StatusCode;
use lodge_model::environment::session::{FRAME_MAX, Session, SessionKind};
use lodge_model::ids::{EnvironmentId, NodeId, SessionId};
use tokio::sync::{oneshot, watch};

use crate::fault::Fault;

pub use meet::{collect, run};
pub use open::target;

/// How long an agent may take to join.
pub const JOIN_LIMIT: Duration = Duration::from_secs(30);

/// Sessions of one environment that may wait at a time.
const WAITING_MAX: usize = 32;
/// Longest message that is taken from either side, in bytes.
pub const MESSAGE_MAX: usize = 2 * FRAME_MAX;

/// The sessions that wait for an agent.
pub struct Sessions {
    waiting: Mutex<HashMap<SessionId, Waiting>>,
    calls: watch::Sender<u64>,
}

struct Waiting {
    node: NodeId,
    session: Session,
    is_told: bool,
    join: oneshot::Sender<WebSocket>,
}

/// One session that waits, as its client holds it. It waits no more when this is dropped.
pub struct Call {
    sessions: Arc<Sessions>,
    id: SessionId,
    /// The agent's connection, once it has joined.
    pub joined: oneshot::Receiver<WebSocket>,
}

impl Sessions {
    /// None yet.
    pub fn new() -> Self {
        Self { waiting: Mutex::default(), calls: watch::channel(0).0 }
    }

    /// Ask a node to join a new session.
    pub fn call(self: &Arc<Self>, node: NodeId, environment: EnvironmentId, what: SessionKind) -> Result<Call, Fault> {
        let (join, joined) = oneshot::channel();
        let id = SessionId(uuid::Uuid::new_v4());
        let session = Session { id, environment, what };
        let mut waiting = self.lock();
        if waiting.values().filter(|other| other.session.environment == environment).count() >= WAITING_MAX {
            let why = format!(
                "{WAITING_MAX} sessions of this environment wait for its node already; try again when it has joined them"
            );
            return Err(Fault::Refused(StatusCode::TOO_MANY_REQUESTS, why));
        }
        waiting.insert(id, Waiting { node, session, is_told: false, join });
        drop(waiting);
        self.calls.send_modify(|count| *count += 1);
        Ok(Call { sessions: Arc::clone(self), id, joined })
    }

    /// The sessions that a node is to join, and whether there is one that it has not been told of before. It is told of all until it
    /// joins them: an answer may be lost.
    pub fn tell(&self, node: NodeId) -> (Vec<Session>, bool) {
        let mut is_news = false;
        let mut waiting = self.lock();
        let mine = waiting.values_mut().filter(|waiting| waiting.node == node);
        let told = mine.map(|waiting| {
            is_news |= !std::mem::replace(&mut waiting.is_told, true);
            waiting.session.clone()
        });
        (told.collect(), is_news)
    }

    /// A node joins a session: what is sent here reaches the client.
    pub fn join(&self, node: NodeId, id: SessionId) -> Result<oneshot::Sender<WebSocket>, Fault> {
        let mut waiting = self.lock();
        match waiting.remove(&id) {
            Some(found) if found.node == node => Ok(found.join),
            Some(other) => {
                waiting.insert(id, other);
                Err(Fault::forbidden(format!("session {id} is for another node")))
            }
            None => Err(Fault::not_found(format!("session {id} does not wait here (any more)"))),
        }
    }

    /// Counts sessions that have begun to wait.
    pub fn calls(&self) -> watch::Receiver<u64> {
        self.calls.subscribe()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<SessionId, Waiting>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.sessions.lock().remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    #[test]
    fn a_session_waits_for_its_node_until_somebody_joins_or_nobody_waits() {
        let sessions = Arc::new(Sessions::new());
        let (mine, other) = (NodeId(Uuid::from_u128(1)), NodeId(Uuid::from_u128(2)));
        let mut calls = sessions.calls();
        let call = sessions.call(mine, EnvironmentId(Uuid::from_u128(3)), SessionKind::Console).unwrap();
        assert!(calls.has_changed().unwrap());
        calls.mark_unchanged();

        assert_eq!(sessions.tell(other), (vec![], false));
        let (told, is_news) = sessions.tell(mine);
        assert!(told.len() == 1 && is_news);
        assert_eq!(sessions.tell(mine), (told.clone(), false), "it is told again, but is no news");

        assert!(sessions.join(other, told[0].id).is_err());
        assert!(sessions.join(mine, told[0].id).is_ok());
        assert!(sessions.join(mine, told[0].id).is_err());
        assert_eq!(sessions.tell(mine), (vec![], false));
        drop(call);

        let call = sessions.call(mine, EnvironmentId(Uuid::from_u128(3)), SessionKind::Console).unwrap();
        drop(call);
        assert_eq!(sessions.tell(mine), (vec![], false));
    }

    #[test]
    fn nobody_fills_the_center_with_sessions_that_wait() {
        let sessions = Arc::new(Sessions::new());
        let node = NodeId(Uuid::from_u128(1));
        let call = |environment| sessions.call(node, EnvironmentId(Uuid::from_u128(environment)), SessionKind::Console);
        let mut calls: Vec<Call> = (0..WAITING_MAX).map(|_| call(3).unwrap()).collect();
        assert!(call(3).is_err() && call(4).is_ok());
        calls.pop();
        assert!(call(3).is_ok());
    }
}
