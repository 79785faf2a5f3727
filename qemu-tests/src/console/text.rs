//! Bytes of a terminal as lines for a program: cut at line feeds and carriage returns, escape sequences taken out.

/// A line longer than this is given out in pieces.
const LINE_MAX: usize = 8 << 10;

/// What has come since the last end of a line.
#[derive(Debug, Default)]
pub struct Cutter {
    waiting: Vec<u8>,
}

impl Cutter {
    /// Take bytes in; give out the lines that are complete by them and not blank.
    pub fn cut(&mut self, bytes: &[u8]) -> Vec<String> {
        let mut lines = Vec::new();
        for byte in bytes {
            if matches!(byte, b'\n' | b'\r') || self.waiting.len() >= LINE_MAX {
                lines.extend(line(&self.waiting));
                self.waiting.clear();
            }
            if !matches!(byte, b'\n' | b'\r') {
                self.waiting.push(*byte);
            }
        }
        lines
    }
}

fn line(bytes: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(bytes);
    let plain: String =
        console::strip_ansi_codes(&text).chars().filter(|letter| !letter.is_control() || *letter == '\t').collect();
    let plain = plain.trim_end();
    (!plain.is_empty()).then(|| plain.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_progress_bar_and_a_coloured_line_read_as_text() {
        let mut cutter = Cutter::default();
        assert_eq!(cutter.cut(b"\x1b[1;32mlodge:\x1b[0m step 1 %\r"), ["lodge: step 1 %"]);
        assert_eq!(cutter.cut(b"\x1b[2Klodge: step 2 %\r\n\r\nhal"), ["lodge: step 2 %"]);
        assert_eq!(cutter.cut(b"f\n"), ["half"]);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            Cutter::default().cut(&bytes);
        }
    }
}
