//! Moves: a node is reserved for every environment that is to leave before the first one is touched, and moves begin within the budgets.
//! Pure: it changes the records in memory.
//!
//! A move has one point of no return: `begun`, when the environment is told to stop. Before it everything may be planned anew or dropped;
//! after it the old right ends (`State::Released`, or the end of the boot) and the environment is started where there is room, with the
//! next epoch.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use lodge_model::drain::{Cause, MoveView, NotLive};
use lodge_model::environment::order::{Checkpoint, State, Want};
use lodge_model::environment::share;
use lodge_model::ids::{EnvironmentId, NodeId};
use lodge_model::live::MoveBy;

use super::way::{self, Way};
use crate::environments::place::{self, Demand, Room};
use crate::environments::reach::Check;
use crate::environments::records::{Environment, Goal, Live, MOVES_KEPT, Move};
use crate::environments::settle::Cluster;

/// A start elsewhere that takes longer does not hold up the moves after it.
pub const START_PATIENCE: SignedDuration = SignedDuration::from_secs(60);
/// A target that has not fetched the template by then fetches it while the environment is down.
pub const WARM_PATIENCE: SignedDuration = SignedDuration::from_secs(20);
/// How it moves, in the API's words.
pub const RESTART: &str = "restart";
/// The same, with its processes.
pub const LIVE: &str = "live";

/// Note who is to leave, and reserve a node for each. What has been reserved and is still good is kept.
pub fn reserve(cluster: &mut Cluster, now: Timestamp) {
    note(cluster, now);
    cluster.count();
    let rooms = &mut cluster.rooms;
    let mut waiting: Vec<&mut Environment> =
        cluster.environments.values_mut().filter(|environment| needs_target(environment)).collect();
    waiting.sort_by_key(|environment| {
        let spec = &environment.spec;
        (std::cmp::Reverse((spec.priority, spec.memory)), environment.created, environment.id)
    });
    for environment in waiting {
        let chosen = target(environment, rooms, now);
        if let Ok(at) = &chosen
            && let Some(room) = rooms.get_mut(*at)
        {
            room.held.reserve(environment);
        }
        if let Some(moving) = &mut environment.moving {
            (moving.to, moving.waits) = match chosen.map(|at| &rooms[at]) {
                Ok(room) => (Some((room.node, room.name.clone())), String::new()),
                Err(why) => (None, why),
            };
        }
    }
    choose_ways(cluster);
}

/// How each goes that has not begun: what is known of it and of the nodes may change until then.
fn choose_ways(cluster: &mut Cluster) {
    for environment in cluster.environments.values_mut() {
        let Some(moving) = environment.moving.as_ref().filter(|moving| moving.begun.is_none()) else { continue };
        let hurries = cluster.drains.get(&moving.from).is_some_and(|drain| drain.cause == Cause::Ups);
        let way = way::of_move(environment, moving, cluster.settings.move_by, &cluster.rooms, hurries);
        environment.moving = environment.moving.take().map(|moving| Move { way, ..moving });
    }
}

/// Who moves, and whose reservation is still good.
fn note(cluster: &mut Cluster, now: Timestamp) {
    let takes: BTreeSet<NodeId> = cluster.rooms.iter().filter(|room| room.takes()).map(|room| room.node).collect();
    for environment in cluster.environments.values_mut() {
        let is_drained = environment.place.as_ref().is_some_and(|place| cluster.drains.contains_key(&place.node));
        let is_over = environment.moving.as_ref().is_some_and(|moving| match &environment.place {
            _ if environment.goal != Goal::Running => true,
            Some(place) => {
                moving.begun.is_none()
                    && (place.node != moving.from
                        || environment.epoch != moving.epoch
                        || (moving.asked.is_none() && !is_drained))
            }
            None => moving.begun.is_none(),
        });
        if is_over {
            environment.moving = None;
        }
        if let Some(place) = environment.place.as_ref().filter(|place| is_drained && place.want == Want::Running)
            && environment.goal == Goal::Running
            && environment.moving.as_ref().is_none_or(|moving| moving.epoch != environment.epoch)
        {
            environment.moving = Some(Move {
                from: place.node,
                from_name: place.name.clone(),
                epoch: environment.epoch,
                to: None,
                asked: None,
                planned: now,
                begun: None,
                released: None,
                waits: String::new(),
                by: MoveBy::Cluster,
                way: Way::default(),
                live: None,
            });
        }
        if let Some(moving) = &mut environment.moving {
            if is_drained {
                moving.asked = None;
            }
            let has_arrived = environment.place.is_some() && environment.epoch != moving.epoch;
            let leaves = environment.place.as_ref().map(|place| place.node);
            // It is still the target that was asked for, and it would still take it.
            let is_good = |node: &NodeId| takes.contains(node) && Some(*node) != leaves;
            if !has_arrived && moving.to.as_ref().is_some_and(|(node, _)| !is_good(node)) {
                moving.to = None;
            }
        }
    }
}

