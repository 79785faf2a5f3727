//! The agent's side of init's socket (`lodge_model::initproto`): a request, and the stream of events.

use std::io::{BufRead as _, Write as _};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use lodge_model::initproto::{Line, Request};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::net::UnixStream;

/// init answers at once; longer than this means that it never will.
const ANSWER: Duration = Duration::from_secs(5);

/// Ask for something and wait until init has taken it.
pub async fn request(socket: &Path, request: &Request) -> Result<()> {
    let ask = async {
        let mut lines = connect(socket, request).await?;
        taken(&next(&mut lines).await?)
    };
    let answer =
        tokio::time::timeout(ANSWER, ask).await.unwrap_or_else(|_| Err(anyhow!("no answer within {} s", ANSWER.as_secs())));
    answer.with_context(|| format!("asking init at {} for {request}", socket.display()))
}

/// The same, for a thread that may wait.
pub fn request_and_wait(socket: &Path, request: &Request) -> Result<()> {
    let ask = || {
        let mut stream = std::os::unix::net::UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(ANSWER))?;
        stream.write_all(format!("{request}\n").as_bytes())?;
        let mut line = String::new();
        std::io::BufReader::new(stream).read_line(&mut line)?;
        taken(&line.trim().parse()?)
    };
    ask().with_context(|| format!("asking init at {} for {request}", socket.display()))
}

fn taken(answer: &Line) -> Result<()> {
    match answer {
        Line::Ok => Ok(()),
        Line::Error(why) => bail!("init refuses: {why}"),
        other => bail!("init answers {:?}", other.to_string()),
    }
}

/// Events from now on.
pub struct Events {
    lines: Lines<BufReader<UnixStream>>,
}

impl Events {
    /// Subscribe.
    pub async fn subscribe(socket: &Path) -> Result<Self> {
        let lines = connect(socket, &Request::Subscribe).await;
        Ok(Self { lines: lines.with_context(|| format!("subscribing to init at {}", socket.display()))? })
    }

    /// The next one. An error when init has hung up.
    pub async fn next(&mut self) -> Result<Line> {
        next(&mut self.lines).await
    }
}

async fn connect(socket: &Path, request: &Request) -> Result<Lines<BufReader<UnixStream>>> {
    let mut stream = UnixStream::connect(socket).await?;
    stream.write_all(format!("{request}\n").as_bytes()).await?;
    Ok(BufReader::new(stream).lines())
}

async fn next(lines: &mut Lines<BufReader<UnixStream>>) -> Result<Line> {
    let line = lines.next_line().await?.ok_or_else(|| anyhow!("it hung up"))?;
    Ok(line.parse()?)
}
