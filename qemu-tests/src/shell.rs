//! A root shell on a machine's second serial port, for looking inside as a technician would.
//!
//! The node offers it only when its kernel command line says `lodge.console-shell=ttyS1`, which the rack adds through SMBIOS.

use std::{
    io::{Read as _, Write as _},
    os::unix::net::UnixStream,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use crate::feed::{Feed, Waited};

/// The word that makes a node offer the shell on the port that the rack listens on.
pub const KERNEL_WORD: &str = "lodge.console-shell=ttyS1";

/// The rack's end of the shell.
pub struct Shell {
    port: Mutex<UnixStream>,
    said: Feed<Vec<u8>>,
    commands: Mutex<u32>,
}

/// What a command gave.
#[derive(Debug, PartialEq, Eq)]
pub struct Output {
    /// Exit status.
    pub status: i32,
    /// Standard output and error.
    pub text: String,
}

/// A shell that has not started yet loses what is typed, and cannot tell: the question is asked again after this time.
const ASK_AGAIN: Duration = Duration::from_secs(3);

impl Shell {
    /// Speak on the port.
    pub fn new(port: UnixStream) -> Result<Self> {
        let mut reader = port.try_clone().context("copying a socket")?;
        let said = Feed::default();
        let feed = said.clone();
        let read = move || {
            let mut buffer = [0; 4096];
            while let Ok(length) = reader.read(&mut buffer)
                && length > 0
            {
                feed.push(buffer[..length].to_vec());
            }
            feed.close();
        };
        std::thread::Builder::new().name("shell".into()).spawn(read).context("starting a thread")?;
        Ok(Self { port: Mutex::new(port), said, commands: Mutex::new(0) })
    }

    /// Wait until the shell answers.
    pub fn wait(&self, limit: Duration) -> Result<()> {
        let deadline = Instant::now() + limit;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.try_run("true", ASK_AGAIN.min(left)) {
                Ok(_) => return Ok(()),
                Err(error) if left.is_zero() => return Err(error.context("no shell answers on the second serial port")),
                Err(_) => {}
            }
        }
    }

    /// Run a command line; a failure of it is an error with what it said.
    pub fn run(&self, command: &str, limit: Duration) -> Result<String> {
        let output = self.try_run(command, limit)?;
        if output.status != 0 {
            bail!("on the node, {command:?} ended with {}: {}", output.status, output.text.trim());
        }
        Ok(output.text)
    }

    /// Run a command line.
    pub fn try_run(&self, command: &str, limit: Duration) -> Result<Output> {
        let mut commands = self.commands.lock().unwrap_or_else(PoisonError::into_inner);
        *commands += 1;
        let from = self.said.end();
        // The terminal may echo what is typed: the marks only come out of printf, never out of the echo.
        let line = format!(
            "printf '@@%s %d@@\\n' begin {number}; ( {command} ) </dev/null 2>&1; printf '@@%s %d %d@@\\n' end {number} $?\n",
            number = *commands
        );
        let mut port = self.port.lock().unwrap_or_else(PoisonError::into_inner);
        port.write_all(line.as_bytes()).context("typing into the shell")?;
        let mut text = Vec::new();
        let found = self.said.wait(from, limit, |bytes| {
            text.extend_from_slice(bytes);
            between_marks(&String::from_utf8_lossy(&text), *commands)
        });
        match found {
            Waited::Found(output, _) => Ok(output),
            Waited::Closed => bail!("the machine went off while {command:?} ran"),
            Waited::TimedOut => {
                let text = String::from_utf8_lossy(&text).into_owned();
                bail!("{command:?} did not end within {:.0} s; so far: {}", limit.as_secs_f64(), text.trim())
            }
        }
    }
}

/// What is between the marks of a command, once both are there.
fn between_marks(text: &str, number: u32) -> Option<Output> {
    let begin = format!("@@begin {number}@@");
    let (_, rest) = text.split_once(&begin)?;
    let (said, rest) = rest.split_once(&format!("@@end {number} "))?;
    let (status, _) = rest.split_once("@@")?;
    let text = said.replace("\r\n", "\n");
    Some(Output { status: status.parse().ok()?, text: text.strip_prefix('\n').unwrap_or(&text).to_owned() })
}

#[cfg(test)]
mod tests {
    use std::{os::fd::OwnedFd, process::Command};

    use super::*;

    #[test]
    fn a_real_shell_runs_commands_through_it() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let output = OwnedFd::from(theirs.try_clone().unwrap());
        let mut child = Command::new("sh").stdin(OwnedFd::from(theirs)).stdout(output).spawn().unwrap();
        let shell = Shell::new(ours).unwrap();
        let limit = Duration::from_secs(20);
        shell.wait(limit).unwrap();
        assert_eq!(shell.run("echo one; echo two", limit).unwrap(), "one\ntwo\n");
        let output = shell.try_run("echo bad >&2; exit 3", limit).unwrap();
        assert_eq!(output, Output { status: 3, text: "bad\n".into() });
        assert!(shell.run("false", limit).is_err());
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn an_echo_of_the_command_is_not_its_output() {
        let echoed = "printf '@@%s %d@@\\n' begin 4; ( id )…\r\n@@begin 4@@\r\nroot\r\n@@end 4 0@@\r\n# ";
        assert_eq!(between_marks(echoed, 4), Some(Output { status: 0, text: "root\n".into() }));
    }
}
