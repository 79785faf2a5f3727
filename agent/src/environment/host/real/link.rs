//! The link of an environment. Its guard is set, and who has its addresses is asked, while its disk, root and container are made: both are
//! mostly waiting, and nothing of that needs them.

use std::net::IpAddr;
use std::sync::PoisonError;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use lodge_model::environment::order::Assignment;
use lodge_model::ids::EnvironmentId;
use lodge_network::{Guarded, LinkSpec, Presence};

use super::Real;

/// That nobody has them is good for this long after it was asked.
const GOOD_FOR: Duration = Duration::from_secs(5);

/// What was begun for a link, and when.
#[derive(Debug)]
pub(super) struct Begun {
    link: LinkSpec,
    at: Instant,
    guard: JoinHandle<Result<Guarded>>,
    answer: JoinHandle<Result<()>>,
}

impl Real {
    /// Set its guard and ask who has its addresses, unless that was done a moment ago.
    pub(super) fn begin_link(&self, order: &Assignment) {
        let mut begun = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        if !begun.get(&order.id).is_some_and(|begun| begun.is_good_for(order)) {
            let (link, addresses) = (LinkSpec::of(order), addresses(order));
            let guarded = link.clone();
            let guard = thread::spawn(move || lodge_network::guard(&guarded));
            let answer = thread::spawn(move || ask(&addresses));
            begun.insert(order.id, Begun { link, at: Instant::now(), guard, answer });
        }
    }

    /// Connect it, unless somebody has its addresses.
    pub(super) fn attach_link(&self, order: &Assignment) -> Result<()> {
        let Some(pid) = self.init_of(order.id).map(|init| init.pid) else { bail!("it has no namespaces yet") };
        let guarded = match lodge_network::look(order.id)? {
            Presence::No | Presence::Guarded => self.need_addresses(order)?,
            Presence::Partly | Presence::Whole => None,
        };
        connect(pid, order, guarded)
    }

    /// Nobody has its addresses, as was found a moment ago or is found now. The guard that was set meanwhile.
    pub(super) fn need_addresses(&self, order: &Assignment) -> Result<Option<Guarded>> {
        let begun = self.begun_link(order.id).filter(|begun| begun.is_good_for(order));
        let (guard, answer) = begun.map(|begun| (begun.guard.join(), begun.answer.join())).unzip();
        // Whoever answered then may be gone now.
        if !matches!(answer, Some(Ok(Ok(())))) {
            ask(&addresses(order))?;
        }
        Ok(guard.and_then(Result::ok).and_then(Result::ok))
    }

    /// A guard of which nothing has come is of no use.
    pub(super) fn forget_link(&self, id: EnvironmentId) -> Result<()> {
        // A guard that is still on its way would stay.
        drop(self.begun_link(id).map(|begun| begun.guard.join()));
        match lodge_network::look(id)? {
            Presence::No => Ok(()),
            _ => lodge_network::detach(id),
        }
    }

    fn begun_link(&self, id: EnvironmentId) -> Option<Begun> {
        self.links.lock().unwrap_or_else(PoisonError::into_inner).remove(&id)
    }
}

impl Begun {
    fn is_good_for(&self, order: &Assignment) -> bool {
        self.at.elapsed() < GOOD_FOR && self.link == LinkSpec::of(order)
    }
}

/// By any process in its network namespace.
pub(super) fn connect(pid: i32, order: &Assignment, guarded: Option<Guarded>) -> Result<()> {
    lodge_network::attach(pid.unsigned_abs(), &LinkSpec::of(order), guarded)
}

/// These addresses are nobody's.
fn ask(addresses: &[IpAddr]) -> Result<()> {
    let taken = lodge_network::probe(addresses).context("asking who has its addresses")?;
    if let Some(taken) = taken.first() {
        bail!("address {} is in use: {} answers for it", taken.address, taken.mac);
    }
    Ok(())
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
        let (link, now) = (LinkSpec::of(&order), Instant::now());
        let begun = |ago: Duration| {
            let (guard, answer) = (thread::spawn(|| bail!("none")), thread::spawn(|| Ok(())));
            Begun { link: link.clone(), at: now - ago, guard, answer }
        };
        assert!(begun(Duration::ZERO).is_good_for(&order));
        assert!(!begun(GOOD_FOR).is_good_for(&order));
        let mut other = order.clone();
        other.addresses[0].ip = [10, 0, 0, 6].into();
        assert!(!begun(Duration::ZERO).is_good_for(&other));
    }
}
