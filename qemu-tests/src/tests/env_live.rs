//! An environment is moved live: its processes, an open ssh session with a terminal and a plain TCP connection from outside go on as if
//! nothing had been, twice in a row. One whose processes cannot be kept moves by a restart, and says why.

use std::{
    io::{BufRead as _, BufReader, Lines, Read as _, Write as _},
    net::TcpStream,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use lodge_model::{
    drain::MoveView,
    environment::{
        share::{CHECKPOINT, environment},
        view::Phase,
    },
    paths,
};

use super::Bench;
use crate::{
    hosting::{Hosting, Wanted, address, http_get},
    rack::CENTER,
    scenario::{Site, hold},
};

const NAME: &str = "live1";
/// Answers a line with how many have come and who it is, which only the same process knows.
const COUNTS: &str = "stty -echo; n=0; echo ready; while read -r line; do n=$((n + 1)); echo \"$n $$\"; done";
/// A process that criu cannot write down with the others.
const NESTED: &str = "setsid unshare --net sleep 10000 > /dev/null 2>&1 < /dev/null & sleep 1; echo started";
/// An answer over a connection that is still there comes within this on the reference machine, whatever happens meanwhile.
const ANSWER: Duration = Duration::from_secs(90);
/// Between two questions.
const PACE: Duration = Duration::from_millis(100);

pub fn run(bench: &mut Bench) -> Result<()> {
    let site = bench.site()?;
    let hosting = Hosting::prepare(&site.rack, &site.operator)?;
    let made = hosting.create(&site.operator, &Wanted { name: NAME, memory: "96M", more: &[] })?;
    let (address, id) = (address(&made)?, made.id);
    let (ssh, web) = (site.rack.forward(address, 22)?, site.rack.forward(address, 80)?);
    hosting.ssh(&site.rack, ssh, "true")?;
    http_get(&site.rack, web, "/")?;

    let mut session = Session::open(&hosting, ssh)?;
    let mut connection = Connection::open(web, site.rack.host.scale(ANSWER))?;
    let mut said = Vec::new();
    for _ in 0..2 {
        let (done, frozen) = moved_while_asked(site, &mut session)?;
        hold(done.way == "live", || format!("it did not move live: {done:?}"))?;
        connection.ask().context("asking over a connection from before the move")?;
        said.push(told(&done, frozen));
    }
    let dir = format!("{}/{}", paths::SHARE_DATA, environment(id));
    let left = site.rack.machine(CENTER)?.run(&format!("ls {dir}"))?;
    hold(!left.contains(CHECKPOINT), || format!("a checkpoint is left on the share: {left}"))?;

    hosting.ssh(&site.rack, ssh, NESTED)?;
    let done = moved(site)?;
    hold(done.way == "restart" && done.note.contains("namespace"), || format!("one with a nested namespace: {done:?}"))?;
    said.push(format!("{} ({})", told(&done, Duration::ZERO), done.note));
    hosting.ssh(&site.rack, ssh, "true")?;
    site.operator.lodge(&["env", "destroy", NAME, "--yes", "--wait"])?;
    for line in said {
        bench.say(&format!("  {line}"));
    }
    Ok(())
}

fn told(done: &MoveView, frozen: Duration) -> String {
    let gap = done.gap_ms.unwrap_or_default() as f64 / 1000.0;
    let to = done.to.as_deref().unwrap_or_default();
    let way = &done.way;
    match frozen.is_zero() {
        true => format!("moved to {to} by {way}: away for {gap:.1} s"),
        false => {
            format!("moved to {to} {way}: away for {gap:.1} s; longest answer in an ssh session {:.1} s", frozen.as_secs_f64())
        }
    }
}

/// Move it, and wait until it runs on its new node.
fn moved(site: &Site) -> Result<MoveView> {
    site.operator.lodge(&["env", "move", NAME, "--live", "--wait"])?;
    arrived(site)
}

fn arrived(site: &Site) -> Result<MoveView> {
    let now = site.operator.environment(NAME)?;
    let done = now.moves.last().cloned().with_context(|| format!("no move of {NAME} is told"))?;
    hold(now.phase == Phase::Running && now.node == done.to, || format!("{NAME} is not where it moved to: {now:?}"))?;
    Ok(done)
}

/// The same, while somebody is asked in a session ten times a second: each answer must be the next. The longest that one took.
fn moved_while_asked(site: &Site, session: &mut Session) -> Result<(MoveView, Duration)> {
    let mut moving = site.operator.spawn(&["env", "move", NAME, "--live", "--wait"])?;
    let mut longest = Duration::ZERO;
    loop {
        let has_ended = moving.try_wait().context("waiting for a move")?;
        let started = Instant::now();
        session.ask()?;
        longest = longest.max(started.elapsed());
        match has_ended {
            Some(status) if status.success() => return Ok((arrived(site)?, longest)),
            Some(status) => {
                let mut said = String::new();
                moving.stderr.take().context("no standard error")?.read_to_string(&mut said)?;
                bail!("lodge env move ended with {status}: {said}");
            }
            None => std::thread::sleep(PACE),
        }
    }
}

/// An ssh session with a terminal, in which a program counts what it is told.
struct Session {
    ssh: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
    count: u64,
    process: Option<String>,
}

impl Session {
    fn open(hosting: &Hosting, port: u16) -> Result<Self> {
        let words = hosting.ssh_command(port);
        let (program, arguments) = words.split_first().context("naming a program")?;
        let mut ssh = Command::new(program);
        ssh.args(["-tt", "-o", "BatchMode=yes"]).args(arguments).arg(COUNTS);
        let mut ssh = ssh.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().context("starting ssh")?;
        let input = ssh.stdin.take().context("no standard input")?;
        let output = BufReader::new(ssh.stdout.take().context("no standard output")?).lines();
        let mut session = Self { ssh, input, output, count: 0, process: None };
        let first = session.line()?;
        hold(first == "ready", || format!("the session begins with {first:?}"))?;
        session.ask()?;
        Ok(session)
    }

    /// The next number, from the same process as ever.
    fn ask(&mut self) -> Result<()> {
        self.input.write_all(b"next\n").context("writing to an ssh session")?;
        self.count += 1;
        let line = self.line()?;
        let (count, process) = line.split_once(' ').with_context(|| format!("the session says {line:?}"))?;
        let process = process.to_owned();
        let is_same = self.process.get_or_insert_with(|| process.clone()) == &process;
        hold(count == self.count.to_string() && is_same, || format!("the session says {line:?} as answer {}", self.count))
    }

    fn line(&mut self) -> Result<String> {
        let line = self.output.next().context("the ssh session has ended")?.context("reading from an ssh session")?;
        Ok(line.trim().to_owned())
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
struct Connection(TcpStream);

impl Connection {
    fn open(port: u16, limit: Duration) -> Result<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port)).context("connecting to its web server")?;
        stream.set_read_timeout(Some(limit)).context("setting a time limit")?;
        let mut connection = Self(stream);
        connection.ask()?;
        Ok(connection)
    }

    /// A request and the whole of its answer.
    fn ask(&mut self) -> Result<()> {
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
