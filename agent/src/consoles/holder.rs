//! The process that holds the consoles: its sockets, and what is asked of it. One thread.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fs::{self, DirBuilder};
use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use lodge_model::environment::session::{FRAME_MAX, Frame};
use lodge_model::ids::EnvironmentId;
use lodge_sys::pty;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader, Interest};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::{JoinHandle, spawn_local};

use super::console::Console;
use super::log::Log;
use super::{Places, wire};

/// How long whoever connects may take to say what it wants.
const WORD: Duration = Duration::from_secs(10);
/// Longest request, in bytes.
const REQUEST: u64 = 128;
/// Logs that are kept of environments that do not run here: nobody says when one that went elsewhere is destroyed there.
pub(super) const PAST: usize = 200;

/// All consoles.
pub struct Holder {
    places: Places,
    consoles: RefCell<HashMap<EnvironmentId, Held>>,
}

struct Held {
    console: Rc<Console>,
    /// Takes terminals from crun.
    listener: Option<JoinHandle<()>>,
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Some(listener) = &self.listener {
            listener.abort();
        }
    }
}

/// Serve until something goes wrong that cannot be mended. Runs in a `LocalSet`.
pub async fn serve(places: Places) -> Result<()> {
    for dir in [&places.dir, &places.logs] {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(dir);
        made.with_context(|| format!("making {}", dir.display()))?;
    }
    let listener = listen(&places.socket)?;
    let holder = Rc::new(Holder { places, consoles: RefCell::default() });
    loop {
        let (stream, _) = listener.accept().await.context("taking a connection")?;
        let holder = Rc::clone(&holder);
        spawn_local(async move {
            if let Err(error) = holder.answer(stream).await {
                tracing::debug!("{error:#}");
            }
        });
    }
}

impl Holder {
    async fn answer(&self, stream: UnixStream) -> Result<()> {
        let mut stream = BufReader::new(stream);
        let mut line = String::new();
        let mut limited = (&mut stream).take(REQUEST);
        tokio::time::timeout(WORD, limited.read_line(&mut line)).await.context("waiting for a request")??;
        match self.carry_out(&line) {
            Ok((console, how)) => {
                stream.write_all(b"ok\n").await?;
                match how {
                    After::Nothing => Ok(()),
                    After::Log => Ok(stream.write_all(&console.whole_log().context("reading the log")?).await?),
                    After::Attach => attach(&console, stream).await,
                }
            }
            Err(error) => Ok(stream.write_all(format!("error {error:#}\n").as_bytes()).await?),
        }
    }

    fn carry_out(&self, line: &str) -> Result<(Rc<Console>, After)> {
        let (word, id) = line.trim_end().split_once(' ').ok_or_else(|| anyhow!("{line:?} is no request"))?;
        let id: EnvironmentId = id.parse()?;
        Ok(match word {
            "open" => {
                self.open(id)?;
                (self.console(id), After::Nothing)
            }
            "attach" => (self.console(id), After::Attach),
            "log" => (self.console(id), After::Log),
            "close" => (self.close(id)?, After::Nothing),
            "forget" => {
                let console = self.console(id);
                self.consoles.borrow_mut().remove(&id);
                remove_socket(&self.places.socket_of(id))?;
                console.remove().with_context(|| format!("removing the log of {id}"))?;
                (console, After::Nothing)
            }
            _ => bail!("{word:?} is no request; there are open, attach, log and forget"),
        })
    }

    fn console(&self, id: EnvironmentId) -> Rc<Console> {
        let mut consoles = self.consoles.borrow_mut();
        let held = consoles.entry(id).or_insert_with(|| {
            let log = self.places.logs.join(format!("{id}.log"));
            Held { console: Rc::new(Console::new(id, log)), listener: None }
        });
        Rc::clone(&held.console)
    }

    /// Listen for a terminal, if nobody does yet.
    fn open(&self, id: EnvironmentId) -> Result<()> {
        let console = self.console(id);
        let path = self.places.socket_of(id);
        let mut consoles = self.consoles.borrow_mut();
        let Some(held) = consoles.get_mut(&id) else { return Ok(()) };
        let listens = held.listener.as_ref().is_some_and(|listener| !listener.is_finished());
        if !(listens && path.exists()) {
            let listener = listen(&path)?;
            if let Some(old) = held.listener.replace(spawn_local(take(listener, console, id))) {
                old.abort();
            }
        }
        Ok(())
    }

