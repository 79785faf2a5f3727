//! The live table, one line a machine; plain lines where the output is no terminal; or JSON.

use std::{collections::BTreeMap, io::IsTerminal as _};

use anyhow::{Context as _, Result};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use lodge_model::environment::view::{EnvironmentView, Phase};
use lodge_qemu_tests::console::RackLine;
use serde::Serialize;

use super::{Change, Message, Row};

/// Where the machines' changes are shown.
pub struct Show {
    form: Form,
    rows: BTreeMap<String, (Row, Option<ProgressBar>)>,
}

enum Form {
    Table(MultiProgress, ProgressStyle),
    Lines,
    Json,
}

/// One event, as `--json` prints it.
#[derive(Serialize)]
struct Event<'a> {
    at: jiff::Timestamp,
    machine: &'a str,
    event: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    step: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    percent: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<&'a str>,
}

impl Show {
    /// A table on a terminal, lines elsewhere, JSON when asked for.
    pub fn new(json: bool) -> Result<Self> {
        let template = "{prefix:10} {bar:24.cyan/blue} {percent:>3} % {elapsed:>5} {wide_msg}";
        let style = ProgressStyle::with_template(template).context("reading the table's template")?;
        let form = match (json, std::io::stdout().is_terminal()) {
            (true, _) => Form::Json,
            (false, true) => Form::Table(MultiProgress::new(), style.progress_chars("━╸ ")),
            (false, false) => Form::Lines,
        };
        Ok(Self { form, rows: BTreeMap::new() })
    }

    /// Show what a message changes.
    pub fn message(&mut self, message: &Message) {
        match message {
            Message::Line(line) => self.line(line),
            Message::Environment(found) => self.environment(found),
            Message::Drain { node, done } => self.drain(node, *done),
            Message::Built(_) | Message::Stop => {}
        }
    }

    /// Show that a node is being drained, or has been.
    fn drain(&mut self, node: &str, done: bool) {
        let step =
            format!("{node}: its environments {}", if done { "have moved, nothing is left" } else { "move to other nodes" });
        let row = Row { step: step.clone(), percent: if done { 100 } else { 0 }, ready: done };
        let change = if done { Change::Ready } else { Change::Step { step, percent: 0 } };
        self.change("drain", row, &change);
    }

    /// Show where an environment stands.
    fn environment(&mut self, found: &EnvironmentView) {
        let place = found.node.as_ref().map(|node| format!(" on {node}")).unwrap_or_default();
        let reason = if found.reason.is_empty() { String::new() } else { format!(": {}", found.reason) };
        let step = format!("{}{place}{reason}", found.phase.word());
        let ready = found.phase == Phase::Running;
        let row = Row { step: step.clone(), percent: if ready { 100 } else { 50 }, ready };
        let change = if ready { Change::Ready } else { Change::Step { step, percent: row.percent } };
        self.change(&found.spec.name, row, &change);
    }

    /// Show what a console line changes.
    pub fn line(&mut self, line: &RackLine) {
        let mut row = self.rows.get(&line.machine).map(|(row, _)| row.clone()).unwrap_or_default();
        if let Some(change) = row.take(&line.line) {
            self.change(&line.machine, row, &change);
        }
    }

    fn change(&mut self, name: &str, row: Row, change: &Change) {
        let (shown, bar) = self.rows.entry(name.to_owned()).or_insert_with(|| {
            let bar = match &self.form {
                Form::Table(table, style) => Some(new_bar(table, style, name)),
                Form::Lines | Form::Json => None,
            };
            (Row::default(), bar)
        });
        *shown = row;
        match (&self.form, bar) {
            (Form::Table(..), Some(bar)) => update(bar, shown),
            (Form::Json, _) => print_json(name, change),
            _ => print_line(name, shown, change),
        }
    }

    /// How many machines are ready.
    pub fn ready(&self) -> usize {
        self.rows.values().filter(|(row, _)| row.ready).count()
    }

    /// No more changes: the table stays as it is, above what is printed next.
    pub fn end(&mut self) {
        for (_, bar) in self.rows.values().filter(|(_, bar)| bar.is_some()) {
            bar.iter().for_each(|bar| bar.abandon());
        }
        if matches!(self.form, Form::Table(..)) {
            self.form = Form::Lines;
        }
    }
}

fn new_bar(table: &MultiProgress, style: &ProgressStyle, machine: &str) -> ProgressBar {
    let bar = table.add(ProgressBar::new(100).with_style(style.clone()).with_prefix(machine.to_owned()));
    bar.enable_steady_tick(std::time::Duration::from_secs(1));
    bar
}

fn update(bar: &ProgressBar, row: &Row) {
    bar.set_position(row.percent.into());
    bar.set_message(row.step.clone());
    if row.ready {
        bar.abandon();
    }
}

fn print_line(machine: &str, row: &Row, change: &Change) {
    // Every tenth is enough where lines cannot be replaced.
    if !matches!(change, Change::Step { percent, .. } if percent % 10 != 0) {
        println!("{machine:10} {:>3} %  {}", row.percent, row.step);
    }
}

fn print_json(machine: &str, change: &Change) {
    let mut event = Event { at: jiff::Timestamp::now(), machine, event: "step", step: None, percent: None, text: None };
    match change {
        Change::Step { step, percent } => (event.step, event.percent) = (Some(step.as_str()), Some(*percent)),
        Change::Waiting(text) => (event.event, event.text) = ("waiting", Some(text.as_str())),
        Change::Failed(text) => (event.event, event.text) = ("failed", Some(text.as_str())),
        Change::Installed => event.event = "installed",
        Change::Ready => event.event = "ready",
    }
    if let Ok(line) = serde_json::to_string(&event) {
        println!("{line}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_has_the_documented_form() {
        let at = jiff::Timestamp::UNIX_EPOCH;
        let event = Event { at, machine: "node1", event: "step", step: Some("write-image"), percent: Some(40), text: None };
        let expected = r#"{"at":"1970-01-01T00:00:00Z","machine":"node1","event":"step","step":"write-image","percent":40}"#;
        assert_eq!(serde_json::to_string(&event).unwrap(), expected);
    }
}
