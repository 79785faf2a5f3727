//! The timeline of an incident, and what becomes of the environments that it concerns.

use std::collections::BTreeMap;

use jiff::Timestamp;
use lodge_model::environment::order::State;
use lodge_model::ids::{BootId, EnvironmentId, NodeId};
use lodge_model::incident::{Case, IncidentView, Step};
use lodge_model::reach::Reached;

use super::records::{Failover, Incident, Taken};
use crate::environments::reach::Check;
use crate::environments::reconcile;
use crate::environments::records::{Environment, Goal};
use crate::fault::Fault;
use crate::records::Node;
use crate::store::{EventDraft, Tx};

/// So many incidents are kept.
const KEPT: u64 = 500;

/// All that are open, the oldest first.
pub fn open(tx: &Tx) -> Result<Vec<Incident>, Fault> {
    let mut open = tx.list::<Incident>()?;
    open.retain(|incident| incident.closed.is_none());
    open.sort_by_key(|incident| incident.id);
    Ok(open)
}

/// The open one about a boot of a node, or a new one.
pub fn of(tx: &Tx, node: &Node, boot: BootId, case: Case, heard: Timestamp, now: Timestamp) -> Result<Incident, Fault> {
    let known = open(tx)?.into_iter().find(|incident| incident.node == node.id && incident.boot == boot);
    if let Some(incident) = known {
        return Ok(incident);
    }
    let mut state: Failover = tx.get(&"failover")?.unwrap_or_default();
    state.incidents += 1;
    tx.put(&state)?;
    if let Some(old) = state.incidents.checked_sub(KEPT)
        && tx.get::<Incident>(&old)?.is_some_and(|old| old.closed.is_some())
    {
        tx.delete::<Incident>(&old)?;
    }
    let mut incident = Incident {
        id: state.incidents,
        node: node.id,
        name: node.name.clone(),
        boot,
        case,
        opened: now,
        closed: None,
        method: None,
        is_back: false,
        waits: String::new(),
        taken: BTreeMap::new(),
        timeline: Vec::new(),
        version: 0,
    };
    incident.add(heard, Step::LastSign, format!("the last that the center heard of {}", node.name));
    Ok(incident)
}

/// Write it, if it has changed, and log what is new in it.
pub fn save(tx: &Tx, incident: &mut Incident, before: Option<&Incident>) -> Result<(), Fault> {
    if before == Some(&*incident) {
        return Ok(());
    }
    incident.version += 1;
    tx.put(incident)?;
    tx.show();
    let machine = tx.get::<Node>(&incident.node)?.map(|node| node.machine);
    for entry in incident.timeline.iter().skip(before.map_or(0, |before| before.timeline.len())) {
        let text = format!("incident {}: {}: {}: {}", incident.id, incident.name, entry.step.word(), entry.what);
        tx.log(&EventDraft { at: entry.at, machine, node: Some(&incident.name), kind: "incident", text, detail: None })?;
    }
    Ok(())
}

/// Note what a boot has the right to run, before it is taken away.
pub fn take_stock<'a>(incident: &mut Incident, environments: impl IntoIterator<Item = &'a Environment>) {
    for environment in environments {
        if environment.place.as_ref().is_some_and(|place| place.node == incident.node && place.boot == incident.boot) {
            let fresh = Taken { epoch: environment.epoch, placed: environment.epoch, is_done: false };
            incident.taken.entry(environment.id).or_insert(fresh);
        }
    }
}

/// Write down what has become of the environments of nodes that fell silent, after everything has been settled.
pub fn follow(tx: &Tx, environments: &BTreeMap<EnvironmentId, Environment>, now: Timestamp) -> Result<(), Fault> {
    for before in open(tx)? {
        let mut incident = before.clone();
        take_stock(&mut incident, environments.values());
        let mut missing = Vec::new();
        let mut taken = std::mem::take(&mut incident.taken);
        for (id, taken) in taken.iter_mut().filter(|(_, taken)| !taken.is_done) {
            match environments.get(id) {
                None => taken.is_done = true,
                Some(environment) => {
                    missing.extend(follow_one(&mut incident, taken, environment, now));
                    if taken.is_done && environment.goal == Goal::Running {
                        have_it_tried(tx, incident.id, environment, now)?;
                    }
                }
            }
        }
        incident.taken = taken;
        let has_ended = incident.method.is_some() || incident.is_back;
        if has_ended {
            incident.waits = waits(&missing);
        }
        if incident.is_back && missing.is_empty() {
            incident.closed = Some(now);
            incident.add(now, Step::Closed, "nothing is left to be done");
        }
        save(tx, &mut incident, Some(&before))?;
    }
    Ok(())
}

