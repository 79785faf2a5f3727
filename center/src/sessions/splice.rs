//! Two WebSockets as one. A message is taken from one side only when the other has taken the one before: whoever does not read holds
//! the other back, and nothing is kept here beyond a frame a direction.

use std::time::Duration;

use axum::body::Bytes;
use axum::extract::ws::{Message, WebSocket};
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, Stream, StreamExt};
use lodge_model::environment::session::Frame;
use tokio::time::timeout;

/// How long the other side may take to answer that a session has been closed.
const CLOSE_LIMIT: Duration = Duration::from_secs(10);

/// How one direction ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// With the frame that is the last one by its meaning.
    Complete,
    /// The sender has closed, is gone, or has sent what it may not send.
    Gone,
    /// The receiver is gone.
    Unheard,
}

/// Hand everything over in both directions until one side ends, then close the other one in order.
pub async fn splice(client: WebSocket, agent: WebSocket, held: Vec<Bytes>) {
    let (mut to_client, mut from_client) = client.split();
    let (mut to_agent, mut from_agent) = agent.split();
    let end = {
        let input = async {
            for bytes in held {
                if to_agent.send(Message::Binary(bytes)).await.is_err() {
                    return End::Unheard;
                }
            }
            forward(&mut from_client, &mut to_agent, is_from_client).await
        };
        let mut input = std::pin::pin!(input);
        let mut output = std::pin::pin!(forward(&mut from_agent, &mut to_client, is_from_agent));
        tokio::select! {
            end = &mut output => end,
            end = &mut input => match end {
                // An agent that does not listen any more may still have something to say.
                End::Unheard => output.await,
                // The client is gone, or does not keep to the frames.
                End::Gone | End::Complete => End::Unheard,
            },
        }
    };
    if end == End::Gone {
        let told = Frame::Error("the node broke off the session".to_owned());
        let _ = to_client.send(Message::Binary(told.encode().into())).await;
    }
    tokio::join!(close(&mut to_client, &mut from_client), close(&mut to_agent, &mut from_agent));
}

/// Close one connection in order.
pub async fn finish(socket: WebSocket) {
    let (mut sink, mut stream) = socket.split();
    close(&mut sink, &mut stream).await;
}

/// Whether a client may send this.
pub fn is_from_client(message: &[u8]) -> bool {
    matches!(message.first(), Some(0 | 3))
}

fn is_from_agent(message: &[u8]) -> bool {
    matches!(message.first(), Some(1 | 2 | 4 | 5))
}

/// `Exit` and `Error`.
fn is_last(message: &[u8]) -> bool {
    matches!(message.first(), Some(4 | 5))
}

async fn forward<S, E>(from: &mut S, to: &mut SplitSink<WebSocket, Message>, is_allowed: fn(&[u8]) -> bool) -> End
where
    S: Stream<Item = Result<Message, E>> + Unpin,
{
    while let Some(Ok(message)) = from.next().await {
        match message {
            Message::Binary(bytes) if is_allowed(&bytes) => {
                let is_last = is_last(&bytes);
                if to.send(Message::Binary(bytes)).await.is_err() {
                    return End::Unheard;
                }
                if is_last {
                    return End::Complete;
                }
            }
            // Answered by the library when the connection is next looked at.
            Message::Ping(_) | Message::Pong(_) => {}
            _ => return End::Gone,
        }
    }
    End::Gone
}

/// Say that nothing more comes, and read until the other side has said so as well: a connection that is dropped with something unread
/// in it is reset, and the other side would lose what it has not read yet.
async fn close(to: &mut SplitSink<WebSocket, Message>, from: &mut SplitStream<WebSocket>) {
    let closing = async {
        let _ = to.send(Message::Close(None)).await;
        while let Some(Ok(_)) = from.next().await {}
    };
    // A side that takes nothing any more is dropped with what it has not taken.
    let _ = timeout(CLOSE_LIMIT, closing).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_byte_says_who_may_send_a_frame() {
        let client = [Frame::Stdin(vec![]), Frame::Resize { columns: 80, rows: 24 }];
        let agent = [Frame::Stdout(vec![1]), Frame::Stderr(vec![1]), Frame::Exit(0), Frame::Error("no".into())];
        for frame in client.iter().map(Frame::encode) {
            assert!(is_from_client(&frame) && !is_from_agent(&frame) && !is_last(&frame));
        }
        for frame in agent.iter().map(Frame::encode) {
            assert!(!is_from_client(&frame) && is_from_agent(&frame));
            assert_eq!(is_last(&frame), matches!(Frame::decode(&frame), Some(Frame::Exit(_) | Frame::Error(_))));
        }
        assert!(!is_from_client(&[]) && !is_from_agent(&[]) && !is_from_client(&[9]));
    }
}
