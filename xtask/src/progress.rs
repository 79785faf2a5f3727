//! How long work tells what it is doing: one trait, so that `image` shows a bar, `demo` a line of its table and a log a line a step.

use std::{
    io::{BufRead, BufReader, IsTerminal},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use indicatif::{ProgressBar, ProgressStyle};

/// Something that shows where long work is.
pub trait Progress {
    /// A step begins: `number` of `total`, counted from 1.
    fn step(&self, number: usize, total: usize, name: &str);
    /// What the step is at, one short line; shown only where it can be replaced by the next.
    fn detail(&self, line: &str);
    /// The step ended; `unchanged` when nothing had to be done.
    fn done(&self, name: &str, took: Duration, unchanged: bool);
}

/// A spinner on a terminal, plain lines elsewhere.
pub struct Console {
    bar: Option<ProgressBar>,
}

impl Console {
    /// Writes to standard error, so that standard output stays for results.
    pub fn new() -> Result<Self> {
        let bar = std::io::stderr().is_terminal().then(ProgressBar::new_spinner);
        if let Some(bar) = &bar {
            bar.set_style(
                ProgressStyle::with_template("{spinner} {prefix} [{elapsed}] {wide_msg}")
                    .context("reading the bar's template")?,
            );
            bar.enable_steady_tick(Duration::from_millis(120));
        }
        Ok(Self { bar })
    }
}

impl Progress for Console {
    fn step(&self, number: usize, total: usize, name: &str) {
        match &self.bar {
            Some(bar) => {
                bar.reset_elapsed();
                bar.set_prefix(format!("{number}/{total} {name}"));
                bar.set_message("");
            }
            None => eprintln!("{number}/{total} {name}"),
        }
    }

    fn detail(&self, line: &str) {
        if let Some(bar) = &self.bar {
            bar.set_message(line.trim().to_owned());
        }
    }

    fn done(&self, name: &str, took: Duration, unchanged: bool) {
        let line =
            if unchanged { format!("{name}: up to date") } else { format!("{name}: done in {:.1} s", took.as_secs_f32()) };
        match &self.bar {
            Some(bar) => bar.println(line),
            None => eprintln!("    {line}"),
        }
    }
}

/// Run a program, its output lines becoming the step's detail. A failure's message holds the command and its last lines.
pub fn run(progress: &dyn Progress, command: &mut Command) -> Result<()> {
    let shown = show(command);
    let (reader, writer) = std::io::pipe().context("making a pipe")?;
    command.stdin(Stdio::null()).stderr(writer.try_clone().context("copying a pipe")?).stdout(writer);
    let started = Instant::now();
    let mut child = command.spawn().with_context(|| format!("starting {shown}"))?;
    // The command still holds the pipe's writing end; without this the reader would never see its end.
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let mut tail: Vec<String> = Vec::new();
    for line in BufReader::new(reader).split(b'\n') {
        let line = String::from_utf8_lossy(&line.context("reading a program's output")?).trim_end().to_owned();
        progress.detail(&line);
        tail.push(line);
        if tail.len() > 30 {
            tail.remove(0);
        }
    }
    let status = child.wait().with_context(|| format!("waiting for {shown}"))?;
    if !status.success() {
        bail!("{shown} failed ({status}) after {:.0} s:\n{}", started.elapsed().as_secs_f32(), tail.join("\n"));
    }
    Ok(())
}

/// Run a program and return its standard output.
pub fn output(command: &mut Command) -> Result<Vec<u8>> {
    let shown = show(command);
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("starting {shown}"))?;
    if !output.status.success() {
        bail!("{shown} failed ({}): {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(output.stdout)
}

fn show(command: &Command) -> String {
    let mut text = command.get_program().to_string_lossy().into_owned();
    for argument in command.get_args().take(12) {
        text.push(' ');
        text.push_str(&argument.to_string_lossy());
    }
    if command.get_args().len() > 12 {
        text.push_str(" …");
    }
    text
}
