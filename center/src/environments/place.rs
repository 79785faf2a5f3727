//! Which node takes an environment, or why none does. Pure.
//!
//! Memory is never promised twice, an environment's group and its range of ids are never twice on a node. Processors may be promised more
//! than once: they are shared out by weight. Among the nodes that can take it, the one that had it last wins (its template and page cache
//! are warm), then the one with the least promised processors and memory, so that load spreads. Nodes that are about to be restarted come
//! after all others.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use lodge_model::ids::{BootId, Digest, EnvironmentId, NodeId};
use lodge_model::layout::MIB;
use lodge_model::live::{Capability, Probe};
use lodge_model::node::Role;

use super::records::Environment;

/// Environments of one node. A bridge of the kernel has 1024 ports, and the uplink is one of them.
pub const PER_NODE: u32 = 1000;
/// A node that let go of an environment without having been told to does not get it again for so long.
pub const GIVEN_BACK_PAUSE: SignedDuration = SignedDuration::from_secs(30);

/// A node as far as placing is concerned.
#[derive(Clone, Debug)]
pub struct Room {
    /// The node.
    pub node: NodeId,
    /// Its name.
    pub name: String,
    /// Its boot, if it has registered.
    pub boot: Option<BootId>,
    /// An operator's word that this boot has ended.
    pub confirmed_off: Option<BootId>,
    /// The boot that has said on the share that nothing is left of it.
    pub said_farewell: Option<BootId>,
    /// This boot is fenced, with proof: nothing that it writes arrives any more.
    pub fenced: Option<BootId>,
    /// Whether it runs environments at all.
    pub is_worker: bool,
    /// Why it takes nothing at present; empty where it does.
    pub unready: String,
    /// Why it takes nothing new although it is well; empty where it does.
    pub cordoned: String,
    /// It will be drained soon: whatever comes to it has to move once more.
    pub leaves_soon: bool,
    /// Templates that it has beforehand.
    pub warm: BTreeSet<Digest>,
    /// What it can do about processes of environments; absent while it has not said so.
    pub criu: Option<Capability>,
    /// What it has seen of the processes of its environments.
    pub probes: BTreeMap<EnvironmentId, Probe>,
    /// Why nobody knows how its environments are; empty where it is heard.
    pub silent: String,
    /// Bytes of memory that environments may have in all.
    pub memory: u64,
    /// Thousandths of processors that it has.
    pub cpu_millis: u64,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// What it has promised.
    pub held: Held,
}

/// What a node has promised to its environments.
#[derive(Clone, Debug, Default)]
pub struct Held {
    memory: u64,
    cpu_millis: u64,
    count: u32,
    groups: BTreeSet<String>,
    id_ranges: BTreeSet<u32>,
}

impl Held {
    /// One more environment.
    pub fn add(&mut self, environment: &Environment) {
        self.count = self.count.saturating_add(1);
        self.id_ranges.insert(environment.id_range);
        if environment.place.as_ref().is_some_and(|place| place.to_remove) {
            return;
        }
        self.promise(environment);
    }

    /// One more environment is about to come.
    pub fn reserve(&mut self, environment: &Environment) {
        self.count = self.count.saturating_add(1);
        self.id_ranges.insert(environment.id_range);
        self.promise(environment);
    }

    fn promise(&mut self, environment: &Environment) {
        self.memory = self.memory.saturating_add(environment.spec.memory);
        self.cpu_millis = self.cpu_millis.saturating_add(environment.spec.cpu_millis.into());
        self.groups.extend(environment.spec.anti_affinity.clone());
    }
}

impl Room {
    /// Whether orders given to this boot are void, because that boot has certainly ended.
    pub fn has_ended(&self, boot: BootId) -> bool {
        self.boot.is_some_and(|now| now != boot) || [self.confirmed_off, self.said_farewell, self.fenced].contains(&Some(boot))
    }

    /// Bytes of memory that are not promised.
    pub fn free(&self) -> u64 {
        self.memory.saturating_sub(self.held.memory)
    }

    /// Whether it takes anything new.
    pub fn takes(&self) -> bool {
        self.is_ready() && self.cordoned.is_empty()
    }

    /// Whether it can be given something to do at all.
    pub fn is_ready(&self) -> bool {
        self.is_worker && self.unready.is_empty() && self.boot.is_some_and(|boot| !self.has_ended(boot))
    }
}

