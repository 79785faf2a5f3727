//! An environment's cable: a veth pair, one end a port of the bridge, the other `eth0` in the environment's network namespace.
//!
//! The name of the host's end is made from the environment's id, and its alias is the whole id, so that everything here is found again
//! from the kernel alone. The alias is set last: it says that the link is complete. The pair never outlives the namespace: the kernel
//! removes it with the namespace's last process.
//!
//! It assumes that `agent network` has made the bridge, and that the caller is root of the host. The calls block. They may be made from
//! several threads at once for different environments.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    net::IpAddr,
    os::fd::AsRawFd as _,
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow, bail};
use futures_util::TryStreamExt as _;
use lodge_model::{
    environment::order::{Address, Assignment},
    ids::{EnvironmentId, hex},
};
use rtnetlink::{
    LinkBridgePort, LinkUnspec, LinkVeth,
    packet_route::{
        link::{
            BridgePortState, InfoBridgePort, InfoData, InfoPortData, InfoVeth, LinkAttribute, LinkInfo, LinkMessage, Stats64,
        },
        neighbour::{NeighbourFlags, NeighbourState},
    },
};

use crate::{
    address::Mac,
    bridge::{Bridge, forbid_ipv6},
    guard::{self, Guard},
    inside::{self, Inside},
    netlink::Netlink,
    runtime,
};

/// What the names of host ends begin with; 12 digits of the environment's id follow, as many as the kernel's names have room for.
pub const PREFIX: &str = "env";
/// The links of a thread's network namespace, a line each (proc_pid_net(5)).
const LINKS: &str = "/proc/thread-self/net/dev";
/// How long a port may take until it forwards. The kernel needs no time for it once both ends are up.
const FORWARDING: Duration = Duration::from_secs(10);

/// A pair has queues for as many processors as the machine could have, unless it is told otherwise, and uses one: the others would be made,
/// announced to udev, and taken away again, with every start.
const QUEUES: [LinkAttribute; 2] = [LinkAttribute::NumTxQueues(1), LinkAttribute::NumRxQueues(1)];

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

/// What there is of an environment's link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// Neither link nor guard.
    No,
    /// Its guard alone: nothing is connected.
    Guarded,
    /// An `attach` or `detach` was cut short.
    Partly,
    /// `attach` went through.
    Whole,
}

/// Bytes since the link was made, as the environment sees them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Received by the environment.
    pub rx: u64,
    /// Sent by the environment.
    pub tx: u64,
}

/// A specification that was checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Hardware address.
    pub mac: Mac,
    /// Addresses and lengths of their prefixes.
    pub addresses: Vec<(IpAddr, u8)>,
    /// Default gateways, at most one of each kind.
    pub gateways: Vec<IpAddr>,
}

impl LinkSpec {
    /// The link of an assignment.
    pub fn of(assignment: &Assignment) -> Self {
        Self { id: assignment.id, mac: assignment.mac.clone(), addresses: assignment.addresses.clone() }
    }

    fn guard(&self) -> Result<Guard> {
        let plan = self.plan()?;
        Ok(Guard { id: self.id, mac: plan.mac, addresses: plan.addresses.iter().map(|(ip, _)| *ip).collect() })
    }

    fn plan(&self) -> Result<Plan> {
        let mut plan = Plan { mac: self.mac.parse()?, addresses: Vec::new(), gateways: Vec::new() };
        for Address { ip, prefix, gateway } in &self.addresses {
            if *prefix > if ip.is_ipv4() { 32 } else { 128 } || ip.is_unspecified() || ip.is_multicast() || ip.is_loopback() {
                bail!("{ip}/{prefix} is not an address of a machine");
            }
            if gateway.is_some_and(|gateway| gateway.is_ipv4() != ip.is_ipv4()) {
                bail!("the gateway of {ip} is not of its kind");
            }
            plan.addresses.push((*ip, *prefix));
            // A second address of a kind shares the first one's way out.
            if !plan.gateways.iter().any(|known| known.is_ipv4() == ip.is_ipv4()) {
                plan.gateways.extend(gateway);
            }
        }
        Ok(plan)
    }
}

/// Connect an environment: guard, pair, addresses, routes, links up, announcement (gratuitous ARP and unsolicited NDP advertisements).
/// `pid` is any process in its network namespace: between `crun create` and `crun start`, the container's init. Idempotent: what is
/// there is brought to the specification, a pair whose other end is elsewhere is made anew. A guard that was set beforehand is not set again.
/// On an error nothing forged can pass, and `detach` removes what there is.
pub fn attach(pid: u32, spec: &LinkSpec, guarded: Option<Guarded>) -> Result<()> {
    let guarded = guarded.filter(|guarded| guarded.0 == *spec);
    connect(pid, spec, guarded).with_context(|| format!("connecting environment {} to the network", spec.id))
}

/// The guard of an environment is set as this says.
#[derive(Debug)]
pub struct Guarded(LinkSpec);

