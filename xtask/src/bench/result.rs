//! Figures, their ratio and their bar. Pure.

use std::fmt;

use anyhow::{Context as _, Result};
use serde::Serialize;

/// What was measured on one side, each time.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Samples(pub Vec<f64>);

/// What a ratio must be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Bar {
    /// Not more.
    AtMost(f64),
    /// Less.
    Below(f64),
    /// Not less.
    AtLeast(f64),
    /// Shown for comparison.
    None,
}

/// One comparison.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// What is compared with what, and the unit.
    pub name: String,
    /// Lodge's side.
    pub ours: Samples,
    /// The other.
    pub peer: Samples,
    /// What their ratio must be.
    pub bar: Bar,
}

/// All of a bench.
#[derive(Clone, Debug, PartialEq)]
pub struct Table {
    bench: &'static str,
    rows: Vec<Row>,
}

/// A row as `--json` prints it.
#[derive(Serialize)]
struct Line<'a> {
    bench: &'a str,
    name: &'a str,
    ours: f64,
    peer: f64,
    ratio: f64,
    bar: Option<String>,
    holds: Option<bool>,
}

impl Samples {
    /// The one in the middle; of an even number, the mean of both.
    pub fn median(&self) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        let at = |index: usize| sorted.get(index).copied().unwrap_or(f64::NAN);
        (at(sorted.len().saturating_sub(1) / 2) + at(sorted.len() / 2)) / 2.0
    }

    fn range(&self) -> (f64, f64) {
        self.0.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| (low.min(*value), high.max(*value)))
    }

    /// The same in another unit.
    pub fn map(&self, of: impl Fn(f64) -> f64) -> Self {
        Self(self.0.iter().map(|value| of(*value)).collect())
    }
}

impl Bar {
    /// `None` where nothing is demanded. What could not be measured holds nothing.
    fn holds(self, ratio: f64) -> Option<bool> {
        match self {
            Bar::AtMost(bar) => Some(ratio <= bar),
            Bar::Below(bar) => Some(ratio < bar),
            Bar::AtLeast(bar) => Some(ratio >= bar),
            Bar::None => None,
        }
    }
}

impl fmt::Display for Bar {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Bar::AtMost(bar) => write!(out, "<= {bar}"),
            Bar::Below(bar) => write!(out, "< {bar}"),
            Bar::AtLeast(bar) => write!(out, ">= {bar}"),
            Bar::None => Ok(()),
        }
    }
}

impl Row {
    fn ratio(&self) -> f64 {
        self.ours.median() / self.peer.median()
    }

    fn holds(&self) -> Option<bool> {
        self.bar.holds(self.ratio())
    }
}

impl Table {
    /// An empty one.
    pub fn new(bench: &'static str) -> Self {
        Self { bench, rows: Vec::new() }
    }

    /// Add a comparison.
    pub fn row(&mut self, name: impl Into<String>, ours: &Samples, peer: &Samples, bar: Bar) {
        self.rows.push(Row { name: name.into(), ours: ours.clone(), peer: peer.clone(), bar });
    }

    /// Rows whose bar is not held.
    pub fn not_held(&self) -> Vec<&str> {
        self.rows.iter().filter(|row| row.holds() == Some(false)).map(|row| row.name.as_str()).collect()
    }

    /// For people: medians, with the smallest and greatest in brackets.
    pub fn text(&self) -> String {
        let mut text =
            format!("{:44} {:>24} {:>24} {:>7} {:>8}\n", format!("bench {}", self.bench), "ours", "peer", "ratio", "bar");
        for row in &self.rows {
            let side = |samples: &Samples| {
                let (low, high) = samples.range();
                format!("{} [{} {}]", figure(samples.median()), figure(low), figure(high))
            };
            let verdict = match row.holds() {
                Some(true) => "holds",
                Some(false) => "NOT HELD",
                None => "",
            };
            let line = format!(
                "{:44} {:>24} {:>24} {:>7.2} {:>8}  {verdict}",
                row.name,
                side(&row.ours),
                side(&row.peer),
                row.ratio(),
                row.bar.to_string()
            );
            text += line.trim_end();
            text.push('\n');
        }
        text
    }

    /// For scripts: one object a line.
    pub fn json(&self) -> Result<String> {
        let line = |row: &Row| {
            let bar = (row.bar != Bar::None).then(|| row.bar.to_string());
            let (ours, peer) = (row.ours.median(), row.peer.median());
            let line = Line { bench: self.bench, name: &row.name, ours, peer, ratio: row.ratio(), bar, holds: row.holds() };
            serde_json::to_string(&line).map(|line| line + "\n").context("printing a row")
        };
        self.rows.iter().map(line).collect()
    }
}

/// Three digits are as much as such a figure is worth.
fn figure(value: f64) -> String {
    let digits = if value >= 100.0 {
        0
    } else if value >= 10.0 {
        1
    } else {
        2
    };
    format!("{value:.digits$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_is_in_the_middle_of_any_order() {
        assert!((Samples(vec![3.0, 100.0, 1.0]).median() - 3.0).abs() < 1e-9);
        assert!((Samples(vec![4.0, 1.0, 2.0, 100.0]).median() - 3.0).abs() < 1e-9);
        assert!(Samples::default().median().is_nan());
    }

    #[test]
    fn bars_hold_at_the_bar_and_not_beyond_it() {
        assert_eq!(Bar::AtMost(1.15).holds(1.15), Some(true));
        assert_eq!(Bar::AtMost(1.15).holds(1.16), Some(false));
        assert_eq!(Bar::Below(1.0).holds(1.0), Some(false));
        assert_eq!(Bar::AtLeast(5.0).holds(5.0), Some(true));
        assert_eq!(Bar::AtLeast(5.0).holds(4.9), Some(false));
        assert_eq!(Bar::None.holds(9.0), None);
    }

    #[test]
    fn what_was_not_measured_holds_no_bar() {
        let mut table = Table::new("env");
        table.row("nothing", &Samples::default(), &Samples(vec![1.0]), Bar::AtMost(2.0));
        assert_eq!(table.not_held(), ["nothing"]);
    }

    #[test]
    fn rows_are_printed_as_documented() {
        let mut table = Table::new("env");
        table.row("start, beside LXC (s)", &Samples(vec![1.0, 2.0, 3.0]), &Samples(vec![4.0]), Bar::AtMost(1.0));
        table.row("more", &Samples(vec![1.0]), &Samples(vec![4.0]), Bar::None);
        let first =
            r#"{"bench":"env","name":"start, beside LXC (s)","ours":2.0,"peer":4.0,"ratio":0.5,"bar":"<= 1","holds":true}"#;
        let second = r#"{"bench":"env","name":"more","ours":1.0,"peer":4.0,"ratio":0.25,"bar":null,"holds":null}"#;
        assert_eq!(table.json().unwrap(), format!("{first}\n{second}\n"));
        assert!(table.text().contains("2.00 [1.00 3.00]") && table.text().contains("holds"));
        assert!(table.not_held().is_empty());
    }
}
