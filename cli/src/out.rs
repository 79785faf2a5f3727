//! How answers, progress and questions reach whoever asked: answers on standard output, everything else on standard error.

use std::io::{BufRead as _, IsTerminal as _, Write as _, stderr, stdin, stdout};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use indicatif::{ProgressBar, ProgressStyle};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::Serialize;

use crate::arguments::Confirm;
use crate::failure::NotConfirmed;
use crate::view::Setting;

/// How answers are shown.
pub struct Out {
    /// As JSON.
    pub json: bool,
}

impl Out {
    /// A value, or its view for people.
    pub fn show(&self, value: &impl Serialize, view: impl FnOnce(&Setting) -> String) -> Result<()> {
        if self.json { self.json(value) } else { print(&view(&Setting::here())) }
    }

    /// A value.
    pub fn json(&self, value: &impl Serialize) -> Result<()> {
        print(&format!("{}\n", serde_json::to_string_pretty(value).context("encoding the answer")?))
    }

    /// A sentence that says what has been done.
    pub fn done(&self, text: &str) -> Result<()> {
        match self.json {
            true => self.json(&serde_json::json!({ "done": text })),
            false => print(&format!("{text}\n")),
        }
    }

    /// Whether to go on. `what` says what will be done; without `loses` nobody is asked.
    pub fn confirm(&self, confirm: Confirm, what: &str, loses: bool) -> Result<bool> {
        if confirm.dry_run {
            match self.json {
                true => self.json(&serde_json::json!({ "would": what }))?,
                false => print(&format!("would be done: {what}\n"))?,
            }
            return Ok(false);
        }
        if confirm.yes || !loses {
            return Ok(true);
        }
        if !stdin().is_terminal() {
            bail!(NotConfirmed(format!("{what}; say --yes to do it, --dry-run to see only this")));
        }
        eprint!("{what}.\nGo on? [y/N] ");
        match read_line()?.as_str() {
            "y" | "Y" | "yes" => Ok(true),
            _ => bail!(NotConfirmed("nothing was done".into())),
        }
    }
}

/// What is told while something takes long: one line that changes on a terminal, a line for each change elsewhere.
pub struct Progress {
    bar: Option<ProgressBar>,
    last: String,
}

impl Progress {
    /// Something without a measure.
    pub fn spinner() -> Self {
        let style =
            ProgressStyle::with_template("{spinner} {msg} ({elapsed})").unwrap_or_else(|_| ProgressStyle::default_spinner());
        Self::with(|| {
            let bar = ProgressBar::new_spinner().with_style(style);
            bar.enable_steady_tick(Duration::from_millis(200));
            bar
        })
    }

    /// Bytes of so many.
    pub fn bytes(size: u64) -> Self {
        const TEMPLATE: &str = "{msg} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta} left";
        let style = ProgressStyle::with_template(TEMPLATE).unwrap_or_else(|_| ProgressStyle::default_bar());
        Self::with(|| ProgressBar::new(size).with_style(style))
    }

    fn with(bar: impl FnOnce() -> ProgressBar) -> Self {
        Self { bar: stderr().is_terminal().then(bar), last: String::new() }
    }

    /// The bar, to be told of bytes from elsewhere; none where it would not be seen.
    pub fn bar(&self) -> Option<ProgressBar> {
        self.bar.clone()
    }

    /// How it stands.
    pub fn say(&mut self, line: &str) {
        if line == self.last {
            return;
        }
        self.last = line.to_owned();
        match &self.bar {
            Some(bar) => bar.set_message(line.to_owned()),
            None => eprintln!("{line}"),
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

impl Setting {
    /// As it is for the reader of standard output.
    pub fn here() -> Self {
        let width = stdout().is_terminal().then(|| comfy_table::Table::new().width()).flatten();
        Self { now: Timestamp::now(), zone: TimeZone::system(), width }
    }
}

/// A line of standard input.
pub fn read_line() -> Result<String> {
    let mut line = String::new();
    stdin().lock().read_line(&mut line).context("reading standard input")?;
    Ok(line.trim().to_owned())
}

/// A secret: typed unseen after a question, or the first line of standard input where nobody types.
pub fn read_secret(question: &str) -> Result<String> {
    if !stdin().is_terminal() {
        return read_line();
    }
    eprint!("{question}");
    console::Term::stderr().read_secure_line().context("reading from the terminal")
}

/// To standard output. A reader that has gone away, as `head` does, is no error.
pub fn print(text: &str) -> Result<()> {
    print_bytes(text.as_bytes())
}

/// The same, of bytes.
pub fn print_bytes(bytes: &[u8]) -> Result<()> {
    let mut out = stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => std::process::exit(0),
        written => written.context("writing to standard output"),
    }
}
