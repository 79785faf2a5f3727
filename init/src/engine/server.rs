//! init's socket: callers, what they ask, and what subscribers are told (`lodge_model::initproto`).

use std::{
    collections::{BTreeMap, VecDeque},
    fs,
    io::{ErrorKind, Read as _, Write as _},
    os::unix::net::{UnixListener, UnixStream},
    path::Path,
};

use anyhow::{Context as _, Result};
use lodge_model::initproto::{Line, NotUnderstood, Request};
use nix::sys::stat::{Mode, umask};

use super::poller::{Poller, Source};

/// Exits that a new subscriber is told.
const EXITS_KEPT: usize = 256;
/// A caller whose line is longer is sent away.
const INPUT_MAX: usize = 4096;
/// A caller who does not read is sent away when this many bytes wait for him.
const OUTPUT_MAX: usize = 64 << 10;
/// Callers at a time.
const CLIENTS_MAX: usize = 64;

/// The socket and its callers.
#[derive(Debug)]
pub struct Server {
    listener: UnixListener,
    clients: BTreeMap<u32, Client>,
    next: u32,
    exits: VecDeque<Line>,
}

#[derive(Debug)]
struct Client {
    stream: UnixStream,
    input: Vec<u8>,
    output: Vec<u8>,
    is_subscriber: bool,
}

impl Server {
    /// Listen at a path, for root only.
    pub fn listen(path: &Path, poller: &Poller) -> Result<Self> {
        // One left by the stage before is dead: its listener went with that program.
        let _ = fs::remove_file(path);
        let before = umask(Mode::from_bits_truncate(0o177));
        let listener = UnixListener::bind(path);
        umask(before);
        let listener = listener.with_context(|| format!("listening at {}", path.display()))?;
        listener.set_nonblocking(true).context("setting up the socket")?;
        poller.add(&listener, Source::Listener)?;
        Ok(Self { listener, clients: BTreeMap::new(), next: 0, exits: VecDeque::new() })
    }

    /// Let in everybody who calls.
    pub fn accept(&mut self, poller: &Poller) {
        while let Ok((stream, _)) = self.listener.accept() {
            // A caller beyond the limit is hung up on: the stream is dropped.
            if self.clients.len() >= CLIENTS_MAX || stream.set_nonblocking(true).is_err() {
                continue;
            }
            let id = self.next;
            self.next = self.next.wrapping_add(1);
            if poller.add(&stream, Source::Client(id)).is_ok() {
                self.clients.insert(id, Client { stream, input: Vec::new(), output: Vec::new(), is_subscriber: false });
            }
        }
    }

    /// What a caller asks, line by line. One who hung up is forgotten.
    pub fn requests(&mut self, id: u32, poller: &Poller) -> Vec<Result<Request, NotUnderstood>> {
        self.flush(id, poller);
        let Some(client) = self.clients.get_mut(&id) else { return Vec::new() };
        let (lines, is_gone) = client.read();
        if is_gone {
            self.clients.remove(&id);
        }
        lines.iter().map(|line| line.parse()).collect()
    }

    /// Tell one caller.
    pub fn send(&mut self, id: u32, line: &Line, poller: &Poller) {
        if let Some(client) = self.clients.get_mut(&id) {
            client.output.extend_from_slice(format!("{line}\n").as_bytes());
            self.flush(id, poller);
        }
    }

    /// Tell every subscriber.
    pub fn publish(&mut self, line: &Line, poller: &Poller) {
        if matches!(line, Line::Exit { .. }) {
            self.exits.push_back(line.clone());
            if self.exits.len() > EXITS_KEPT {
                self.exits.pop_front();
            }
        }
        for id in self.subscribers() {
            self.send(id, line, poller);
        }
    }

    /// From now on this caller is told everything; the exits until now first.
    pub fn subscribe(&mut self, id: u32, poller: &Poller) {
        if let Some(client) = self.clients.get_mut(&id) {
            client.is_subscriber = true;
        }
        for line in self.exits.clone() {
            self.send(id, &line, poller);
        }
    }

    /// Whether anybody listens.
    pub fn has_subscribers(&self) -> bool {
        !self.subscribers().is_empty()
    }

