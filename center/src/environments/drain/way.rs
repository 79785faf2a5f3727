//! How an environment moves: with its processes, or by a restart; and why, for people. Pure.
//!
//! A move that is to be live costs, where it fails, what a restart costs, and more: what was kept and cannot go on has ended as in a power
//! cut, and so does not say good-bye to its disk. So everything that is known to fail is asked for beforehand, and one such end is enough.
//! What the source refuses while the processes still run costs nothing, and may be a passing thing: the second time in a row counts.

use jiff::Timestamp;
use lodge_model::drain::{MoveView, NotLive};
use lodge_model::live::{Capability, MoveBy, Probe};
use serde::{Deserialize, Serialize};

use super::moves::{LIVE, RESTART};
use crate::environments::place::Room;
use crate::environments::records::{Environment, Move};

/// Refusals of criu in a row after which it is not asked again.
const REFUSALS: usize = 2;

/// The way of a move.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Way {
    /// With its processes.
    pub is_live: bool,
    /// Why, for people.
    pub because: String,
}

impl Way {
    /// In the API's words.
    pub fn word(&self) -> &'static str {
        if self.is_live { LIVE } else { RESTART }
    }

    fn restart(because: impl Into<String>) -> Self {
        Self { is_live: false, because: because.into() }
    }

    fn live(because: impl Into<String>) -> Self {
        Self { is_live: true, because: because.into() }
    }
}

/// A node, as far as live moves are concerned.
#[derive(Clone, Copy, Debug)]
pub struct Side<'a> {
    /// Its name.
    pub name: &'a str,
    /// What it can do; absent while it has not said so.
    pub criu: Option<&'a Capability>,
    /// What it has seen of the environment's processes; absent while it has not looked.
    pub probe: Option<&'a Probe>,
}

/// Everything the way is chosen from.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// Said of this very move.
    pub asked: MoveBy,
    /// Said of the environment.
    pub own: MoveBy,
    /// Said for the cluster.
    pub cluster: MoveBy,
    /// Its template says that it may be moved live.
    pub is_movable: bool,
    /// Another system has its disk, to mend it.
    pub is_repaired: bool,
    /// The node that it leaves.
    pub source: Side<'a>,
    /// The node that takes it, where that is known.
    pub target: Option<Side<'a>>,
    /// Its last moves, the newest last.
    pub moves: &'a [MoveView],
    /// What was before that does not count.
    pub counts_from: Option<Timestamp>,
    /// There is no time to lose.
    pub hurries: bool,
}

/// Choose.
pub fn choose(facts: &Facts) -> Way {
    let (by, who) = policy(facts);
    let verdict = match by {
        MoveBy::Restart => return Way::restart(who),
        // Somebody insists: what has not been said, or went wrong before, does not keep it from being tried.
        MoveBy::Live => obstacle(facts),
        MoveBy::Auto | MoveBy::Cluster => {
            obstacle(facts).or_else(|| doubt(facts)).or_else(|| refusal_of_pair(facts)).or_else(|| history(facts))
        }
    };
    match verdict {
        Some(why) => Way::restart(why),
        None => Way::live(match (by, last_freeze(facts)) {
            (MoveBy::Live, _) => who.to_owned(),
            (_, Some(gap)) => format!("nothing speaks against it; the last time it took {}", seconds(gap)),
            (_, None) => "nothing speaks against it".to_owned(),
        }),
    }
}

/// Whose word counts: of the move, else of the environment, else of the cluster.
fn policy(facts: &Facts) -> (MoveBy, &'static str) {
    let said = [
        (facts.asked, "it was asked for"),
        (facts.own, "it is set so for it"),
        (facts.cluster, "the cluster's settings say so"),
    ];
    said.into_iter().find(|(by, _)| *by != MoveBy::Cluster).unwrap_or((MoveBy::Auto, ""))
}

/// Known to fail.
fn obstacle(facts: &Facts) -> Option<String> {
    if facts.is_repaired {
        return Some("it is being repaired".to_owned());
    }
    if !facts.is_movable {
        return Some("its template does not say that it can be moved live".to_owned());
    }
    match facts.source.probe {
        Some(Probe::Obstacle { why }) => Some(why.clone()),
        Some(Probe::Clear) | None => None,
    }
}