/// Bytes of a node's memory that are not for environments: the base system, and what its other roles need.
pub fn reserve(memory: u64, roles: &[Role]) -> u64 {
    let others = roles.iter().filter(|role| **role != Role::Worker).count() as u64;
    256 * MIB + memory / 16 + others * 256 * MIB
}

/// What is to be placed.
pub struct Demand<'a> {
    /// The environment.
    pub environment: &'a Environment,
    /// The only node that may have it at present, because it works on its disk.
    pub only: Option<NodeId>,
    /// A node that it is to leave.
    pub leaves: Option<NodeId>,
    /// It is only to be removed: it needs no memory, and any node does.
    pub removal: bool,
    /// The time.
    pub now: Timestamp,
}

/// Why a node does not take an environment.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Refusal {
    NotWorker,
    NotWanted,
    Label,
    Unready(String),
    Leaves,
    Cordoned(String),
    Busy,
    GivenBack,
    Group,
    Memory,
    Full,
    IdRange,
}

/// The node to take it, as an index, or why none does, for people.
pub fn choose(rooms: &[Room], demand: &Demand) -> Result<usize, String> {
    let mut refusals = Vec::new();
    let mut best: Option<(Rank, usize)> = None;
    for (at, room) in rooms.iter().enumerate() {
        match refusal(room, demand) {
            Some(refusal) => refusals.push((refusal, room)),
            None => {
                let this = (rank(room, demand), at);
                best = Some(best.map_or(this, |best| best.min(this)));
            }
        }
    }
    best.map(|(_, at)| at).ok_or_else(|| explain(&refusals, demand))
}

/// Whether no other node could ever take it, whatever happened to their load and health: it is the only worker, or the only one that
/// has what the environment asks for.
pub fn is_hopeless(rooms: &[Room], demand: &Demand) -> bool {
    !rooms.iter().any(|room| {
        let is_named = demand.environment.only_on().is_none_or(|name| *name == room.name);
        room.is_worker && demand.leaves != Some(room.node) && is_named && !lacks_label(room, demand.environment)
    })
}

/// Whether what keeps it off every other node is its own group: the others of it run on, which is what a group is for.
pub fn is_kept_apart(rooms: &[Room], demand: &Demand) -> bool {
    let suits = |room: &&Room| demand.leaves != Some(room.node) && room.takes() && !lacks_label(room, demand.environment);
    rooms.iter().any(|room| suits(&room)) && rooms.iter().filter(suits).all(|room| has_group(room, demand.environment))
}

type Rank = (bool, bool, u64, u64, u32, NodeId);

/// Less is better.
fn rank(room: &Room, demand: &Demand) -> Rank {
    let per_mille = |part: u64, whole: u64| part.saturating_mul(1000) / whole.max(1);
    (
        room.leaves_soon,
        demand.environment.last != Some(room.node),
        per_mille(room.held.cpu_millis, room.cpu_millis),
        per_mille(room.held.memory, room.memory),
        room.held.count,
        room.node,
    )
}

fn refusal(room: &Room, demand: &Demand) -> Option<Refusal> {
    let environment = demand.environment;
    let spec = &environment.spec;
    let runs = !demand.removal;
    Some(if !room.is_worker {
        Refusal::NotWorker
    } else if runs && environment.only_on().is_some_and(|name| *name != room.name) {
        Refusal::NotWanted
    } else if runs && lacks_label(room, environment) {
        Refusal::Label
    } else if !room.is_ready() {
        Refusal::Unready(format!("{}: {}", room.name, room.unready))
    } else if demand.leaves == Some(room.node) {
        Refusal::Leaves
    } else if !room.cordoned.is_empty() {
        Refusal::Cordoned(format!("{}: {}", room.name, room.cordoned))
    } else if demand.only.is_some_and(|only| only != room.node) {
        Refusal::Busy
    } else if gave_back(room, demand) {
        Refusal::GivenBack
    } else if runs && has_group(room, environment) {
        Refusal::Group
    } else if runs && room.free() < spec.memory {
        Refusal::Memory
    } else if room.held.count >= PER_NODE {
        Refusal::Full
    } else if room.held.id_ranges.contains(&environment.id_range) {
        Refusal::IdRange
    } else {
        return None;
    })
}

fn lacks_label(room: &Room, environment: &Environment) -> bool {
    environment.spec.node_labels.iter().any(|(key, value)| room.labels.get(key) != Some(value))
}

