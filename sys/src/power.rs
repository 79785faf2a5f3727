//! How a machine goes down, and the button by which people ask for it.

use std::{
    convert::Infallible,
    fs::{self, File, OpenOptions},
    io::{ErrorKind, Read as _},
    os::{
        fd::{AsFd, BorrowedFd},
        unix::fs::OpenOptionsExt as _,
    },
    path::Path,
};

use anyhow::{Context as _, Result};
use lodge_model::initproto::Down;
use nix::sys::reboot::{RebootMode, reboot, set_cad_enabled};

/// Go down now. The kernel writes nothing back: unmount or sync before.
pub fn go_down(down: Down) -> Result<Infallible> {
    let mode = match down {
        Down::Poweroff => RebootMode::RB_POWER_OFF,
        Down::Reboot => RebootMode::RB_AUTOBOOT,
        Down::Halt => RebootMode::RB_HALT_SYSTEM,
    };
    reboot(mode).with_context(|| format!("asking the kernel for {down}"))
}

/// Let Ctrl-Alt-Del send SIGINT to PID 1 instead of resetting the machine.
pub fn catch_ctrl_alt_del() -> Result<()> {
    set_cad_enabled(false).context("catching Ctrl-Alt-Del")
}

/// Where the kernel puts its input devices.
pub const INPUT_DIR: &str = "/dev/input";

/// A power button.
#[derive(Debug)]
pub struct PowerButton {
    file: File,
}

/// Size of `struct input_event` on a 64-bit machine (linux/input.h): 16 bytes of time, u16 type, u16 code, i32 value.
const EVENT: usize = 24;
const EV_KEY: u16 = 1;
const KEY_POWER: u16 = 116;

impl PowerButton {
    /// Open an input device, as `event3`; `None` when it is not a power button (the kernel's ACPI driver names it).
    pub fn open(device: &str) -> Result<Option<Self>> {
        let name = Path::new("/sys/class/input").join(device).join("device/name");
        match fs::read_to_string(&name) {
            Ok(name) if name.trim() == "Power Button" => {}
            Ok(_) => return Ok(None),
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).with_context(|| format!("reading {}", name.display())),
        }
        let path = Path::new(INPUT_DIR).join(device);
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(nix::libc::O_NONBLOCK)
            .open(&path)
            .with_context(|| format!("opening {}", path.display()))?;
        Ok(Some(Self { file }))
    }

    /// Whether it was pressed since it was asked last. An error means that the device is gone.
    pub fn was_pressed(&self) -> Result<bool> {
        let mut pressed = false;
        let mut events = [0; EVENT * 16];
        loop {
            match (&self.file).read(&mut events) {
                Ok(0) => return Ok(pressed),
                Ok(read) => pressed |= has_press(events.get(..read).unwrap_or_default()),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(pressed),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error).context("reading the power button"),
            }
        }
    }
}

impl AsFd for PowerButton {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

fn has_press(events: &[u8]) -> bool {
    events.chunks_exact(EVENT).any(|event| {
        let half = |at: usize| u16::from_ne_bytes([event[at], event[at + 1]]);
        let value = i32::from_ne_bytes([event[20], event[21], event[22], event[23]]);
        half(16) == EV_KEY && half(18) == KEY_POWER && value == 1
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(kind: u16, code: u16, value: i32) -> Vec<u8> {
        [&[0; 16][..], &kind.to_ne_bytes(), &code.to_ne_bytes(), &value.to_ne_bytes()].concat()
    }

    #[test]
    fn only_a_press_of_the_power_key_counts() {
        assert!(has_press(&[event(0, 0, 0), event(EV_KEY, KEY_POWER, 1)].concat()));
        assert!(!has_press(&event(EV_KEY, KEY_POWER, 0)), "a release is not a press");
        assert!(!has_press(&event(EV_KEY, 30, 1)), "another key");
        assert!(!has_press(&[1, 2, 3]), "half an event");
    }
}
