//! What operators ask for: set, show, test and remove the BMC of a node. What is set is asked first: a typing error shows now, and not in
//! the night in which it is needed.

use std::time::Instant;

use jiff::Timestamp;
use lodge_model::bmc::{BmcOrder, BmcTest, BmcView, Trust};
use lodge_model::ids::{MachineId, NodeId};

use super::Bmc;
use super::redfish::{Limits, Redfish, System};
use crate::fault::Fault;
use crate::flow::operator::find;
use crate::records::Node;
use crate::store::{Store, Tx};

/// Longest user name, password or name of a system, in bytes.
const WORD_MAX: usize = 256;
/// Longest CA, in bytes of PEM.
const CA_MAX: usize = 64 << 10;

/// Ask the BMC that is described, and store how it is reached.
pub async fn set(store: &Store, name: &str, order: BmcOrder, limits: Limits, now: Timestamp) -> Result<BmcView, Fault> {
    check(&order)?;
    let wanted = name.to_owned();
    let (node, machine) = store.transact(move |tx| known(tx, &wanted)).await?;
    let asked = ask(&order, limits).await;
    let Some(trust) = order.trust.clone() else {
        return Err(asked.err().unwrap_or_else(|| Fault::bad_input("trust: say how it is known: --fingerprint or --ca")));
    };
    let found = match asked {
        Ok(system) if !system.is_of(machine) && !order.force => {
            return Err(Fault::conflict(format!(
                "the BMC at {} manages the machine {}, and {name} is {machine}: switching it off would hit another machine; look at the \
                 address, or insist: --force",
                order.url,
                system.machine.map_or_else(String::new, |said| said.to_string()),
            )));
        }
        Ok(system) => system.machine,
        Err(_) if order.force => None,
        Err(fault) => return Err(fault),
    };
    let BmcOrder { url, user, password, system, stays_off, .. } = order;
    let url = url.trim_end_matches('/').to_owned();
    let bmc = Bmc { node, url, user, password, system, trust, stays_off, machine: found.or(Some(machine.0)), set: now };
    let name = name.to_owned();
    let store_it = move |tx: &Tx| {
        tx.put(&bmc)?;
        let text = format!("an operator says that the BMC of {name} is at {}, user {}", bmc.url, bmc.user);
        find(tx, &name)?.log(tx, "bmc", text, now)?;
        Ok(bmc.clone().view())
    };
    store.transact(store_it).await
}

/// How it is reached.
pub fn show(tx: &Tx, name: &str) -> Result<BmcView, Fault> {
    Ok(stored(tx, name)?.view())
}

/// Ask it now.
pub async fn test(store: &Store, name: &str, limits: Limits) -> Result<BmcTest, Fault> {
    let name = name.to_owned();
    let bmc = store.transact(move |tx| stored(tx, &name)).await?;
    let began = Instant::now();
    let system = Redfish::new(&bmc, limits)?.tested().await.map_err(refused)?;
    Ok(BmcTest {
        power: system.power.word().to_owned(),
        system: system.id,
        model: system.model,
        machine: system.machine,
        resets: system.resets,
        ms: u32::try_from(began.elapsed().as_millis()).unwrap_or(u32::MAX),
    })
}

/// Forget it.
pub fn remove(tx: &Tx, name: &str, now: Timestamp) -> Result<(), Fault> {
    let bmc = stored(tx, name)?;
    tx.delete::<Bmc>(&bmc.node)?;
    find(tx, name)?.log(tx, "bmc", format!("an operator has the BMC of {name} forgotten"), now)
}

async fn ask(order: &BmcOrder, limits: Limits) -> Result<System, Fault> {
    let BmcOrder { url, user, password, system, trust, .. } = order;
    let redfish = Redfish::open(url, (user, password), system.clone(), trust.as_ref(), limits);
    redfish.map_err(|error| Fault::bad_input(format!("{error:#}")))?.look().await.map_err(refused)
}

fn refused(error: anyhow::Error) -> Fault {
    Fault::conflict(format!("{error:#}"))
}

fn check(order: &BmcOrder) -> Result<(), Fault> {
    let BmcOrder { user, password, system, .. } = order;
    let words = [("user", Some(user)), ("password", Some(&password.0)), ("system", system.as_ref())];
    let is_bad = |word: &str| word.is_empty() || word.len() > WORD_MAX || word.chars().any(char::is_control);
    if let Some((what, _)) = words.into_iter().find(|(_, word)| word.is_some_and(|word| is_bad(word))) {
        return Err(Fault::bad_input(format!("{what}: one line of 1 to {WORD_MAX} bytes is possible")));
    }
    match &order.trust {
        Some(Trust::Ca(pem)) if pem.len() > CA_MAX => Err(Fault::bad_input(format!("ca: at most {CA_MAX} bytes are possible"))),
        _ => Ok(()),
    }
}

fn known(tx: &Tx, name: &str) -> Result<(NodeId, MachineId), Fault> {
    let whole = find(tx, name)?;
    let node: Node = whole
        .node
        .ok_or_else(|| Fault::conflict(format!("{name} is no node yet; let it in first: lodge node approve {name}")))?;
    Ok((node.id, whole.machine.id))
}

fn stored(tx: &Tx, name: &str) -> Result<Bmc, Fault> {
    let (node, _) = known(tx, name)?;
    let none = || Fault::not_found(format!("the center knows of no BMC of {name}; lodge node bmc set {name} tells it"));
    tx.get::<Bmc>(&node)?.ok_or_else(none)
}
