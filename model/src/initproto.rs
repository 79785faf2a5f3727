//! The line protocol of init's socket: one request a line, one answer a line; after `subscribe`, events a line.
//!
//! It is text so that it can be spoken from a rescue shell, and so small that PID 1 can parse it without allocation surprises.

use std::fmt;
use std::str::FromStr;

/// Exit status of the installer: restart the machine.
pub const EXIT_REBOOT: i32 = 0;
/// Exit status of the installer: switch the machine off. Every other status is a failure; init starts it again after a pause.
pub const EXIT_POWEROFF: i32 = 10;

/// How the machine goes down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Down {
    /// Off.
    Poweroff,
    /// Restart.
    Reboot,
    /// Stop, power on.
    Halt,
}

/// Who asked for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The power button.
    Button,
    /// Ctrl-Alt-Del.
    CtrlAltDel,
    /// SIGPWR, from a UPS daemon.
    Power,
    /// A request on the socket: the agent, `poweroff`, `reboot`.
    Request,
}

/// Whether what runs on this node may run. What has once been vouched for has to be vouched for again and again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Vouch {
    /// `vouch SECONDS`: the agent knows that it may, and says so again within so many seconds; otherwise init restarts the machine.
    For(u32),
    /// `vouch nothing-runs`: there is nothing to answer for, until the next word.
    NothingRuns,
    /// `vouch refused`: it may not. init restarts the machine at once, waiting for nobody: what is left here is to be gone.
    Refused,
}

/// A line to init.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// `shutdown poweroff`: go down now, in order.
    Shutdown(Down),
    /// `proceed`: the agent has nothing more to do before a shutdown that init announced.
    Proceed,
    /// `hold SECONDS`: the agent needs longer; init waits for so long from now, and not longer than an hour in all.
    Hold(u32),
    /// `vouch SECONDS`, `vouch nothing-runs`, `vouch refused`: the agent's word for the environments of this node.
    Vouch(Vouch),
    /// `status`: one line per service, then `ok`.
    Status,
    /// `restart SERVICE`.
    Restart(String),
    /// `subscribe`: events from now on; the last 256 exits first.
    Subscribe,
}

/// A line from init.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Line {
    /// The request was done.
    Ok,
    /// It was not.
    Error(String),
    /// `service NAME STATE PID RESTARTS`: part of a status.
    Service {
        /// Service name.
        name: String,
        /// `starting`, `running`, `done`, `waiting`, `stopping`, `stopped`, `failed`.
        state: String,
        /// Process, 0 when there is none.
        pid: i32,
        /// Restarts since boot.
        restarts: u32,
    },
    /// `exit PID STATUS`: an orphan ended; STATUS is the raw wait status.
    Exit {
        /// Process.
        pid: i32,
        /// Raw wait status, as waitpid(2) gives it.
        status: i32,
    },
    /// `shutdown poweroff button 300`: init is going down; it goes on at `proceed` or when the seconds are over.
    Shutdown {
        /// How.
        down: Down,
        /// Why.
        cause: Cause,
        /// Seconds until init goes on by itself.
        deadline: u32,
    },
}

/// A line that is not of the protocol.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("not understood: {0:?}")]
pub struct NotUnderstood(pub String);

macro_rules! words {
    ($type:ident { $($variant:ident = $word:literal),+ $(,)? }) => {
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self { $($type::$variant => $word),+ })
            }
        }
        impl FromStr for $type {
            type Err = NotUnderstood;
            fn from_str(text: &str) -> Result<Self, NotUnderstood> {
                match text { $($word => Ok($type::$variant),)+ _ => Err(NotUnderstood(text.to_owned())) }
            }
        }
    };
}

words!(Down { Poweroff = "poweroff", Reboot = "reboot", Halt = "halt" });
words!(Cause { Button = "button", CtrlAltDel = "ctrl-alt-del", Power = "power", Request = "request" });

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Request::Shutdown(down) => write!(f, "shutdown {down}"),
            Request::Proceed => f.write_str("proceed"),
            Request::Hold(seconds) => write!(f, "hold {seconds}"),
            Request::Vouch(Vouch::For(seconds)) => write!(f, "vouch {seconds}"),
            Request::Vouch(Vouch::NothingRuns) => f.write_str("vouch nothing-runs"),
            Request::Vouch(Vouch::Refused) => f.write_str("vouch refused"),
            Request::Status => f.write_str("status"),
            Request::Restart(name) => write!(f, "restart {name}"),
            Request::Subscribe => f.write_str("subscribe"),
        }
    }
}

