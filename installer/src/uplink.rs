//! The machine's network while the installer runs: brought up once, kept by a thread.

use std::{
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    thread,
};

use anyhow::{Context as _, Result};
use lodge_model::{
    answer::{NetworkAnswer, parse_cidr},
    facts::Nic,
};
use lodge_network::{On, Uplink};

use crate::report::Report;

/// An uplink that is being kept.
#[derive(Debug)]
pub struct Network {
    config: Option<NetworkAnswer>,
    uplink: Arc<Mutex<Uplink>>,
}

impl Network {
    /// The uplink with this set-up: the one that is there, unless its cable is gone or the set-up is another.
    pub fn ensure(before: Option<Self>, config: Option<&NetworkAnswer>, report: &mut Report) -> Result<Self> {
        match before {
            Some(network) if network.config.as_ref() == config && network.has_carrier()? => Ok(network),
            _ => Self::start(config, report),
        }
    }

    /// The uplink as the machine has it, untouched: for looking only.
    pub fn present(nics: &[Nic]) -> Result<Self> {
        let is_v4 = |address: &&String| parse_cidr(address).is_some_and(|(ip, _)| ip.is_ipv4());
        let found = nics.iter().filter(|nic| nic.link).find_map(|nic| Some((nic, nic.addresses.iter().find(is_v4)?)));
        let (nic, address) =
            found.context("a dry run leaves the network as it is, and no interface has an IPv4 address; set one up first")?;
        let uplink = Uplink {
            interface: nic.name.clone(),
            mac: nic.mac.clone(),
            address: address.clone(),
            gateway: None,
            dns: Vec::new(),
            dhcp_words: None,
        };
        Ok(Self { config: None, uplink: Arc::new(Mutex::new(uplink)) })
    }

    /// As it is now.
    pub fn uplink(&self) -> Uplink {
        self.uplink.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn has_carrier(&self) -> Result<bool> {
        let interface = self.uplink().interface;
        Ok(lodge_network::links()?.iter().any(|link| link.name == interface && link.carrier))
    }

    fn start(config: Option<&NetworkAnswer>, report: &mut Report) -> Result<Self> {
        let lease = lodge_network::bring_up(config, On::Link, &mut |line| report.note(line))?;
        let uplink = Arc::new(Mutex::new(lease.uplink().clone()));
        tell_resolver(lease.uplink());
        let shared = Arc::clone(&uplink);
        let mut changed = move |new: &Uplink| {
            tell_resolver(new);
            *shared.lock().unwrap_or_else(PoisonError::into_inner) = new.clone();
        };
        let keep = move || lease.maintain(&mut changed, &mut |_| {});
        thread::Builder::new().name("network".to_owned()).spawn(keep).context("starting to keep the network")?;
        Ok(Self { config: config.cloned(), uplink })
    }
}

/// Addresses are usually numbers; a name that cannot be looked up is told where it is used.
fn tell_resolver(uplink: &Uplink) {
    let _ = lodge_network::write_resolv_conf(uplink, Path::new("/etc/resolv.conf"));
}
