//! What the installer says: on every console, and to the center as soon as there is one. Lines are those of
//! `lodge_model::progress`.

use std::time::{Duration, Instant};

use anyhow::Result;
use lodge_model::{answer::CenterAnswer, api::MachineEvent, facts::human_bytes, progress};

use crate::{
    console::Consoles,
    outbox::{Item, Outbox},
};

/// The center hears of a step's progress at most this often.
const EVERY: Duration = Duration::from_millis(500);

/// The one voice of the installer.
#[derive(Debug)]
pub struct Report {
    consoles: Consoles,
    /// The center that is told, and how to know whether it is the same one.
    outbox: Option<(CenterAnswer, Outbox)>,
    /// Kept until there is a center to tell.
    early: Vec<Item>,
    running: Option<Running>,
    last_failure: String,
}

#[derive(Debug)]
struct Running {
    step: &'static str,
    started: Instant,
    sent: Instant,
    line: u8,
    percent: u8,
}

impl Report {
    /// Say things on these consoles.
    pub fn new(consoles: Consoles) -> Self {
        Self { consoles, outbox: None, early: Vec::new(), running: None, last_failure: String::new() }
    }

    /// From now on tell this center too, first of all what was said before. What is still on its way to the same center stays there.
    pub fn connect(&mut self, center: &CenterAnswer, start: impl FnOnce() -> Result<Outbox>) -> Result<()> {
        if self.outbox.as_ref().is_some_and(|(told, _)| told == center) {
            return Ok(());
        }
        let outbox = start()?;
        self.early.drain(..).for_each(|item| outbox.put(item));
        self.outbox = Some((center.clone(), outbox));
        Ok(())
    }

    /// A step begins. A step that was running has been left by an error.
    pub fn begin(&mut self, step: &'static str) {
        let now = Instant::now();
        self.consoles.end_bar();
        self.consoles.start_bar(step);
        self.running = Some(Running { step, started: now, sent: now, line: 0, percent: 0 });
        let event = MachineEvent::Step { step: step.to_owned(), percent: 0, done: 0, total: 0, left: None };
        self.consoles.serial_line(&progress::line(&event));
        self.put(Item::Event(event));
    }

    /// The running step has done so many bytes of so many.
    pub fn progress(&mut self, done: u64, total: u64) {
        let Some(running) = &mut self.running else { return };
        let percent = percent(done, total);
        let left = left(running.started.elapsed(), done, total);
        let event = MachineEvent::Step { step: running.step.to_owned(), percent, done, total, left };
        let left = left.map(|seconds| format!(", {seconds} s left")).unwrap_or_default();
        self.consoles.set_bar(percent, &format!("{} of {}{left}", human_bytes(done), human_bytes(total)));
        if percent / 10 > running.line / 10 && percent < 100 {
            running.line = percent;
            self.consoles.serial_line(&progress::line(&event));
        }
        if percent != running.percent && running.sent.elapsed() >= EVERY {
            running.sent = Instant::now();
            running.percent = percent;
            self.put(Item::Event(event));
        }
    }

    /// The running step is done.
    pub fn end(&mut self) {
        let Some(running) = self.running.take() else { return };
        self.consoles.end_bar();
        let seconds = running.started.elapsed().as_secs_f64();
        self.event(MachineEvent::StepDone { step: running.step.to_owned(), seconds });
    }

    /// Something is waited for.
    pub fn waiting(&mut self, reason: &str) {
        self.event(MachineEvent::Waiting { reason: one_line(reason) });
    }

    /// The running step failed. The consoles show it every time, since somebody may just have turned to one; the center hears of
    /// it once.
    pub fn failed(&mut self, error: &anyhow::Error) {
        self.consoles.end_bar();
        let step = self.running.take().map_or("install", |running| running.step).to_owned();
        let event = MachineEvent::Failed { step, error: one_line(&format!("{error:#}")) };
        let line = progress::line(&event);
        if std::mem::replace(&mut self.last_failure, line.clone()) == line {
            self.consoles.line(&line);
        } else {
            self.event(event);
        }
    }

    /// Worth a line.
    pub fn note(&mut self, text: &str) {
        self.event(MachineEvent::Note { text: one_line(text) });
    }

    /// A text for people, as it is.
    pub fn text(&mut self, text: &str) {
        for line in text.lines() {
            self.consoles.line(line);
            self.put(Item::Console(line.to_owned()));
        }
    }

    /// All is done; wait a little until the center knows.
    pub fn installed(&mut self, event: MachineEvent) {
        self.event(event);
        if let Some((_, outbox)) = &self.outbox {
            outbox.flush(Duration::from_secs(15));
        }
    }

    fn event(&mut self, event: MachineEvent) {
        let line = progress::line(&event);
        self.consoles.line(&line);
        self.put(Item::Event(event));
        self.put(Item::Console(line));
    }

    fn put(&mut self, item: Item) {
        match &self.outbox {
            Some((_, outbox)) => outbox.put(item),
            None if self.early.len() < 500 => self.early.push(item),
            None => {}
        }
    }
}

fn percent(done: u64, total: u64) -> u8 {
    let percent = (u128::from(done) * 100).checked_div(total.into()).unwrap_or(0);
    u8::try_from(percent.min(100)).unwrap_or(100)
}

/// Seconds left at the rate so far, once there is something to go by.
fn left(elapsed: Duration, done: u64, total: u64) -> Option<u32> {
    if done == 0 || elapsed < Duration::from_secs(1) {
        return None;
    }
    let left = elapsed.as_secs_f64() / done as f64 * total.saturating_sub(done) as f64;
    Some(left.ceil() as u32)
}

/// A message must not break the line protocol of the consoles.
fn one_line(text: &str) -> String {
    text.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use lodge_model::progress::{Progress, parse};
    use std::io::{Read as _, Seek as _};

    fn said(speak: impl FnOnce(&mut Report)) -> Vec<Progress> {
        let mut file = tempfile::tempfile().unwrap();
        let mut report = Report::new(Consoles::to_file(file.try_clone().unwrap()));
        speak(&mut report);
        let mut text = String::new();
        file.rewind().unwrap();
        file.read_to_string(&mut text).unwrap();
        text.lines().filter_map(parse).collect()
    }

    #[test]
    fn a_serial_log_has_start_each_tenth_and_end_of_a_step() {
        let said = said(|report| {
            report.begin("write-root");
            (0..=1000).for_each(|done| report.progress(done, 1000));
            report.end();
        });
        let percents: Vec<u8> = said
            .iter()
            .filter_map(|one| if let Progress::Step { percent, .. } = one { Some(*percent) } else { None })
            .collect();
        assert_eq!(percents, [0, 10, 20, 30, 40, 50, 60, 70, 80, 90]);
        assert!(matches!(said.last(), Some(Progress::StepDone { step, .. }) if step == "write-root"), "{said:?}");
    }

    #[test]
    fn a_failure_is_one_line_with_its_step() {
        let said = said(|report| {
            report.begin("enrol");
            report.failed(&anyhow::anyhow!("line one\nline two").context("asking"));
            report.end();
        });
        assert_eq!(said.last(), Some(&Progress::Failed("enrol: asking: line one; line two".into())));
    }

    #[test]
    fn percent_and_time_left_never_overflow() {
        assert_eq!((percent(0, 0), percent(1, 3), percent(9, 3)), (0, 33, 100));
        assert_eq!(percent(u64::MAX, u64::MAX), 100);
        assert_eq!(left(Duration::from_secs(10), 50, 100), Some(10));
        assert_eq!(left(Duration::from_secs(10), 0, 100), None);
    }
}
