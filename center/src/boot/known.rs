//! Who asks for a boot file: the request's UUID or hardware address against the records.

use jiff::Timestamp;

use super::offer::{Known, Request};
use crate::fault::Fault;
use crate::flow::Whole;
use crate::records::{Machine, TicketState};
use crate::store::Tx;

/// What is known of the machine that asks.
pub fn lookup(tx: &Tx, request: &Request, now: Timestamp) -> Result<Known, Fault> {
    let Some(machine) = find(tx, request)? else {
        return Ok(Known::Bare);
    };
    let whole = Whole::of(tx, machine)?;
    let is_wanted = whole.ticket.as_ref().is_some_and(|ticket| {
        // A reinstall whose ticket has expired half-way leaves no system to boot; the installer is what can say so.
        ticket.is_active(now) || ticket.state == TicketState::Used
    });
    Ok(match &whole.node {
        _ if is_wanted => Known::Wanted,
        Some(node) if node.is_complete() => Known::Done(node.name.clone()),
        _ => Known::Bare,
    })
}

fn find(tx: &Tx, request: &Request) -> Result<Option<Machine>, Fault> {
    for id in &request.machines {
        if let Some(machine) = tx.get::<Machine>(id)? {
            return Ok(Some(machine));
        }
    }
    let has_mac = |machine: &Machine| {
        let nics = machine.facts.as_ref().map(|facts| facts.nics.as_slice()).unwrap_or_default();
        nics.iter().any(|nic| nic.mac.eq_ignore_ascii_case(&request.mac))
    };
    Ok(tx.list::<Machine>()?.into_iter().find(has_mac))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::boot::offer::Kind;
    use crate::store::Store;
    use crate::testing::{self, at};

    #[test]
    fn a_machine_is_known_by_its_uuid_or_its_hardware_address() {
        let store = Store::in_memory();
        let known = |machines: Vec<_>, mac: &str| {
            let request = Request::for_tests(Kind::PxeDiscover, mac, machines);
            store.transact_blocking(|tx| lookup(tx, &request, at(101))).unwrap()
        };
        assert_eq!(known(vec![testing::machine_id(2)], "52:54:00:00:00:02"), Known::Bare);

        let node = testing::registered("node1", 2, "10.0.0.2");
        let mut machine = testing::machine(2);
        machine.node = Some(node.id);
        store
            .transact_blocking(|tx| {
                tx.put(&node)?;
                tx.put(&machine)
            })
            .unwrap();
        let done = Known::Done("node1".into());
        assert_eq!(known(vec![testing::machine_id(9), testing::machine_id(2)], "00:00:00:00:00:00"), done);
        assert_eq!(known(vec![], "52:54:00:00:00:02"), done);
        assert_eq!(known(vec![], "52:54:00:00:00:03"), Known::Bare);

        let ticket = testing::ticket(2, "S1", 100);
        machine.ticket = Some(ticket.ticket.id);
        store
            .transact_blocking(|tx| {
                tx.put(&ticket)?;
                tx.put(&machine)
            })
            .unwrap();
        assert_eq!(known(vec![], "52:54:00:00:00:02"), Known::Wanted);
    }
}
