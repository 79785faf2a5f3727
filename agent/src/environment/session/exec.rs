//! `exec`: one program in an environment, its streams carried without loss, its exit status told after everything it wrote.
//!
//! Nothing is read from the program faster than the center takes it, nor from the center faster than the program takes it. Output that
//! was written before the program ended is sent before its status; what its children write afterwards is not waited for.

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use lodge_client::{SessionReceiver, SessionSender};
use lodge_model::environment::session::{FRAME_MAX, Frame};
use lodge_model::ids::EnvironmentId;
use lodge_sys::process::{Home, kill, prepare};
use lodge_sys::program;
use lodge_sys::pty;
use lodge_sys::signal::Signal;
use nix::fcntl::OFlag;
use tokio::io::{AsyncReadExt as _, Interest};
use tokio::process::{Child, Command};

use super::super::host::real::CRUN_ROOT;
use super::Node;
use crate::channel::Channel;
use crate::consoles;

/// How long a program may go on after it has been hung up on.
const GRACE: Duration = Duration::from_secs(5);
/// How often the other side is asked whether it is still there, while nothing is said.
const PING: Duration = Duration::from_secs(15);
/// Most bytes that are read after the end of the program: more than any pipe holds.
const LEFT_BEHIND: usize = 1 << 20;

/// Runs programs in environments.
pub trait Engine: Send + Sync {
    /// The command line that runs `command`. It ends when the program does, with its exit status. With `terminal` it makes a terminal and
    /// sends it to that socket; else the program gets the command's own streams. The process id of the program goes to `pid_file`.
    fn command(&self, environment: EnvironmentId, command: &[String], terminal: Option<&Path>, pid_file: &Path) -> Command;
}

/// crun.
pub struct Crun;

impl Engine for Crun {
    fn command(&self, environment: EnvironmentId, command: &[String], terminal: Option<&Path>, pid_file: &Path) -> Command {
        const ENVIRONMENT: [&str; 5] = [
            "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME=/root",
            "USER=root",
            "LOGNAME=root",
            "container=crun",
        ];
        let mut call = Command::new(program::Program::Crun.path());
        call.args(["--root", CRUN_ROOT, "exec", "--pid-file"]).arg(pid_file);
        for variable in ENVIRONMENT {
            call.args(["--env", variable]);
        }
        if let Some(socket) = terminal {
            call.args(["--env", "TERM=xterm-256color", "--tty", "--console-socket"]).arg(socket);
        }
        call.arg(environment.to_string()).args(command);
        call
    }
}

/// What is to be run.
pub struct Program<'a> {
    /// Where.
    pub environment: EnvironmentId,
    /// Program and arguments.
    pub command: &'a [String],
    /// With a terminal of its own.
    pub tty: bool,
}

/// Run it; its exit status, or `None` when the client went away. `name` is that of the session's files.
pub async fn run(
    node: &Node,
    name: &str,
    program: &Program<'_>,
    sender: &mut SessionSender,
    receiver: &mut SessionReceiver,
) -> Result<Option<i32>> {
    let files = Files::new(&node.dir, name)?;
    let mut running = match program.tty {
        true => Running::on_terminal(node.engine.as_ref(), program, &files).await?,
        false => Running::on_pipes(node.engine.as_ref(), program, &files)?,
    };
    let (input, window) = (running.input.take(), running.window.take());
    let status = tokio::select! {
        status = running.output(sender) => status?,
        () = feed(input, window, program.tty, receiver) => None,
    };
    match status {
        Some(status) => Ok(Some(as_shell_tells(status))),
        None => running.hang_up(&files).await.map(|()| None),
    }
}

/// A program and its streams.
struct Running {
    child: Child,
    /// Closed when it is dropped.
    input: Option<Channel>,
    output: Option<Channel>,
    error: Option<Channel>,
    /// Its terminal, to be told its size.
    window: Option<OwnedFd>,
}

impl Running {
    fn on_pipes(engine: &dyn Engine, program: &Program<'_>, files: &Files) -> Result<Self> {
        let pipe = || nix::unistd::pipe2(OFlag::O_CLOEXEC).context("making a pipe");
        let (stdin, input) = pipe()?;
        let (output, stdout) = pipe()?;
        let (error, stderr) = pipe()?;
        let mut call = engine.command(program.environment, program.command, None, &files.pid);
        call.stdin(stdin).stdout(stdout).stderr(stderr);
        let child = spawn(call)?;
        let channel = |descriptor: OwnedFd, interest| Channel::new(descriptor, interest).context("waiting on a pipe");
        Ok(Self {
            child,
            input: Some(channel(input, Interest::WRITABLE)?),
            output: Some(channel(output, Interest::READABLE)?),
            error: Some(channel(error, Interest::READABLE)?),
            window: None,
        })
    }

    async fn on_terminal(engine: &dyn Engine, program: &Program<'_>, files: &Files) -> Result<Self> {
        let listener = consoles::listen(&files.terminal)?;
        let mut call = engine.command(program.environment, program.command, Some(&files.terminal), &files.pid);
        call.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = spawn(call)?;
        let terminal = tokio::select! {
            biased;
            terminal = consoles::accept(&listener) => terminal.context("taking the program's terminal")?,
            status = child.wait() => {
                let mut words = String::new();
                if let Some(stderr) = &mut child.stderr {
                    stderr.read_to_string(&mut words).await.context("reading what it said")?;
                }
                bail!("the program was not started ({}): {}", status.context("waiting for it")?, words.trim());
            }
        };
        let copy = || terminal.try_clone().context("duplicating a terminal");
        let channel =
            |terminal| Channel::new(terminal, Interest::READABLE | Interest::WRITABLE).context("waiting on a terminal");
        let (input, output, window) = (Some(channel(copy()?)?), Some(channel(copy()?)?), Some(terminal));
        Ok(Self { child, input, output, error: None, window })
    }

