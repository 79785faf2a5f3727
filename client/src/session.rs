//! `exec` and `console`: a WebSocket over the same pinned TLS as every other call, so that a refusal is told in the same words.
//!
//! Nothing is buffered here beyond a frame: whoever does not read holds the other side back, and nothing is lost on the way.

use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{FutureExt as _, SinkExt as _, StreamExt as _};
use lodge_model::environment::session::{FRAME_MAX, Frame};
use lodge_model::ids::SessionId;
use reqwest::header::{CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE};
use reqwest::{RequestBuilder, StatusCode, Upgraded};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::{client::generate_key, derive_accept_key};
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{self, Message};

use crate::center::Center;
use crate::error::Error;

type Socket = WebSocketStream<Upgraded>;

/// An open session.
pub struct Session {
    socket: Socket,
    url: String,
}

/// The sending half.
pub struct SessionSender {
    sink: SplitSink<Socket, Message>,
    url: String,
}

/// The receiving half.
pub struct SessionReceiver {
    stream: SplitStream<Socket>,
    url: String,
}

impl Center {
    /// `GET /environments/{name}/exec`: run a program in an environment.
    pub async fn exec(&self, name: &str, command: &[String], tty: bool) -> Result<Session, Error> {
        let words: Vec<(&str, &str)> = command.iter().map(|word| ("command", word.as_str())).collect();
        let request = self.upgrade(&["environments", name, "exec"]);
        self.open(request.query(&words).query(&[("tty", if tty { "true" } else { "false" })])).await
    }

    /// `GET /environments/{name}/console`: attach to the console of an environment.
    pub async fn console(&self, name: &str) -> Result<Session, Error> {
        self.open(self.upgrade(&["environments", name, "console"])).await
    }

    /// `GET /node/sessions/{session}`: the agent's end of a session.
    pub async fn join_session(&self, session: SessionId) -> Result<Session, Error> {
        self.open(self.upgrade(&["node", "sessions", &session.to_string()])).await
    }

    /// The opening handshake of RFC 6455, section 4.1.
    async fn open(&self, request: RequestBuilder) -> Result<Session, Error> {
        let key = generate_key();
        let request = request
            .header(CONNECTION, "Upgrade")
            .header(UPGRADE, "websocket")
            .header(SEC_WEBSOCKET_VERSION, "13")
            .header(SEC_WEBSOCKET_KEY, &key);
        let response = self.send(request).await?;
        let url = response.url().to_string();
        let accepted = response.headers().get(SEC_WEBSOCKET_ACCEPT).map(|value| value.as_bytes().to_vec());
        if response.status() != StatusCode::SWITCHING_PROTOCOLS
            || accepted != Some(derive_accept_key(key.as_bytes()).into_bytes())
        {
            return Err(Error::Answer { url, why: "it is no WebSocket".into() });
        }
        let stream = response.upgrade().await.map_err(|error| self.broken(&error))?;
        let limit = Some(2 * FRAME_MAX);
        let config = WebSocketConfig::default().max_message_size(limit).max_frame_size(limit);
        let socket = WebSocketStream::from_raw_socket(stream, Role::Client, Some(config)).await;
        Ok(Session { socket, url: self.url().to_owned() })
    }
}

impl Session {
    /// Both directions, for two tasks.
    pub fn split(self) -> (SessionSender, SessionReceiver) {
        let (sink, stream) = self.socket.split();
        (SessionSender { sink, url: self.url.clone() }, SessionReceiver { stream, url: self.url })
    }
}

impl SessionSender {
    /// Hand a frame to the connection; waits while the other side does not take it.
    pub async fn send(&mut self, frame: &Frame) -> Result<(), Error> {
        self.message(Message::binary(frame.encode())).await
    }

    /// See whether the other side is still there: the answer is not waited for, but a connection that is gone becomes an error.
    pub async fn ping(&mut self) -> Result<(), Error> {
        self.message(Message::Ping(Vec::new().into())).await
    }

    /// Say that nothing more comes. The other side's answer ends its receiver.
    pub async fn close(&mut self) -> Result<(), Error> {
        match self.sink.close().await {
            Ok(()) | Err(tungstenite::Error::ConnectionClosed | tungstenite::Error::AlreadyClosed) => Ok(()),
            Err(error) => Err(lost(&self.url, &error)),
        }
    }

    async fn message(&mut self, message: Message) -> Result<(), Error> {
        self.sink.send(message).await.map_err(|error| lost(&self.url, &error))
    }
}

impl SessionReceiver {
    /// The next frame; `None` when the other side has closed the session in order.
    pub async fn next(&mut self) -> Result<Option<Frame>, Error> {
        loop {
            return match self.stream.next().await {
                None => Ok(None),
                Some(Ok(Message::Close(_))) => {
                    // The answer to it leaves with the next look at the connection.
                    let _ = self.stream.next().now_or_never();
                    Ok(None)
                }
                Some(Ok(Message::Binary(message))) => match Frame::decode(&message) {
                    Some(frame) => Ok(Some(frame)),
                    None => Err(Error::Answer { url: self.url.clone(), why: "a message is no frame of a session".into() }),
                },
                Some(Ok(_)) => continue,
                Some(Err(error)) => Err(lost(&self.url, &error)),
            };
        }
    }
}

fn lost(url: &str, error: &tungstenite::Error) -> Error {
    Error::Unreachable { url: url.to_owned(), why: format!("the session was cut off: {error}") }
}
