//! Whose turn it is, and what has become of those before. Pure: it changes the records in memory.

use jiff::{SignedDuration, Timestamp};
use lodge_model::drain::{Cause, Power, Verdict};
use lodge_model::rolling::{RebootState, TurnState};

use super::{Rolling, Turn};
use crate::environments::drain::{Drain, request};
use crate::environments::place::Room;
use crate::environments::settle::Cluster;

/// Bring it up to date: who is back, who is not, who is next.
pub fn carry_on(cluster: &mut Cluster, now: Timestamp) {
    let Some(mut rolling) = cluster.rolling.take() else { return };
    let before = rolling.clone();
    let mut failed = None;
    for at in 0..rolling.turns.len() {
        let mut turn = rolling.turns[at].clone();
        if turn.is_under_way()
            && let Err(why) = follow(&rolling, &mut turn, cluster, now)
        {
            (turn.state, turn.told) = (TurnState::Failed, why.clone());
            failed.get_or_insert(why);
        }
        rolling.turns[at] = turn;
    }
    if rolling.state == RebootState::Running {
        if let Some(why) = failed.or_else(|| begin(&mut rolling, cluster, now).err()) {
            (rolling.state, rolling.waits) = (RebootState::Stopped, why);
        } else if !rolling.turns.iter().any(|turn| turn.is_under_way() || turn.state == TurnState::Waits) {
            (rolling.state, rolling.waits) = (RebootState::Done, String::new());
        }
    }
    if rolling != before {
        rolling.version += 1;
    }
    cluster.rolling = Some(rolling);
}

/// Take in how far one has come that is under way, or why it has failed.
fn follow(rolling: &Rolling, turn: &mut Turn, cluster: &Cluster, now: Timestamp) -> Result<(), String> {
    let room = find(cluster, turn)?;
    let drain = cluster.drains.get(&turn.node);
    let has_restarted = room.boot != turn.boot;
    if has_restarted && is_well(room) {
        (turn.state, turn.missing) = (TurnState::Done, None);
        turn.told = "ready again".to_owned();
        return Ok(());
    }
    if !room.silent.is_empty() && !cluster.listens && !has_restarted {
        // The center has just started: it has not listened for long enough to tell.
        return Ok(());
    }
    if has_restarted || !room.silent.is_empty() {
        turn.state = TurnState::Restarting;
        turn.told = if has_restarted { format!("is back, and not ready yet: {}", room.unready) } else { room.silent.clone() };
        return wait(rolling, turn, room, now);
    }
    let drain = drain.ok_or_else(|| format!("the drain of {} was cancelled before it restarted", turn.name))?;
    (turn.state, turn.missing) = (TurnState::Draining, None);
    turn.told = progress(drain);
    Ok(())
}

/// Begin as many turns as there may be at once, or say which one cannot.
fn begin(rolling: &mut Rolling, cluster: &mut Cluster, now: Timestamp) -> Result<(), String> {
    let at_once = usize::try_from(rolling.at_once).unwrap_or(usize::MAX);
    for at in 0..rolling.turns.len() {
        let under_way = rolling.turns.iter().filter(|turn| turn.is_under_way()).count();
        if under_way >= at_once {
            break;
        }
        let mut turn = rolling.turns[at].clone();
        if turn.state != TurnState::Waits {
            continue;
        }
        let room = find(cluster, &turn)?;
        if !is_well(room) {
            turn.told = format!("waits until it is ready: {}", room.unready);
            let waited = wait(rolling, &mut turn, room, now);
            rolling.turns[at] = turn;
            return waited;
        }
        (turn.boot, turn.state, turn.missing) = (room.boot, TurnState::Draining, None);
        let drain = drain(rolling, &turn, cluster.drains.get(&turn.node), now);
        turn.told = progress(&drain);
        cluster.drains.insert(turn.node, drain);
        rolling.turns[at] = turn;
    }
    Ok(())
}

/// The drain that a turn is; one that goes on already ends in the restart too.
pub fn drain(rolling: &Rolling, turn: &Turn, former: Option<&Drain>, now: Timestamp) -> Drain {
    let fresh = || request::fresh(turn.node, &turn.name, turn.boot, Cause::Operator, turn.question, now);
    let mut drain = former.cloned().unwrap_or_else(fresh);
    if !drain.goes_down {
        let deadline = now.checked_add(SignedDuration::from_secs(rolling.deadline.into())).ok();
        drain.deadline = [drain.deadline, deadline].into_iter().flatten().min();
        drain.then = Some(Power::Reboot);
    }
    if drain.reason.is_empty() {
        drain.reason = if rolling.reason.is_empty() { "the cluster is restarted".to_owned() } else { rolling.reason.clone() };
    }
    drain.version += 1;
    drain
}

fn find<'a>(cluster: &'a Cluster, turn: &Turn) -> Result<&'a Room, String> {
    let room = cluster.rooms.iter().find(|room| room.node == turn.node);
    room.ok_or_else(|| format!("{} is not known any more", turn.name))
}

/// Whether it is heard, and everything on it is in order.
pub fn is_well(room: &Room) -> bool {
    room.is_ready() && room.silent.is_empty()
}

fn wait(rolling: &Rolling, turn: &mut Turn, room: &Room, now: Timestamp) -> Result<(), String> {
    let since = *turn.missing.get_or_insert(now);
    if rolling.has_patience(since, now) {
        return Ok(());
    }
    let why = if room.unready.is_empty() { "it does not say why" } else { &room.unready };
    Err(format!("{} has not become ready within {} s: {why}", turn.name, rolling.patience))
}

fn progress(drain: &Drain) -> String {
    let gone = drain.items.values().filter(|item| item.verdict.is_final()).count();
    let stays = drain.items.values().filter(|item| matches!(item.verdict, Verdict::Stopped | Verdict::Killed)).count();
    let stopped = if stays == 0 { String::new() } else { format!(", {stays} of them stopped") };
    let waits = if drain.waits.is_empty() { String::new() } else { format!("; {}", drain.waits) };
    format!("{gone} of {} have left{stopped}{waits}", drain.items.len())
}
