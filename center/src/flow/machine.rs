//! What an installer asks and says: hello, decision, events, enrolment.

use std::collections::BTreeSet;

use jiff::Timestamp;
use lodge_model::api::{Decision, EnrolReply, EnrolRequest, Hello, MachineEvent, StepTime};
use lodge_model::ids::{MachineId, NodeId, TicketId};
use lodge_model::node::check_name;
use lodge_model::progress;
use lodge_model::ticket::Ticket;
use lodge_model::timing::TICKET_TTL;

use super::{Whole, World, create_node, parse_address, refresh_all, topology};
use crate::decide::{Case, Grant, Verdict, decide};
use crate::failover::hear;
use crate::fault::Fault;
use crate::records::{Installed, Machine, NameClaim, Purpose, Site, TicketRecord, TicketState};
use crate::store::{EventDraft, Tx};

/// Where the bundle is that nodes are installed from, or why there is none.
pub type BundleUrl = Result<String, String>;

/// The first thing an installer says, and again when its facts change.
pub fn hello(
    tx: &Tx,
    world: &World,
    bundle: &BundleUrl,
    id: MachineId,
    hello: &Hello,
    now: Timestamp,
) -> Result<Decision, Fault> {
    check_hello(id, hello)?;
    let known: Option<Machine> = tx.get(&id)?;
    let is_new = known.is_none();
    let mut machine = known.unwrap_or_else(|| Machine::new(id, now));
    machine.facts = Some(hello.facts.clone());
    machine.asked_name = hello.name.clone();
    let whole = Whole::of(tx, machine)?;
    if is_new {
        let disks: Vec<String> = hello.facts.disks.iter().map(|disk| disk.describe()).collect();
        let text = format!("{} asks to be installed; disks: {}", describe(hello), disks.join(", "));
        whole.log(tx, "hello", text, now)?;
    }
    settle(tx, world, bundle, whole, now)
}

/// What is decided about a machine that has said hello.
pub fn decision(tx: &Tx, world: &World, bundle: &BundleUrl, id: MachineId, now: Timestamp) -> Result<Decision, Fault> {
    let machine: Option<Machine> = tx.get(&id)?;
    let machine = machine.filter(|machine| machine.facts.is_some()).ok_or_else(|| {
        Fault::not_found(format!("machine {id} has not said what it is; send its facts to /machines/{id}/facts first"))
    })?;
    settle(tx, world, bundle, Whole::of(tx, machine)?, now)
}

/// What an installer tells of its progress.
pub fn events(tx: &Tx, world: &World, id: MachineId, events: &[MachineEvent], now: Timestamp) -> Result<(), Fault> {
    let machine = tx.get(&id)?.unwrap_or_else(|| Machine::new(id, now));
    let mut whole = Whole::of(tx, machine)?;
    whole.machine.seen = now;
    for event in events {
        let repeats = matches!(event, MachineEvent::Step { step, percent, .. }
            if whole.machine.step.as_ref() == Some(&(step.clone(), *percent)));
        if !repeats {
            log_event(tx, &whole, event, now)?;
        }
        take_in(&mut whole, event, now);
    }
    tx.wake();
    whole.save(tx, world, now)
}

/// Give a machine its certificate. Also says whose orders of which generation let it use the share.
pub fn enrol(
    tx: &Tx,
    world: &World,
    id: MachineId,
    purpose: Purpose,
    request: &EnrolRequest,
    now: Timestamp,
) -> Result<(EnrolReply, Option<(NodeId, u64)>), Fault> {
    let address = parse_address(&request.address)?;
    let mut whole = match request.ticket {
        Some(ticket) => by_ticket(tx, id, ticket, now)?,
        None => by_local_token(tx, id, purpose, request, now)?,
    };
    let node = whole.node.as_mut().ok_or_else(|| anyhow::anyhow!("machine {id} has a ticket and no node"))?;
    let certificate = world.ca.sign_node(&request.csr, node.id).map_err(|error| {
        Fault::bad_input(format!("csr: {error}; send a PEM certificate signing request made with the machine's own key"))
    })?;
    node.certificate = Some(certificate.digest);
    node.address = Some(address);
    hear::installs(tx, node);
    let node = node.clone();
    whole.log(tx, "enrolled", format!("{} has a certificate", node.name), now)?;
    whole.save(tx, world, now)?;
    let server = refresh_all(tx, now)?.filter(|(server, _)| *server != node.id);
    let reply = EnrolReply {
        node: node.id,
        certificate: certificate.pem,
        ca: world.ca.pem().to_owned(),
        share: topology(tx)?.mount_for(node.id),
    };
    Ok((reply, server))
}

fn check_hello(id: MachineId, hello: &Hello) -> Result<(), Fault> {
    if hello.facts.machine != id {
        return Err(Fault::bad_input(format!("facts.machine is {}, the path says {id}", hello.facts.machine)));
    }
    match &hello.name {
        Some(name) => check_name(name).map_err(|why| Fault::bad_input(format!("name: {why}"))),
        None => Ok(()),
    }
}