impl FromStr for Request {
    type Err = NotUnderstood;
    fn from_str(line: &str) -> Result<Self, NotUnderstood> {
        let not_understood = || NotUnderstood(line.to_owned());
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            ["shutdown", down] => Ok(Request::Shutdown(down.parse().map_err(|_| not_understood())?)),
            ["proceed"] => Ok(Request::Proceed),
            ["hold", seconds] => Ok(Request::Hold(seconds.parse().map_err(|_| not_understood())?)),
            ["vouch", "nothing-runs"] => Ok(Request::Vouch(Vouch::NothingRuns)),
            ["vouch", "refused"] => Ok(Request::Vouch(Vouch::Refused)),
            ["vouch", seconds] => Ok(Request::Vouch(Vouch::For(seconds.parse().map_err(|_| not_understood())?))),
            ["status"] => Ok(Request::Status),
            ["restart", name] => Ok(Request::Restart((*name).to_owned())),
            ["subscribe"] => Ok(Request::Subscribe),
            _ => Err(not_understood()),
        }
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Line::Ok => f.write_str("ok"),
            Line::Error(why) => write!(f, "error {}", why.replace('\n', " ")),
            Line::Service { name, state, pid, restarts } => write!(f, "service {name} {state} {pid} {restarts}"),
            Line::Exit { pid, status } => write!(f, "exit {pid} {status}"),
            Line::Shutdown { down, cause, deadline } => write!(f, "shutdown {down} {cause} {deadline}"),
        }
    }
}

impl FromStr for Line {
    type Err = NotUnderstood;
    fn from_str(line: &str) -> Result<Self, NotUnderstood> {
        let not_understood = || NotUnderstood(line.to_owned());
        if let Some(why) = line.strip_prefix("error ") {
            return Ok(Line::Error(why.to_owned()));
        }
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            ["ok"] => Ok(Line::Ok),
            ["service", name, state, pid, restarts] => Ok(Line::Service {
                name: (*name).to_owned(),
                state: (*state).to_owned(),
                pid: pid.parse().map_err(|_| not_understood())?,
                restarts: restarts.parse().map_err(|_| not_understood())?,
            }),
            ["exit", pid, status] => Ok(Line::Exit {
                pid: pid.parse().map_err(|_| not_understood())?,
                status: status.parse().map_err(|_| not_understood())?,
            }),
            ["shutdown", down, cause, deadline] => Ok(Line::Shutdown {
                down: down.parse()?,
                cause: cause.parse()?,
                deadline: deadline.parse().map_err(|_| not_understood())?,
            }),
            _ => Err(not_understood()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_request_survives_its_line() {
        for request in [
            Request::Shutdown(Down::Poweroff),
            Request::Shutdown(Down::Reboot),
            Request::Proceed,
            Request::Hold(7),
            Request::Vouch(Vouch::For(40)),
            Request::Vouch(Vouch::NothingRuns),
            Request::Vouch(Vouch::Refused),
            Request::Status,
            Request::Restart("agent".into()),
            Request::Subscribe,
        ] {
            assert_eq!(request.to_string().parse::<Request>().unwrap(), request);
        }
    }

    #[test]
    fn every_line_survives_its_text() {
        for line in [
            Line::Ok,
            Line::Error("no such service".into()),
            Line::Service { name: "agent".into(), state: "running".into(), pid: 7, restarts: 0 },
            Line::Exit { pid: 4, status: 256 },
            Line::Shutdown { down: Down::Reboot, cause: Cause::CtrlAltDel, deadline: 30 },
        ] {
            assert_eq!(line.to_string().parse::<Line>().unwrap(), line);
        }
    }

    proptest! {
        #[test]
        fn no_line_makes_the_parsers_panic(line in ".{0,60}") {
            let _ = line.parse::<Request>();
            let _ = line.parse::<Line>();
        }
    }
}
