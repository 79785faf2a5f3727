//! Address pools: what operators ask of them.

use jiff::Timestamp;
use lodge_model::environment::view::{Pool, PoolView};

use super::records::PoolRecord;
use super::{addresses, claims};
use crate::fault::Fault;
use crate::records::Node;
use crate::store::{EventDraft, Tx};

/// All pools, the first served first.
pub fn list(tx: &Tx) -> Result<Vec<PoolView>, Fault> {
    let mut records = tx.list::<PoolRecord>()?;
    records.sort_by_key(|record| record.created);
    records.into_iter().map(|record| shown(tx, record)).collect()
}

/// Add one.
pub fn add(tx: &Tx, pool: &Pool, now: Timestamp) -> Result<PoolView, Fault> {
    if tx.get::<PoolRecord>(&pool.name)?.is_some() {
        return Err(Fault::conflict(format!("name: there is a pool {} already; choose another name", pool.name)));
    }
    let others: Vec<Pool> = tx.list::<PoolRecord>()?.into_iter().map(|record| record.pool).collect();
    addresses::check_pool(pool, &others).map_err(Fault::bad_input)?;
    for node in tx.list::<Node>()? {
        let address = node.address.as_ref().and_then(|address| address.parse().ok());
        if let Some(address) = address.filter(|address| addresses::contains(pool, *address)) {
            return Err(Fault::bad_input(format!("{address} is the address of node {}; leave it out of the pool", node.name)));
        }
    }
    let record = PoolRecord { pool: pool.clone(), next: pool.first, created: now };
    tx.put(&record)?;
    log(tx, format!("pool {} was added: {} to {}", pool.name, pool.first, pool.last), now)?;
    shown(tx, record)
}

/// Remove one that gives no address.
pub fn remove(tx: &Tx, name: &str, now: Timestamp) -> Result<(), Fault> {
    let record = tx.get::<PoolRecord>(&name)?;
    let record = record.ok_or_else(|| Fault::not_found(format!("there is no pool {name:?}; lodge pool ls lists them")))?;
    match claims::used(tx, &record.pool)? {
        0 => {}
        used => {
            return Err(Fault::conflict(format!(
                "{used} addresses of {name} are in use; destroy those environments first (lodge env ls shows their addresses)"
            )));
        }
    }
    tx.delete::<PoolRecord>(&name)?;
    log(tx, format!("pool {name} was removed"), now)
}

fn shown(tx: &Tx, record: PoolRecord) -> Result<PoolView, Fault> {
    let used = claims::used(tx, &record.pool)?;
    Ok(PoolView { size: addresses::size(&record.pool), pool: record.pool, used })
}

fn log(tx: &Tx, text: String, now: Timestamp) -> Result<(), Fault> {
    tx.log(&EventDraft { at: now, machine: None, node: None, kind: "pool", text, detail: None })
}