fn describe(hello: &Hello) -> String {
    if hello.facts.product.is_empty() { "a machine".to_owned() } else { hello.facts.product.clone() }
}

/// Decide, and write down what follows.
fn settle(tx: &Tx, world: &World, bundle: &BundleUrl, mut whole: Whole, now: Timestamp) -> Result<Decision, Fault> {
    whole.machine.seen = now;
    let site: Site = tx.get(&"site")?.unwrap_or_default();
    let names: BTreeSet<String> = tx.list::<NameClaim>()?.into_iter().map(|claim| claim.name).collect();
    let facts = whole.machine.facts.as_ref().ok_or_else(|| anyhow::anyhow!("machine {} has no facts", whole.machine.id))?;
    let verdict = decide(&Case {
        facts,
        asked_name: whole.machine.asked_name.as_deref(),
        site: &site.answer,
        order: whole.machine.order.as_ref(),
        node: whole.node.as_ref(),
        ticket: whole.ticket.as_ref(),
        names: &names,
        no_bundle: bundle.as_ref().err().map(String::as_str),
        now,
    });
    let decision = match verdict {
        Verdict::Wait(reason) => {
            if whole.machine.reason != reason {
                whole.log(tx, "waiting", reason.clone(), now)?;
                whole.machine.reason.clone_from(&reason);
            }
            Decision::Wait { reason }
        }
        Verdict::BootDisk => Decision::BootDisk,
        Verdict::Give => install(&whole)?,
        Verdict::Grant(grant) => {
            let url = bundle.clone().or_else(|why| whole.ticket.as_ref().map(|old| old.ticket.bundle.clone()).ok_or(why));
            let url = url.map_err(Fault::conflict)?;
            admit(tx, world, &mut whole, grant, url, now)?;
            install(&whole)?
        }
    };
    whole.save(tx, world, now)?;
    Ok(decision)
}

fn install(whole: &Whole) -> Result<Decision, Fault> {
    let record = whole.ticket.as_ref().ok_or_else(|| anyhow::anyhow!("machine {} has no ticket", whole.machine.id))?;
    Ok(Decision::Install { ticket: record.signed.clone() })
}

fn admit(tx: &Tx, world: &World, whole: &mut Whole, grant: Grant, bundle: String, now: Timestamp) -> Result<(), Fault> {
    let id = whole.machine.id;
    if whole.node.is_none() {
        let node = create_node(tx, id, &grant.name, grant.roles.clone(), now)?;
        whole.machine.node = Some(node.id);
        whole.node = Some(node);
        whole.log(tx, "admitted", format!("machine {id} becomes {}", grant.name), now)?;
    }
    // What it waited for is over. Why an earlier attempt failed stays told until this one gets further.
    let waited = whole.ticket.is_none();
    if waited {
        whole.machine.reason.clear();
    }
    let node = whole.node.as_ref().map(|node| node.id).ok_or_else(|| anyhow::anyhow!("machine {id} has no node"))?;
    let ticket = new_ticket(node, id, &grant, bundle, now);
    issue(tx, world, whole, ticket, now)
}

/// A ticket's content, good for `timing::TICKET_TTL`.
pub fn new_ticket(node: NodeId, machine: MachineId, grant: &Grant, bundle: String, now: Timestamp) -> Ticket {
    let ttl = i64::try_from(TICKET_TTL.as_secs()).unwrap_or(i64::MAX);
    Ticket {
        id: TicketId(uuid::Uuid::new_v4()),
        machine,
        node,
        name: grant.name.clone(),
        roles: grant.roles.clone(),
        disk_serial: grant.disk_serial.clone(),
        wipe: grant.wipe,
        bundle,
        expires: now.as_second().saturating_add(ttl),
    }
}

/// Sign a ticket and make it the machine's newest; a former one that is not done is withdrawn.
pub fn issue(tx: &Tx, world: &World, whole: &mut Whole, ticket: Ticket, now: Timestamp) -> Result<(), Fault> {
    withdraw(tx, whole)?;
    let wipe = if ticket.wipe { ", which may be overwritten" } else { ", which must be blank" };
    whole.log(tx, "ticket", format!("ticket {} for disk {}{wipe}", ticket.id, ticket.disk_serial), now)?;
    whole.machine.ticket = Some(ticket.id);
    let signed = world.ca.sign_ticket(&ticket)?;
    whole.ticket = Some(TicketRecord { ticket, signed, state: TicketState::Open, created: now });
    tx.wake();
    Ok(())
}

/// Take back the newest ticket, if it is not done.
pub fn withdraw(tx: &Tx, whole: &mut Whole) -> Result<(), Fault> {
    if let Some(mut old) = whole.ticket.take() {
        if old.state != TicketState::Done {
            old.state = TicketState::Withdrawn;
            tx.put(&old)?;
        }
        whole.machine.ticket = None;
    }
    Ok(())
}

