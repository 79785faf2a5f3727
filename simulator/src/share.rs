//! The share: disks, owner records, locks, and who reaches it. A lock is good while its holder is heard, and for as long after as nobody
//! else asks: so the kernel's NFS server does it. A write with a lock that was lost fails.

use std::collections::BTreeMap;

use lodge_model::environment::share::Owner;
use lodge_model::farewell::SignedWord;
use lodge_model::ids::{BootId, EnvironmentId, NodeId};
use lodge_model::timing::SHARE_LEASE;

use crate::clock::{Millis, length};

/// A client of the share: one boot of one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Client {
    /// The node.
    pub node: NodeId,
    /// Its boot.
    pub boot: BootId,
}

/// What is on it.
#[derive(Default)]
pub struct Share {
    /// It answers nobody.
    pub is_frozen: bool,
    /// Environments' directories.
    pub disks: BTreeMap<EnvironmentId, Disk>,
    /// Since when a client has not been heard; one that is not in it is heard.
    pub silent: BTreeMap<Client, Millis>,
    /// Nodes that are shut out.
    pub banned: BTreeMap<NodeId, BootId>,
    /// Who wrote each node's heartbeat file last, and when.
    pub marks: BTreeMap<NodeId, (BootId, Millis)>,
    /// Last words of nodes.
    pub words: BTreeMap<NodeId, SignedWord>,
    /// Something that must not have been: for `check.rs`.
    pub wrong: Option<String>,
}

/// One environment's directory.
#[derive(Clone, Debug, Default)]
pub struct Disk {
    /// The owner record.
    pub owner: Option<Owner>,
    /// Who has the lock.
    pub lock: Option<Client>,
    /// A file system is on it.
    pub is_made: bool,
    /// Bytes.
    pub size: u64,
    /// The epoch that wrote last, and its counter.
    pub line: (u64, u64),
}

/// How a write went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    /// It is on the disk.
    Done,
    /// The server does not answer; the writer waits.
    Hangs,
    /// The lock is gone: EIO.
    Failed,
}

impl Share {
    /// Whether it answers a client.
    pub fn answers(&self, client: Client) -> bool {
        !self.is_frozen && !self.silent.contains_key(&client) && !self.banned.contains_key(&client.node)
    }

    /// Take the lock of a disk, if nobody has it, or whoever has it has been silent for longer than the lease.
    pub fn lock(&mut self, id: EnvironmentId, client: Client, now: Millis) -> Result<(), String> {
        let lease = length(SHARE_LEASE);
        let holder = self.disks.get(&id).and_then(|disk| disk.lock).filter(|holder| *holder != client);
        if let Some(holder) = holder {
            let is_over = self.silent.get(&holder).is_some_and(|since| now >= since + lease);
            if !is_over {
                return Err("its disk is locked elsewhere".to_owned());
            }
        }
        self.disks.entry(id).or_default().lock = Some(client);
        Ok(())
    }

    /// Let go of the lock.
    pub fn unlock(&mut self, id: EnvironmentId, client: Client) {
        if let Some(disk) = self.disks.get_mut(&id).filter(|disk| disk.lock == Some(client)) {
            disk.lock = None;
        }
    }

    /// A client of this node has come with another boot: what the former one had is over.
    pub fn forget_former(&mut self, client: Client) {
        for disk in self.disks.values_mut() {
            if disk.lock.is_some_and(|holder| holder.node == client.node && holder.boot != client.boot) {
                disk.lock = None;
            }
        }
        self.silent.retain(|silent, _| silent.node != client.node || silent.boot == client.boot);
    }

    /// The server has started anew: whoever cannot claim his locks again has none.
    pub fn restart(&mut self) {
        for disk in self.disks.values_mut() {
            disk.lock = disk.lock.filter(|holder| !self.silent.contains_key(holder) && !self.banned.contains_key(&holder.node));
        }
    }

    /// Shut a node out for good, and end what it had.
    pub fn ban(&mut self, node: NodeId, boot: BootId) {
        self.banned.insert(node, boot);
        for disk in self.disks.values_mut() {
            disk.lock = disk.lock.filter(|holder| holder.node != node);
        }
    }

    /// Whether a client may start what it holds: it has the lock, and the owner record is its own (invariant 1). One that wakes up in the
    /// middle of a start, shut out, may begin what cannot write a byte.
    pub fn may_start(&mut self, id: EnvironmentId, client: Client, epoch: u64) {
        if self.banned.get(&client.node) == Some(&client.boot) {
            return;
        }
        let disk = self.disks.get(&id).cloned().unwrap_or_default();
        let is_owner =
            |owner: &Owner| (owner.epoch, owner.node, owner.boot) == (epoch, client.node, client.boot) && !owner.released;
        if disk.lock != Some(client) || !disk.owner.as_ref().is_some_and(is_owner) {
            self.wrong.get_or_insert(format!("{id} (epoch {epoch}) is started without its lock or its owner record: {disk:?}"));
        }
    }

    /// An environment writes its epoch and its counter.
    pub fn write(&mut self, id: EnvironmentId, client: Client, epoch: u64) -> Written {
        if !self.answers(client) {
            return Written::Hangs;
        }
        let Some(disk) = self.disks.get_mut(&id).filter(|disk| disk.lock == Some(client)) else { return Written::Failed };
        if epoch < disk.line.0 {
            self.wrong = Some(format!("epoch {epoch} wrote to the disk of {id} after epoch {}", disk.line.0));
        }
        disk.line = (epoch, disk.line.1 + 1);
        Written::Done
    }
}