    /// Send what it writes until it ends; `None` when nobody takes it any more.
    async fn output(&mut self, sender: &mut SessionSender) -> Result<Option<ExitStatus>> {
        let mut out = vec![0; FRAME_MAX];
        let mut err = vec![0; FRAME_MAX];
        let mut ping = tokio::time::interval_at(tokio::time::Instant::now() + PING, PING);
        let status = loop {
            let sent = tokio::select! {
                read = read(&self.output, &mut out) => match read? {
                    0 => { self.output = None; continue }
                    read => sender.send(&Frame::Stdout(part(&out, read))).await,
                },
                read = read(&self.error, &mut err) => match read? {
                    0 => { self.error = None; continue }
                    read => sender.send(&Frame::Stderr(part(&err, read))).await,
                },
                status = self.child.wait() => break status.context("waiting for the program")?,
                _ = ping.tick() => sender.ping().await,
            };
            if sent.is_err() {
                return Ok(None);
            }
        };
        for (channel, buffer, frame) in
            [(&self.output, &mut out, Frame::Stdout as fn(_) -> _), (&self.error, &mut err, Frame::Stderr as fn(_) -> _)]
        {
            let Some(channel) = channel else { continue };
            let mut left = LEFT_BEHIND;
            while let Some(read) = channel.read_now(buffer).context("reading what it wrote last")?.filter(|read| *read > 0) {
                if sender.send(&frame(part(buffer, read))).await.is_err() {
                    return Ok(None);
                }
                left = left.saturating_sub(read);
                if left == 0 {
                    break;
                }
            }
        }
        Ok(Some(status))
    }

    /// Its client has gone: close its streams, tell it so, and end it when it does not end by itself.
    async fn hang_up(mut self, files: &Files) -> Result<()> {
        (self.input, self.output, self.error) = (None, None, None);
        for signal in [Signal::SIGHUP, Signal::SIGKILL] {
            if let Some(pid) = files.process_of(&self.child) {
                kill(pid, signal)?;
            }
            if let Ok(ended) = tokio::time::timeout(GRACE, self.child.wait()).await {
                return ended.map(drop).context("waiting for the program");
            }
        }
        self.child.kill().await.context("ending the program")
    }
}

/// Hand over what the client sends, until it goes.
async fn feed(mut input: Option<Channel>, window: Option<OwnedFd>, tty: bool, receiver: &mut SessionReceiver) {
    /// What Ctrl-D sends: the end of input, on a terminal.
    const END: [u8; 1] = [4];
    while let Ok(Some(frame)) = receiver.next().await {
        match (frame, &input) {
            (Frame::Stdin(bytes), _) if bytes.is_empty() && !tty => input = None,
            (Frame::Stdin(bytes), Some(channel)) => {
                let bytes = if bytes.is_empty() { END.to_vec() } else { bytes };
                if channel.write_all(&bytes).await.is_err() {
                    // It has closed its input; what still comes for it goes nowhere.
                    input = None;
                }
            }
            (Frame::Resize { columns, rows }, _) => {
                if let Some(window) = &window {
                    // It may have ended.
                    let _ = pty::resize(window, columns, rows);
                }
            }
            _ => {}
        }
    }
}

async fn read(channel: &Option<Channel>, into: &mut [u8]) -> Result<usize> {
    match channel {
        Some(channel) => channel.read(into).await.context("reading what it writes"),
        None => std::future::pending().await,
    }
}

fn part(buffer: &[u8], length: usize) -> Vec<u8> {
    buffer.get(..length).unwrap_or_default().to_vec()
}

fn spawn(mut call: Command) -> Result<Child> {
    prepare(call.as_std_mut(), &Home::default())?;
    call.kill_on_drop(true).spawn().context("starting crun")
}

/// 128 + N when signal N ended it.
fn as_shell_tells(status: ExitStatus) -> i32 {
    status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(255)
}

/// The files of one session, removed at its end.
struct Files {
    terminal: PathBuf,
    pid: PathBuf,
}

impl Files {
    fn new(dir: &Path, id: &str) -> Result<Self> {
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(dir);
        made.with_context(|| format!("making {}", dir.display()))?;
        Ok(Self { terminal: dir.join(format!("{id}.sock")), pid: dir.join(format!("{id}.pid")) })
    }

    /// The program, as long as it is the engine's child: another process may get its number later.
    fn process_of(&self, engine: &Child) -> Option<i32> {
        let pid: i32 = fs::read_to_string(&self.pid).ok()?.trim().parse().ok()?;
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let parent: u32 = status.lines().find_map(|line| line.strip_prefix("PPid:"))?.trim().parse().ok()?;
        (Some(parent) == engine.id()).then_some(pid)
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        for path in [&self.terminal, &self.pid] {
            // Not every session has made both.
            let _ = fs::remove_file(path);
        }
    }
}