fn log_event(tx: &Tx, whole: &Whole, event: &MachineEvent, now: Timestamp) -> Result<(), Fault> {
    let line = progress::line(event);
    let text = line.strip_prefix(progress::PREFIX).unwrap_or(&line).to_owned();
    let kind = match event {
        MachineEvent::Step { .. } => "step",
        MachineEvent::StepDone { .. } => "step-done",
        MachineEvent::Waiting { .. } => "waiting",
        MachineEvent::Failed { .. } => "failed",
        MachineEvent::Installed { .. } => "installed",
        MachineEvent::Note { .. } => "note",
    };
    tx.log(&EventDraft { at: now, machine: Some(whole.machine.id), node: whole.name(), kind, text, detail: Some(event) })
}

fn take_in(whole: &mut Whole, event: &MachineEvent, now: Timestamp) {
    let machine = &mut whole.machine;
    match event {
        MachineEvent::Step { step, percent, .. } => {
            if machine.step.is_none() {
                machine.install.clear();
            }
            machine.step = Some((step.clone(), (*percent).min(100)));
            progressed(whole, step, now);
        }
        MachineEvent::StepDone { step, seconds } => {
            machine.install.push(StepTime { step: step.clone(), at: now, seconds: *seconds });
            // A machine that fails and starts over for days must not grow without end.
            let surplus = machine.install.len().saturating_sub(100);
            machine.install.drain(..surplus);
            progressed(whole, step, now);
        }
        MachineEvent::Waiting { reason } => machine.reason.clone_from(reason),
        MachineEvent::Failed { step, error } => {
            machine.reason = format!("failed: {step}: {error}; it is tried again");
            machine.step = None;
        }
        MachineEvent::Installed { version, slot, disk_serial } => {
            machine.reason.clear();
            machine.step = None;
            machine.order = None;
            if let Some(ticket) =
                whole.ticket.as_mut().filter(|ticket| ticket.state == TicketState::Used || ticket.is_active(now))
            {
                ticket.state = TicketState::Done;
            }
            if let Some(node) = &mut whole.node {
                let (version, disk_serial) = (version.clone(), disk_serial.clone());
                node.installed = Some(Installed { at: now, version, slot: *slot, disk_serial });
                node.is_fresh = true;
                node.reinstall = None;
                node.off = None;
            }
        }
        MachineEvent::Note { .. } => {}
    }
}

/// An installation goes on: what it failed with or waited for is over, and from the first step that writes its ticket is used.
fn progressed(whole: &mut Whole, step: &str, now: Timestamp) {
    whole.machine.reason.clear();
    if writes(step)
        && let Some(ticket) = whole.ticket.as_mut().filter(|ticket| ticket.is_active(now))
    {
        ticket.state = TicketState::Used;
    }
}

/// Whether a step of the installer may write to the disk: all but those that find things out. An unknown one may.
fn writes(step: &str) -> bool {
    !matches!(step, "network" | "answer" | "facts" | "decision" | "plan" | "verify-bundle")
}

fn by_ticket(tx: &Tx, id: MachineId, ticket: TicketId, now: Timestamp) -> Result<Whole, Fault> {
    let machine: Option<Machine> = tx.get(&id)?;
    let mut whole = match machine {
        Some(machine) => Whole::of(tx, machine)?,
        None => return Err(Fault::not_found(format!("machine {id} is not known; send its facts first"))),
    };
    let again = "say hello again to get a new one";
    match whole.ticket.as_mut().filter(|record| record.ticket.id == ticket) {
        None => Err(Fault::conflict(format!("ticket {ticket} is not machine {id}'s newest ticket; {again}"))),
        Some(record) if !record.is_active(now) => {
            Err(Fault::conflict(format!("ticket {ticket} is {}; {again}", record.state_word(now))))
        }
        Some(record) => {
            record.state = TicketState::Used;
            Ok(whole)
        }
    }
}

fn by_local_token(tx: &Tx, id: MachineId, purpose: Purpose, request: &EnrolRequest, now: Timestamp) -> Result<Whole, Fault> {
    if purpose != Purpose::Local {
        return Err(Fault::forbidden("enrolling needs a ticket; only the center's own machine enrols without one"));
    }
    let name = request.name.as_deref().ok_or_else(|| Fault::bad_input("name: it is needed where there is no ticket"))?;
    check_name(name).map_err(|why| Fault::bad_input(format!("name: {why}")))?;
    if request.roles.is_empty() {
        return Err(Fault::bad_input("roles: at least one is needed where there is no ticket"));
    }
    let machine = tx.get(&id)?.unwrap_or_else(|| Machine::new(id, now));
    let mut whole = Whole::of(tx, machine)?;
    match &mut whole.node {
        Some(node) => node.roles.clone_from(&request.roles),
        None => {
            let node = create_node(tx, id, name, request.roles.clone(), now)?;
            whole.machine.node = Some(node.id);
            whole.node = Some(node);
            whole.log(tx, "admitted", format!("the center's own machine {id} becomes {name}"), now)?;
        }
    }
    Ok(whole)
}

impl Machine {
    /// A machine that has just said its first word.
    pub fn new(id: MachineId, now: Timestamp) -> Self {
        Self {
            id,
            facts: None,
            asked_name: None,
            order: None,
            node: None,
            ticket: None,
            reason: String::new(),
            step: None,
            install: Vec::new(),
            seen: now,
        }
    }
}
