//! By the clock: what is wrong with whom, bans for those who are dead, incidents for all of them.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use lodge_model::ids::TaskId;
use lodge_model::incident::Step;
use lodge_model::node::Role;
use lodge_model::timing::{MARK, Timing};

use super::drive::{Errand, drive};
use super::incident;
use super::plan::{Decision, Facts, Plan, ShareFacts, Verdict, Worker, plan};
use super::records::{Ban, Failover, Incident};
use crate::environments::drain::request::settings;
use crate::environments::records::{Environment, Task};
use crate::fault::Fault;
use crate::flow::World;
use crate::orders::Topology;
use crate::records::Node;
use crate::store::{EventDraft, Tx};

/// The center starts: one line says since when it may have missed something, in place of an incident of every node that it did not hear.
pub fn begin(tx: &Tx, now: Timestamp) -> Result<(), Fault> {
    let Some(last) = tx.list::<Node>()?.iter().filter_map(|node| node.seen).max() else { return Ok(()) };
    let listen = Timing::new(settings(tx)?.patience).listen.as_secs();
    let away = now.duration_since(last).as_secs();
    let text = format!(
        "the center was away: nothing was heard for up to {away} s; it listens for {listen} s before it misses anybody"
    );
    tx.log(&EventDraft { at: now, machine: None, node: None, kind: "center", text, detail: None })
}

/// Look, and say what is to be done outside of the transaction. `up_for` is how long the center has been listening.
pub fn look(tx: &Tx, world: &World, up_for: Duration, now: Timestamp) -> Result<Vec<Errand>, Fault> {
    let nodes = tx.list::<Node>()?;
    let state: Failover = tx.get(&"failover")?.unwrap_or_default();
    let mut facts = facts(tx, world, &nodes, &state, up_for, now)?;
    let open = incident::open(tx)?;
    let first = plan(&facts);
    if first.verdicts.is_empty() && open.is_empty() && first.held == state.held {
        return Ok(Vec::new());
    }
    // Only now it matters who holds what.
    let environments = tx.list::<Environment>()?;
    note_holders(tx, &mut facts, &environments)?;
    let plan = plan(&facts);
    if plan.is_wide {
        world.live.signs.was_wide(now);
    }
    if plan.held != state.held {
        let state: Failover = tx.get(&"failover")?.unwrap_or_default();
        tx.put(&Failover { held: plan.held.clone(), ..state })?;
    }
    for verdict in &plan.verdicts {
        if let Some(node) = nodes.iter().find(|node| node.id == verdict.node) {
            carry_out(tx, world, node, verdict, &facts, &environments)?;
        }
    }
    let mut errands = Vec::new();
    for before in open {
        let is_judged = plan.verdicts.iter().any(|verdict| verdict.node == before.node);
        if !is_judged {
            errands.extend(go_on(tx, world, &before, &nodes, &facts, &plan)?);
        }
    }
    Ok(errands)
}

fn facts(tx: &Tx, world: &World, nodes: &[Node], state: &Failover, up_for: Duration, now: Timestamp) -> Result<Facts, Fault> {
    let server = Topology::of(nodes).share.map(|(server, _)| server);
    let heard = |node: &Node| {
        let registered = node.registered.as_ref().map(|registered| registered.at);
        world.live.last(node.id, node.seen).or(registered).unwrap_or(node.admitted)
    };
    // One that went down while the share hung could not stop what it had cleanly, and holds it still.
    let holds = |node: &Node| node.orders.as_ref().is_some_and(|orders| !orders.environments.is_empty());
    let is_there = |node: &Node| node.off.is_none() || holds(node);
    let is_worker = |node: &&Node| node.roles.contains(&Role::Worker) && is_there(node) && Some(node.id) != server;
    let worker = |node: &Node| {
        let boot = node.registered.as_ref()?.boot;
        Some(Worker {
            node: node.id,
            name: node.name.clone(),
            boot,
            heard: heard(node),
            mark: world.live.signs.mark(node.id),
            holds: true,
            settled: node.has_ended(boot),
            banned: node.ban.as_ref().is_some_and(|ban| ban.boot == boot),
            is_gone: node.off.is_some(),
        })
    };
    let share = nodes.iter().find(|node| Some(node.id) == server);
    Ok(Facts {
        now,
        timing: Timing::new(settings(tx)?.patience),
        up_for,
        disarmed: state.disarmed.as_ref().map(|disarmed| disarmed.reason.clone()),
        share: share.map(|node| ShareFacts { name: node.name.clone(), heard: heard(node) }),
        last_wide: world.live.signs.last_wide(),
        workers: nodes.iter().filter(is_worker).filter_map(worker).collect(),
    })
}

