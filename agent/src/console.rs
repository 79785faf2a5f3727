//! The node's console in the center: what the kernel's log holds, from boot on, with everything that init, services and the agent
//! put there.
//!
//! Memory is bounded by one batch: what is not sent yet stays in the kernel's ring, and what falls out of it is counted and told.
//! Format of a record: kernel, Documentation/ABI/testing/dev-kmsg.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result};
use lodge_client::Center;
use nix::libc::O_NONBLOCK;

use crate::backoff::Backoff;
use crate::durable;
use crate::ready::Ready;

/// The last record that the center has, so that a restart of the agent sends none twice.
pub const SENT_FILE: &str = "/run/lodge/console.sent";

const BATCH_MAX: usize = 48 << 10;
/// Lines that come together are sent together.
const GATHER: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(10);
/// The kernel gives one record a read and never a longer one (CONSOLE_EXT_LOG_MAX).
const RECORD_MAX: usize = 8192;

/// Send the console for as long as the agent lives.
pub async fn run(center: Center) -> Result<()> {
    let mut log = Log::open(SENT_FILE.into())?;
    loop {
        let batch = log.batch().await?;
        let mut backoff = Backoff::up_to(RETRY_MAX);
        while center.node_console(&batch.text).await.is_err() {
            // Why the center is away is said by the heartbeats; a line here would only be one more to send.
            tokio::time::sleep(backoff.pause()).await;
        }
        log.sent(batch.last)?;
    }
}

struct Batch {
    text: String,
    last: u64,
}

struct Log {
    kmsg: File,
    ready: Ready,
    sent: Option<u64>,
    path: PathBuf,
}

impl Log {
    fn open(path: PathBuf) -> Result<Self> {
        let kmsg = OpenOptions::new().read(true).custom_flags(O_NONBLOCK).open("/dev/kmsg").context("opening /dev/kmsg")?;
        let ready = Ready::on(&kmsg).context("waiting on /dev/kmsg")?;
        let sent = fs::read_to_string(&path).ok().and_then(|text| text.trim().parse().ok());
        Ok(Self { kmsg, ready, sent, path })
    }

    /// Wait for new lines and take what is there, up to a limit.
    async fn batch(&mut self) -> Result<Batch> {
        let mut text = String::new();
        let mut last = self.sent.unwrap_or(0);
        loop {
            while text.len() < BATCH_MAX {
                match self.read() {
                    Ok(Some(record)) if self.sent.is_some_and(|sent| record.number <= sent) => {}
                    Ok(Some(record)) => {
                        last = record.number;
                        text.push_str(&record.line);
                    }
                    Ok(None) => {}
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    // The ring went over the reader (EPIPE); the next read gives the oldest that is left.
                    Err(error) if error.kind() == ErrorKind::BrokenPipe => {
                        text.push_str("[lines were lost here: too many at once]\n")
                    }
                    Err(error) => return Err(error).context("reading /dev/kmsg"),
                }
            }
            if !text.is_empty() {
                return Ok(Batch { text, last });
            }
            self.ready.readable().await.context("waiting on /dev/kmsg")?;
            tokio::time::sleep(GATHER).await;
        }
    }

    fn read(&self) -> std::io::Result<Option<Record>> {
        let mut bytes = [0; RECORD_MAX];
        let length = (&self.kmsg).read(&mut bytes)?;
        Ok(parse(&String::from_utf8_lossy(bytes.get(..length).unwrap_or_default())))
    }

    fn sent(&mut self, last: u64) -> Result<()> {
        self.sent = Some(last);
        durable::write(&self.path, last.to_string().as_bytes(), 0o600)
    }
}

#[derive(Debug, PartialEq)]
struct Record {
    number: u64,
    line: String,
}

/// `LEVEL,NUMBER,MICROSECONDS,FLAGS[,…];TEXT`, then lines of properties that start with a space.
fn parse(record: &str) -> Option<Record> {
    let (head, text) = record.split_once(';')?;
    let mut fields = head.split(',').skip(1);
    let number = fields.next()?.parse().ok()?;
    let micros: u64 = fields.next()?.parse().ok()?;
    let text = unescape(text.lines().next().unwrap_or_default());
    Some(Record { number, line: format!("[{:5}.{:06}] {text}\n", micros / 1_000_000, micros % 1_000_000) })
}

/// The kernel writes everything but printable ASCII as `\xHH`. Text becomes text again, control characters do not.
fn unescape(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("\\x") {
        let (before, escaped) = rest.split_at(at);
        bytes.extend_from_slice(before.as_bytes());
        let byte = escaped.get(2..4).and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match byte {
            Some(byte) if byte >= 0x80 || byte == b'\\' => bytes.push(byte),
            Some(_) => bytes.extend_from_slice(escaped.get(..4).unwrap_or_default().as_bytes()),
            None => bytes.extend_from_slice(b"\\x"),
        }
        rest = escaped.get(if byte.is_some() { 4 } else { 2 }..).unwrap_or_default();
    }
    bytes.extend_from_slice(rest.as_bytes());
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_record_becomes_a_line_as_dmesg_shows_it() {
        let record = parse("6,339,5140900,-;NET: Registered protocol family 10\n SUBSYSTEM=net\n").unwrap();
        assert_eq!(record, Record { number: 339, line: "[    5.140900] NET: Registered protocol family 10\n".into() });
        assert_eq!(parse("nonsense"), None);
    }

    #[test]
    fn text_is_text_again_and_control_characters_stay_escaped() {
        assert_eq!(unescape(r"caf\xc3\xa9 \x1b[0m \x5c \x"), r"café \x1b[0m \ \x");
    }

    proptest! {
        #[test]
        fn no_record_makes_the_parser_panic(record in "\\PC{0,80}", tail in "(\\\\x[0-9a-g]{0,3}|é){0,9}") {
            let _ = parse(&record);
            let _ = parse(&format!("6,1,2,-;{record}{tail}"));
            let _ = unescape(&tail);
        }
    }
}
