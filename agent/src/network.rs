//! `agent network`: bring the uplink up (on a worker as a port of the bridge that environments are connected to), say how in
//! `network.json`, keep the lease. It blocks; init runs it as a service of its own.

use std::convert::Infallible;
use std::path::Path;

use anyhow::{Context as _, Result};
use lodge_model::node::{NodeFile, Role};
use lodge_model::paths;
use lodge_network::{Lease, On, Uplink};

use crate::moments::{self, Moments};
use crate::{durable, uplink};

const RESOLV_CONF: &str = "/etc/resolv.conf";

/// Bring the uplink up and say how. A network that is not there yet is waited for by the crate below, and told.
pub fn start() -> Result<Lease> {
    let text = std::fs::read_to_string(paths::NODE_FILE).with_context(|| format!("reading {}", paths::NODE_FILE))?;
    let node: NodeFile = serde_json::from_str(&text).with_context(|| format!("reading {}", paths::NODE_FILE))?;
    let on = if node.roles.contains(&Role::Worker) { On::Bridge } else { On::Link };
    let lease = lodge_network::bring_up(node.network.as_ref(), on, &mut log).context("bringing the uplink up")?;
    publish(lease.uplink())?;
    Moments::new(moments::DIR).record(moments::NETWORK)?;
    Ok(lease)
}

/// Keep it until the node goes down.
pub fn keep(lease: Lease) -> Infallible {
    let mut changed = |uplink: &Uplink| {
        if let Err(error) = publish(uplink) {
            tracing::error!("{error:#}");
        }
    };
    lease.maintain(&mut changed, &mut log)
}

fn log(line: &str) {
    tracing::info!("{line}");
}

/// The resolver's file first: whoever sees `network.json` may resolve names.
fn publish(uplink: &Uplink) -> Result<()> {
    lodge_network::write_resolv_conf(uplink, Path::new(RESOLV_CONF))?;
    let json = serde_json::to_vec_pretty(uplink).context("encoding the uplink")?;
    durable::write(Path::new(uplink::FILE), &json, 0o644)?;
    tracing::info!("{} is up with {}", uplink.interface, uplink.address);
    Ok(())
}