/// Set the guard of an environment before there is anything to guard: most of that is waiting for the kernel.
pub fn guard(spec: &LinkSpec) -> Result<Guarded> {
    guard::set(&spec.guard()?)?;
    Ok(Guarded(spec.clone()))
}

/// Tell the neighbours again where the addresses are. `attach` does so by itself.
pub fn announce(pid: u32, spec: &LinkSpec) -> Result<()> {
    let tell = || inside::announce_again(&namespace(pid)?, &spec.plan()?);
    tell().with_context(|| format!("announcing the addresses of environment {}", spec.id))
}

/// Disconnect an environment: its pair and its guard go. Done when neither is there any more, also when neither was.
pub fn detach(id: EnvironmentId) -> Result<()> {
    let disconnect = || {
        runtime()?.block_on(async { remove(&Netlink::connect()?, id).await })?;
        // Last: until the port is gone its guard stays.
        guard::remove(id)
    };
    disconnect().with_context(|| format!("disconnecting environment {id} from the network"))
}

/// The environments of which anything is here, a link or a guard: what `detach` would remove.
pub fn list() -> Result<BTreeSet<EnvironmentId>> {
    // Nothing is connected without a guard, unless somebody else flushed the rules: those links are found by their alias.
    let links: Vec<LinkMessage> = runtime()?.block_on(async {
        let netlink = Netlink::connect()?;
        netlink.handle.link().get().execute().try_collect().await.context("listing links")
    })?;
    let aliased = links.iter().filter(|link| End::read(link).name.starts_with(PREFIX)).filter_map(|link| End::read(link).id);
    Ok(guard::list()?.into_iter().chain(aliased).collect())
}

/// How much of an environment's link is here.
pub fn look(id: EnvironmentId) -> Result<Presence> {
    let name = port_name(id);
    // Most looks are at what is not there, and a table of names is enough for that.
    let end = match is_listed(&name)? {
        false => None,
        true => runtime()?.block_on(async { Netlink::connect()?.find(&name).await })?,
    };
    Ok(match end.as_ref().map(End::read) {
        Some(end) if end.id == Some(id) => Presence::Whole,
        Some(_) => Presence::Partly,
        None if guard::list()?.contains(&id) => Presence::Guarded,
        None => Presence::No,
    })
}

/// Whether this thread's network namespace has a link of this name. To ask for it by name (netdevice(7)) would have the kernel start a
/// program that looks for a driver.
fn is_listed(name: &str) -> Result<bool> {
    let table = fs::read_to_string(LINKS).with_context(|| format!("reading {LINKS}"))?;
    Ok(table.lines().any(|line| line.trim_start().strip_prefix(name).is_some_and(|rest| rest.starts_with(':'))))
}

/// What an environment's link has carried; `None` when it has none.
pub fn traffic(id: EnvironmentId) -> Result<Option<Traffic>> {
    let end = runtime()?.block_on(async { Netlink::connect()?.find(&port_name(id)).await })?;
    // What the host's end received is what the environment sent.
    let stats = end.as_ref().and_then(|link| End::read(link).stats);
    Ok(stats.map(|stats| Traffic { rx: stats.tx_bytes, tx: stats.rx_bytes }))
}

/// Name of the host's end.
pub fn port_name(id: EnvironmentId) -> String {
    let digits = hex(id.0.as_bytes());
    format!("{PREFIX}{}", digits.get(..12).unwrap_or_default())
}

fn connect(pid: u32, spec: &LinkSpec, guarded: Option<Guarded>) -> Result<()> {
    let (plan, name, namespace) = (spec.plan()?, port_name(spec.id), namespace(pid)?);
    thread::scope(|scope| {
        // A pair that is no port carries nothing: its guard is set meanwhile.
        let guarded = guarded.is_none().then(|| scope.spawn(|| guard(spec)));
        runtime()?.block_on(async {
            let (host, inside) = (Netlink::connect()?, Inside::open(&namespace)?);
            let pair = ensure_pair(&host, &inside, spec.id, &plan, &namespace).await?;
            inside::prepare(&namespace)?;
            if let Some(guarded) = guarded {
                guarded.join().map_err(|_| anyhow!("the thread that sets the guard panicked"))??;
            }
            ensure_port(&host, pair.port, &name, &plan).await?;
            inside.set_up(pair.inside, &plan).await?;
            forwarding(&host, &name).await?;
            inside.announce(pair.inside, &plan)?;
            let whole = LinkUnspec::new_with_index(pair.port);
            let whole = whole.append_extra_attribute(LinkAttribute::IfAlias(spec.id.to_string())).build();
            host.handle.link().set(whole).execute().await.context("marking the link as complete")
        })
    })
}

/// Kernel indices of both ends.
#[derive(Clone, Copy, Debug)]
struct Pair {
    port: u32,
    inside: u32,
}

pub(crate) fn namespace(pid: u32) -> Result<File> {
    let path = format!("/proc/{pid}/ns/net");
    File::open(&path).with_context(|| format!("opening {path}"))
}

