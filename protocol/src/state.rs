//! Everything there is: what the center has stored, what has ever been said, the nodes, the share. Small numbers stand for ids: a boot is
//! the how-manieth start of its machine, and nothing but `properties.rs` compares two of them by size.

/// There are two.
pub const NODES: usize = 2;

/// A node, 0 or 1.
pub type NodeNumber = u8;
/// A start of a machine, counted from 1.
pub type Boot = u8;
/// An epoch, counted from 1.
pub type Epoch = u8;

/// Everything there is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    /// What it has stored; the rest of it may be lost at any moment.
    pub center: Center,
    /// Orders of each node, by generation.
    pub orders: [Vec<Option<Assigned>>; NODES],
    /// Orders of the share node, by generation: the boots that are banned.
    pub bans: Vec<[Option<Boot>; NODES]>,
    /// What has been said and may be heard late, again, or never.
    pub said: Said,
    /// The machines.
    pub nodes: [Node; NODES],
    /// The share node.
    pub share: Share,
    /// What no program knows.
    pub history: History,
}

/// What the center has stored.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Center {
    /// The greatest that was given.
    pub epoch: Epoch,
    /// Who has the right.
    pub holder: Option<Assigned>,
    /// The boot that each node is registered with.
    pub known: [Option<Boot>; NODES],
    /// Boots that were registered before, one bit each.
    pub former: [u8; NODES],
    /// Bans that have not been lifted.
    pub bans: [Option<Ban>; NODES],
    /// The boots that an operator has said have ended.
    pub off: [Option<Boot>; NODES],
}

/// A right to run the environment, as it is given and as it is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Assigned {
    /// Which right.
    pub epoch: Epoch,
    /// Whose.
    pub node: NodeNumber,
    /// Of which boot.
    pub boot: Boot,
    /// It is to be let go of.
    pub is_asked_back: bool,
}

/// A ban, as the center has stored it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ban {
    /// Whose.
    pub boot: Boot,
    /// The share node has said that it is done.
    pub is_confirmed: bool,
}

/// What has been said, one bit for each boot or epoch.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Said {
    /// Registrations of each node, by boot.
    pub registered: [u8; NODES],
    /// `Released` of each node, by epoch; the boot follows from the epoch.
    pub released: [u8; NODES],
    /// `Fenced` of each node, by boot.
    pub fenced: [u8; NODES],
}

/// A machine.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Node {
    /// It has power.
    pub is_on: bool,
    /// Its boot.
    pub boot: Boot,
    /// It goes down and starts nothing any more.
    pub leaves: bool,
    /// The newest generation that it has seen in this boot.
    pub newest: Option<u8>,
    /// The orders that it follows, by generation.
    pub follows: Option<u8>,
    /// What it has of the environment.
    pub copy: Copy,
}

/// What a node has of the environment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Copy {
    /// Nothing.
    No,
    /// The lock.
    Locked(Epoch),
    /// The lock and the owner record: everything is prepared, or has been stopped.
    Held(Epoch),
    /// It runs.
    Running(Epoch),
}

impl Copy {
    /// The epoch that it was taken with.
    pub fn epoch(self) -> Option<Epoch> {
        match self {
            Copy::No => None,
            Copy::Locked(epoch) | Copy::Held(epoch) | Copy::Running(epoch) => Some(epoch),
        }
    }
}

/// The share node.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Share {
    /// The newest generation of its orders that it has seen.
    pub newest: u8,
    /// How far each node is shut out.
    pub shut: [Shut; NODES],
    /// Contents of the owner record.
    pub owner: Option<(Epoch, NodeNumber, Boot)>,
    /// Who holds the lock on the disk.
    pub lock: Option<(NodeNumber, Boot)>,
    /// A write that has reached the server and is not done.
    pub queue: [Option<(Boot, Epoch)>; NODES],
    /// The epoch that wrote last.
    pub disk: Epoch,
}

/// How far a node is shut out of the share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Shut {
    /// Not at all.
    Open,
    /// Nothing of it gets through any more; what got through before may still be done.
    Dropped(Boot),
    /// Nothing of it is left on the server.
    Gone(Boot),
}

/// What no program knows, and the properties need.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct History {
    /// Boots of each node that have been fenced, one bit each.
    pub fenced: [u8; NODES],
    /// An epoch has written after a greater one.
    pub is_interleaved: bool,
    /// A node has taken orders older than the newest it had seen.
    pub took_older: bool,
}

impl State {
    /// Both nodes are registered, and nothing has been given.
    pub fn new() -> Self {
        let node = Node { is_on: true, boot: 1, leaves: false, newest: None, follows: None, copy: Copy::No };
        Self {
            center: Center {
                epoch: 0,
                holder: None,
                known: [Some(1); NODES],
                former: [0; NODES],
                bans: [None; NODES],
                off: [None; NODES],
            },
            orders: [vec![None], vec![None]],
            bans: vec![[None; NODES]],
            said: Said { registered: [1 << 1; NODES], ..Said::default() },
            nodes: [node.clone(), node],
            share: Share { newest: 0, shut: [Shut::Open; NODES], owner: None, lock: None, queue: [None; NODES], disk: 0 },
            history: History::default(),
        }
    }

    /// The orders that a node follows.
    pub fn followed(&self, node: usize) -> Option<Assigned> {
        self.orders[node][usize::from(self.nodes[node].follows?)]
    }

    /// A node's present boot is fenced: whatever it does, it does not reach the disk.
    pub fn is_fenced(&self, node: usize) -> bool {
        matches!(self.share.shut[node], Shut::Gone(_)) && bit(self.history.fenced[node], self.nodes[node].boot)
    }

    /// The epoch that a node runs, unless it is fenced.
    pub fn runs(&self, node: usize) -> Option<Epoch> {
        match self.nodes[node].copy {
            Copy::Running(epoch) if !self.is_fenced(node) => Some(epoch),
            _ => None,
        }
    }
}

impl Default for State {
    fn default() -> Self {
        Self::new()
    }
}

/// Whether a bit is set.
pub fn bit(bits: u8, number: u8) -> bool {
    bits & (1 << number) != 0
}

/// Set a bit.
pub fn set(bits: &mut u8, number: u8) {
    *bits |= 1 << number;
}
