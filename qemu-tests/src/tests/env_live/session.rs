//! Who has been connected to an environment since before it moved: in an ssh session with a terminal, and over a plain TCP connection.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpStream,
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc::{self, Receiver, RecvTimeoutError},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

use crate::{accel::Host, hosting::Hosting, scenario::hold};

/// Answers a line with how many have come and who it is, which only the same process knows.
const COUNTS: &str = "stty -echo; n=0; echo ready; while read -r line; do n=$((n + 1)); echo \"$n $$\"; done";
/// An answer over a connection that is still there comes within this on the reference machine, whatever happens meanwhile.
const ANSWER: Duration = Duration::from_secs(120);

/// An ssh session with a terminal, in which a program counts what it is told.
pub struct Session {
    ssh: Child,
    input: ChildStdin,
    lines: Receiver<String>,
    limit: Duration,
    count: u64,
    process: Option<String>,
}

impl Session {
    /// Log in.
    pub fn open(hosting: &Hosting, port: u16, host: Host) -> Result<Self> {
        let words = hosting.ssh_command(port);
        let (program, arguments) = words.split_first().context("naming a program")?;
        let mut ssh = Command::new(program);
        ssh.args(["-tt", "-o", "BatchMode=yes"]).args(arguments).arg(COUNTS);
        let mut ssh = ssh.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().context("starting ssh")?;
        let input = ssh.stdin.take().context("no standard input")?;
        let output = BufReader::new(ssh.stdout.take().context("no standard output")?);
        let (tell, lines) = mpsc::channel();
        let read = move || output.lines().map_while(Result::ok).try_for_each(|line| tell.send(line));
        std::thread::Builder::new().name("session".into()).spawn(read).context("starting a thread")?;
        let mut session = Self { ssh, input, lines, limit: host.scale(ANSWER), count: 0, process: None };
        let first = session.line()?;
        hold(first == "ready", || format!("the session begins with {first:?}"))?;
        session.ask()?;
        Ok(session)
    }

    /// The next number, from the same process as ever; how long that took.
    pub fn ask(&mut self) -> Result<Duration> {
        let asked = Instant::now();
        self.input.write_all(b"next\n").context("writing to an ssh session")?;
        self.count += 1;
        let line = self.line()?;
        let (count, process) = line.split_once(' ').with_context(|| format!("the session says {line:?}"))?;
        let process = process.to_owned();
        let is_same = self.process.get_or_insert_with(|| process.clone()) == &process;
        hold(count == self.count.to_string() && is_same, || format!("the session says {line:?} as answer {}", self.count))?;
        Ok(asked.elapsed())
    }

    fn line(&mut self) -> Result<String> {
        match self.lines.recv_timeout(self.limit) {
            Ok(line) => Ok(line.trim().to_owned()),
            Err(RecvTimeoutError::Timeout) => bail!("the ssh session has not answered for {} s", self.limit.as_secs()),
            Err(RecvTimeoutError::Disconnected) => bail!("the ssh session has ended"),
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // It may have ended with its environment.
        let _ = self.ssh.kill();
        let _ = self.ssh.wait();
    }
}

/// A connection to its web server that stays open between requests.
pub struct Connection(TcpStream);

impl Connection {
    /// Connect, and ask once.
    pub fn open(port: u16, host: Host) -> Result<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port)).context("connecting to its web server")?;
        stream.set_read_timeout(Some(host.scale(ANSWER))).context("setting a time limit")?;
        let mut connection = Self(stream);
        connection.ask()?;
        Ok(connection)
    }

    /// A request and the whole of its answer.
    pub fn ask(&mut self) -> Result<()> {
        self.0.write_all(b"GET / HTTP/1.1\r\nHost: environment\r\n\r\n").context("asking for a page")?;
        let mut answer = Vec::new();
        let mut piece = [0; 4096];
        while !is_whole(&answer) {
            let length = self.0.read(&mut piece).context("reading a page")?;
            hold(length > 0, || format!("the connection was closed after {:?}", String::from_utf8_lossy(&answer)))?;
            answer.extend_from_slice(&piece[..length]);
        }
        hold(answer.starts_with(b"HTTP/1.1 200"), || format!("it answers {:?}", String::from_utf8_lossy(&answer)))
    }
}

/// Head and as many bytes as it says.
fn is_whole(answer: &[u8]) -> bool {
    let text = String::from_utf8_lossy(answer);
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: ")?.trim().parse::<usize>().ok());
    length.is_some_and(|length| body.len() >= length)
}
