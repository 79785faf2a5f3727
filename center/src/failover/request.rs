//! What operators ask for: incidents, disarming and arming. Their word that a machine is off is an entry of the incident too.

use jiff::Timestamp;
use lodge_model::ids::{BootId, TaskId};
use lodge_model::incident::{ArmOrder, Case, FailoverView, IncidentView, Method, Step};

use super::incident;
use super::records::{Ban, Disarmed, Failover, Incident};
use crate::environments::records::Environment;
use crate::fault::Fault;
use crate::flow::World;
use crate::records::Node;
use crate::store::{EventDraft, Tx};

/// Longest reason, in bytes.
const REASON_MAX: usize = 500;

/// All incidents, the newest first.
pub fn incidents(tx: &Tx) -> Result<Vec<IncidentView>, Fault> {
    let mut all = tx.list::<Incident>()?;
    all.sort_by_key(|incident| std::cmp::Reverse(incident.id));
    Ok(all.iter().map(incident::view).collect())
}

/// One of them.
pub fn incident(tx: &Tx, id: u64) -> Result<IncidentView, Fault> {
    let found = tx.get::<Incident>(&id)?;
    let none = || Fault::not_found(format!("there is no incident {id}; lodge incident ls lists them"));
    Ok(incident::view(&found.ok_or_else(none)?))
}

/// Whether anything is taken over at present.
pub fn state(tx: &Tx) -> Result<FailoverView, Fault> {
    let Failover { disarmed, held, .. } = tx.get(&"failover")?.unwrap_or_default();
    Ok(FailoverView {
        armed: disarmed.is_none(),
        since: disarmed.as_ref().map(|disarmed| disarmed.since),
        reason: disarmed.map_or(String::new(), |disarmed| disarmed.reason),
        held,
    })
}

/// No automatic takeover from now on. What is banned already stays banned.
pub fn disarm(tx: &Tx, order: &ArmOrder, now: Timestamp) -> Result<FailoverView, Fault> {
    let reason = reason(order)?;
    if reason.is_empty() {
        return Err(Fault::bad_input("reason: say why, for whoever wonders that nothing is taken over: --reason TEXT"));
    }
    set(tx, Some(Disarmed { reason: reason.to_owned(), since: now }), &format!("an operator disarms takeovers: {reason}"), now)
}

/// Automatic takeovers again.
pub fn arm(tx: &Tx, order: &ArmOrder, now: Timestamp) -> Result<FailoverView, Fault> {
    let reason = reason(order)?;
    let why = if reason.is_empty() { String::new() } else { format!(": {reason}") };
    set(tx, None, &format!("an operator arms takeovers{why}"), now)
}

fn reason(order: &ArmOrder) -> Result<&str, Fault> {
    let reason = order.reason.trim();
    match reason.len() <= REASON_MAX && !reason.chars().any(char::is_control) {
        true => Ok(reason),
        false => Err(Fault::bad_input(format!("reason: one line of at most {REASON_MAX} bytes is possible"))),
    }
}

fn set(tx: &Tx, disarmed: Option<Disarmed>, text: &str, now: Timestamp) -> Result<FailoverView, Fault> {
    let state: Failover = tx.get(&"failover")?.unwrap_or_default();
    tx.put(&Failover { disarmed, ..state })?;
    tx.log(&EventDraft { at: now, machine: None, node: None, kind: "failover", text: text.to_owned(), detail: None })?;
    self::state(tx)
}

/// An operator has said that the machine of a node is off. Its boot is banned too: people err, and a machine that runs after all then
/// cannot write.
pub fn confirmed_off(tx: &Tx, world: &World, node: &mut Node, boot: BootId, now: Timestamp) -> Result<(), Fault> {
    if node.ban.as_ref().is_none_or(|ban| ban.boot != boot) {
        node.ban = Some(Ban::new(TaskId(tx.new_id()), node, boot, now));
    }
    let heard = world.live.last(node.id, node.seen).unwrap_or(now);
    let mut incident = incident::of(tx, node, boot, Case::NodeSilent, heard, now)?;
    let before = (incident.version > 0).then(|| incident.clone());
    incident::take_stock(&mut incident, &tx.list::<Environment>()?);
    incident.method.get_or_insert(Method::Operator);
    incident.add(now, Step::Fenced, format!("{}: the machine of {} is off", Method::Operator.words(), node.name));
    incident.waits.clear();
    incident::save(tx, &mut incident, before.as_ref())
}
