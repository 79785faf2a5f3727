//! Drains as operators see them, as the node is told, and as the event log tells them.

use std::collections::BTreeMap;

use jiff::Timestamp;
use lodge_model::drain::{DrainItem, DrainState, DrainView, Leave, MoveView, Verdict};
use lodge_model::ids::{EnvironmentId, NodeId};

use super::{Certified, Drain};
use crate::environments::records::{Environment, Goal};
use crate::environments::settle::Cluster;
use crate::fault::Fault;
use crate::records::Node;
use crate::store::{EventDraft, Tx};

/// A drain.
pub fn of(drain: &Drain) -> DrainView {
    DrainView {
        node: drain.name.clone(),
        state: drain.state,
        cause: drain.cause,
        reason: drain.reason.clone(),
        ordered: drain.ordered,
        deadline: drain.deadline,
        then: drain.then,
        items: drain.items.values().cloned().collect(),
        waits: drain.waits.clone(),
        version: drain.version,
    }
}

/// Why a node takes nothing new.
pub fn cordoned(drain: &Drain) -> String {
    let why = if drain.reason.is_empty() { String::new() } else { format!(" ({})", drain.reason) };
    let by = drain.cause.words();
    match (drain.state, drain.stays) {
        (DrainState::Drained, true) => {
            format!("it has been drained by {by}{why}; it takes environments again after: lodge node undrain {}", drain.name)
        }
        (DrainState::Drained, false) => format!("it has been drained by {by}{why} and goes down"),
        _ => format!("it is being drained by {by}{why}"),
    }
}

/// What the drained node is to do.
pub fn leave(drain: &Drain) -> Option<Leave> {
    let boot = drain.boot?;
    match (drain.state, drain.then) {
        (DrainState::Certifying, _) => Some(Leave::Certify { id: drain.question, boot }),
        (DrainState::Drained, Some(power)) => Some(Leave::GoDown { boot, power }),
        _ => None,
    }
}

/// A move that goes on.
pub fn moving(environment: &Environment) -> Option<MoveView> {
    let moving = environment.moving.as_ref()?;
    Some(MoveView {
        from: moving.from_name.clone(),
        to: moving.to.as_ref().map(|(_, name)| name.clone()),
        way: super::moves::way_word(moving).to_owned(),
        because: moving.way.because.clone(),
        not_live: None,
        at: None,
        stop_ms: None,
        gap_ms: None,
        note: moving.waits.clone(),
        reach: None,
    })
}

/// A move that is done, in one sentence.
pub fn moved(name: &str, done: &MoveView) -> String {
    let to = done.to.as_deref().unwrap_or_default();
    let note = if done.note.is_empty() { String::new() } else { format!("; {}", done.note) };
    let way = if done.way == super::moves::LIVE { done.way.clone() } else { format!("by {}", done.way) };
    let what = match to == done.from {
        true => format!("runs on {to} again"),
        false => format!("has moved from {} to {to} {way}", done.from),
    };
    format!("{name} {what}: it was away for {}{note}", seconds(done.gap_ms))
}

/// `3.2 s`.
fn seconds(millis: Option<u64>) -> String {
    millis.map_or_else(|| "an unknown time".to_owned(), |millis| format!("{}.{} s", millis / 1000, millis % 1000 / 100))
}

/// Write what has changed, and log it.
pub fn save(tx: &Tx, before: &BTreeMap<NodeId, Drain>, cluster: &mut Cluster, now: Timestamp) -> Result<(), Fault> {
    for (id, old) in before.iter().filter(|(id, _)| !cluster.drains.contains_key(id)) {
        tx.delete::<Drain>(id)?;
        tx.show();
        log(tx, *id, &format!("{} has started anew: its drain is over", old.name), now)?;
    }
    for (id, drain) in &cluster.drains {
        let old = before.get(id);
        if old == Some(drain) {
            continue;
        }
        tx.put(drain)?;
        tx.show();
        if let Some(text) = news(drain, old) {
            log(tx, *id, &text, now)?;
        }
        // One that was stopped or destroyed by whoever it belongs to is told of as such.
        let is_to_run = |id: &EnvironmentId| cluster.environments.get(id).is_some_and(|known| known.goal == Goal::Running);
        let down = |item: &DrainItem| matches!(item.verdict, Verdict::Stopped | Verdict::Killed);
        for (_, item) in drain.items.iter().filter(|(id, item)| down(item) && is_to_run(id)) {
            let was = old.and_then(|old| old.items.values().find(|was| was.environment == item.environment));
            if was.is_none_or(|was| was.verdict != item.verdict) {
                let how = if item.verdict == Verdict::Killed { "ended by force" } else { "stopped" };
                let why = if item.reason.is_empty() { String::new() } else { format!(": {}", item.reason) };
                log(
                    tx,
                    *id,
                    &format!("{} is {how} on {} and not running elsewhere yet{why}", item.environment, drain.name),
                    now,
                )?;
            }
        }
        follow_certificate(tx, drain)?;
    }
    Ok(())
}

/// What becomes of an environment after the certificate is added to it.
fn follow_certificate(tx: &Tx, drain: &Drain) -> Result<(), Fault> {
    let Some(mut certified) = tx.get::<Certified>(&drain.node)? else { return Ok(()) };
    let items: Vec<_> = drain.items.values().cloned().collect();
    if certified.view.certificate.id == drain.question && certified.view.items != items {
        certified.view.items = items;
        tx.put(&certified)?;
    }
    Ok(())
}

fn news(drain: &Drain, old: Option<&Drain>) -> Option<String> {
    if old.is_some_and(|old| old.state == drain.state && old.waits == drain.waits) {
        return None;
    }
    if !drain.waits.is_empty() {
        return Some(format!("the drain of {} waits: {}", drain.name, drain.waits));
    }
    match drain.state {
        state if old.is_some_and(|old| old.state == state) => None,
        DrainState::Drained => Some(format!("{} has been drained; its certificate is issued", drain.name)),
        _ => None,
    }
}

/// Log something about a drain.
pub fn log(tx: &Tx, node: NodeId, text: &str, now: Timestamp) -> Result<(), Fault> {
    let record = tx.get::<Node>(&node)?;
    let (machine, name) = (record.as_ref().map(|node| node.machine), record.as_ref().map(|node| node.name.as_str()));
    tx.log(&EventDraft { at: now, machine, node: name, kind: "drain", text: text.to_owned(), detail: None })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_move_that_came_back_is_told_as_what_it_was() {
        let done = |to: &str| MoveView {
            from: "n1".into(),
            to: Some(to.into()),
            way: "restart".into(),
            because: String::new(),
            not_live: None,
            at: None,
            stop_ms: None,
            gap_ms: Some(1250),
            note: String::new(),
            reach: None,
        };
        assert_eq!(moved("web", &done("n2")), "web has moved from n1 to n2 by restart: it was away for 1.2 s");
        assert_eq!(moved("web", &done("n1")), "web runs on n1 again: it was away for 1.2 s");
    }
}