fn note_holders(tx: &Tx, facts: &mut Facts, environments: &[Environment]) -> Result<(), Fault> {
    let tasks = tx.list::<Task>()?;
    for worker in &mut facts.workers {
        let this = (worker.node, worker.boot);
        let runs = environments.iter().any(|one| one.place.as_ref().is_some_and(|place| (place.node, place.boot) == this));
        worker.holds = runs || tasks.iter().any(|task| task.is_open() && task.node == Some(this));
    }
    Ok(())
}

/// Write down what was judged, and do what follows.
fn carry_out(
    tx: &Tx,
    world: &World,
    node: &Node,
    verdict: &Verdict,
    facts: &Facts,
    environments: &[Environment],
) -> Result<(), Fault> {
    let now = facts.now;
    let Some(worker) = facts.workers.iter().find(|worker| worker.node == node.id) else { return Ok(()) };
    let mut incident = incident::of(tx, node, worker.boot, verdict.case, worker.heard, now)?;
    let before = (incident.version > 0).then(|| incident.clone());
    incident::take_stock(&mut incident, environments);
    if before.is_none() || incident.case != verdict.case {
        incident.case = verdict.case;
        incident.add(now, Step::Suspect, verdict.case.words());
        incident.add(now, Step::Corroborated, verdict.signs.clone());
    }
    neighbours(world, &mut incident, facts);
    match &verdict.decision {
        Decision::Hold(why) => {
            if incident.waits != *why {
                incident.add(now, Step::Held, why.clone());
                incident.waits.clone_from(why);
            }
        }
        Decision::Fence => ban(tx, node, &mut incident, facts)?,
    }
    if before.is_none() {
        // Its neighbours are asked.
        tx.replan();
    }
    incident::save(tx, &mut incident, before.as_ref())
}

/// The intent, before anybody acts.
fn ban(tx: &Tx, node: &Node, incident: &mut Incident, facts: &Facts) -> Result<(), Fault> {
    let now = facts.now;
    let ban = Ban::new(TaskId(tx.new_id()), node, incident.boot, now);
    let share = facts.share.as_ref().map_or("the share node", |share| share.name.as_str());
    let addresses: Vec<String> = ban.addresses.iter().map(ToString::to_string).collect();
    incident.add(now, Step::FenceOrdered, format!("{share} is to cut {} off the share", addresses.join(", ")));
    incident.waits = format!("{share} has to confirm that {} is cut off", incident.name);
    tx.put(&Node { ban: Some(ban), ..node.clone() })?;
    tx.replan();
    Ok(())
}

/// What its neighbours say of it, when that is news.
fn neighbours(world: &World, incident: &mut Incident, facts: &Facts) {
    let lately = facts.now.checked_sub(SignedDuration::try_from(MARK * 3).unwrap_or_default()).unwrap_or(facts.now);
    let text = match world.live.signs.word(incident.node, lately) {
        (0, 0) => return,
        (0, no) => format!("none of {no} neighbours reaches it"),
        (yes, no) => format!("{yes} of {} neighbours reach it", yes + no),
    };
    if incident.last(Step::Corroborated) != Some(&text) {
        incident.add(facts.now, Step::Corroborated, text);
    }
}

/// An open incident that nothing was decided about: its node is back, has gone in order, or is being fenced.
fn go_on(tx: &Tx, world: &World, before: &Incident, nodes: &[Node], facts: &Facts, plan: &Plan) -> Result<Vec<Errand>, Fault> {
    let now = facts.now;
    let mut incident = before.clone();
    let mut errands = Vec::new();
    let node = nodes.iter().find(|node| node.id == incident.node);
    let boot = node.and_then(|node| node.registered.as_ref()).map(|registered| registered.boot);
    let worker = facts.workers.iter().find(|worker| worker.node == incident.node && worker.boot == incident.boot);
    match (node, worker) {
        _ if incident.is_back => {}
        (None, _) => end(&mut incident, Step::Closed, "it was forgotten", now),
        (Some(node), None) if boot == Some(incident.boot) && node.off.is_some() && node.ban.is_none() => {
            end(&mut incident, Step::Returned, "it was heard again, and has gone down in order", now);
        }
        (Some(node), _) if let Some(ban) = node.ban.as_ref().filter(|ban| ban.boot == incident.boot) => {
            errands = drive(tx, world, node, ban, &mut incident, facts)?;
            if plan.is_wide && incident.method.is_none() {
                incident.waits = format!("{} ({})", incident.waits, plan.held);
            }
        }
        (_, Some(worker)) if worker.settled => {}
        (_, Some(worker))
            if !worker.is_gone
                && now.duration_since(worker.heard) <= SignedDuration::try_from(facts.timing.suspect).unwrap_or_default() =>
        {
            end(&mut incident, Step::Returned, "all signs of it are good again; nothing was taken from it", now);
        }
        _ => {}
    }
    incident::save(tx, &mut incident, Some(before))?;
    Ok(errands)
}

fn end(incident: &mut Incident, step: Step, what: &str, now: Timestamp) {
    incident.add(now, step, what);
    incident.is_back = true;
    incident.closed = Some(now);
    incident.waits.clear();
}
