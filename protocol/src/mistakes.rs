//! Mistakes that could be made in the product. Each is made in the model by a test, which must find what goes wrong: so it is known that
//! the invariants can fail, and that each measure is needed.

/// A mistake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mistake {
    /// A ban is lifted although the node has not registered with another boot.
    UnbansTheSameBoot,
    /// The right is given anew as soon as a ban is intended.
    StartsBeforeConfirmed,
    /// The share node says that a node is fenced before what is in flight has ended.
    ConfirmsBeforeExpired,
    /// Nodes take orders older than the newest they have seen.
    TakesOlderOrders,
    /// Nodes start what was given to another boot of theirs.
    StartsForAnotherBoot,
    /// The lock is not on the descriptor that the disk is written through.
    LocksAnotherDescriptor,
    /// The center tells the share node first and stores the ban then.
    StoresAfterActing,
    /// A late registration of a boot that is over counts.
    TakesFormerBoots,
    /// An epoch that was let go of is started again.
    StartsAfterRelease,
}
