//! `exec` and `console`: one WebSocket from the client to the center (`GET /environments/{name}/exec`, `…/console`), one from the agent
//! to the center (`GET /node/sessions/{session}`), spliced by the center. Every binary message is one frame: a byte that names the
//! channel, then its payload.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::ids::{EnvironmentId, SessionId};

/// Longest payload of one frame, in bytes.
pub const FRAME_MAX: usize = 64 << 10;
/// Bytes that a client presses to leave a console: Ctrl-].
pub const DETACH_KEY: u8 = 0x1d;

/// A session that a node is asked to join. Travels in `Orders`; it is gone from them once the agent has joined or nobody waits any more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Session {
    /// Which.
    pub id: SessionId,
    /// In which environment.
    pub environment: EnvironmentId,
    /// What is wanted.
    pub what: SessionKind,
}

/// What a session does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case", tag = "session")]
pub enum SessionKind {
    /// Run a program.
    Exec {
        /// Program and arguments.
        command: Vec<String>,
        /// With a terminal of its own.
        tty: bool,
    },
    /// The environment's console: what was printed before comes first.
    Console,
    /// What was printed on its console, the newest part: `Stdout` frames, then `Exit(0)`. Answers `GET /environments/{name}/logs`.
    Log,
}

/// One frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// Client to environment. An empty payload is the end of input.
    Stdin(Vec<u8>),
    /// Environment to client.
    Stdout(Vec<u8>),
    /// Environment to client; never on a terminal.
    Stderr(Vec<u8>),
    /// Client to environment: the terminal has this size.
    Resize {
        /// Columns.
        columns: u16,
        /// Rows.
        rows: u16,
    },
    /// Environment to client, the last frame: how the program ended, as a shell tells it (128 + signal).
    Exit(i32),
    /// To the client, the last frame: why there is no program, for people.
    Error(String),
}

impl Frame {
    /// As a message.
    pub fn encode(&self) -> Vec<u8> {
        let (channel, payload) = match self {
            Frame::Stdin(bytes) => (0, bytes.clone()),
            Frame::Stdout(bytes) => (1, bytes.clone()),
            Frame::Stderr(bytes) => (2, bytes.clone()),
            Frame::Resize { columns, rows } => (3, [columns.to_be_bytes(), rows.to_be_bytes()].concat()),
            Frame::Exit(status) => (4, status.to_be_bytes().to_vec()),
            Frame::Error(text) => (5, text.clone().into_bytes()),
        };
        let mut message = Vec::with_capacity(payload.len() + 1);
        message.push(channel);
        message.extend(payload);
        message
    }

    /// From a message; `None` for anything else.
    pub fn decode(message: &[u8]) -> Option<Self> {
        let (channel, payload) = message.split_first()?;
        match (channel, payload) {
            (0, bytes) => Some(Frame::Stdin(bytes.to_vec())),
            (1, bytes) => Some(Frame::Stdout(bytes.to_vec())),
            (2, bytes) => Some(Frame::Stderr(bytes.to_vec())),
            (3, &[c1, c0, r1, r0]) => {
                Some(Frame::Resize { columns: u16::from_be_bytes([c1, c0]), rows: u16::from_be_bytes([r1, r0]) })
            }
            (4, bytes) => Some(Frame::Exit(i32::from_be_bytes(bytes.try_into().ok()?))),
            (5, bytes) => Some(Frame::Error(String::from_utf8_lossy(bytes).into_owned())),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn no_message_makes_the_decoder_panic(message in proptest::collection::vec(any::<u8>(), 0..20)) {
            if let Some(frame) = Frame::decode(&message) {
                prop_assert_eq!(Frame::decode(&frame.encode()), Some(frame));
            }
        }
    }

    #[test]
    fn a_frame_survives_its_message() {
        for frame in [Frame::Stdin(vec![]), Frame::Resize { columns: 80, rows: 24 }, Frame::Exit(-1), Frame::Error("no".into())]
        {
            assert_eq!(Frame::decode(&frame.encode()), Some(frame));
        }
    }
}
