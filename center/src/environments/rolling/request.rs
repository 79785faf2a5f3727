//! What operators ask for: restart the cluster, go on, end it.

use std::collections::BTreeMap;

use jiff::Timestamp;
use lodge_model::drain::DEADLINES;
use lodge_model::rolling::{AT_ONCE, PATIENCE, RebootOrder, RebootState, RebootView, TurnState};

use super::{Rolling, Turn, carry_on, plan, view};
use crate::environments::drain::{self, Drain};
use crate::environments::reconcile;
use crate::environments::records::Environment;
use crate::fault::Fault;
use crate::flow::World;
use crate::store::Tx;

/// Restart every worker in turn.
pub fn order(tx: &Tx, world: &World, order: &RebootOrder, now: Timestamp) -> Result<RebootView, Fault> {
    let settings = drain::request::settings(tx)?;
    let deadline = order.deadline.unwrap_or(settings.operator_deadline);
    within("at_once", order.at_once, &AT_ONCE)?;
    within("deadline", deadline, &DEADLINES)?;
    within("patience", order.patience, &PATIENCE)?;
    if found(tx).is_ok_and(|former| matches!(former.state, RebootState::Running | RebootState::Stopped)) {
        let next = "lodge cluster reboot --status shows it, --continue goes on with it, --cancel ends it";
        return Err(Fault::conflict(format!("the cluster is being restarted already: {next}")));
    }
    let (mut cluster, nodes) = reconcile::load(tx, world, false, now)?;
    let turns = plan::turns(&cluster, &nodes);
    may_begin(&turns, order.at_once)?;
    let (at_once, patience, reason) = (order.at_once, order.patience, order.reason.clone());
    let rolling = Rolling {
        ordered: now,
        at_once,
        deadline,
        patience,
        reason,
        state: RebootState::Running,
        waits: String::new(),
        turns,
        version: 1,
    };
    if order.dry_run {
        let played = plan::play(&mut cluster, &rolling, now);
        return Ok(planned(&rolling, played));
    }
    tx.put(&rolling)?;
    view::log(tx, None, "an operator has every worker of the cluster restarted in turn", now)?;
    carried_on(tx, world, now)
}

fn planned(rolling: &Rolling, played: plan::Played) -> RebootView {
    let mut shown = view::of(rolling, std::iter::empty());
    for (turn, items) in shown.turns.iter_mut().zip(played.items) {
        turn.items = items;
    }
    shown.moved = u32::try_from(played.moves.len()).unwrap_or(u32::MAX);
    shown.most_moves = played.moves.values().copied().max().unwrap_or(0);
    RebootView { state: RebootState::Planned, ..shown }
}

fn within(name: &str, value: u32, range: &std::ops::RangeInclusive<u32>) -> Result<(), Fault> {
    let (least, most) = (range.start(), range.end());
    let why = || Fault::bad_input(format!("{name}: {value}; from {least} to {most} is possible"));
    range.contains(&value).then_some(()).ok_or_else(why)
}

/// Somebody must be left to take what leaves.
fn may_begin(turns: &[Turn], at_once: u32) -> Result<(), Fault> {
    let count = turns.iter().filter(|turn| turn.state == TurnState::Waits).count();
    let most = count.saturating_sub(1).max(1);
    if count == 0 {
        return Err(Fault::conflict("there is no node to restart: none runs environments and nothing else"));
    }
    if usize::try_from(at_once).is_ok_and(|at_once| at_once <= most) {
        return Ok(());
    }
    Err(Fault::conflict(format!(
        "at_once: {at_once}; of {count} nodes {most} can be restarted at once, the others take what leaves"
    )))
}

/// How it stands.
pub fn show(tx: &Tx) -> Result<RebootView, Fault> {
    let environments = tx.list::<Environment>()?;
    Ok(view::of(&found(tx)?, environments.iter()))
}

/// Go on after it has stopped: a node that has come back meanwhile counts, one that was not drained is tried again, one that is away is
/// left out.
pub fn go_on(tx: &Tx, world: &World, now: Timestamp) -> Result<RebootView, Fault> {
    let mut rolling = found(tx)?;
    if rolling.state != RebootState::Stopped {
        return Err(Fault::conflict("the restart of the cluster has not stopped: lodge cluster reboot --status shows it"));
    }
    let (cluster, _) = reconcile::load(tx, world, false, now)?;
    let rooms: BTreeMap<_, _> = cluster.rooms.iter().map(|room| (room.node, room)).collect();
    for turn in rolling.turns.iter_mut().filter(|turn| turn.state == TurnState::Failed) {
        let room = rooms.get(&turn.node).filter(|room| carry_on::is_well(room));
        (turn.state, turn.told) = match room {
            Some(room) if room.boot != turn.boot && turn.boot.is_some() => (TurnState::Done, "ready again".to_owned()),
            Some(_) => (TurnState::Waits, String::new()),
            None => (TurnState::LeftOut, format!("left out: {}", turn.told)),
        };
        turn.missing = None;
    }
    for turn in &mut rolling.turns {
        turn.missing = None;
    }
    (rolling.state, rolling.waits) = (RebootState::Running, String::new());
    rolling.version += 1;
    tx.put(&rolling)?;
    view::log(tx, None, "an operator has the restart of the cluster go on", now)?;
    carried_on(tx, world, now)
}

/// Touch no further node. One that is being drained for it stays; one that goes down already comes back by itself.
pub fn cancel(tx: &Tx, world: &World, now: Timestamp) -> Result<RebootView, Fault> {
    let mut rolling = found(tx)?;
    if !matches!(rolling.state, RebootState::Running | RebootState::Stopped) {
        return Err(Fault::conflict("the cluster is not being restarted: lodge cluster reboot --status shows the last time"));
    }
    for turn in rolling.turns.iter_mut().filter(|turn| turn.state == TurnState::Draining) {
        let drain = tx.get::<Drain>(&turn.node)?;
        if drain.is_some_and(|drain| !drain.stays && drain::request::may_end(&drain)) {
            tx.delete::<Drain>(&turn.node)?;
            (turn.state, turn.told) = (TurnState::Waits, String::new());
        }
    }
    (rolling.state, rolling.waits) = (RebootState::Cancelled, String::new());
    rolling.version += 1;
    tx.put(&rolling)?;
    view::log(tx, None, "an operator has ended the restart of the cluster: no further node is restarted", now)?;
    carried_on(tx, world, now)
}

fn carried_on(tx: &Tx, world: &World, now: Timestamp) -> Result<RebootView, Fault> {
    tx.show();
    tx.replan();
    reconcile::run(tx, world, false, now)?;
    show(tx)
}

fn found(tx: &Tx) -> Result<Rolling, Fault> {
    let rolling = tx.get::<Rolling>(&"rolling")?;
    rolling.ok_or_else(|| Fault::not_found("the cluster has never been restarted; lodge cluster reboot does it"))
}
