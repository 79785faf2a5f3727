//! Reads everything, settles, writes what has changed, and brings the orders of all nodes up to date. Nothing depends on what woke it.

use std::collections::BTreeMap;

use jiff::Timestamp;
use lodge_model::api::NodeState;
use lodge_model::environment::order::{self, Assignment, TemplateRef};
use lodge_model::ids::{Digest, NodeId};
use lodge_model::node::Role;

use super::addresses::id_base;
use super::claims;
use super::drain::{self, Drain, farewell, moves};
use super::place::{Held, Room, reserve};
use super::reach;
use super::records::{Counters, Environment, Task};
use super::rolling::{self, Rolling};
use super::settle::{Cluster, settle};
use crate::failover::incident;
use crate::failover::orders::Fencing;
use crate::fault::Fault;
use crate::flow::{Whole, World, state_word};
use crate::orders::{self, Duties};
use crate::records::Node;
use crate::store::{EventDraft, Tx};

/// Bring the world closer to what was asked for. While the center has not listened for long enough, silence means nothing (`listens`).
/// When time alone will change something, if it is known.
pub fn run(tx: &Tx, world: &World, listens: bool, now: Timestamp) -> Result<Option<Timestamp>, Fault> {
    let (mut cluster, nodes) = load(tx, world, listens, now)?;
    let drains = cluster.drains.clone();
    let rolling = cluster.rolling.clone();
    let environments = cluster.environments.clone();
    let tasks = cluster.tasks.clone();
    for id in settle(&mut cluster, now) {
        if let Some(environment) = environments.get(&id) {
            remove(tx, world, environment, now)?;
        }
    }
    for (id, environment) in cluster.environments.iter_mut().filter(|(id, after)| environments.get(id) != Some(after)) {
        save(tx, environment, environments.get(id), now)?;
    }
    for (id, task) in &tasks {
        match cluster.tasks.get(id) {
            None => tx.delete::<Task>(id)?,
            Some(after) if after != task => tx.put(after)?,
            Some(_) => {}
        }
    }
    drain::view::save(tx, &drains, &mut cluster, now)?;
    rolling::view::save(tx, rolling.as_ref(), cluster.rolling.as_ref(), now)?;
    incident::follow(tx, &cluster.environments, now)?;
    refresh_orders(tx, &cluster, nodes)?;
    Ok(moves::next(&cluster, now))
}

/// Everything as it is now, and the nodes' records.
pub fn load(tx: &Tx, world: &World, listens: bool, now: Timestamp) -> Result<(Cluster, Vec<Node>), Fault> {
    let environments = tx.list::<Environment>()?.into_iter().map(|environment| (environment.id, environment)).collect();
    let tasks = tx.list::<Task>()?.into_iter().map(|task| (task.id, task)).collect();
    let (mut rooms, mut nodes) = (Vec::new(), Vec::new());
    for node in tx.list::<Node>()? {
        let whole = Whole::of_node(tx, node)?;
        rooms.extend(room(&whole, world, now));
        nodes.extend(whole.node);
    }
    let drains = tx.list::<Drain>()?.into_iter().map(|drain| (drain.node, drain)).collect();
    let settings = drain::request::settings(tx)?;
    let rolling = tx.get::<Rolling>(&"rolling")?;
    Ok((Cluster { environments, tasks, rooms, drains, rolling, settings, listens }, nodes))
}

fn room(whole: &Whole, world: &World, now: Timestamp) -> Option<Room> {
    let node = whole.node.as_ref()?;
    let (state, reason) = whole.state(&world.live, now);
    let told = if reason.is_empty() { state_word(state).to_owned() } else { reason };
    let is_heard = matches!(state, NodeState::Ready | NodeState::Registered);
    let facts = whole.machine.facts.as_ref();
    let memory = facts.map_or(0, |facts| facts.memory);
    Some(Room {
        node: node.id,
        name: node.name.clone(),
        boot: node.registered.as_ref().map(|registered| registered.boot),
        confirmed_off: node.confirmed_off,
        said_farewell: node.said_farewell,
        fenced: node.fenced(),
        is_worker: node.roles.contains(&Role::Worker),
        unready: if state == NodeState::Ready { String::new() } else { told.clone() },
        cordoned: String::new(),
        leaves_soon: false,
        warm: world.live.warm(node.id),
        criu: node.criu.clone(),
        probes: world.live.probes(node.id),
        silent: if is_heard { String::new() } else { told },
        memory: memory.saturating_sub(reserve(memory, &node.roles)),
        cpu_millis: facts.map_or(0, |facts| u64::from(facts.cpus) * 1000),
        labels: node.labels.clone(),
        held: Held::default(),
    })
}

/// Write an environment with the number of its change, and log a change of its phase.
pub fn save(tx: &Tx, environment: &mut Environment, before: Option<&Environment>, now: Timestamp) -> Result<(), Fault> {
    environment.version = next_version(tx)?;
    tx.put(environment)?;
    tx.show();
    if let Some(before) = before.filter(|before| before.repair.is_some() && environment.repair.is_none()) {
        claims::give_repair_back(tx, before)?;
        log(tx, environment, &format!("{} is not under repair any more", environment.spec.name), now)?;
    }
    if before.is_none_or(|before| before.phase != environment.phase) {
        log(tx, environment, &sentence(environment), now)?;
    }
    // Whether it is reached is noted in a move that has been told already.
    let told = before.and_then(|before| before.moves.last()).and_then(|done| done.at);
    if let Some(done) = environment.moves.last().filter(|done| before.is_some() && done.at != told) {
        log(tx, environment, &drain::view::moved(&environment.spec.name, done), now)?;
    }
    Ok(())
}

