//! The one door to external programs. Every program Lodge runs is a variant here, with the one place it may be at; `$PATH` is never
//! searched. A failure carries the command line, the status and what the program said.
//!
//! It assumes that the caller may wait for its own children by process id (PID 1 calls it only where nothing else reaps). It never
//! runs a shell line.

use std::{
    ffi::{OsStr, OsString},
    io::Write as _,
    os::fd::{AsFd as _, OwnedFd},
    process::{Child, Command, ExitStatus, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, bail};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::process::{Home, PidFd, prepare, set_nonblocking};

macro_rules! programs {
    ($($(#[$doc:meta])* $name:ident = $path:literal),+ $(,)?) => {
        /// Every external program that a part of Lodge runs.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Program {
            $($(#[$doc])* $name),+
        }

        impl Program {
            /// Every variant, for the test that holds the image against this list.
            pub const ALL: &'static [Program] = &[$(Program::$name),+];

            /// Where the program is, in the base OS and in the initrd (both have a merged `/usr`).
            pub const fn path(self) -> &'static str {
                match self {
                    $(Program::$name => $path),+
                }
            }
        }
    };
}

programs! {
    /// The node agent.
    Agent = "/usr/lib/lodge/agent",
    /// Libblkid's prober.
    Blkid = "/usr/sbin/blkid",
    /// Shell and small tools of last resort.
    Busybox = "/usr/bin/busybox",
    /// The control center.
    Center = "/usr/lib/lodge/center",
    /// Keeps the clock right.
    Chronyd = "/usr/sbin/chronyd",
    /// Writes processes down and lets them go on from that.
    Criu = "/usr/sbin/criu",
    /// Makes and starts containers.
    Crun = "/usr/bin/crun",
    /// The system bus.
    DbusDaemon = "/usr/bin/dbus-daemon",
    /// Shows the superblock of ext4.
    Dumpe2fs = "/usr/sbin/dumpe2fs",
    /// Checks and repairs ext4.
    E2fsck = "/usr/sbin/e2fsck",
    /// Tells the NFS server what to export.
    Exportfs = "/usr/sbin/exportfs",
    /// Checks and repairs FAT.
    FsckFat = "/usr/sbin/fsck.fat",
    /// The installer, in the initrd.
    Installer = "/usr/lib/lodge/installer",
    /// Shows an environment its own share of the machine below /proc.
    Lxcfs = "/usr/bin/lxcfs",
    /// Makes erofs.
    MkfsErofs = "/usr/bin/mkfs.erofs",
    /// Makes ext4.
    MkfsExt4 = "/usr/sbin/mkfs.ext4",
    /// Makes FAT.
    MkfsVfat = "/usr/sbin/mkfs.vfat",
    /// Remembers NFS clients across a restart of the server.
    Nfsdcld = "/usr/sbin/nfsdcld",
    /// Sets packet filters.
    Nft = "/usr/sbin/nft",
    /// Grows ext4.
    Resize2fs = "/usr/sbin/resize2fs",
    /// Answers the NFS server who may mount what.
    RpcMountd = "/usr/sbin/rpc.mountd",
    /// Starts and stops the kernel's NFS server.
    RpcNfsd = "/usr/sbin/rpc.nfsd",
    /// Device manager.
    SystemdUdevd = "/usr/lib/systemd/systemd-udevd",
    /// Changes the superblock of ext4.
    Tune2fs = "/usr/sbin/tune2fs",
    /// Fires and awaits device events.
    Udevadm = "/usr/bin/udevadm",
}

impl Program {
    /// A call of the program with these arguments.
    pub fn call<I, A>(self, arguments: I) -> Call
    where
        I: IntoIterator<Item = A>,
        A: Into<OsString>,
    {
        Call::new(self.path(), arguments.into_iter().map(Into::into).collect())
    }
}

/// A program call that has not run yet.
#[derive(Clone, Debug)]
pub struct Call {
    path: OsString,
    arguments: Vec<OsString>,
    accepted: Vec<i32>,
    deadline: Option<Duration>,
    input: Vec<u8>,
    stdin: Option<Arc<OwnedFd>>,
}

/// What a program said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// Exit status, one of those that the call accepts.
    pub code: i32,
    /// Standard output.
    pub stdout: Vec<u8>,
    /// Standard error.
    pub stderr: Vec<u8>,
}

impl Output {
    /// Standard output as text; bytes that are not UTF-8 are replaced.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }
}

impl Call {
    fn new(path: impl Into<OsString>, arguments: Vec<OsString>) -> Self {
        Self { path: path.into(), arguments, accepted: vec![0], deadline: None, input: Vec::new(), stdin: None }
    }

    /// More arguments.
    #[must_use]
    pub fn arguments<I, A>(mut self, arguments: I) -> Self
    where
        I: IntoIterator<Item = A>,
        A: Into<OsString>,
    {
        self.arguments.extend(arguments.into_iter().map(Into::into));
        self
    }

    /// Exit statuses that are not an error; only 0 where this is not said.
    #[must_use]
    pub fn accept(mut self, codes: &[i32]) -> Self {
        self.accepted = codes.to_vec();
        self
    }

    /// Kill the program when it runs longer than this, which is then an error.
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = Some(deadline);
        self
    }

    /// What the program reads on standard input; nothing where this is not said.
    #[must_use]
    pub fn input(mut self, input: impl Into<Vec<u8>>) -> Self {
        self.input = input.into();
        self
    }

    /// An open file that the program has as its descriptor 0.
    #[must_use]
    pub fn stdin(mut self, file: OwnedFd) -> Self {
        self.stdin = Some(Arc::new(file));
        self
    }

    /// Run to the end and collect what it says (at most 1 MiB of each stream is kept).
    pub fn run(&self) -> Result<Output> {
        self.run_with_pulse(&mut || ())
    }

    /// The same; `pulse` is called about once a second meanwhile.
    pub fn run_with_pulse(&self, pulse: &mut dyn FnMut()) -> Result<Output> {
        self.try_run(pulse).with_context(|| format!("running `{}`", self.command_line()))
    }

    /// Run to the end with the caller's own standard streams (a shell, a program with its own progress).
    pub fn run_attached(&self) -> Result<i32> {
        let run = || {
            let status = self.command()?.status().context("starting it")?;
            self.check(status, &[], &[])
        };
        run().with_context(|| format!("running `{}`", self.command_line()))
    }

    fn command(&self) -> Result<Command> {
        let mut command = Command::new(&self.path);
        command.args(&self.arguments).env("LC_ALL", "C");
        prepare(&mut command, &Home::default())?;
        Ok(command)
    }

    fn try_run(&self, pulse: &mut dyn FnMut()) -> Result<Output> {
        let mut command = self.command()?;
        command.stdin(match &self.stdin {
            Some(file) => Stdio::from(file.try_clone().context("duplicating its standard input")?),
            None if self.input.is_empty() => Stdio::null(),
            None => Stdio::piped(),
        });
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().context("starting it")?;
        let talked = self.talk(&mut child, pulse);
        if talked.is_err() {
            // It may have ended meanwhile; then there is nothing to kill.
            let _ = child.kill();
        }
        let status = child.wait().context("waiting for it")?;
        let (stdout, stderr) = talked?;
        let code = self.check(status, &stdout, &stderr)?;
        Ok(Output { code, stdout, stderr })
    }

    /// Feed and listen until the program ends and both streams are drained. A grandchild that keeps the streams open does not
    /// keep the caller.
    fn talk(&self, child: &mut Child, pulse: &mut dyn FnMut()) -> Result<(Vec<u8>, Vec<u8>)> {
        let end = self.deadline.map(|deadline| Instant::now() + deadline);
        let ended = PidFd::open(child.id())?;
        let mut feed = child.stdin.take().map(|stdin| (stdin, self.input.as_slice()));
        let mut out = Stream::new(child.stdout.take());
        let mut err = Stream::new(child.stderr.take());
        for fd in [feed.as_ref().map(|(stdin, _)| stdin.as_fd()), out.fd(), err.fd()].into_iter().flatten() {
            set_nonblocking(fd)?;
        }
        loop {
            let mut fds = vec![PollFd::new(ended.as_fd(), PollFlags::POLLIN)];
            fds.extend(feed.as_ref().map(|(stdin, _)| PollFd::new(stdin.as_fd(), PollFlags::POLLOUT)));
            fds.extend([out.fd(), err.fd()].into_iter().flatten().map(|fd| PollFd::new(fd, PollFlags::POLLIN)));
            let left = end.map_or(PULSE, |end| end.saturating_duration_since(Instant::now()));
            if left.is_zero() {
                bail!("it did not end within {} s", self.deadline.unwrap_or_default().as_secs());
            }
            let timeout = PollTimeout::try_from(left.min(PULSE)).unwrap_or(PollTimeout::MAX);
            pulse();
            match poll(&mut fds, timeout) {
                Ok(_) | Err(nix::errno::Errno::EINTR) => {}
                Err(error) => return Err(error).context("waiting for it"),
            }
            let has_ended = fds.first().and_then(PollFd::any).unwrap_or(false);
            if let Some((stdin, left)) = &mut feed {
                match stdin.write(left) {
                    Ok(written) => *left = left.get(written..).unwrap_or_default(),
                    Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                    // It closed its input before the end: its own status tells whether that is wrong.
                    Err(_) => *left = &[],
                }
                if left.is_empty() {
                    feed = None;
                }
            }
            out.drain()?;
            err.drain()?;
            if has_ended {
                return Ok((out.kept, err.kept));
            }
        }
    }

    fn check(&self, status: ExitStatus, stdout: &[u8], stderr: &[u8]) -> Result<i32> {
        match status.code() {
            Some(code) if self.accepted.contains(&code) => Ok(code),
            _ => Err(anyhow!("{status}{}", said(stdout, stderr))),
        }
    }

    fn command_line(&self) -> String {
        let words = std::iter::once(&self.path).chain(&self.arguments);
        words.map(|word| quoted(word)).collect::<Vec<_>>().join(" ")
    }
}

/// Most bytes of a stream that are kept.
const KEPT: usize = 1 << 20;
const PULSE: Duration = Duration::from_secs(1);

struct Stream<R> {
    from: Option<R>,
    kept: Vec<u8>,
}

impl<R: std::io::Read + std::os::fd::AsFd> Stream<R> {
    fn new(from: Option<R>) -> Self {
        Self { from, kept: Vec::new() }
    }

    fn fd(&self) -> Option<std::os::fd::BorrowedFd<'_>> {
        self.from.as_ref().map(R::as_fd)
    }

    fn drain(&mut self) -> Result<()> {
        let mut piece = [0; 16 << 10];
        while let Some(from) = &mut self.from {
            match from.by_ref().read(&mut piece) {
                Ok(0) => self.from = None,
                Ok(read) => {
                    let room = KEPT.saturating_sub(self.kept.len()).min(read);
                    self.kept.extend_from_slice(piece.get(..room).unwrap_or_default());
                }
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error).context("reading what it says"),
            }
        }
        Ok(())
    }
}

