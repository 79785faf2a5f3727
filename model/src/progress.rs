//! What a machine says of its progress on its consoles: lines that people read and that the rack's live table parses.
//!
//! `lodge: write-root 40 % 120.0 MiB of 300.0 MiB, 12 s left`, `lodge: write-root done in 4.2 s`, `lodge: waiting: …`,
//! `lodge: failed: write-root: …`, `lodge: node1 is ready`. Nothing but these forms starts with `lodge: `.

use crate::api::MachineEvent;
use crate::facts::human_bytes;

/// Start of every line.
pub const PREFIX: &str = "lodge: ";

/// A line read back.
#[derive(Clone, Debug, PartialEq)]
pub enum Progress {
    /// A step goes on.
    Step {
        /// Step name.
        step: String,
        /// 0 to 100.
        percent: u8,
    },
    /// A step is done.
    StepDone {
        /// Step name.
        step: String,
        /// Seconds it took.
        seconds: f64,
    },
    /// Something is waited for.
    Waiting(String),
    /// Something failed.
    Failed(String),
    /// Installed; restarting.
    Installed,
    /// The node of that name is ready.
    Ready(String),
    /// Anything else.
    Note(String),
}

/// The console line of an installer's event.
pub fn line(event: &MachineEvent) -> String {
    match event {
        MachineEvent::Step { step, percent, done, total, left } => {
            let bytes = if *total == 0 { String::new() } else { format!(" {} of {}", human_bytes(*done), human_bytes(*total)) };
            let left = left.map(|seconds| format!(", {seconds} s left")).unwrap_or_default();
            format!("{PREFIX}{step} {percent} %{bytes}{left}")
        }
        MachineEvent::StepDone { step, seconds } => {
            format!("{PREFIX}{step} done in {seconds:.1} s")
        }
        MachineEvent::Waiting { reason } => format!("{PREFIX}waiting: {reason}"),
        MachineEvent::Failed { step, error } => format!("{PREFIX}failed: {step}: {error}"),
        MachineEvent::Installed { version, slot, disk_serial } => {
            format!("{PREFIX}installed {version} in slot {slot:?} of disk {disk_serial}")
        }
        MachineEvent::Note { text } => format!("{PREFIX}note: {text}"),
    }
}

/// The console line of a node that has become ready.
pub fn ready_line(name: &str) -> String {
    format!("{PREFIX}{name} is ready")
}

/// Read a console line; `None` for all that is not progress. A kernel time stamp or a service name before it is skipped.
pub fn parse(text: &str) -> Option<Progress> {
    let at = text.find(PREFIX)?;
    let rest = text[at + PREFIX.len()..].trim_end();
    if let Some(reason) = rest.strip_prefix("waiting: ") {
        return Some(Progress::Waiting(reason.to_owned()));
    }
    if let Some(error) = rest.strip_prefix("failed: ") {
        return Some(Progress::Failed(error.to_owned()));
    }
    if let Some(note) = rest.strip_prefix("note: ") {
        return Some(Progress::Note(note.to_owned()));
    }
    let words: Vec<&str> = rest.split_whitespace().collect();
    match words.as_slice() {
        ["installed", ..] => Some(Progress::Installed),
        [name, "is", "ready"] => Some(Progress::Ready((*name).to_owned())),
        [step, "done", "in", seconds, "s"] => {
            Some(Progress::StepDone { step: (*step).to_owned(), seconds: seconds.parse().ok()? })
        }
        [step, percent, "%" | "%,", ..] => Some(Progress::Step { step: (*step).to_owned(), percent: percent.parse().ok()? }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_event_is_read_back_from_its_line() {
        let step = MachineEvent::Step { step: "write-root".into(), percent: 40, done: 120, total: 300, left: Some(12) };
        assert_eq!(parse(&line(&step)), Some(Progress::Step { step: "write-root".into(), percent: 40 }));
        let bare = MachineEvent::Step { step: "partition".into(), percent: 0, done: 0, total: 0, left: Some(3) };
        assert_eq!(parse(&line(&bare)), Some(Progress::Step { step: "partition".into(), percent: 0 }));
        let done = MachineEvent::StepDone { step: "write-root".into(), seconds: 4.21 };
        assert_eq!(parse(&line(&done)), Some(Progress::StepDone { step: "write-root".into(), seconds: 4.2 }));
        let waiting = MachineEvent::Waiting { reason: "no disk".into() };
        assert_eq!(parse(&line(&waiting)), Some(Progress::Waiting("no disk".into())));
        assert_eq!(parse(&format!("[   12.3] {}", ready_line("node1"))), Some(Progress::Ready("node1".into())));
        assert_eq!(parse("[    1.0] Linux version 6.12"), None);
    }
}
