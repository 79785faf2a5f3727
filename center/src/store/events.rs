//! The event log: bounded, in the order the center took things in.

use anyhow::Context;
use jiff::Timestamp;
use lodge_model::api::{EventView, MachineEvent};
use lodge_model::ids::MachineId;
use rusqlite::{Row, params};

use super::Tx;
use crate::fault::Fault;

/// This many events are kept; older ones go.
const KEPT: i64 = 100_000;
/// Most events of one answer.
const PAGE: u32 = 1000;

/// An event that has no number yet.
pub struct EventDraft<'a> {
    /// When.
    pub at: Timestamp,
    /// The machine it is about.
    pub machine: Option<MachineId>,
    /// Name of the node, if it has one.
    pub node: Option<&'a str>,
    /// One word.
    pub kind: &'a str,
    /// For people.
    pub text: String,
    /// The installer's event, where it is one.
    pub detail: Option<&'a MachineEvent>,
}

impl Tx<'_> {
    /// Add to the log.
    pub fn log(&self, event: &EventDraft) -> Result<(), Fault> {
        let detail = event.detail.map(serde_json::to_string).transpose()?;
        let machine = event.machine.map(|machine| machine.to_string());
        let row = params![event.at.to_string(), machine, event.node, event.kind, event.text, detail];
        self.inner
            .prepare_cached("INSERT INTO events (at, machine, node, kind, text, detail) VALUES (?1, ?2, ?3, ?4, ?5, ?6)")?
            .execute(row)
            .context("adding to the event log")?;
        let newest = self.inner.last_insert_rowid();
        self.inner.prepare_cached("DELETE FROM events WHERE id <= ?1")?.execute(params![newest - KEPT])?;
        self.signal(|signals| signals.logged = true);
        Ok(())
    }

    /// Events after a number, of one machine or of all, oldest first, at most a page of them.
    pub fn events_after(&self, after: i64, machine: Option<MachineId>) -> Result<Vec<EventView>, Fault> {
        let mut query = self.inner.prepare_cached(
            "SELECT id, at, machine, node, kind, text, detail FROM events
             WHERE id > ?1 AND (?2 IS NULL OR machine = ?2) ORDER BY id LIMIT ?3",
        )?;
        let mut rows = query.query(params![after, machine.map(|machine| machine.to_string()), PAGE])?;
        let mut events = Vec::new();
        while let Some(row) = rows.next()? {
            events.push(view(row)?);
        }
        Ok(events)
    }
}

fn view(row: &Row) -> Result<EventView, Fault> {
    let at: String = row.get(1)?;
    let machine: Option<String> = row.get(2)?;
    let detail: Option<String> = row.get(6)?;
    Ok(EventView {
        id: row.get(0)?,
        at: at.parse().context("reading the time of an event")?,
        machine: machine.map(|machine| machine.parse()).transpose().context("reading the machine of an event")?,
        node: row.get(3)?,
        kind: row.get(4)?,
        text: row.get(5)?,
        detail: detail.map(|detail| serde_json::from_str(&detail)).transpose().context("reading an installer's event")?,
    })
}
