//! Processes: referring to one, starting one in a fresh state and in its cgroup, and reaping every one of them.
//!
//! `reap` is for PID 1, which is the only reaper of a machine; everybody else waits for their own children.
#![expect(unsafe_code, reason = "pidfd_open(2), raw wait statuses, and work between fork and exec have no safe wrapper")]

use std::{
    fs::File,
    os::{
        fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd},
        unix::process::CommandExt as _,
    },
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use nix::{
    errno::Errno,
    fcntl::{FcntlArg, FdFlag, OFlag, fcntl},
    libc,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask},
    unistd::Pid,
};

/// A process; readable when it has ended.
#[derive(Debug)]
pub struct PidFd(OwnedFd);

impl PidFd {
    /// Refer to a process that is the caller's child and has not been waited for, so that the id cannot mean another one.
    pub fn open(pid: u32) -> Result<Self> {
        // SAFETY: pidfd_open takes two integers and touches no memory of ours.
        let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
        let fd = Errno::result(fd).with_context(|| format!("opening process {pid}"))?;
        let fd = RawFd::try_from(fd).context("reading a descriptor")?;
        // SAFETY: the kernel just gave us this descriptor and nobody else knows it.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Wait until it has ended; whether that came within the limit.
    pub fn wait(&self, limit: Duration) -> Result<bool> {
        let end = Instant::now() + limit;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
            match poll(&mut [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)], timeout) {
                Ok(0) if left.is_zero() => return Ok(false),
                Ok(1..) => return Ok(true),
                Ok(_) | Err(Errno::EINTR) => {}
                Err(error) => return Err(error).context("waiting for a process"),
            }
        }
    }

    /// Send it a signal by number, real-time signals too; a process that has already ended is fine.
    pub fn send(&self, signal: i32) -> Result<()> {
        let none = std::ptr::null::<libc::siginfo_t>();
        // SAFETY: pidfd_send_signal takes a descriptor we own and integers; without a siginfo it reads no memory of ours.
        let sent = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, self.0.as_raw_fd(), signal, none, 0) };
        match Errno::result(sent) {
            Ok(_) | Err(Errno::ESRCH) => Ok(()),
            Err(error) => Err(error).with_context(|| format!("sending signal {signal}")),
        }
    }
}

/// When a process was started, in clock ticks since the kernel was (`/proc/PID/stat`, proc(5)): with it an id names one process for ever.
/// `None` when there is none, or it has ended and nobody has waited for it yet.
pub fn started(pid: i32) -> Option<u64> {
    stat(&std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

fn stat(text: &str) -> Option<u64> {
    // The name, in parentheses, may hold anything.
    let mut fields = text.rsplit_once(')')?.1.split_ascii_whitespace();
    let state = fields.next()?;
    if matches!(state, "Z" | "X") { None } else { fields.nth(18)?.parse().ok() }
}

impl AsFd for PidFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Reads and writes of this descriptor return at once.
pub fn set_nonblocking(fd: impl AsFd) -> Result<()> {
    let flags = fcntl(fd.as_fd(), FcntlArg::F_GETFL).context("reading a descriptor's flags")?;
    let flags = OFlag::from_bits_retain(flags) | OFlag::O_NONBLOCK;
    fcntl(fd.as_fd(), FcntlArg::F_SETFL(flags)).context("setting a descriptor's flags")?;
    Ok(())
}

/// Whether a descriptor is closed by execve(2).
pub fn set_close_on_exec(fd: impl AsFd, close: bool) -> Result<()> {
    let flags = if close { FdFlag::FD_CLOEXEC } else { FdFlag::empty() };
    fcntl(fd.as_fd(), FcntlArg::F_SETFD(flags)).context("setting a descriptor's close-on-exec flag")?;
    Ok(())
}

/// Take over a descriptor that was handed through execve(2) by number. `None` when it is not open.
pub fn inherited(number: RawFd) -> Option<OwnedFd> {
    if number <= 2 {
        return None;
    }
    // SAFETY: F_GETFD only asks whether the number is open.
    let flags = unsafe { libc::fcntl(number, libc::F_GETFD) };
    // SAFETY: it is open, and by the agreement with whoever called exec this process owns it and takes it over once.
    (flags >= 0).then(|| unsafe { OwnedFd::from_raw_fd(number) })
}

/// Where a process is to live.
#[derive(Debug, Default)]
pub struct Home<'a> {
    /// An open `cgroup.procs` that it enters before it runs.
    pub cgroup: Option<&'a File>,
    /// It leads a session of its own.
    pub session: bool,
    /// Its standard input is a terminal that becomes the session's own, so that Ctrl-C works.
    pub terminal: bool,
}

/// Make a command start with no signal blocked and in its home. (std passes the blocked signals of the thread that starts it on, and PID 1
/// blocks those that it reads from a descriptor.) Called by that thread.
pub fn prepare(command: &mut Command, home: &Home<'_>) -> Result<()> {
    let cgroup = home.cgroup.map(File::try_clone).transpose().context("duplicating cgroup.procs")?;
    let (session, terminal) = (home.session, home.terminal);
    if cgroup.is_none() && !session && !terminal && SigSet::thread_get_mask()? == SigSet::empty() {
        // With nothing to do before the exec std starts it in this process's memory (posix_spawn(3)). A fork would mark all of that to be
        // copied: that takes longer than some programs do, and whatever a thread writes to next costs it a page fault.
        return Ok(());
    }
    let setup = move || {
        sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None)?;
        if let Some(procs) = &cgroup {
            nix::unistd::write(procs, b"0")?;
        }
        if session || terminal {
            nix::unistd::setsid()?;
        }
        if terminal {
            // SAFETY: TIOCSCTTY takes an integer; descriptor 0 is the terminal by the caller's word, else the kernel refuses.
            Errno::result(unsafe { libc::ioctl(0, libc::TIOCSCTTY, 1) })?;
        }
        Ok(())
    };
    // SAFETY: between fork and exec `setup` makes system calls only and neither allocates nor takes a lock.
    unsafe { command.pre_exec(setup) };
    Ok(())
}