fn has_group(room: &Room, environment: &Environment) -> bool {
    environment.spec.anti_affinity.as_ref().is_some_and(|group| room.held.groups.contains(group))
}

fn gave_back(room: &Room, demand: &Demand) -> bool {
    demand.environment.given_back.as_ref().is_some_and(|given| {
        let since = demand.now.duration_since(given.at);
        given.node == room.node && since >= SignedDuration::ZERO && since < GIVEN_BACK_PAUSE
    })
}

/// The reasons of all nodes that were worth asking, the commonest kind first.
fn explain(refusals: &[(Refusal, &Room)], demand: &Demand) -> String {
    let spec = &demand.environment.spec;
    let only_on = demand.environment.only_on();
    let leaves = refusals.iter().find(|(refusal, _)| *refusal == Refusal::Leaves).map(|(_, room)| room.name.as_str());
    let is_asked = |refusal: &Refusal| !matches!(refusal, Refusal::NotWorker | Refusal::Leaves);
    let asked: Vec<_> = refusals.iter().filter(|(refusal, _)| is_asked(refusal)).collect();
    if let Some(leaves) = leaves.filter(|leaves| asked.is_empty() || only_on == Some(*leaves)) {
        return match only_on {
            Some(node) => format!("the only node it may run on is {node}, which it is to leave"),
            None => format!("there is no other worker than {leaves}"),
        };
    }
    if asked.is_empty() {
        return "there is no worker; install one, and `lodge node ls` shows it".to_owned();
    }
    let suitable: Vec<_> =
        asked.iter().filter(|(refusal, _)| !matches!(refusal, Refusal::NotWanted | Refusal::Label)).collect();
    if suitable.is_empty() {
        let labels: Vec<String> = spec.node_labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
        return match only_on {
            Some(node) if labels.is_empty() => format!("the only node it may run on is {node}, which is no worker here"),
            Some(node) => format!("the only node it may run on is {node}, and it needs the labels {}", labels.join(", ")),
            None => format!("no worker has the labels {}", labels.join(", ")),
        };
    }
    let mut kinds: BTreeMap<&Refusal, Vec<&Room>> = BTreeMap::new();
    for (refusal, room) in suitable {
        kinds.entry(refusal).or_default().push(room);
    }
    let mut kinds: Vec<_> = kinds.into_iter().collect();
    kinds.sort_by_key(|(_, rooms)| std::cmp::Reverse(rooms.len()));
    let more = kinds.len().saturating_sub(4);
    let mut told: Vec<String> = kinds.into_iter().take(4).map(|(refusal, rooms)| words(refusal, &rooms, demand)).collect();
    if more > 0 {
        told.push(format!("and {more} more reasons"));
    }
    told.join("; ")
}

fn words(refusal: &Refusal, rooms: &[&Room], demand: &Demand) -> String {
    let spec = &demand.environment.spec;
    let names = names(rooms);
    match refusal {
        Refusal::Unready(why) | Refusal::Cordoned(why) => why.clone(),
        Refusal::Leaves => format!("{names} is the one that it is to leave"),
        Refusal::Memory => {
            let most = rooms.iter().max_by_key(|room| room.free());
            let most = most.map(|room| format!("{} has the most, {} MiB", room.name, room.free() / MIB)).unwrap_or_default();
            format!("not enough free memory on {names}: it needs {} MiB, {most}", spec.memory / MIB)
        }
        Refusal::Group => {
            format!("{names} has another environment of its group {}", spec.anti_affinity.as_deref().unwrap_or_default())
        }
        Refusal::Busy => "another node is working on its disk".to_owned(),
        Refusal::GivenBack => format!("{names} has just let go of it, and is asked again in a moment"),
        Refusal::Full => format!("{names} has {PER_NODE} environments, and no more are possible"),
        Refusal::IdRange => format!("{names} uses its range of ids already"),
        Refusal::NotWorker | Refusal::NotWanted | Refusal::Label => format!("{names} is not to run it"),
    }
}

fn names(rooms: &[&Room]) -> String {
    let names: Vec<&str> = rooms.iter().take(5).map(|room| room.name.as_str()).collect();
    match rooms.len() - names.len() {
        0 => names.join(", "),
        more => format!("{} and {more} more", names.join(", ")),
    }
}

#[cfg(test)]
mod tests;
