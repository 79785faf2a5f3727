//! What happened, line by line: what golden files are compared with, and what is printed of a run that broke something.

use crate::clock::Millis;

/// The log of a run.
#[derive(Default)]
pub struct Record {
    lines: Vec<String>,
    is_on: bool,
}

impl Record {
    /// Nothing is kept unless it is asked for: most runs are of no interest.
    pub fn new(is_on: bool) -> Self {
        Self { lines: Vec::new(), is_on }
    }

    /// Whether anybody reads it.
    pub fn is_on(&self) -> bool {
        self.is_on
    }

    /// Something happened.
    pub fn say(&mut self, now: Millis, who: &str, what: &str) {
        if self.is_on {
            self.lines.push(format!("{:>4}.{:03} {who:<8} {what}", now / 1000, now % 1000));
        }
    }

    /// All of it.
    pub fn text(&self) -> String {
        self.lines.iter().map(|line| format!("{line}\n")).collect()
    }
}
