//! Power buttons, whenever they come.

use std::{collections::BTreeMap, fs, os::fd::AsFd as _};

use anyhow::{Context as _, Result};
use lodge_sys::power::{INPUT_DIR, PowerButton};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};

use super::poller::{Poller, Source};
use crate::log;

/// Every power button of the machine.
#[derive(Debug)]
pub struct Buttons {
    devices: Inotify,
    buttons: BTreeMap<u32, PowerButton>,
}

impl Buttons {
    /// Watch for them.
    pub fn watch(poller: &Poller) -> Result<Self> {
        // The kernel makes the directory with its first input device, which may come later than this.
        fs::create_dir_all(INPUT_DIR).with_context(|| format!("making {INPUT_DIR}"))?;
        let devices = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC).context("opening an inotify")?;
        devices.add_watch(INPUT_DIR, AddWatchFlags::IN_CREATE).with_context(|| format!("watching {INPUT_DIR}"))?;
        poller.add(devices.as_fd(), Source::InputDevices)?;
        let mut buttons = Self { devices, buttons: BTreeMap::new() };
        buttons.look(poller);
        Ok(buttons)
    }

    /// An input device came: perhaps it is a button.
    pub fn look(&mut self, poller: &Poller) {
        while self.devices.read_events().is_ok_and(|events| !events.is_empty()) {}
        let Ok(entries) = fs::read_dir(INPUT_DIR) else { return };
        for entry in entries.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let Some(number) = name.strip_prefix("event").and_then(|number| number.parse().ok()) else { continue };
            if self.buttons.contains_key(&number) {
                continue;
            }
            match PowerButton::open(&name) {
                Ok(Some(button)) => match poller.add(&button, Source::Button(number)) {
                    Ok(()) => {
                        log::info(&format!("power button at {INPUT_DIR}/{name}"));
                        self.buttons.insert(number, button);
                    }
                    Err(error) => log::warning(&format!("{error:#}")),
                },
                Ok(None) => {}
                Err(error) => log::warning(&format!("looking for a power button: {error:#}")),
            }
        }
    }

    /// Whether the button was pressed. One that is gone is forgotten.
    pub fn was_pressed(&mut self, number: u32) -> bool {
        match self.buttons.get(&number).map(PowerButton::was_pressed) {
            Some(Ok(pressed)) => pressed,
            Some(Err(_)) | None => {
                self.buttons.remove(&number);
                false
            }
        }
    }
}