/// It leaves, and no node is reserved for it.
fn needs_target(environment: &Environment) -> bool {
    let still_leaves = |epoch| environment.place.is_none() || environment.epoch == epoch;
    environment.moving.as_ref().is_some_and(|moving| moving.to.is_none() && still_leaves(moving.epoch))
}

fn target(environment: &Environment, rooms: &[Room], now: Timestamp) -> Result<usize, String> {
    place::choose(rooms, &demand(environment, now))
}

/// What it asks of a node. Once its old node has let go of it, any node will do, that one too.
pub fn demand(environment: &Environment, now: Timestamp) -> Demand<'_> {
    let moving = environment.moving.as_ref().filter(|_| environment.place.is_some());
    let only = moving.and_then(|moving| moving.asked.as_ref()).and_then(|asked| asked.to);
    Demand { environment, only, leaves: moving.map(|moving| moving.from), removal: false, now }
}

/// Begin as many moves as the budgets allow, the most important first; at the deadline of a drain whatever is left there, wherever it
/// goes. `busy` names environments whose disk a task works on: they stay for so long.
pub fn begin(cluster: &mut Cluster, busy: &BTreeSet<EnvironmentId>, now: Timestamp) {
    let mut budget = Budget::of(cluster, now);
    let warm = warm(cluster);
    let mut order: Vec<&mut Environment> =
        cluster.environments.values_mut().filter(|environment| is_ready(environment)).collect();
    order.sort_by_key(|environment| (std::cmp::Reverse(environment.spec.priority), environment.created, environment.id));
    for environment in order {
        let demand = demand(environment, now);
        let Some(moving) = &environment.moving else { continue };
        let drain = cluster.drains.get(&moving.from);
        let is_last =
            drain.is_some_and(|drain| drain.is_late(now) || (drain.is_exit() && place::is_hopeless(&cluster.rooms, &demand)));
        let source = cluster.rooms.iter().find(|room| room.node == moving.from);
        let is_heard = source.is_some_and(|room| room.silent.is_empty());
        let goes = match &moving.to {
            _ if is_last => true,
            _ if !is_heard || busy.contains(&environment.id) => false,
            Some((to, _)) => {
                let is_warm = warm.contains(&(*to, environment.template_now().digest));
                let waited = now.duration_since(moving.planned);
                (is_warm || waited >= WARM_PATIENCE || waited < SignedDuration::ZERO) && budget.take(moving.from, *to)
            }
            None => false,
        };
        if goes && let (Some(moving), Some(place)) = (&mut environment.moving, &mut environment.place) {
            moving.begun = Some(now);
            if is_last && moving.way.is_live {
                moving.way = Way { is_live: false, because: "there is no time left".to_owned() };
            }
            moving.live = moving.way.is_live.then_some(Live::Asked);
            place.want = if moving.way.is_live { Want::Suspended } else { Want::Stopped };
        }
    }
}

/// It is to leave, and has not been told.
fn is_ready(environment: &Environment) -> bool {
    let has_not_begun = environment.moving.as_ref().is_some_and(|moving| moving.begun.is_none());
    has_not_begun && environment.place.as_ref().is_some_and(|place| place.want == Want::Running)
}

/// Nodes that have a template already: because they said so, or because something that is made from it runs there.
fn warm(cluster: &Cluster) -> BTreeSet<(NodeId, lodge_model::ids::Digest)> {
    let said = cluster.rooms.iter().flat_map(|room| room.warm.iter().map(|digest| (room.node, digest.clone())));
    let used = cluster.environments.values().filter_map(|environment| {
        let runs = matches!(environment.report.as_ref()?.state, State::Running { .. });
        let node = environment.place.as_ref()?.node;
        runs.then(|| (node, environment.template_now().digest))
    });
    said.chain(used).collect()
}

/// How many moves may still begin.
struct Budget {
    per_source: u32,
    per_target: u32,
    left: u32,
    from: BTreeMap<NodeId, u32>,
    to: BTreeMap<NodeId, u32>,
}

impl Budget {
    /// What is left of the budgets, given the moves that are under way.
    fn of(cluster: &Cluster, now: Timestamp) -> Self {
        let settings = &cluster.settings;
        let mut budget = Self {
            per_source: settings.moves_per_source,
            per_target: settings.moves_per_target,
            left: settings.moves_per_cluster,
            from: BTreeMap::new(),
            to: BTreeMap::new(),
        };
        for moving in cluster.environments.values().filter_map(|environment| environment.moving.as_ref()) {
            if is_under_way(moving, now) {
                budget.count(moving.from, moving.to.as_ref().map(|(node, _)| *node));
            }
        }
        budget
    }

    fn count(&mut self, from: NodeId, to: Option<NodeId>) {
        self.left = self.left.saturating_sub(1);
        *self.from.entry(from).or_default() += 1;
        if let Some(to) = to {
            *self.to.entry(to).or_default() += 1;
        }
    }

    fn take(&mut self, from: NodeId, to: NodeId) -> bool {
        let used = |at: &BTreeMap<NodeId, u32>, node| at.get(&node).copied().unwrap_or(0);
        let may = self.left > 0 && used(&self.from, from) < self.per_source && used(&self.to, to) < self.per_target;
        if may {
            self.count(from, Some(to));
        }
        may
    }
}

