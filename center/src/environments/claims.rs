//! What is unique among all environments, taken and given back: names, addresses, hardware addresses, ranges of ids.

use std::net::IpAddr;

use lodge_model::environment::order::Address;
use lodge_model::environment::view::Pool;
use lodge_model::ids::EnvironmentId;

use super::addresses::{self, ID_RANGES};
use super::records::{Claim, Counters, Environment, PoolRecord};
use crate::fault::Fault;
use crate::store::Tx;

/// The environment of a name.
pub fn named(tx: &Tx, name: &str) -> Result<Option<EnvironmentId>, Fault> {
    Ok(tx.get::<Claim>(&name_key(name))?.map(|claim| claim.environment))
}

/// Take a name.
pub fn take_name(tx: &Tx, name: &str, id: EnvironmentId) -> Result<(), Fault> {
    if named(tx, name)?.is_some() {
        return Err(Fault::conflict(format!("name: there is an environment {name} already; choose another name")));
    }
    take(tx, name_key(name), id)
}

/// Give a name back.
pub fn give_name_back(tx: &Tx, name: &str) -> Result<(), Fault> {
    tx.delete::<Claim>(&name_key(name))
}

/// Take the addresses that were asked for; where none were, the next free one of each family that there are pools of.
pub fn take_addresses(tx: &Tx, asked: &[IpAddr], id: EnvironmentId) -> Result<(Vec<Address>, Vec<IpAddr>), Fault> {
    let mut pools = tx.list::<PoolRecord>()?;
    pools.sort_by_key(|record| record.created);
    if pools.is_empty() {
        return Err(Fault::conflict("there is no address pool; an operator adds one: lodge pool add"));
    }
    let given = match asked {
        [] => [IpAddr::is_ipv4, IpAddr::is_ipv6]
            .iter()
            .filter_map(|family| next_free(tx, &pools, family).transpose())
            .collect::<Result<Vec<_>, Fault>>()?,
        asked => asked.iter().map(|ip| asked_for(tx, &pools, *ip)).collect::<Result<Vec<_>, Fault>>()?,
    };
    let mut dns = Vec::new();
    let mut taken = Vec::new();
    for (pool, ip) in given {
        let key = address_key(ip);
        if tx.get::<Claim>(&key)?.is_some() {
            return Err(Fault::bad_input(format!("addresses: {ip} is given twice")));
        }
        take(tx, key, id)?;
        taken.push(addresses::address(&pool, ip));
        dns.extend(pool.dns.into_iter().filter(|server| !dns.contains(server)).collect::<Vec<_>>());
    }
    Ok((taken, dns))
}

fn asked_for(tx: &Tx, pools: &[PoolRecord], ip: IpAddr) -> Result<(Pool, IpAddr), Fault> {
    let record = pools
        .iter()
        .find(|record| addresses::contains(&record.pool, ip))
        .ok_or_else(|| Fault::bad_input(format!("addresses: {ip} is in no pool; `lodge pool ls` shows what may be given")))?;
    match tx.get::<Claim>(&address_key(ip))? {
        None => Ok((record.pool.clone(), ip)),
        Some(_) => Err(Fault::conflict(format!("addresses: {ip} is in use by another environment; choose another one"))),
    }
}

fn next_free(tx: &Tx, pools: &[PoolRecord], is_family: impl Fn(&IpAddr) -> bool) -> Result<Option<(Pool, IpAddr)>, Fault> {
    let mut full = Vec::new();
    for record in pools.iter().filter(|record| is_family(&record.pool.first)) {
        let is_taken = |ip| Ok::<_, Fault>(tx.get::<Claim>(&address_key(ip))?.is_some());
        if let Some((ip, next)) = addresses::pick(&record.pool, record.next, is_taken)? {
            tx.put(&PoolRecord { next, ..record.clone() })?;
            return Ok(Some((record.pool.clone(), ip)));
        }
        full.push(record.pool.name.as_str());
    }
    match full.is_empty() {
        true => Ok(None),
        false => Err(Fault::conflict(format!("no address is free in {}; add a pool: lodge pool add", full.join(", ")))),
    }
}

/// Addresses of a pool that are in use.
pub fn used(tx: &Tx, pool: &Pool) -> Result<u64, Fault> {
    let taken = tx.list::<Claim>()?.into_iter().filter_map(|claim| claim.what.strip_prefix("address/")?.parse().ok());
    Ok(taken.filter(|ip: &IpAddr| addresses::contains(pool, *ip)).count() as u64)
}

/// Take a hardware address.
pub fn take_mac(tx: &Tx, id: EnvironmentId) -> Result<String, Fault> {
    for attempt in 0..=u8::MAX {
        let mac = addresses::mac(id, attempt);
        let key = format!("mac/{mac}");
        if tx.get::<Claim>(&key)?.is_none() {
            take(tx, key, id)?;
            return Ok(mac);
        }
    }
    Err(Fault::conflict("no hardware address is free near the one that was drawn; try again"))
}

/// Take a range of ids that nobody has. With more environments than ranges, one is taken a second time: `place` keeps those apart.
pub fn take_id_range(tx: &Tx, id: EnvironmentId) -> Result<u32, Fault> {
    let mut counters = tx.get::<Counters>(&"counters")?.unwrap_or_default();
    let start = u32::try_from(counters.id_ranges % u64::from(ID_RANGES)).unwrap_or(0);
    counters.id_ranges += 1;
    tx.put(&counters)?;
    for offset in 0..ID_RANGES {
        let range = (start + offset) % ID_RANGES;
        let key = format!("ids/{range}");
        if tx.get::<Claim>(&key)?.is_none() {
            take(tx, key, id)?;
            return Ok(range);
        }
    }
    Ok(start)
}

/// Give everything back that an environment has taken.
pub fn give_all_back(tx: &Tx, environment: &Environment) -> Result<(), Fault> {
    let mut keys =
        vec![name_key(&environment.spec.name), format!("mac/{}", environment.mac), format!("ids/{}", environment.id_range)];
    keys.extend(environment.addresses.iter().map(|address| address_key(address.ip)));
    give_back(tx, keys, environment.id)?;
    give_repair_back(tx, environment)
}

/// Give the addresses back that are its repair environment's own.
pub fn give_repair_back(tx: &Tx, environment: &Environment) -> Result<(), Fault> {
    let own = environment.repair.iter().filter_map(|repair| repair.addresses.as_ref()).flat_map(|own| &own.addresses);
    give_back(tx, own.map(|address| address_key(address.ip)).collect(), environment.id)
}

fn give_back(tx: &Tx, keys: Vec<String>, of: EnvironmentId) -> Result<(), Fault> {
    for key in keys {
        if tx.get::<Claim>(&key)?.is_some_and(|claim| claim.environment == of) {
            tx.delete::<Claim>(&key)?;
        }
    }
    Ok(())
}

fn take(tx: &Tx, what: String, environment: EnvironmentId) -> Result<(), Fault> {
    tx.put(&Claim { what, environment })
}

fn name_key(name: &str) -> String {
    format!("name/{name}")
}

fn address_key(ip: IpAddr) -> String {
    format!("address/{ip}")
}
