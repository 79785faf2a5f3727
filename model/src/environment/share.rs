//! What lies on the share. Paths are relative to its root (`paths::SHARE` on a worker, `paths::SHARE_DATA` on the share node).

use serde::{Deserialize, Serialize};

use crate::ids::{BootId, Digest, EnvironmentId, NodeId};

/// Directory of all environments.
pub const ENVIRONMENTS: &str = "environments";
/// Directory of all templates.
pub const TEMPLATES: &str = "templates";
/// The owner record, in an environment's directory.
pub const OWNER: &str = "owner";
/// The disk, in an environment's directory: a sparse ext4 image whose size is the quota.
pub const DISK: &str = "disk.img";
/// Snapshots of the disk, in an environment's directory.
pub const SNAPSHOTS: &str = "snapshots";
/// Directory of the checkpoint, in an environment's directory: its processes between two nodes.
pub const CHECKPOINT: &str = "checkpoint";

/// Directory of an environment.
pub fn environment(id: EnvironmentId) -> String {
    format!("{ENVIRONMENTS}/{id}")
}

/// A template's image.
pub fn template(digest: &Digest) -> String {
    format!("{TEMPLATES}/{}.erofs", digest.hex())
}

/// Who holds the right to run an environment. Written (temp, fsync, rename) by the holder after it has the disk's lock, before the first
/// mount; a holder that finds a greater epoch lets go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Owner {
    /// The environment, so that a copied directory is noticed.
    pub environment: EnvironmentId,
    /// The epoch.
    pub epoch: u64,
    /// The node.
    pub node: NodeId,
    /// Its boot.
    pub boot: BootId,
    /// The holder has let go, and everything is on the disk.
    pub released: bool,
}

/// Whether an order may be carried out, given what the share says. Pure; the lock on the disk is asked besides.
pub fn may_hold(found: Option<&Owner>, order: &Owner) -> Result<(), String> {
    let Some(found) = found else { return Ok(()) };
    if found.environment != order.environment {
        return Err(format!("the owner record is of environment {}: the directory was copied", found.environment));
    }
    if found.epoch > order.epoch {
        return Err(format!("epoch {} is over: node {} has epoch {}", order.epoch, found.node, found.epoch));
    }
    let same = found.node == order.node && found.boot == order.boot;
    if found.epoch == order.epoch && !same {
        return Err(format!("epoch {} belongs to node {} (boot {})", found.epoch, found.node, found.boot));
    }
    Ok(())
}

/// Whether processes of one epoch may go on in another: only in the very next one, so that the disk is as they left it. Pure.
pub fn may_resume(made: u64, order: u64) -> Result<(), String> {
    match made.checked_add(1) == Some(order) {
        true => Ok(()),
        false => Err(format!("the checkpoint is of epoch {made}, and epoch {order} is not the one after it")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    fn owner(node: u128, boot: u128, epoch: u64) -> Owner {
        Owner {
            environment: EnvironmentId(Uuid::from_u128(1)),
            epoch,
            node: NodeId(Uuid::from_u128(node)),
            boot: BootId(Uuid::from_u128(boot)),
            released: false,
        }
    }

    #[test]
    fn an_epoch_has_one_holder_and_an_old_one_has_none() {
        assert_eq!(may_hold(None, &owner(1, 1, 1)), Ok(()));
        assert_eq!(may_hold(Some(&owner(1, 1, 1)), &owner(1, 1, 1)), Ok(()));
        assert_eq!(may_hold(Some(&owner(1, 1, 1)), &owner(2, 2, 2)), Ok(()));
        assert!(may_hold(Some(&owner(1, 1, 2)), &owner(2, 2, 2)).unwrap_err().contains("belongs to"));
        assert!(may_hold(Some(&owner(1, 1, 2)), &owner(1, 9, 2)).unwrap_err().contains("belongs to"));
        assert!(may_hold(Some(&owner(1, 1, 3)), &owner(1, 1, 2)).unwrap_err().contains("is over"));
        let copied = Owner { environment: EnvironmentId(Uuid::from_u128(7)), ..owner(1, 1, 1) };
        assert!(may_hold(Some(&copied), &owner(1, 1, 1)).unwrap_err().contains("copied"));
    }

    #[test]
    fn a_checkpoint_never_meets_a_newer_disk() {
        assert_eq!(may_resume(4, 5), Ok(()));
        for order in [0, 3, 4, 6, 7] {
            assert!(may_resume(4, order).is_err());
        }
        assert!(may_resume(u64::MAX, 0).is_err());
    }
}