/// Its old node has not let go of it, or its new one has not had the time to start it.
pub fn is_under_way(moving: &Move, now: Timestamp) -> bool {
    moving.begun.is_some() && moving.released.is_none_or(|released| now.duration_since(released) < START_PATIENCE)
}

/// How it moves, as far as is known.
pub fn way_word(moving: &Move) -> &'static str {
    match moving.live {
        Some(Live::Asked | Live::Kept) => LIVE,
        Some(Live::Failed(_)) => RESTART,
        None => moving.way.word(),
    }
}

/// Its old node lets go of it: whether with its processes.
pub fn let_go(environment: &mut Environment) {
    let Some(moving) = environment.moving.as_mut().filter(|moving| moving.live == Some(Live::Asked)) else { return };
    moving.live = Some(match environment.report.as_ref().and_then(|report| report.checkpoint.as_ref()) {
        Some(Checkpoint::Kept) => Live::Kept,
        Some(Checkpoint::Failed { why }) => Live::Failed(why.clone()),
        Some(Checkpoint::Resumed) | None => Live::Failed("it was shut down before".to_owned()),
    });
}

/// The epoch whose processes go on in the present one.
pub fn resumes(environment: &Environment) -> Option<u64> {
    let moving = environment.moving.as_ref().filter(|moving| moving.live == Some(Live::Kept))?;
    share::may_resume(moving.epoch, environment.epoch).is_ok().then_some(moving.epoch)
}

/// It runs on its new node: whether with its processes.
fn arrived(live: Option<Live>, said: Option<&Checkpoint>) -> (&'static str, Option<NotLive>, String) {
    let failed = |why: String, ended| (RESTART, Some(NotLive { why, ended }), String::new());
    match (live, said) {
        (Some(Live::Kept), Some(Checkpoint::Resumed)) => (LIVE, None, String::new()),
        (Some(Live::Kept), Some(Checkpoint::Failed { why })) => failed(why.clone(), true),
        // That says nothing of its processes.
        (Some(Live::Kept | Live::Asked), _) => (RESTART, None, "not live: its node ended before".to_owned()),
        (Some(Live::Failed(why)), _) => failed(why, false),
        (None, _) => (RESTART, None, String::new()),
    }
}

/// Take in how far a move has come; called when the old right has just ended, or a report has come.
pub fn follow(environment: &mut Environment, now: Timestamp) {
    let runs = matches!(environment.report.as_ref().map(|report| &report.state), Some(State::Running { .. }));
    let Some(moving) = environment.moving.as_mut().filter(|moving| moving.begun.is_some()) else { return };
    let has_ended = environment.place.is_none() || environment.epoch != moving.epoch;
    if has_ended && moving.released.is_none() {
        moving.released = Some(now);
    }
    let Some(place) = environment.place.as_ref().filter(|_| environment.epoch != moving.epoch && runs) else { return };
    let since = |then: Option<Timestamp>, end: Timestamp| {
        then.map(|then| u64::try_from(end.duration_since(then).as_millis()).unwrap_or(0))
    };
    let said = environment.report.as_ref().and_then(|report| report.checkpoint.as_ref());
    let (way, not_live, lost) = arrived(moving.live.clone(), said);
    let obstacle = not_live.as_ref().map(|failed| format!("not live: {}", failed.why)).unwrap_or(lost);
    let killed = environment.last_exit.starts_with("killed").then(|| environment.last_exit.clone());
    let parts = [Some(obstacle).filter(|text| !text.is_empty()), killed];
    let note = parts.into_iter().flatten().collect::<Vec<_>>().join("; ");
    environment.moves.push(MoveView {
        from: moving.from_name.clone(),
        to: Some(place.name.clone()),
        way: way.to_owned(),
        because: moving.way.because.clone(),
        not_live,
        at: Some(now),
        stop_ms: since(moving.begun, moving.released.unwrap_or(now)),
        gap_ms: since(moving.begun, now),
        note,
        reach: None,
    });
    let is_reachable = !environment.addresses_now().0.is_empty();
    environment.check = is_reachable.then_some(Check { epoch: environment.epoch, since: now, by: None, incident: None });
    let surplus = environment.moves.len().saturating_sub(MOVES_KEPT);
    environment.moves.drain(..surplus);
    environment.moving = None;
}

/// When time alone lets something go on.
pub fn next(cluster: &Cluster, now: Timestamp) -> Option<Timestamp> {
    let deadlines = cluster.drains.values().filter_map(|drain| drain.deadline);
    let moves = cluster.environments.values().filter_map(|environment| environment.moving.as_ref());
    let patience = moves.filter_map(|moving| match (moving.begun, moving.released) {
        (None, _) => moving.planned.checked_add(WARM_PATIENCE).ok(),
        (Some(_), Some(released)) => released.checked_add(START_PATIENCE).ok(),
        (Some(_), None) => None,
    });
    deadlines.chain(patience).filter(|time| *time > now).min()
}
