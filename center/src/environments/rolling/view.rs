//! The reboot of a cluster as operators see it, and as the event log tells it.

use jiff::Timestamp;
use lodge_model::rolling::{RebootState, RebootView, TurnState, TurnView};

use super::{Rolling, Turn};
use crate::environments::records::Environment;
use crate::fault::Fault;
use crate::store::{EventDraft, Tx};

/// How it stands. What it has moved is in the environments' histories.
pub fn of<'a>(rolling: &Rolling, environments: impl Iterator<Item = &'a Environment>) -> RebootView {
    let counts = environments.map(|environment| {
        let is_of_it = |name: &str| rolling.turns.iter().any(|turn| turn.name == name && turn.state != TurnState::LeftOut);
        let since = |at: Option<Timestamp>| at.is_some_and(|at| at >= rolling.ordered);
        environment.moves.iter().filter(|done| since(done.at) && is_of_it(&done.from)).count()
    });
    let counts: Vec<usize> = counts.filter(|count| *count > 0).collect();
    let number = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    RebootView {
        state: rolling.state,
        ordered: rolling.ordered,
        at_once: rolling.at_once,
        reason: rolling.reason.clone(),
        turns: rolling.turns.iter().map(turn).collect(),
        waits: rolling.waits.clone(),
        moved: number(counts.len()),
        most_moves: number(counts.iter().copied().max().unwrap_or(0)),
        version: rolling.version,
    }
}

fn turn(turn: &Turn) -> TurnView {
    TurnView { node: turn.name.clone(), state: turn.state, reason: turn.told.clone(), items: Vec::new() }
}

/// Write what has changed, and log it.
pub fn save(tx: &Tx, before: Option<&Rolling>, rolling: Option<&Rolling>, now: Timestamp) -> Result<(), Fault> {
    let Some(rolling) = rolling.filter(|rolling| before != Some(*rolling)) else { return Ok(()) };
    tx.put(rolling)?;
    tx.show();
    for (at, turn) in rolling.turns.iter().enumerate() {
        let was = before.and_then(|before| before.turns.get(at)).map(|turn| turn.state);
        if let Some(text) = news(rolling, turn).filter(|_| was.is_some_and(|was| was != turn.state)) {
            log(tx, Some(&turn.name), &text, now)?;
        }
    }
    if before.is_some_and(|before| before.state != rolling.state) {
        let text = match rolling.state {
            RebootState::Planned | RebootState::Cancelled => return Ok(()),
            RebootState::Running => "goes on".to_owned(),
            RebootState::Stopped => format!("has stopped: {}", rolling.waits),
            RebootState::Done => "is done".to_owned(),
        };
        log(tx, None, &format!("the restart of the cluster {text}"), now)?;
    }
    Ok(())
}

fn news(rolling: &Rolling, turn: &Turn) -> Option<String> {
    let over = |turn: &&Turn| !matches!(turn.state, TurnState::Waits | TurnState::LeftOut);
    let (nth, all) = (
        rolling.turns.iter().filter(over).count(),
        rolling.turns.iter().filter(|turn| turn.state != TurnState::LeftOut).count(),
    );
    let name = &turn.name;
    match turn.state {
        TurnState::Waits | TurnState::LeftOut => None,
        TurnState::Draining => Some(format!("the cluster is restarted: {name} is drained ({nth} of {all})")),
        TurnState::Restarting => Some(format!("the cluster is restarted: {name} is down or starts")),
        TurnState::Done => Some(format!("the cluster is restarted: {name} is ready again ({nth} of {all})")),
        TurnState::Failed => Some(format!("the cluster is restarted: {}", turn.told)),
    }
}

/// Log something about it.
pub fn log(tx: &Tx, node: Option<&str>, text: &str, now: Timestamp) -> Result<(), Fault> {
    tx.log(&EventDraft { at: now, machine: None, node, kind: "cluster", text: text.to_owned(), detail: None })
}
