//! The link of an environment. Who has its addresses is asked while its container is made: the question has to be listened to for half a
//! second, and neither needs the other.

use std::net::IpAddr;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use lodge_model::environment::order::Assignment;
use lodge_network::{LinkSpec, Presence};

use super::Real;

/// That nobody has them is good for this long.
const GOOD_FOR: Duration = Duration::from_secs(5);

/// Addresses that nobody answered for, and when that was.
#[derive(Debug)]
pub(super) struct Unclaimed {
    addresses: Vec<IpAddr>,
    at: Instant,
}

impl Real {
    /// Make its container and ask for its addresses meanwhile. An answer is told by `attach_link`, which then asks again.
    pub(super) fn create_and_ask(&self, order: &Assignment) -> Result<()> {
        std::thread::scope(|scope| {
            let asked = scope.spawn(|| ask(order));
            let created = self.create(order);
            if let Ok(Ok(unclaimed)) = asked.join() {
                self.unclaimed.lock().unwrap_or_else(PoisonError::into_inner).insert(order.id, unclaimed);
            }
            created
        })
    }

    /// Connect it, unless somebody has its addresses.
    pub(super) fn attach_link(&self, order: &Assignment) -> Result<()> {
        let Some(pid) = self.init_of(order.id).map(|init| init.pid) else { bail!("it has no namespaces yet") };
        if lodge_network::look(order.id)? == Presence::No {
            self.need_addresses(order)?;
        }
        lodge_network::attach(pid.unsigned_abs(), &LinkSpec::of(order))
    }

    /// Nobody has its addresses, as was found a moment ago or is found now.
    pub(super) fn need_addresses(&self, order: &Assignment) -> Result<()> {
        let known = self.unclaimed.lock().unwrap_or_else(PoisonError::into_inner).remove(&order.id);
        match known.is_some_and(|known| known.is_good_for(order)) {
            true => Ok(()),
            false => ask(order).map(drop),
        }
    }
}

impl Unclaimed {
    fn is_good_for(&self, order: &Assignment) -> bool {
        self.at.elapsed() < GOOD_FOR && self.addresses == addresses(order)
    }
}

/// Its addresses are nobody's.
fn ask(order: &Assignment) -> Result<Unclaimed> {
    let addresses = addresses(order);
    let taken = lodge_network::probe(&addresses).context("asking who has its addresses")?;
    if let Some(taken) = taken.first() {
        bail!("address {} is in use: {} answers for it", taken.address, taken.mac);
    }
    Ok(Unclaimed { addresses, at: Instant::now() })
}

fn addresses(order: &Assignment) -> Vec<IpAddr> {
    order.addresses.iter().map(|address| address.ip).collect()
}

#[cfg(test)]
mod tests {
    use lodge_model::environment::order::{Address, Want};

    use super::*;
    use crate::environment::stage;

    #[test]
    fn an_answer_is_good_for_the_same_addresses_and_not_for_long() {
        let mut order = stage::order(Want::Running, 1);
        order.addresses = vec![Address { ip: [10, 0, 0, 5].into(), prefix: 24, gateway: None }];
        let unclaimed = |ago: Duration| Unclaimed { addresses: addresses(&order), at: Instant::now() - ago };
        assert!(unclaimed(Duration::ZERO).is_good_for(&order));
        assert!(!unclaimed(GOOD_FOR).is_good_for(&order));
        let mut other = order.clone();
        other.addresses[0].ip = [10, 0, 0, 6].into();
        assert!(!unclaimed(Duration::ZERO).is_good_for(&other));
    }
}
