//! A machine's console: kept whole in a file, read as lines with times, and open to people while the machine runs.
//!
//! QEMU connects to us, so not one byte of the firmware is missed. `cargo xtask console NAME` connects to `console.sock` beside it.

use std::{
    fs::File,
    io::{Read as _, Write as _},
    os::unix::net::{UnixListener, UnixStream},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, mpsc::Sender},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use lodge_model::progress::{Progress, parse};

use crate::feed::Feed;

mod text;

/// The socket that people connect to, in a machine's directory.
pub const SOCKET: &str = "console.sock";
/// The whole console, as it came, in a machine's directory.
pub const LOG: &str = "console.log";

/// One line.
#[derive(Clone, Debug)]
pub struct Line {
    /// When it was complete.
    pub at: Instant,
    /// Without escape sequences.
    pub text: String,
}

impl Line {
    /// What the line says of Lodge's progress.
    pub fn progress(&self) -> Option<Progress> {
        parse(&self.text)
    }
}

/// A line of some machine, for those who follow the whole rack.
#[derive(Clone, Debug)]
pub struct RackLine {
    /// The machine.
    pub machine: String,
    /// The line.
    pub line: Line,
}

/// A console of a machine. Clones share it.
#[derive(Clone)]
pub struct Console {
    /// Its lines since the machine was first switched on.
    pub lines: Feed<Line>,
    /// The log file.
    pub log: PathBuf,
    guests: Arc<Mutex<Guests>>,
    machine: String,
    followers: Option<Sender<RackLine>>,
}

#[derive(Default)]
struct Guests {
    /// The machine's serial port, while it runs.
    port: Option<UnixStream>,
    people: Vec<UnixStream>,
}

impl Console {
    /// The console of a machine that is still off.
    pub fn new(dir: &Path, machine: &str, followers: Option<Sender<RackLine>>) -> Result<Self> {
        let guests = Arc::new(Mutex::new(Guests::default()));
        let listener = crate::sockets::listen(dir, SOCKET)?;
        let for_people = Arc::clone(&guests);
        let admit = move || admit_people(&listener, &for_people);
        std::thread::Builder::new().name(format!("{machine} console guests")).spawn(admit).context("starting a thread")?;
        Ok(Self { lines: Feed::default(), log: dir.join(LOG), guests, machine: machine.to_owned(), followers })
    }

    /// Read from the machine's serial port until its QEMU ends.
    pub fn attach(&self, mut port: UnixStream) -> Result<()> {
        let log = File::options().create(true).append(true).open(&self.log);
        let mut log = log.with_context(|| format!("opening {}", self.log.display()))?;
        self.guests().port = Some(port.try_clone().context("copying a console socket")?);
        let (lines, guests) = (self.lines.clone(), Arc::clone(&self.guests));
        let (machine, followers) = (self.machine.clone(), self.followers.clone());
        let read = move || {
            let mut cutter = text::Cutter::default();
            let mut buffer = vec![0; 16 << 10];
            while let Ok(length) = port.read(&mut buffer)
                && length > 0
            {
                let bytes = &buffer[..length];
                drop(log.write_all(bytes));
                lock(&guests).people.retain_mut(|person| person.write_all(bytes).is_ok());
                for text in cutter.cut(bytes) {
                    let line = Line { at: Instant::now(), text };
                    if let Some(followers) = &followers {
                        drop(followers.send(RackLine { machine: machine.clone(), line: line.clone() }));
                    }
                    lines.push(line);
                }
            }
        };
        std::thread::Builder::new().name(format!("{} console", self.machine)).spawn(read).context("starting a thread")?;
        Ok(())
    }

    /// Type on the console.
    pub fn type_text(&self, text: &str) -> Result<()> {
        let mut guests = self.guests();
        let port = guests.port.as_mut().context("the machine is off")?;
        port.write_all(text.as_bytes()).context("typing on the console")
    }

    /// The last lines, for a failure's report.
    pub fn tail(&self, count: usize) -> Vec<String> {
        self.lines.read(0, |lines| {
            let from = lines.len().saturating_sub(count);
            lines[from..].iter().map(|line| line.text.clone()).collect()
        })
    }

    fn guests(&self) -> std::sync::MutexGuard<'_, Guests> {
        lock(&self.guests)
    }
}

fn lock(guests: &Mutex<Guests>) -> std::sync::MutexGuard<'_, Guests> {
    guests.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Everybody who connects sees what the machine writes from now on, and types into its port.
fn admit_people(listener: &UnixListener, guests: &Arc<Mutex<Guests>>) {
    for person in listener.incoming().map_while(Result::ok) {
        // Somebody who does not read must not hold the console up for longer than this.
        drop(person.set_write_timeout(Some(Duration::from_millis(200))));
        let (Ok(mut keyboard), guests_of_port) = (person.try_clone(), Arc::clone(guests)) else { continue };
        lock(guests).people.push(person);
        std::thread::spawn(move || {
            let mut keys = [0; 256];
            while let Ok(length) = keyboard.read(&mut keys)
                && length > 0
            {
                if let Some(port) = lock(&guests_of_port).port.as_mut() {
                    drop(port.write_all(&keys[..length]));
                }
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::feed::Waited;

    #[test]
    fn lines_reach_the_feed_the_log_and_people_and_keys_reach_the_machine() {
        let dir = tempfile::tempdir().unwrap();
        let console = Console::new(dir.path(), "node1", None).unwrap();
        let (ours, mut machine) = UnixStream::pair().unwrap();
        console.attach(ours).unwrap();
        let limit = Duration::from_secs(20);
        let mut person = crate::sockets::connect(dir.path(), SOCKET).unwrap();
        person.write_all(b"ls\n").unwrap();
        let mut keys = [0; 3];
        machine.read_exact(&mut keys).unwrap();
        assert_eq!(&keys, b"ls\n");
        machine.write_all(b"lodge: write-root 40 % 1 of 2\r\n").unwrap();
        let found = console.lines.wait(0, limit, Line::progress);
        assert_eq!(found, Waited::Found(Progress::Step { step: "write-root".into(), percent: 40 }, 1));
        let mut seen = [0; 17];
        person.read_exact(&mut seen).unwrap();
        assert_eq!(&seen, b"lodge: write-root");
        assert!(std::fs::read_to_string(&console.log).unwrap().contains("write-root 40"));
    }
}