    /// Take no terminal any more; of a console that nobody is attached to only the log stays.
    fn close(&self, id: EnvironmentId) -> Result<Rc<Console>> {
        let console = self.console(id);
        console.close();
        let mut consoles = self.consoles.borrow_mut();
        match consoles.get_mut(&id).filter(|_| console.is_watched()) {
            Some(held) => held.listener.take().iter().for_each(JoinHandle::abort),
            None => drop(consoles.remove(&id)),
        }
        remove_socket(&self.places.socket_of(id))?;
        drop(consoles);
        self.prune().context("removing old logs")?;
        Ok(console)
    }

    /// Of logs without a console only the newest stay.
    fn prune(&self) -> Result<()> {
        let mut past = Vec::new();
        for entry in fs::read_dir(&self.places.logs)? {
            let path = entry?.path();
            let stem = path.file_name().and_then(|name| name.to_str()?.strip_suffix(".log")?.parse::<EnvironmentId>().ok());
            if stem.is_some_and(|id| !self.consoles.borrow().contains_key(&id)) {
                past.push((fs::metadata(&path)?.modified()?, path));
            }
        }
        past.sort();
        let old = past.len().saturating_sub(PAST);
        past.into_iter().take(old).try_for_each(|(_, path)| Ok(Log::new(path).remove()?))
    }
}

/// What follows an `ok`.
enum After {
    Nothing,
    Log,
    Attach,
}

/// Take one terminal after the other. The one before is let go of when the next one comes.
async fn take(listener: UnixListener, console: Rc<Console>, id: EnvironmentId) {
    let mut reading: Option<Reading> = None;
    loop {
        let terminal = match accept(&listener).await {
            Ok(terminal) => terminal,
            Err(error) => {
                tracing::warn!("taking the console of {id}: {error}");
                continue;
            }
        };
        drop(reading.take());
        let console = Rc::clone(&console);
        reading = Some(Reading(spawn_local(async move {
            if let Err(error) = console.hold(terminal).await {
                tracing::warn!("reading the console of {id}: {error}");
            }
        })));
    }
}

/// A terminal that is being read; no longer when this is dropped.
struct Reading(JoinHandle<()>);

impl Drop for Reading {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A terminal from a container engine.
pub(crate) async fn accept(listener: &UnixListener) -> io::Result<OwnedFd> {
    let (stream, _) = listener.accept().await?;
    let receiving = async {
        loop {
            stream.readable().await?;
            match stream.try_io(Interest::READABLE, || pty::receive(&stream)) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                received => return received,
            }
        }
    };
    tokio::time::timeout(WORD, receiving).await.unwrap_or_else(|_| Err(io::Error::from(ErrorKind::TimedOut)))
}

/// Listen where nobody else can connect but root, in place of whoever listened there before.
pub(crate) fn listen(path: &Path) -> Result<UnixListener> {
    remove_socket(path)?;
    let listener = UnixListener::bind(path).with_context(|| format!("listening on {}", path.display()))?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).with_context(|| format!("protecting {}", path.display()))?;
    Ok(listener)
}

fn remove_socket(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error).with_context(|| format!("removing {}", path.display())),
        _ => Ok(()),
    }
}

/// Both directions, until the other side goes.
async fn attach(console: &Console, stream: BufReader<UnixStream>) -> Result<()> {
    let (before, mut printed) = console.attach().context("reading the log")?;
    let (mut from, mut to) = tokio::io::split(stream);
    let output = async {
        for piece in before.chunks(FRAME_MAX) {
            wire::send(&mut to, &Frame::Stdout(piece.to_vec())).await?;
        }
        to.flush().await?;
        while let Some(piece) = printed.next().await {
            for piece in piece.chunks(FRAME_MAX) {
                wire::send(&mut to, &Frame::Stdout(piece.to_vec())).await?;
            }
            to.flush().await?;
        }
        Ok::<_, io::Error>(())
    };
    let input = async {
        while let Some(frame) = wire::receive(&mut from).await? {
            match frame {
                Frame::Stdin(bytes) => console.input(&bytes).await,
                Frame::Resize { columns, rows } => console.resize(columns, rows),
                _ => {}
            }
        }
        Ok::<_, io::Error>(())
    };
    tokio::select! {
        ended = output => ended?,
        ended = input => ended?,
    }
    Ok(())
}

impl Places {
    fn socket_of(&self, id: EnvironmentId) -> PathBuf {
        self.dir.join(format!("{id}.sock"))
    }
}
