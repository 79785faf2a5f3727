//! What one machine is doing, read from its console. Pure.

use lodge_model::progress::Progress;
use lodge_qemu_tests::console::Line;

/// A machine's line of the table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Row {
    /// Current step.
    pub step: String,
    /// 0 to 100.
    pub percent: u8,
    /// It is ready.
    pub ready: bool,
}

/// What a console line changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A step begins or goes on.
    Step {
        /// Its name.
        step: String,
        /// 0 to 100.
        percent: u8,
    },
    /// Something is waited for.
    Waiting(String),
    /// Something failed and is tried again.
    Failed(String),
    /// Installed; it restarts.
    Installed,
    /// Ready.
    Ready,
}

/// Firmware and kernel speak before Lodge does: a text in the line, and the step it begins.
const SAYINGS: [(&str, &str); 6] = [
    (">>Start HTTP Boot", "http-boot"),
    (">>Start PXE", "pxe-boot"),
    ("NBP filename is", "pxe-boot"),
    ("BdsDxe: loading", "firmware"),
    ("EFI stub: ", "kernel"),
    ("Lodge: rescue ====", "rescue"),
];

impl Row {
    /// Take in a console line; what it changed, if anything.
    pub fn take(&mut self, line: &Line) -> Option<Change> {
        let change = change(line)?;
        let before = self.clone();
        match &change {
            Change::Step { step, percent } => (self.step, self.percent, self.ready) = (step.clone(), *percent, false),
            Change::Waiting(reason) => self.step = format!("waiting: {reason}"),
            Change::Failed(error) => self.step = format!("failed: {error}"),
            Change::Installed => (self.step, self.percent) = ("installed, restarting".into(), 100),
            Change::Ready => *self = Row { step: "ready".into(), percent: 100, ready: true },
        }
        (*self != before).then_some(change)
    }
}

fn change(line: &Line) -> Option<Change> {
    match line.progress() {
        Some(Progress::Step { step, percent }) => return Some(Change::Step { step, percent }),
        Some(Progress::StepDone { step, .. }) => return Some(Change::Step { step, percent: 100 }),
        Some(Progress::Waiting(reason)) => return Some(Change::Waiting(reason)),
        Some(Progress::Failed(error)) => return Some(Change::Failed(error)),
        Some(Progress::Installed) => return Some(Change::Installed),
        Some(Progress::Ready(_)) => return Some(Change::Ready),
        Some(Progress::Note(_)) | None => {}
    }
    if let Some(percent) = download(&line.text) {
        return Some(Change::Step { step: "http-boot".into(), percent });
    }
    let (_, step) = SAYINGS.iter().find(|(text, _)| line.text.contains(text))?;
    Some(Change::Step { step: (*step).to_owned(), percent: 0 })
}

/// OVMF's own progress: `Downloading...45%`.
fn download(text: &str) -> Option<u8> {
    let (_, rest) = text.rsplit_once("Downloading...")?;
    rest.trim().strip_suffix('%')?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    fn take(row: &mut Row, text: &str) -> Option<Change> {
        row.take(&Line { at: Instant::now(), text: text.into() })
    }

    #[test]
    fn a_machine_is_followed_from_firmware_to_ready() {
        let mut row = Row::default();
        let step = |step: &str, percent| Some(Change::Step { step: step.into(), percent });
        assert_eq!(take(&mut row, "BdsDxe: loading Boot0003 \"UEFI HTTPv4\""), step("firmware", 0));
        assert_eq!(take(&mut row, ">>Start HTTP Boot over IPv4."), step("http-boot", 0));
        assert_eq!(take(&mut row, "Downloading...45%"), step("http-boot", 45));
        assert_eq!(take(&mut row, "EFI stub: Loaded initrd"), step("kernel", 0));
        assert_eq!(take(&mut row, "EFI stub: Loaded initrd"), None);
        assert_eq!(take(&mut row, "[    1.0] e1000: whatever"), None);
        assert_eq!(take(&mut row, "lodge: write-root 40 % 1 MiB of 2 MiB"), step("write-root", 40));
        assert_eq!(take(&mut row, "lodge: waiting: no disk"), Some(Change::Waiting("no disk".into())));
        assert_eq!(row.step, "waiting: no disk");
        assert_eq!(take(&mut row, "lodge: node1 is ready"), Some(Change::Ready));
        assert_eq!(take(&mut row, "lodge: node1 is ready"), None);
    }
}