/// Another node tries whether it is reached where it runs now.
fn have_it_tried(tx: &Tx, incident: u64, before: &Environment, now: Timestamp) -> Result<(), Fault> {
    if before.addresses.is_empty() {
        return Ok(());
    }
    let check = Check { epoch: before.epoch, since: now, by: None, incident: Some(incident) };
    let mut environment = Environment { check: Some(check), ..before.clone() };
    tx.replan();
    reconcile::save(tx, &mut environment, Some(before), now)
}

/// What came of that. The incident may be over by then.
pub fn reached(tx: &Tx, id: u64, name: &str, by: &str, said: &Reached, now: Timestamp) -> Result<(), Fault> {
    let Some(before) = tx.get::<Incident>(&id)? else { return Ok(()) };
    let mut incident = before.clone();
    let text = match said.problem.is_empty() {
        true => format!("{name} answers {by} after {} ms", said.ms),
        false => format!("{name} does not answer {by}: {}", said.problem),
    };
    incident.add(now, if said.problem.is_empty() { Step::Reachable } else { Step::Unreachable }, text);
    save(tx, &mut incident, Some(&before))
}

/// Why it does not run again yet; nothing when it does, or is not to.
fn follow_one(incident: &mut Incident, taken: &mut Taken, environment: &Environment, now: Timestamp) -> Option<String> {
    let name = &environment.spec.name;
    if environment.goal != Goal::Running {
        taken.is_done = environment.place.is_none();
        return (!taken.is_done).then(|| format!("{name}: {}", environment.reason));
    }
    let Some(place) = environment.place.as_ref().filter(|_| environment.epoch > taken.epoch) else {
        return Some(format!("{name}: {}", environment.reason));
    };
    if environment.epoch > taken.placed {
        taken.placed = environment.epoch;
        incident.add(now, Step::Placed, format!("{name} goes to {} (epoch {})", place.name, environment.epoch));
    }
    let runs = environment
        .report
        .as_ref()
        .is_some_and(|report| report.epoch == environment.epoch && matches!(report.state, State::Running { .. }));
    if runs {
        taken.is_done = true;
        let since = now.duration_since(incident.timeline.first().map_or(incident.opened, |first| first.at));
        let text =
            format!("{name} runs on {}, {:.1} s after the last sign of {}", place.name, since.as_secs_f64(), incident.name);
        incident.add(now, Step::Started, text);
        return None;
    }
    Some(format!("{name}: {}", environment.reason))
}

fn waits(missing: &[String]) -> String {
    match missing {
        [] => String::new(),
        [one] => one.clone(),
        [first, rest @ ..] => format!("{first}; and {} more", rest.len()),
    }
}

/// A node is back, so that what its former boot had is free: it has started anew.
pub fn let_in(tx: &Tx, node: NodeId, boot: BootId, now: Timestamp) -> Result<(), Fault> {
    for before in open(tx)?.into_iter().filter(|incident| incident.node == node && incident.boot != boot && !incident.is_back) {
        let mut incident = before.clone();
        incident.is_back = true;
        let how = if incident.method.is_some() { "and is let in again" } else { "so its former boot has ended" };
        incident.add(now, Step::LetIn, format!("{} has started anew (boot {boot}), {how}", incident.name));
        save(tx, &mut incident, Some(&before))?;
    }
    Ok(())
}

/// As operators are shown.
pub fn view(incident: &Incident) -> IncidentView {
    IncidentView {
        id: incident.id,
        node: incident.node,
        name: incident.name.clone(),
        boot: incident.boot,
        case: incident.case,
        opened: incident.opened,
        closed: incident.closed,
        method: incident.method,
        waits: incident.waits.clone(),
        timeline: incident.timeline.clone(),
        version: incident.version,
    }
}
