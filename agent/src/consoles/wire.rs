//! Messages on the holder's socket: four bytes of length, big endian, then a `Frame`.

use std::io;

use lodge_model::environment::session::{FRAME_MAX, Frame};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

/// Send a frame.
pub async fn send(to: &mut (impl AsyncWrite + Unpin), frame: &Frame) -> io::Result<()> {
    let message = frame.encode();
    let length = u32::try_from(message.len()).map_err(io::Error::other)?;
    to.write_all(&length.to_be_bytes()).await?;
    to.write_all(&message).await
}

/// The next frame; `None` at the end. Not to be cancelled: half a message would be lost.
pub async fn receive(from: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<Frame>> {
    let mut length = [0; 4];
    match from.read_exact(&mut length).await {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        read => read?,
    };
    let length = u32::from_be_bytes(length) as usize;
    let wrong = || io::Error::new(io::ErrorKind::InvalidData, "a message that is no frame");
    if length > FRAME_MAX + 1 {
        return Err(wrong());
    }
    let mut message = vec![0; length];
    from.read_exact(&mut message).await?;
    Frame::decode(&message).map(Some).ok_or_else(wrong)
}