/// The number of the next change, among all environments.
fn next_version(tx: &Tx) -> Result<u64, Fault> {
    let mut counters = tx.get::<Counters>(&"counters")?.unwrap_or_default();
    counters.version += 1;
    tx.put(&counters)?;
    Ok(counters.version)
}

/// Log something about an environment.
pub fn log(tx: &Tx, environment: &Environment, text: &str, now: Timestamp) -> Result<(), Fault> {
    let node = environment.place.as_ref().map(|place| place.name.as_str());
    let machine = match &environment.place {
        Some(place) => tx.get::<Node>(&place.node)?.map(|node| node.machine),
        None => None,
    };
    tx.log(&EventDraft { at: now, machine, node, kind: "environment", text: text.to_owned(), detail: None })
}

fn sentence(environment: &Environment) -> String {
    let name = &environment.spec.name;
    let at = environment.place.as_ref().map(|place| format!(" on {} (epoch {})", place.name, environment.epoch));
    let at = at.unwrap_or_default();
    let why = if environment.reason.is_empty() { String::new() } else { format!(": {}", environment.reason) };
    format!("{name} is {}{at}{why}", environment.phase.word())
}

fn remove(tx: &Tx, world: &World, environment: &Environment, now: Timestamp) -> Result<(), Fault> {
    claims::give_all_back(tx, environment)?;
    tx.delete::<Environment>(&environment.id)?;
    next_version(tx)?;
    world.live.uses(environment.id, None);
    tx.show();
    log(tx, environment, &format!("{} is destroyed", environment.spec.name), now)
}

fn refresh_orders(tx: &Tx, cluster: &Cluster, nodes: Vec<Node>) -> Result<(), Fault> {
    let mut assigned: BTreeMap<_, Vec<Assignment>> = BTreeMap::new();
    for environment in cluster.environments.values() {
        if let Some(assignment) = assignment(environment) {
            assigned.entry(environment.place.as_ref().map(|place| (place.node, place.boot))).or_default().push(assignment);
        }
    }
    let mut todo: BTreeMap<_, Vec<order::Task>> = BTreeMap::new();
    for task in cluster.tasks.values().filter(|task| task.node.is_some()) {
        todo.entry(task.node).or_default().push(order::Task { id: task.id, what: task.what.clone() });
    }
    let mut coming: BTreeMap<NodeId, BTreeMap<Digest, TemplateRef>> = BTreeMap::new();
    for environment in cluster.environments.values() {
        if let Some((to, _)) = environment.moving.as_ref().and_then(|moving| moving.to.as_ref()) {
            let needed = coming.entry(*to).or_default();
            let beside = environment.beside().map(|beside| beside.template().clone());
            let templates = beside.into_iter().chain([environment.template_now()]);
            needed.extend(templates.map(|template| (template.digest.clone(), template)));
        }
    }
    let fencing = Fencing::of(&nodes, &incident::open(tx)?, &cluster.settings);
    let mut tried = reach::orders(cluster);
    let absent = farewell::absent(cluster, &nodes);
    let reader = farewell::reader(cluster, &nodes);
    for mut node in nodes {
        let holder = node.registered.as_ref().map(|registered| (node.id, registered.boot));
        let duties = Duties {
            environments: assigned.remove(&holder).unwrap_or_default(),
            tasks: todo.remove(&holder).unwrap_or_default(),
            warm: coming.remove(&node.id).unwrap_or_default().into_values().collect(),
            leave: cluster.drains.get(&node.id).and_then(drain::view::leave),
            absent: if reader == Some(node.id) { absent.clone() } else { Vec::new() },
            reach: tried.remove(&node.id).unwrap_or_default(),
            fence: fencing.orders(&node),
        };
        if orders::refresh_duties(&mut node, duties) {
            tx.put(&node)?;
            tx.wake();
        }
    }
    Ok(())
}

fn assignment(environment: &Environment) -> Option<Assignment> {
    let place = environment.place.as_ref()?;
    let spec = &environment.spec;
    let (addresses, dns) = environment.addresses_now();
    Some(Assignment {
        id: environment.id,
        name: environment.host_name(),
        epoch: environment.epoch,
        boot: place.boot,
        want: place.want,
        template: environment.template_now(),
        disk: spec.disk,
        memory: spec.memory,
        cpu_millis: spec.cpu_millis,
        tasks_max: lodge_model::environment::spec::tasks_max(spec.memory),
        id_base: id_base(environment.id_range),
        mac: environment.mac.clone(),
        addresses: addresses.to_vec(),
        dns: dns.to_vec(),
        ssh_keys: environment.ssh_keys(),
        restart: spec.restart,
        restarts_asked: environment.restarts_asked,
        resume: moves::resumes(environment),
        beside: environment.beside(),
    })
}

/// Names of the environments that a node has the right to run.
pub fn on_node(tx: &Tx, node: &Node) -> Result<Vec<String>, Fault> {
    let is_held = |environment: &Environment| {
        environment.place.as_ref().is_some_and(|place| place.node == node.id && !node.has_ended(place.boot))
    };
    Ok(tx.list::<Environment>()?.into_iter().filter(is_held).map(|environment| environment.spec.name).collect())
}