/// The pair is there.
async fn ensure_pair(netlink: &Netlink, inside: &Inside, id: EnvironmentId, plan: &Plan, namespace: &File) -> Result<Pair> {
    let name = port_name(id);
    let find = async || {
        let end = netlink.find(&name).await?;
        anyhow::Ok(end.map(|end| Pair { port: end.header.index, inside: End::read(&end).peer }))
    };
    let (end, other) = (find().await?, inside.pair().await?);
    if let Some(pair) = end.filter(|pair| other == Some((pair.inside, pair.port))) {
        return Ok(pair);
    }
    if end.is_some() {
        remove(netlink, id).await?;
    }
    // With its other end it may have gone.
    if other.is_some()
        && let Some((index, _)) = inside.pair().await?
    {
        inside.remove(index).await?;
    }
    make_pair(netlink, &name, plan, &netlink.bridge().await?, namespace).await?;
    find().await?.ok_or_else(|| anyhow!("{name} went away"))
}

/// The host's end, of this index, is a port of the bridge that only this environment's frames go to, and up.
async fn ensure_port(netlink: &Netlink, index: u32, name: &str, plan: &Plan) -> Result<()> {
    let bridge = netlink.bridge().await?;
    forbid_ipv6(name)?;
    let up = LinkUnspec::new_with_index(index).controller(bridge.index).up().build();
    netlink.handle.link().set(up).execute().await.with_context(|| format!("setting {name} up"))?;
    // Where this environment is is known: nothing is learnt from its frames, and frames to strangers do not go to it.
    let port = LinkBridgePort::new(index).learning(false).flood(false).build();
    netlink.handle.link().set_port(port).execute().await.with_context(|| format!("setting the port {name} up"))?;
    let entry = netlink.handle.neighbours().add_bridge(index, &plan.mac.0).state(NeighbourState::Noarp);
    let entry = entry.flags(NeighbourFlags::Controller).replace();
    entry.execute().await.with_context(|| format!("telling the bridge that {} is at {name}", plan.mac))
}

async fn make_pair(netlink: &Netlink, name: &str, plan: &Plan, bridge: &Bridge, namespace: &File) -> Result<()> {
    let peer = LinkUnspec::new_with_name(inside::NAME).address(plan.mac.0.to_vec()).mtu(bridge.mtu);
    let peer =
        QUEUES.into_iter().fold(peer.setns_by_fd(namespace.as_raw_fd()), |peer, one| peer.append_extra_attribute(one)).build();
    let pair = LinkVeth::new(name, inside::NAME).set_info_data(InfoData::Veth(InfoVeth::Peer(peer))).mtu(bridge.mtu);
    let pair = QUEUES.into_iter().fold(pair, |pair, one| pair.append_extra_attribute(one)).build();
    netlink.handle.link().add(pair).execute().await.with_context(|| format!("making {name}"))
}

async fn remove(netlink: &Netlink, id: EnvironmentId) -> Result<()> {
    let name = port_name(id);
    if let Some(link) = netlink.find(&name).await? {
        let removed = netlink.handle.link().del(link.header.index).execute().await;
        if netlink.find(&name).await?.is_some() {
            removed.with_context(|| format!("removing {name}"))?;
        }
    }
    Ok(())
}

/// Until the port forwards: what is announced before goes nowhere.
async fn forwarding(netlink: &Netlink, name: &str) -> Result<()> {
    if is_open(netlink, name).await? {
        return Ok(());
    }
    let mut news = Netlink::listen()?;
    let wait = async {
        while !is_open(&news, name).await? {
            news.changed().await;
        }
        anyhow::Ok(())
    };
    tokio::time::timeout(FORWARDING, wait).await.map_err(|_| anyhow!("{name} does not forward"))?
}

async fn is_open(netlink: &Netlink, name: &str) -> Result<bool> {
    let link = netlink.find(name).await?.ok_or_else(|| anyhow!("{name} went away"))?;
    Ok(End::read(&link).forwarding)
}

/// What of a link matters here.
#[derive(Debug, Default)]
struct End<'a> {
    name: &'a str,
    id: Option<EnvironmentId>,
    peer: u32,
    forwarding: bool,
    stats: Option<&'a Stats64>,
}

impl<'a> End<'a> {
    fn read(message: &'a LinkMessage) -> Self {
        let mut end = Self::default();
        for attribute in &message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => end.name = name,
                LinkAttribute::IfAlias(alias) => end.id = alias.parse().ok(),
                LinkAttribute::Link(peer) => end.peer = *peer,
                LinkAttribute::Stats64(stats) => end.stats = Some(stats),
                LinkAttribute::LinkInfo(infos) => end.forwarding = infos.iter().any(is_forwarding),
                _ => {}
            }
        }
        end
    }
}

fn is_forwarding(info: &LinkInfo) -> bool {
    let LinkInfo::PortData(InfoPortData::BridgePort(port)) = info else { return false };
    port.contains(&InfoBridgePort::State(BridgePortState::Forwarding))
}

#[cfg(test)]
mod tests;