/// The last words of a program that failed: of standard error, else of standard output.
fn said(stdout: &[u8], stderr: &[u8]) -> String {
    let stream = if stderr.iter().all(u8::is_ascii_whitespace) { stdout } else { stderr };
    let text = String::from_utf8_lossy(stream);
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let last = lines.get(lines.len().saturating_sub(8)..).unwrap_or_default();
    if last.is_empty() { String::new() } else { format!(": {}", last.join("; ")) }
}

fn quoted(word: &OsStr) -> String {
    let text = word.to_string_lossy();
    let plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_./=:,+@%".contains(&byte));
    if plain { text.into_owned() } else { format!("'{}'", text.replace('\'', "'\\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Call {
        Call::new("/bin/sh", vec!["-c".into(), script.into()])
    }

    #[test]
    fn a_failure_names_command_status_and_last_words() {
        let error = format!("{:#}", shell("echo oh no >&2; exit 3").run().unwrap_err());
        assert!(error.contains("/bin/sh -c 'echo oh no") && error.contains("exit status: 3: oh no"), "{error}");
        let error = format!("{:#}", shell("echo only out; exit 4").run().unwrap_err());
        assert!(error.contains("only out"), "{error}");
        let missing = Call::new("/nowhere/tool", Vec::new()).run().unwrap_err();
        assert!(format!("{missing:#}").contains("/nowhere/tool"), "{missing:#}");
    }

    #[test]
    fn accepted_statuses_are_no_error() {
        assert_eq!(shell("exit 1").accept(&[0, 1]).run().unwrap().code, 1);
        assert!(shell("exit 2").accept(&[0, 1]).run().is_err());
    }

    #[test]
    fn input_and_output_larger_than_a_pipe_go_through() {
        let input = vec![b'x'; 300_000];
        let output = Call::new("/bin/cat", Vec::new()).input(input.clone()).run().unwrap();
        assert_eq!(output.stdout, input);
    }

    #[test]
    fn a_deadline_ends_it() {
        let start = Instant::now();
        let error = shell("exec sleep 60").deadline(Duration::from_millis(200)).run().unwrap_err();
        assert!(format!("{error:#}").contains("did not end"), "{error:#}");
        assert!(start.elapsed() < Duration::from_secs(10));
    }

    #[test]
    fn a_grandchild_with_the_streams_does_not_keep_the_caller() {
        let output = shell("sleep 30 & echo $!").deadline(Duration::from_secs(10)).run().unwrap();
        let pid: i32 = output.text().trim().parse().unwrap();
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::SIGKILL).unwrap();
    }
}
