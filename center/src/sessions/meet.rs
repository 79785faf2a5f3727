//! Waiting for the agent, with the client at hand or on behalf of one.

use axum::body::Bytes;
use axum::extract::ws::{Message, WebSocket};
use futures_util::{Stream, StreamExt};
use lodge_model::environment::session::Frame;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::splice::{self, finish, splice};
use super::{Call, JOIN_LIMIT};
use crate::fault::Fault;

/// Messages that a client may send before the agent is there; more are left in its connection.
const HELD: usize = 4;
/// Longest text that is collected, in bytes; logs are bounded far below.
const COLLECTED: usize = 16 << 20;
const NOT_JOINED: &str = "the node has not joined the session in 30 s; lodge node show says how it is";
const BROKEN_OFF: &str = "the node broke off the session";

/// Serve a client's session to its end.
pub async fn run(mut client: WebSocket, mut call: Call) {
    match wait(&mut client, &mut call.joined, Instant::now() + JOIN_LIMIT).await {
        Waited::Joined(agent, held) => splice(client, agent, held).await,
        Waited::Left => {}
        Waited::Alone(why) => {
            // The client may have gone as well.
            let _ = client.send(Message::Binary(Frame::Error(why.to_owned()).encode().into())).await;
            finish(client).await;
        }
    }
}

/// Have the node's answer alone, as bytes: what it prints until it says that it is done.
pub async fn collect(mut call: Call) -> Result<Vec<u8>, Fault> {
    let deadline = Instant::now() + JOIN_LIMIT;
    let mut agent = match timeout_at(deadline, &mut call.joined).await {
        Ok(Ok(agent)) => agent,
        Ok(Err(_)) => return Err(Fault::conflict(BROKEN_OFF)),
        Err(_) => return Err(Fault::conflict(NOT_JOINED)),
    };
    let mut collected = Vec::new();
    let outcome = loop {
        let message = match timeout_at(deadline, agent.next()).await {
            Ok(message) => message,
            Err(_) => break Err(Fault::conflict("the node has not answered in 30 s")),
        };
        let frame = match message {
            Some(Ok(Message::Binary(bytes))) => Frame::decode(&bytes),
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => continue,
            _ => None,
        };
        match frame {
            Some(Frame::Stdout(bytes)) if collected.len() + bytes.len() <= COLLECTED => collected.extend(bytes),
            Some(Frame::Exit(0)) => break Ok(collected),
            Some(Frame::Error(why)) => break Err(Fault::conflict(why)),
            _ => break Err(Fault::conflict(BROKEN_OFF)),
        }
    };
    finish(agent).await;
    outcome
}

enum Waited<A> {
    /// The agent is there; the client has sent these messages meanwhile.
    Joined(A, Vec<Bytes>),
    /// The client has left.
    Left,
    /// There will be no agent.
    Alone(&'static str),
}

async fn wait<A, C, E>(client: &mut C, joined: &mut oneshot::Receiver<A>, deadline: Instant) -> Waited<A>
where
    C: Stream<Item = Result<Message, E>> + Unpin,
{
    let mut held = Vec::new();
    loop {
        tokio::select! {
            agent = &mut *joined => return match agent {
                Ok(agent) => Waited::Joined(agent, held),
                Err(_) => Waited::Alone(BROKEN_OFF),
            },
            message = client.next(), if held.len() < HELD => match message {
                Some(Ok(Message::Binary(bytes))) if splice::is_from_client(&bytes) => held.push(bytes),
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                _ => return Waited::Left,
            },
            () = sleep_until(deadline) => return Waited::Alone(NOT_JOINED),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::{FutureExt, stream};

    fn sends(frame: &Frame) -> Result<Message, ()> {
        Ok(Message::Binary(frame.encode().into()))
    }

    #[tokio::test(start_paused = true)]
    async fn an_agent_that_does_not_come_is_not_waited_for_longer_than_30_s() {
        let begun = Instant::now();
        let (_join, mut joined) = oneshot::channel::<()>();
        let mut client = stream::pending::<Result<Message, ()>>();
        assert!(matches!(wait(&mut client, &mut joined, begun + JOIN_LIMIT).await, Waited::Alone(NOT_JOINED)));
        assert_eq!(begun.elapsed(), JOIN_LIMIT);
    }

    #[tokio::test]
    async fn what_the_client_sends_early_is_kept_and_its_leaving_is_noticed() {
        let deadline = Instant::now() + JOIN_LIMIT;
        let (_join, mut joined) = oneshot::channel::<()>();
        let mut client = stream::iter([sends(&Frame::Stdin(b"early".to_vec()))]);
        assert!(matches!(wait(&mut client, &mut joined, deadline).await, Waited::Left));

        let (join, mut joined) = oneshot::channel();
        // More than is held stays where it is until the agent is there.
        let early = vec![sends(&Frame::Stdin(b"a".to_vec())); HELD + 1];
        let mut client = stream::iter(early);
        let held = {
            let mut waiting = std::pin::pin!(wait(&mut client, &mut joined, deadline));
            assert!((&mut waiting).now_or_never().is_none());
            join.send(7).unwrap();
            let Waited::Joined(7, held) = waiting.await else { panic!("not joined") };
            held
        };
        assert!(client.next().await.is_some());
        assert_eq!(held.len(), HELD);
    }

    #[tokio::test]
    async fn a_node_that_breaks_off_is_told() {
        let (join, mut joined) = oneshot::channel::<()>();
        drop(join);
        let mut client = stream::pending::<Result<Message, ()>>();
        assert!(matches!(wait(&mut client, &mut joined, Instant::now() + JOIN_LIMIT).await, Waited::Alone(BROKEN_OFF)));
    }
}
