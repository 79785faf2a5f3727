//! An environment's cable: a veth pair, one end a port of the bridge, the other `eth0` in the environment's network namespace.
//!
//! The name of the host's end is made from the environment's id, and its alias is the whole id, so that everything here is found again
//! from the kernel alone. The pair never outlives the namespace: the kernel removes it with the namespace's last process.
//!
//! It assumes that `agent network` has made the bridge, and that the caller is root of the host. The calls block. They may be made from
//! several threads at once for different environments.

use anyhow::{Result, bail};
use lodge_model::{
    environment::order::{Address, Assignment},
    ids::EnvironmentId,
};

/// What an environment's link is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkSpec {
    /// Whose.
    pub id: EnvironmentId,
    /// Hardware address, as `02:00:00:00:00:01`.
    pub mac: String,
    /// Its addresses and gateways.
    pub addresses: Vec<Address>,
}

impl LinkSpec {
    /// The link of an assignment.
    pub fn of(assignment: &Assignment) -> Self {
        Self { id: assignment.id, mac: assignment.mac.clone(), addresses: assignment.addresses.clone() }
    }
}

/// Bytes since the link was made, as the environment sees them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Received by the environment.
    pub rx: u64,
    /// Sent by the environment.
    pub tx: u64,
}

/// Connect an environment: guard, pair, addresses, routes, links up, announcement (gratuitous ARP and unsolicited NDP advertisements).
/// `pid` is any process in its network namespace: between `crun create` and `crun start`, the container's init. Idempotent: what is
/// there is brought to the specification, a pair whose other end is elsewhere is made anew. On an error nothing forged can pass, and
/// `detach` removes what there is.
pub fn attach(pid: u32, spec: &LinkSpec) -> Result<()> {
    bail!("connecting environment {} (process {pid}) is not written yet", spec.id)
}

/// Tell the neighbours again where the addresses are. `attach` does so by itself.
pub fn announce(pid: u32, spec: &LinkSpec) -> Result<()> {
    bail!("announcing environment {} (process {pid}) is not written yet", spec.id)
}

/// Disconnect an environment: its pair and its guard go. Done when neither is there any more, also when neither was.
pub fn detach(id: EnvironmentId) -> Result<()> {
    bail!("disconnecting environment {id} is not written yet")
}

/// The environments of which anything is here, a link or a guard, in no order: what `detach` would remove.
pub fn list() -> Result<Vec<EnvironmentId>> {
    bail!("listing the environments' links is not written yet")
}

/// What an environment's link has carried; `None` when it has none.
pub fn traffic(id: EnvironmentId) -> Result<Option<Traffic>> {
    bail!("counting the bytes of environment {id} is not written yet")
}