/// Not known to go well.
fn doubt(facts: &Facts) -> Option<String> {
    if facts.hurries {
        return Some("there is no time to lose".to_owned());
    }
    facts.source.probe.is_none().then(|| format!("{} has not looked at its processes yet", facts.source.name))
}

/// One of the nodes cannot do it, or the two are not alike.
fn refusal_of_pair(facts: &Facts) -> Option<String> {
    let source = match able(facts.source) {
        Ok(source) => source,
        Err(why) => return Some(why),
    };
    let side = facts.target?;
    let target = match able(side) {
        Ok(target) => target,
        Err(why) => return Some(why),
    };
    if source.kernel != target.kernel {
        let (from, to) = (facts.source.name, side.name);
        return Some(format!("{to} runs kernel {}, {from} {}", target.kernel, source.kernel));
    }
    let lacking: Vec<&str> = source.cpu.iter().filter(|flag| !target.cpu.contains(flag)).map(String::as_str).collect();
    let named = lacking.iter().take(3).copied().collect::<Vec<_>>().join(", ");
    (!lacking.is_empty()).then(|| format!("the processor of {} lacks {named}, which {} has", side.name, facts.source.name))
}

fn able<'a>(side: Side<'a>) -> Result<&'a Capability, String> {
    let criu = side.criu.ok_or_else(|| format!("{} has not said yet whether it can", side.name))?;
    if criu.problem.is_empty() { Ok(criu) } else { Err(format!("{}: {}", side.name, criu.problem)) }
}

/// What became of its last moves.
fn history(facts: &Facts) -> Option<String> {
    let counted = || counted(facts);
    let again = "until it is changed or started anew, or lodge env set --move says so again";
    let failed: Vec<&NotLive> =
        counted().take_while(|done| done.way != LIVE).filter_map(|done| done.not_live.as_ref()).collect();
    if let Some(failed) = failed.first().filter(|failed| failed.ended) {
        return Some(format!("it did not go on the last time ({}); {again}", failed.why));
    }
    if failed.len() >= REFUSALS {
        return Some(format!("criu refused {} times in a row ({}); {again}", failed.len(), failed[0].why));
    }
    let freeze = last_freeze(facts)?;
    let restart = counted().filter(|done| done.way == RESTART && done.not_live.is_none()).find_map(|done| done.gap_ms)?;
    (freeze > restart)
        .then(|| format!("the last live move took {}, the last restart {}; {again}", seconds(freeze), seconds(restart)))
}

/// Milliseconds of its last live move.
fn last_freeze(facts: &Facts) -> Option<u64> {
    counted(facts).filter(|done| done.way == LIVE).find_map(|done| done.gap_ms)
}

/// The newest first.
fn counted<'a>(facts: &Facts<'a>) -> impl Iterator<Item = &'a MoveView> + use<'a> {
    let from = facts.counts_from;
    facts.moves.iter().rev().take_while(move |done| done.at >= from)
}

fn seconds(millis: u64) -> String {
    format!("{}.{} s", millis / 1000, millis % 1000 / 100)
}

/// Of an environment that runs on one node and moves to the other, as far as that one is known: as it would move now.
pub fn of(environment: &Environment, cluster: MoveBy, source: Side, target: Option<Side>, hurries: bool) -> Way {
    choose(&Facts {
        asked: environment.moving.as_ref().map(|moving| moving.by).unwrap_or_default(),
        own: environment.spec.move_by,
        cluster,
        is_movable: environment.template_now().meta.movable,
        is_repaired: environment.repair.is_some(),
        source,
        target,
        moves: &environment.moves,
        counts_from: environment.counts_from,
        hurries,
    })
}

/// The same, as it is noted to move.
pub fn of_move(environment: &Environment, moving: &Move, cluster: MoveBy, rooms: &[Room], hurries: bool) -> Way {
    let side = |node| {
        let room = rooms.iter().find(|room| room.node == node)?;
        Some(Side { name: &room.name, criu: room.criu.as_ref(), probe: room.probes.get(&environment.id) })
    };
    let source = side(moving.from).unwrap_or(Side { name: &moving.from_name, criu: None, probe: None });
    of(environment, cluster, source, moving.to.as_ref().and_then(|(node, _)| side(*node)), hurries)
}

#[cfg(test)]
mod tests;
