//! The consoles of environments, and the process that holds them: `agent consoles`, a service of its own.
//!
//! Why it exists: the pseudo terminal of an environment's console must outlive restarts of the agent, or the environment's init would
//! be hung up on. So one small process owns them all, keeps what they print, and lets anybody on the node attach.
//!
//! One Unix stream socket (`paths::CONSOLES_SOCKET`, mode 0600). A connection is one request, a line of text; the answer is the line
//! `ok`, or `error` and why.
//!
//! | request | what |
//! |---|---|
//! | `open ID` | listen on `CONSOLES_DIR/ID.sock` for a console from crun (`--console-socket`); the newest one replaces the one before |
//! | `attach ID` | after `ok`, messages both ways: four bytes of length (big endian), then a `session::Frame`. To the client the end of what was printed before and everything new as `Stdout`; from it `Stdin` and `Resize`. Also while no console is there: the next one is attached to as it comes |
//! | `log ID` | after `ok`, what is kept of what was printed, to the end of the stream |
//! | `close ID` | no console is to come any more; what was printed is kept, and whoever is attached waits |
//! | `forget ID` | hang up, and remove what was kept |
//!
//! It never blocks an environment because of somebody who is attached and does not read: that one misses output and is told how much.
//! When this process dies the consoles die with it (environments go on); what was printed is in the log.

mod console;
mod holder;
mod limit;
mod log;
mod wire;

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use lodge_model::environment::session::Frame;
use lodge_model::ids::EnvironmentId;
use lodge_model::paths;
use tokio::io::{
    AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader as AsyncBufReader, ReadHalf, WriteHalf,
};

pub(crate) use holder::{accept, listen};

/// What the holder may take for an answer; it does nothing that waits.
const ANSWER: Duration = Duration::from_secs(10);

/// Where the holder's sockets and logs are.
#[derive(Clone, Debug)]
pub struct Places {
    /// The socket that requests come to.
    pub socket: PathBuf,
    /// Directory of the sockets that consoles come to.
    pub dir: PathBuf,
    /// Directory of the logs.
    pub logs: PathBuf,
}

impl Default for Places {
    fn default() -> Self {
        Self { socket: paths::CONSOLES_SOCKET.into(), dir: paths::CONSOLES_DIR.into(), logs: paths::ENVIRONMENT_LOGS.into() }
    }
}

/// `agent consoles`: hold the consoles of this node's environments.
pub async fn serve(places: Places) -> Result<()> {
    tokio::task::LocalSet::new().run_until(holder::serve(places)).await
}

/// The socket to give to `crun create --console-socket` for an environment. The holder listens there when this returns. Blocking;
/// calling it again is harmless.
pub fn socket_for(id: EnvironmentId) -> Result<PathBuf> {
    ask(Path::new(paths::CONSOLES_SOCKET), &format!("open {id}")).with_context(|| format!("opening the console of {id}"))?;
    Ok(Path::new(paths::CONSOLES_DIR).join(format!("{id}.sock")))
}

/// Let go of the console of an environment that has ended; its log stays. Blocking; calling it again is harmless.
pub fn close(id: EnvironmentId) -> Result<()> {
    ask(Path::new(paths::CONSOLES_SOCKET), &format!("close {id}")).with_context(|| format!("closing the console of {id}"))
}

/// Hang up the console of an environment that is gone from this node for good, and remove its log. Blocking; calling it again is
/// harmless.
pub fn forget(id: EnvironmentId) -> Result<()> {
    ask(Path::new(paths::CONSOLES_SOCKET), &format!("forget {id}")).with_context(|| format!("forgetting the console of {id}"))
}

fn ask(socket: &Path, request: &str) -> Result<()> {
    let mut stream = UnixStream::connect(socket).with_context(|| format!("connecting to {}", socket.display()))?;
    stream.set_read_timeout(Some(ANSWER)).context("setting a time limit")?;
    stream.write_all(format!("{request}\n").as_bytes()).context("asking the console holder")?;
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer).context("reading the console holder's answer")?;
    granted(&answer)
}

/// The receiving half of an attachment.
pub struct Output(ReadHalf<AsyncBufReader<tokio::net::UnixStream>>);

/// The sending half of an attachment.
pub struct Input(WriteHalf<AsyncBufReader<tokio::net::UnixStream>>);

/// Attach to the console of an environment.
pub async fn attach(socket: &Path, id: EnvironmentId) -> Result<(Output, Input)> {
    let stream = request(socket, &format!("attach {id}")).await.with_context(|| format!("attaching to the console of {id}"))?;
    let (from, to) = tokio::io::split(stream);
    Ok((Output(from), Input(to)))
}

/// What is kept of what an environment printed on its console.
pub async fn log(socket: &Path, id: EnvironmentId) -> Result<Vec<u8>> {
    let reading = || format!("reading the console's log of {id}");
    let mut stream = request(socket, &format!("log {id}")).await.with_context(reading)?;
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).await.with_context(reading)?;
    Ok(bytes)
}

impl Output {
    /// What comes next; `None` when the holder has ended. Not to be cancelled.
    pub async fn next(&mut self) -> Result<Option<Frame>> {
        wire::receive(&mut self.0).await.context("reading from the console holder")
    }
}

impl Input {
    /// `Stdin` and `Resize`.
    pub async fn send(&mut self, frame: &Frame) -> Result<()> {
        wire::send(&mut self.0, frame).await.context("writing to the console holder")?;
        self.0.flush().await.context("writing to the console holder")
    }
}

async fn request(socket: &Path, request: &str) -> Result<AsyncBufReader<tokio::net::UnixStream>> {
    let stream =
        tokio::net::UnixStream::connect(socket).await.with_context(|| format!("connecting to {}", socket.display()))?;
    let mut stream = AsyncBufReader::new(stream);
    stream.write_all(format!("{request}\n").as_bytes()).await.context("asking the console holder")?;
    let mut answer = String::new();
    let read = tokio::time::timeout(ANSWER, stream.read_line(&mut answer)).await;
    read.context("waiting for the console holder")?.context("reading the console holder's answer")?;
    granted(&answer)?;
    Ok(stream)
}

fn granted(answer: &str) -> Result<()> {
    match answer.trim_end() {
        "ok" => Ok(()),
        other => bail!("the console holder says: {}", other.strip_prefix("error ").unwrap_or(other)),
    }
}

#[cfg(test)]
pub(crate) mod tests;
