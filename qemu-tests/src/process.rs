//! A QEMU process: started, watched by a thread of its own, never outliving the rack.
//!
//! `setpriv --pdeathsig KILL` ties it to the thread that waits for it, so it ends even when the rack is killed without warning.
//! It gets its own process group: Ctrl-C at the terminal reaches the rack alone, which then takes the machines down itself.

use std::{
    fs::File,
    io::Read as _,
    os::unix::{net::UnixListener, process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Stdio},
    sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use nix::{
    sys::{
        signal::{Signal, kill},
        wait::{Id, WaitPidFlag, waitid},
    },
    unistd::Pid,
};

use crate::feed::{Feed, Waited};

/// A process of the rack.
pub struct Process {
    name: String,
    dir: PathBuf,
    /// Present while the process exists, so that a signal never reaches a stranger with the same number.
    pid: Arc<Mutex<Option<Pid>>>,
    exit: Feed<ExitStatus>,
}

impl Process {
    /// Start `program` with `arguments` in `dir`. What it says on standard error goes to `dir/qemu.log`; when it ends, everybody who
    /// still waits in `accept` on a socket named in `sockets` is woken.
    pub fn spawn(name: &str, dir: &Path, program: &str, arguments: &[String], sockets: &[&str]) -> Result<Self> {
        let log = File::create(dir.join("qemu.log")).with_context(|| format!("making a log in {}", dir.display()))?;
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--", program]).args(arguments).current_dir(dir).process_group(0);
        command.stdin(Stdio::null()).stdout(Stdio::from(log.try_clone().context("copying a log")?)).stderr(Stdio::from(log));
        let process = Self { name: name.to_owned(), dir: dir.to_owned(), pid: Arc::default(), exit: Feed::default() };
        let (started, wait_started) = mpsc::channel();
        let (pid, exit, dir) = (Arc::clone(&process.pid), process.exit.clone(), process.dir.clone());
        let sockets: Vec<String> = sockets.iter().map(|name| (*name).to_owned()).collect();
        // The thread lives as long as the process: its end is what pdeathsig waits for.
        let watch = move || {
            let mut child = match command.spawn() {
                Ok(child) => child,
                Err(error) => return drop(started.send(Err(error))),
            };
            let number = Pid::from_raw(child.id().cast_signed());
            *lock(&pid) = Some(number);
            drop(started.send(Ok(())));
            // The process stays a zombie, and its number its own, until nobody can signal it any more.
            let _ = waitid(Id::Pid(number), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT);
            *lock(&pid) = None;
            // Before the end is told: whoever waits for it may listen on the same names for a successor.
            for name in sockets {
                drop(crate::sockets::connect(&dir, &name));
            }
            if let Ok(status) = child.wait() {
                exit.push(status);
            }
            exit.close();
        };
        std::thread::Builder::new().name(format!("{name} process")).spawn(watch).context("starting a thread")?;
        wait_started.recv().context("waiting for a thread")?.with_context(|| format!("starting {program} for {name}"))?;
        Ok(process)
    }

    /// The connection that the process makes to a socket of ours; its end is told in words instead.
    pub fn accept(&self, listener: &UnixListener) -> Result<std::os::unix::net::UnixStream> {
        let (stream, _) = listener.accept().with_context(|| format!("waiting for {} to connect", self.name))?;
        if !self.is_running() {
            bail!("{} ended at once: {}", self.name, self.last_words());
        }
        Ok(stream)
    }

    /// Whether it has not ended.
    pub fn is_running(&self) -> bool {
        lock(&self.pid).is_some()
    }

    /// Wait for its end; `None` when it still runs after `limit`.
    pub fn wait(&self, limit: Duration) -> Option<ExitStatus> {
        match self.exit.wait(0, limit, |status| Some(*status)) {
            Waited::Found(status, _) => Some(status),
            Waited::TimedOut | Waited::Closed => None,
        }
    }

    /// End it now, and wait until it is gone.
    pub fn kill(&self) {
        if let Some(pid) = *lock(&self.pid) {
            let _ = kill(pid, Signal::SIGKILL);
        }
        self.wait(Duration::from_secs(10));
    }

    /// What it said on standard error.
    pub fn last_words(&self) -> String {
        let mut text = String::new();
        if let Ok(mut log) = File::open(self.dir.join("qemu.log")) {
            drop(log.read_to_string(&mut text));
        }
        let text = text.trim();
        if text.is_empty() { "it said nothing".to_owned() } else { text.to_owned() }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

fn lock(pid: &Mutex<Option<Pid>>) -> MutexGuard<'_, Option<Pid>> {
    pid.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_waited_for_and_killed() {
        let dir = tempfile::tempdir().unwrap();
        let process = Process::spawn("a test", dir.path(), "sleep", &["1000".to_owned()], &[]).unwrap();
        assert!(process.is_running());
        assert_eq!(process.wait(Duration::from_millis(1)), None);
        process.kill();
        assert!(!process.is_running());
        assert!(process.wait(Duration::from_secs(5)).is_some());
    }

    #[test]
    fn a_process_that_ends_at_once_does_not_keep_its_sockets_waiting() {
        let dir = tempfile::tempdir().unwrap();
        let listener = crate::sockets::listen(dir.path(), "x.sock").unwrap();
        let words = ["-c".to_owned(), "echo no such machine >&2; exit 3".to_owned()];
        let process = Process::spawn("a test", dir.path(), "sh", &words, &["x.sock"]).unwrap();
        let error = process.accept(&listener).unwrap_err().to_string();
        assert!(error.contains("no such machine"), "{error}");
    }
}
