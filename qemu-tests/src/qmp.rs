//! QEMU's monitor (QMP): JSON lines on a socket. The machine's buttons, and what it says of itself.
//!
//! A few commands are needed, with arguments of every shape, so they are written as JSON and not through generated types.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    os::unix::net::UnixStream,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::feed::{Feed, Waited};

/// A monitor connection.
pub struct Qmp {
    writer: Mutex<UnixStream>,
    replies: Feed<Value>,
    /// What the machine tells unasked: `RESET`, `SHUTDOWN`, `WATCHDOG`, `DEVICE_DELETED`…
    pub events: Feed<Event>,
}

/// One event of the machine.
#[derive(Clone, Debug)]
pub struct Event {
    /// When it was read.
    pub at: Instant,
    /// Its name in QEMU's schema.
    pub name: String,
    /// Its data.
    pub data: Value,
}

/// A monitor answers within this, whatever the guest does.
const LIMIT: Duration = Duration::from_secs(60);

impl Qmp {
    /// Speak on a fresh connection from QEMU.
    pub fn new(stream: UnixStream) -> Result<Self> {
        let reader = BufReader::new(stream.try_clone().context("copying a monitor socket")?);
        let qmp = Self { writer: Mutex::new(stream), replies: Feed::default(), events: Feed::default() };
        let (replies, events) = (qmp.replies.clone(), qmp.events.clone());
        let read = move || {
            for line in reader.lines().map_while(Result::ok) {
                let Ok(message) = serde_json::from_str::<Value>(&line) else { continue };
                if let Some(name) = message["event"].as_str() {
                    events.push(Event { at: Instant::now(), name: name.to_owned(), data: message["data"].clone() });
                } else if message.get("return").is_some() || message.get("error").is_some() {
                    replies.push(message);
                }
            }
            replies.close();
            events.close();
        };
        std::thread::Builder::new().name("monitor".into()).spawn(read).context("starting a thread")?;
        qmp.run("qmp_capabilities", json!({}))?;
        Ok(qmp)
    }

    /// Run one command and return what it returns.
    pub fn run(&self, command: &str, arguments: Value) -> Result<Value> {
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let from = self.replies.end();
        let line = format!("{}\n", json!({ "execute": command, "arguments": arguments }));
        writer.write_all(line.as_bytes()).with_context(|| format!("telling the monitor to {command}"))?;
        let reply = match self.replies.wait(from, LIMIT, |reply| Some(reply.clone())) {
            Waited::Found(reply, _) => reply,
            Waited::Closed => bail!("the machine ended before it did {command}"),
            Waited::TimedOut => bail!("the monitor did not answer {command} within {} s", LIMIT.as_secs()),
        };
        match reply.get("return") {
            Some(value) => Ok(value.clone()),
            None => bail!("the monitor refused {command}: {}", reply["error"]["desc"].as_str().unwrap_or("no reason given")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_events_and_refusals_are_told_apart() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let qemu = std::thread::spawn(move || {
            let mut lines = BufReader::new(theirs.try_clone().unwrap()).lines();
            let say = |text: &str| (&theirs).write_all(format!("{text}\n").as_bytes()).unwrap();
            say(r#"{"QMP": {"version": {}}}"#);
            lines.next().unwrap().unwrap();
            say(r#"{"return": {}}"#);
            lines.next().unwrap().unwrap();
            say(r#"{"event": "RESET", "data": {"guest": true}}"#);
            say(r#"{"error": {"class": "GenericError", "desc": "no such device"}}"#);
        });
        let qmp = Qmp::new(ours).unwrap();
        let error = qmp.run("device_del", json!({"id": "x"})).unwrap_err().to_string();
        assert!(error.contains("no such device"), "{error}");
        let Waited::Found(guest, _) = qmp.events.wait(0, LIMIT, |event| event.data["guest"].as_bool()) else {
            panic!("no event")
        };
        assert!(guest);
        qemu.join().unwrap();
    }
}
