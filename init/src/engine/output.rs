//! What services say: line by line into the kernel's log and into a log file of bounded size on the state partition.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use lodge_model::progress;

use crate::log::Level;

/// Bytes after which a log file is put aside (one is kept).
const LOG_MAX: u64 = 1 << 20;
/// A longer line is cut into several.
const LINE_MAX: usize = 4096;

/// Bytes in, whole lines out.
#[derive(Debug, Default)]
pub struct Lines {
    partial: Vec<u8>,
}

impl Lines {
    /// Take bytes in; the lines that are whole now.
    pub fn feed(&mut self, bytes: &[u8]) -> Vec<String> {
        let mut lines = Vec::new();
        for byte in bytes {
            if *byte != b'\n' {
                self.partial.push(*byte);
            }
            if *byte == b'\n' || self.partial.len() >= LINE_MAX {
                lines.extend(self.finish());
            }
        }
        lines
    }

    /// What is left without a line end.
    pub fn finish(&mut self) -> Option<String> {
        let line = String::from_utf8_lossy(&self.partial).trim_end().to_owned();
        self.partial.clear();
        (!line.is_empty()).then_some(line)
    }
}

/// How urgent a line is: as it says itself (`<3>text`, sd-daemon(3)), else a progress line is for everybody, else as the table says.
pub fn level(line: &str, loud: bool) -> (Level, &str) {
    let said = line.strip_prefix('<').and_then(|rest| rest.split_once('>'));
    let said = said.and_then(|(number, text)| Some((number.parse::<u8>().ok().filter(|number| *number < 8)?, text)));
    match said {
        Some((0..=1, text)) => (Level::Alert, text),
        Some((2..=3, text)) => (Level::Error, text),
        Some((4, text)) => (Level::Warning, text),
        Some((5, text)) => (Level::Notice, text),
        Some((_, text)) => (Level::Info, text),
        None if loud || line.starts_with(progress::PREFIX) => (Level::Notice, line),
        None => (Level::Info, line),
    }
}

/// A log file that never takes more than twice `LOG_MAX`.
#[derive(Debug)]
pub struct BoundedLog {
    path: PathBuf,
    file: Option<File>,
    size: u64,
}

impl BoundedLog {
    /// `DIR/NAME.log`; opened at the first line.
    pub fn new(dir: &Path, name: &str) -> Self {
        Self { path: dir.join(format!("{name}.log")), file: None, size: 0 }
    }

    /// Append a line with the time before it.
    pub fn write(&mut self, line: &str) -> io::Result<()> {
        let text = format!("{:.3} {line}\n", jiff::Timestamp::now());
        if self.file.is_some() && self.size + text.len() as u64 > LOG_MAX {
            self.file = None;
            fs::rename(&self.path, self.path.with_extension("log.1"))?;
        }
        let file = match &mut self.file {
            Some(file) => file,
            None => {
                let file = OpenOptions::new().create(true).append(true).open(&self.path)?;
                self.size = file.metadata()?.len();
                self.file.insert(file)
            }
        };
        file.write_all(text.as_bytes())?;
        self.size += text.len() as u64;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn lines_are_cut_at_their_ends() {
        let mut lines = Lines::default();
        assert_eq!(lines.feed(b"one\r\ntw"), ["one"]);
        assert_eq!(lines.feed(b"o\n\nthree"), ["two"]);
        assert_eq!(lines.finish().as_deref(), Some("three"));
        assert_eq!(lines.finish(), None);
    }

    #[test]
    fn a_line_says_how_urgent_it_is() {
        assert_eq!(level("<3>broken", false), (Level::Error, "broken"));
        assert_eq!(level("<9>odd", false), (Level::Info, "<9>odd"));
        assert_eq!(level("<x>odd", true), (Level::Notice, "<x>odd"));
        assert_eq!(level("lodge: node1 is ready", false), (Level::Notice, "lodge: node1 is ready"));
        assert_eq!(level("chatter", false), (Level::Info, "chatter"));
    }

    #[test]
    fn a_log_is_put_aside_once_and_stays_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = BoundedLog::new(dir.path(), "agent");
        let line = "x".repeat(1000);
        for _ in 0..3000 {
            log.write(&line).unwrap();
        }
        let size = |name: &str| fs::metadata(dir.path().join(name)).unwrap().len();
        assert!(size("agent.log") <= LOG_MAX && size("agent.log.1") <= LOG_MAX);
        assert!(size("agent.log.1") > LOG_MAX / 2);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
        // A start later goes on where the file ends.
        let before = size("agent.log");
        BoundedLog::new(dir.path(), "agent").write("more").unwrap();
        assert!(size("agent.log") > before);
    }

    proptest! {
        #[test]
        fn nothing_but_line_ends_is_lost(pieces in proptest::collection::vec("[a-z\n]{0,40}", 0..20)) {
            let mut lines = Lines::default();
            let mut found: Vec<String> = pieces.iter().flat_map(|piece| lines.feed(piece.as_bytes())).collect();
            found.extend(lines.finish());
            prop_assert_eq!(found.concat(), pieces.concat().replace('\n', ""));
        }
    }
}