    fn subscribers(&self) -> Vec<u32> {
        self.clients.iter().filter(|(_, client)| client.is_subscriber).map(|(id, _)| *id).collect()
    }

    fn flush(&mut self, id: u32, poller: &Poller) {
        let Some(client) = self.clients.get_mut(&id) else { return };
        let had_room = client.output.is_empty();
        let is_lost = client.write().is_err() || client.output.len() > OUTPUT_MAX;
        let wants_room = !client.output.is_empty();
        if is_lost || (wants_room || !had_room) && poller.want_room(&client.stream, Source::Client(id), wants_room).is_err() {
            self.clients.remove(&id);
        }
    }
}

impl Client {
    /// Whole lines, and whether the caller is gone.
    fn read(&mut self) -> (Vec<String>, bool) {
        let mut piece = [0; 1024];
        let is_gone = loop {
            match self.stream.read(&mut piece) {
                Ok(0) => break true,
                Ok(read) => self.input.extend_from_slice(piece.get(..read).unwrap_or_default()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => break error.kind() != ErrorKind::WouldBlock,
            }
            if self.input.len() > INPUT_MAX {
                break true;
            }
        };
        let mut lines = Vec::new();
        while let Some(end) = self.input.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.input.drain(..=end).collect();
            lines.push(String::from_utf8_lossy(&line).trim().to_owned());
        }
        (lines, is_gone)
    }

    fn write(&mut self) -> std::io::Result<()> {
        while !self.output.is_empty() {
            match self.stream.write(&self.output) {
                Ok(written) => drop(self.output.drain(..written)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        io::{BufRead as _, BufReader},
        os::unix::fs::PermissionsExt as _,
        time::Duration,
    };

    fn served() -> (tempfile::TempDir, Poller, Server, UnixStream) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("init.sock");
        let poller = Poller::new().unwrap();
        let mut server = Server::listen(&path, &poller).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let caller = UnixStream::connect(&path).unwrap();
        assert_eq!(poller.wait(Duration::from_secs(5)).unwrap(), [Source::Listener]);
        server.accept(&poller);
        (dir, poller, server, caller)
    }

    #[test]
    fn a_caller_asks_and_is_answered() {
        let (_dir, poller, mut server, mut caller) = served();
        caller.write_all(b"status\nnonsense\nrest").unwrap();
        let requests = server.requests(0, &poller);
        assert_eq!(requests.first(), Some(&Ok(Request::Status)));
        assert!(requests.get(1).is_some_and(Result::is_err));
        assert_eq!(requests.len(), 2);
        caller.write_all(b"art agent\n").unwrap();
        assert_eq!(server.requests(0, &poller), [Ok(Request::Restart("agent".into()))]);
        server.send(0, &Line::Ok, &poller);
        let mut answer = String::new();
        BufReader::new(caller).read_line(&mut answer).unwrap();
        assert_eq!(answer, "ok\n");
    }

    #[test]
    fn a_subscriber_gets_the_last_exits_first() {
        let (_dir, poller, mut server, caller) = served();
        for pid in 0..300 {
            server.publish(&Line::Exit { pid, status: 0 }, &poller);
        }
        assert!(!server.has_subscribers());
        server.subscribe(0, &poller);
        assert!(server.has_subscribers());
        server.publish(&Line::Exit { pid: 1000, status: 9 }, &poller);
        drop(server);
        let lines: Vec<String> = BufReader::new(caller).lines().map_while(Result::ok).collect();
        assert_eq!(lines.len(), EXITS_KEPT + 1);
        assert_eq!(lines.first().map(String::as_str), Some("exit 44 0"));
        assert_eq!(lines.last().map(String::as_str), Some("exit 1000 9"));
    }

    #[test]
    fn one_who_floods_or_does_not_read_is_sent_away() {
        let (_dir, poller, mut server, mut caller) = served();
        server.subscribe(0, &poller);
        for pid in 0..100_000 {
            server.publish(&Line::Exit { pid, status: 0 }, &poller);
        }
        assert!(!server.has_subscribers());
        assert!(caller.write_all(&[b'x'; 8192]).is_err() || server.requests(0, &poller).is_empty());
    }
}
