//! From power-on to ready, split by phase, as the console shows it.
//!
//! Every phase ends with a line that only it ends with: the firmware's own, the kernel's first, each step of the installer, the agent's
//! last. Times are of the host's clock, when the line was complete.

use std::time::Instant;

use lodge_model::progress::Progress;

use crate::console::Line;

/// A phase.
#[derive(Clone, Debug, PartialEq)]
pub struct Phase {
    /// What went on.
    pub name: String,
    /// Seconds.
    pub seconds: f64,
}

/// The phases of a machine that was switched on at `start`, until it was first ready.
pub fn phases(start: Instant, lines: &[Line]) -> Vec<Phase> {
    let mut phases = Vec::new();
    let (mut from, mut stage) = (start, Stage::Firmware);
    for line in lines {
        let Some((name, next)) = stage.end(line) else { continue };
        phases.push(Phase { name, seconds: line.at.duration_since(from).as_secs_f64() });
        (from, stage) = (line.at, next);
        if stage == Stage::Ready {
            break;
        }
    }
    phases
}

/// The phases as a table, with their sum.
pub fn table(phases: &[Phase]) -> String {
    let mut text = String::new();
    for phase in phases {
        text += &format!("  {:<28} {:>7.1} s\n", phase.name, phase.seconds);
    }
    let sum: f64 = phases.iter().map(|phase| phase.seconds).sum();
    text + &format!("  {:<28} {sum:>7.1} s\n", "power-on to ready")
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Firmware,
    Transfer,
    Kernel,
    Installer,
    Restart,
    System,
    Ready,
}

impl Stage {
    /// The phase that a line ends, and the stage that follows.
    fn end(self, line: &Line) -> Option<(String, Stage)> {
        let progress = line.progress();
        let says = |text: &str| line.text.contains(text);
        let ended = |name: &str, next| Some((name.to_owned(), next));
        if matches!(progress, Some(Progress::Ready(_))) {
            return ended("kernel, services, agent", Stage::Ready);
        }
        match self {
            Stage::Firmware if says(">>Start") => ended("firmware", Stage::Transfer),
            Stage::Firmware if says("EFI stub") => ended("firmware, boot file from disk", Stage::Kernel),
            Stage::Transfer if says("EFI stub") => ended("DHCP, boot file by network", Stage::Kernel),
            Stage::Kernel if progress.is_some() => ended("kernel, initrd", Stage::Installer),
            Stage::Installer => match progress {
                Some(Progress::StepDone { step, .. }) => Some((format!("installer: {step}"), Stage::Installer)),
                Some(Progress::Installed) => ended("installer: report", Stage::Restart),
                _ => None,
            },
            Stage::Restart if says("EFI stub") => ended("restart: firmware, boot file", Stage::System),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_netbooted_installation_is_split() {
        let start = Instant::now();
        let lines: Vec<Line> = [
            (3, "BdsDxe: failed to load Boot0001"),
            (4, ">>Start HTTP Boot over IPv4."),
            (14, "EFI stub: Loaded initrd from LINUX_EFI_INITRD_MEDIA_GUID device path"),
            (20, "lodge: network 0 %"),
            (25, "lodge: write-root 50 % 1 of 2"),
            (30, "lodge: write-root done in 9.0 s"),
            (31, "lodge: installed 0.1.0 in slot A of disk NODE1"),
            (40, "EFI stub: Loaded initrd from LINUX_EFI_INITRD_MEDIA_GUID device path"),
            (50, "lodge: node1 is ready"),
            (60, "lodge: node1 is ready"),
        ]
        .map(|(second, text)| Line { at: start + Duration::from_secs(second), text: text.into() })
        .into();
        let found: Vec<(String, u64)> =
            phases(start, &lines).into_iter().map(|phase| (phase.name, phase.seconds.round() as u64)).collect();
        let expected = [
            ("firmware", 4),
            ("DHCP, boot file by network", 10),
            ("kernel, initrd", 6),
            ("installer: write-root", 10),
            ("installer: report", 1),
            ("restart: firmware, boot file", 9),
            ("kernel, services, agent", 10),
        ];
        assert_eq!(found, expected.map(|(name, seconds)| (name.to_owned(), seconds)));
    }
}
