//! The kernel's log as a log of ours: one line, one record, with a level, so that serial console, VGA and `dmesg` all have it.
//!
//! Format of a record: kernel, Documentation/ABI/testing/dev-kmsg.

use std::{
    fs::{File, OpenOptions},
    io::Write as _,
};

use anyhow::{Context as _, Result};

/// How urgent a line is (syslog(2)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Level {
    /// The machine cannot go on.
    Alert = 1,
    /// Something failed.
    Error = 3,
    /// Something is not as it should be, and it goes on.
    Warning = 4,
    /// Worth a line on every console.
    Notice = 5,
    /// Everything else.
    Info = 6,
}

/// An open kernel log.
#[derive(Debug)]
pub struct Kmsg {
    file: File,
    name: String,
}

/// The kernel refuses records longer than 1024 bytes with their prefix; a longer line becomes several.
const LONGEST: usize = 900;

impl Kmsg {
    /// Open `/dev/kmsg`; every line starts with `name: `.
    pub fn open(name: &str) -> Result<Self> {
        let file = OpenOptions::new().write(true).open("/dev/kmsg").context("opening /dev/kmsg")?;
        Ok(Self { file, name: name.to_owned() })
    }

    /// Log a text, line by line. A log that cannot be written is not worth failing for: nothing is returned.
    pub fn log(&self, level: Level, text: &str) {
        self.log_as(&self.name, level, text);
    }

    /// Log in another's name.
    pub fn log_as(&self, name: &str, level: Level, text: &str) {
        for record in records(name, level, text) {
            // One write is one record; a full or missing log must not stop what is being logged.
            let _ = (&self.file).write(record.as_bytes());
        }
    }
}

fn records(name: &str, level: Level, text: &str) -> Vec<String> {
    let lines = text.lines().map(str::trim_end).filter(|line| !line.is_empty());
    lines.flat_map(pieces).map(|piece| format!("<{}>{name}: {piece}\n", level as u8)).collect()
}

fn pieces(line: &str) -> Vec<&str> {
    let mut pieces = Vec::new();
    let mut rest = line;
    while rest.len() > LONGEST {
        let (piece, after) = rest.split_at(rest.floor_char_boundary(LONGEST));
        pieces.push(piece);
        rest = after;
    }
    pieces.push(rest);
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_text_becomes_one_record_a_line() {
        let records = records("init", Level::Notice, "one\n\n  two \n");
        assert_eq!(records, ["<5>init: one\n", "<5>init:   two\n"]);
    }

    proptest! {
        #[test]
        fn nothing_is_lost_and_nothing_is_too_long(line in "\\PC{0,3000}") {
            let pieces = pieces(&line);
            prop_assert!(pieces.iter().all(|piece| piece.len() <= LONGEST));
            prop_assert_eq!(pieces.concat(), line);
        }
    }
}
