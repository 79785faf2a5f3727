//! By which ways each worker could be fenced now, and whether settings keep the inequality of lease and watchdog (`lodge_model::guard`).

use std::time::Duration;

use lodge_model::guard::{FencingView, Guard, NodeFencing, is_enough};
use lodge_model::node::Role;
use lodge_model::settings::Settings;
use lodge_model::timing::Timing;

use super::bmc::Bmc;
use crate::environments::drain::request::settings;
use crate::fault::Fault;
use crate::orders::Topology;
use crate::records::Node;
use crate::store::Tx;

/// For operators.
pub fn show(tx: &Tx) -> Result<FencingView, Fault> {
    let (nodes, settings) = (tx.list::<Node>()?, settings(tx)?);
    let server = Topology::of(&nodes).share.map(|(server, _)| server);
    let share = nodes.iter().find(|node| Some(node.id) == server).map(|node| node.name.clone());
    let mut shown = Vec::new();
    for node in workers(&nodes) {
        let bmc = tx.get::<Bmc>(&node.id)?.map(|bmc| bmc.url);
        let cannot = match (&share, node.address.as_ref().is_some_and(|address| address.parse::<std::net::IpAddr>().is_ok())) {
            _ if server == Some(node.id) => "it serves the share itself",
            (None, _) => "no node serves the share",
            (_, false) => "the share node knows no address of it",
            _ => "",
        };
        let bound = node.guard.as_ref().ok_or_else(|| "it has attested nothing".to_owned()).and_then(Guard::bound);
        let lease = match (&bound, settings.lease_wait) {
            (Err(why), _) => why.clone(),
            (Ok(_), 0) => "not asked for: lodge cluster set --lease-wait".to_owned(),
            (Ok(bound), wait) => is_enough(seconds(wait), *bound).err().unwrap_or_default(),
        };
        let bound = bound.ok().map(|bound| u32::try_from(bound.as_millis().div_ceil(1000)).unwrap_or(u32::MAX));
        let name = node.name.clone();
        shown.push(NodeFencing { node: name, share: cannot.to_owned(), bmc, guard: node.guard.clone(), bound, lease });
    }
    Ok(FencingView { share, lease_wait: settings.lease_wait, nodes: shown })
}

/// Refuse settings with which a worker that lease and watchdog are to end could go on for longer than is waited.
pub fn check(tx: &Tx, before: &Settings, after: &Settings) -> Result<(), Fault> {
    let relevant = |settings: &Settings| (settings.lease_wait, settings.patience);
    if after.lease_wait == 0 || relevant(before) == relevant(after) {
        return Ok(());
    }
    let nodes = tx.list::<Node>()?;
    let (wait, timing) = (seconds(after.lease_wait), Timing::new(after.patience));
    let (mut covered, mut others) = (0, Vec::new());
    for node in workers(&nodes) {
        let none = || "it has attested nothing".to_owned();
        match node.guard.as_ref().ok_or_else(none).and_then(|guard| guard.bound_with(&timing)) {
            Err(why) => others.push(format!("{}: {why}", node.name)),
            Ok(bound) => {
                covered += 1;
                is_enough(wait, bound).map_err(|why| Fault::bad_input(format!("lease_wait: {}: {why}", node.name)))?;
            }
        }
    }
    match covered {
        0 => Err(Fault::conflict(format!(
            "lease_wait: of no worker lease and watchdog would be a proof ({})",
            others.join("; ")
        ))),
        _ => Ok(()),
    }
}

fn workers(nodes: &[Node]) -> impl Iterator<Item = &Node> {
    nodes.iter().filter(|node| node.roles.contains(&Role::Worker) && node.registered.is_some())
}

fn seconds(count: u32) -> Duration {
    Duration::from_secs(count.into())
}