/// A process that has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Which.
    pub pid: i32,
    /// Raw wait status, as waitpid(2) gives it.
    pub status: i32,
}

impl Ended {
    /// The exit status; `None` when a signal ended it.
    pub fn code(&self) -> Option<i32> {
        libc::WIFEXITED(self.status).then(|| libc::WEXITSTATUS(self.status))
    }

    /// For people: `exit status 3`, `signal 9`.
    pub fn describe(&self) -> String {
        match self.code() {
            Some(code) => format!("exit status {code}"),
            None => match Signal::try_from(libc::WTERMSIG(self.status)) {
                Ok(signal) => format!("signal {signal}"),
                Err(_) => format!("signal {}", libc::WTERMSIG(self.status)),
            },
        }
    }
}

/// Reap one ended child, own or adopted; `None` when there is none. (nix cannot tell of a process that a real-time signal ended.)
pub fn reap() -> Option<Ended> {
    let mut status = 0;
    loop {
        // SAFETY: waitpid writes one int, to memory we own for the call.
        let pid = unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG) };
        match pid {
            1.. => return Some(Ended { pid, status }),
            -1 if Errno::last() == Errno::EINTR => {}
            _ => return None,
        }
    }
}

/// Whether this process has any child, ended or not. For PID 1: whether there is any other process at all.
pub fn has_children() -> bool {
    // SAFETY: an all-zero siginfo is a valid one, and waitid writes only to it; WNOWAIT leaves every child as it is.
    let result = unsafe {
        let mut info: libc::siginfo_t = std::mem::zeroed();
        libc::waitid(libc::P_ALL, 0, &raw mut info, libc::WEXITED | libc::WNOHANG | libc::WNOWAIT)
    };
    !(result == -1 && Errno::last() == Errno::ECHILD)
}

/// Send a signal to every process but this one and the kernel's own.
pub fn kill_all(signal: Signal) -> Result<()> {
    kill(-1, signal)
}

/// Send a signal; a process that has already ended is fine.
pub fn kill(pid: i32, signal: Signal) -> Result<()> {
    match nix::sys::signal::kill(Pid::from_raw(pid), signal) {
        Ok(()) | Err(Errno::ESRCH) => Ok(()),
        Err(error) => Err(error).with_context(|| format!("sending {signal} to process {pid}")),
    }
}

/// Replace this process, keeping its id. Returns only the reason why not.
pub fn exec(command: &mut Command) -> anyhow::Error {
    let error = command.exec();
    anyhow::Error::new(error).context(format!("executing {}", command.get_program().to_string_lossy()))
}

/// A number that `exec` passes on, for the environment.
pub fn number(fd: impl AsFd) -> RawFd {
    fd.as_fd().as_raw_fd()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_counts_until_it_is_waited_for() {
        let mut child = Command::new("/bin/true").spawn().unwrap();
        assert!(has_children());
        child.wait().unwrap();
    }

    #[test]
    fn a_process_is_known_by_id_and_start() {
        let mut child = Command::new("/bin/sleep").arg("60").spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        assert!(started(pid).unwrap() >= started(i32::try_from(std::process::id()).unwrap()).unwrap());
        assert!(!PidFd::open(child.id()).unwrap().wait(Duration::from_millis(20)).unwrap());
        PidFd::open(child.id()).unwrap().send(34).unwrap();
        let ended = PidFd::open(child.id()).unwrap();
        assert!(ended.wait(Duration::from_secs(10)).unwrap());
        assert_eq!(started(pid), None, "it has ended, though nobody has waited for it");
        ended.send(9).unwrap();
        child.wait().unwrap();
        assert_eq!(stat("7 (a) b) R 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 99 20"), Some(99));
        assert_eq!(stat("7 (x"), None);
    }

    #[test]
    fn statuses_read_well() {
        assert_eq!(Ended { pid: 1, status: 3 << 8 }.describe(), "exit status 3");
        assert_eq!(Ended { pid: 1, status: 3 << 8 }.code(), Some(3));
        assert_eq!(Ended { pid: 1, status: 9 }.describe(), "signal SIGKILL");
        assert_eq!(Ended { pid: 1, status: 34 }.describe(), "signal 34");
        assert_eq!(Ended { pid: 1, status: 9 }.code(), None);
    }

    #[test]
    fn a_command_starts_with_no_signal_blocked() {
        let mut blocked = SigSet::empty();
        blocked.add(Signal::SIGUSR2);
        blocked.thread_block().unwrap();
        for session in [false, true] {
            let mut command = Command::new("/bin/grep");
            command.args(["SigBlk", "/proc/self/status"]);
            prepare(&mut command, &Home { session, ..Home::default() }).unwrap();
            let output = command.output().unwrap();
            assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "SigBlk:\t0000000000000000", "session {session}");
        }
        blocked.thread_unblock().unwrap();
    }

    #[test]
    fn only_open_descriptors_are_inherited() {
        assert!(inherited(0).is_none());
        assert!(inherited(9999).is_none());
        let file = File::open("/dev/null").unwrap();
        let number = OwnedFd::from(file);
        let raw = std::os::fd::IntoRawFd::into_raw_fd(number);
        assert!(inherited(raw).is_some());
    }
}
