//! Sessions with the console holder: the same frames, from one socket to another.

use std::path::Path;

use anyhow::Result;
use lodge_client::{SessionReceiver, SessionSender};
use lodge_model::environment::session::{FRAME_MAX, Frame};
use lodge_model::ids::EnvironmentId;

use crate::consoles;

/// Attach to a console until the client goes.
pub async fn console(
    holder: &Path,
    environment: EnvironmentId,
    sender: &mut SessionSender,
    receiver: &mut SessionReceiver,
) -> Result<Option<i32>> {
    let (mut printed, mut typed) = consoles::attach(holder, environment).await?;
    let output = async {
        while let Some(frame) = printed.next().await? {
            if sender.send(&frame).await.is_err() {
                return Ok(None);
            }
        }
        // The console has been taken away: the environment is gone from this node, or the holder is.
        Ok(Some(0))
    };
    let input = async {
        while let Ok(Some(frame)) = receiver.next().await {
            if matches!(&frame, Frame::Stdin(bytes) if bytes.is_empty()) {
                continue;
            }
            if typed.send(&frame).await.is_err() {
                // `output` tells why.
                std::future::pending::<()>().await;
            }
        }
        Ok(None)
    };
    tokio::select! {
        ended = output => ended,
        ended = input => ended,
    }
}

/// Send what is kept of what was printed.
pub async fn log(holder: &Path, environment: EnvironmentId, sender: &mut SessionSender) -> Result<Option<i32>> {
    for piece in consoles::log(holder, environment).await?.chunks(FRAME_MAX) {
        sender.send(&Frame::Stdout(piece.to_vec())).await?;
    }
    Ok(Some(0))
}
