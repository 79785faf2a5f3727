//! The link of an environment. Who has its addresses is asked while its disk, root and container are made: the answers have to be waited
//! for, and nothing of that needs them.

use std::net::IpAddr;
use std::sync::PoisonError;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use lodge_model::environment::order::Assignment;
use lodge_network::{LinkSpec, Presence};

use super::Real;

/// That nobody has them is good for this long after it was asked.
const GOOD_FOR: Duration = Duration::from_secs(5);

/// A question, and when it was asked first.
#[derive(Debug)]
pub(super) struct Question {
    addresses: Vec<IpAddr>,
    at: Instant,
    answer: JoinHandle<Result<()>>,
}

impl Real {
    /// Ask who has its addresses, unless that was done a moment ago.
    pub(super) fn ask_early(&self, order: &Assignment) {
        let mut questions = self.questions.lock().unwrap_or_else(PoisonError::into_inner);
        if !questions.get(&order.id).is_some_and(|question| question.is_good_for(order)) {
            let addresses = addresses(order);
            let asked = addresses.clone();
            let answer = std::thread::spawn(move || ask(&asked));
            questions.insert(order.id, Question { addresses, at: Instant::now(), answer });
        }
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
        let question = self.questions.lock().unwrap_or_else(PoisonError::into_inner).remove(&order.id);
        // Whoever answered then may be gone now.
        match question.filter(|question| question.is_good_for(order)).map(|question| question.answer.join()) {
            Some(Ok(Ok(()))) => Ok(()),
            _ => ask(&addresses(order)),
        }
    }
}

impl Question {
    fn is_good_for(&self, order: &Assignment) -> bool {
        self.at.elapsed() < GOOD_FOR && self.addresses == addresses(order)
    }
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
        let (asked, now) = (addresses(&order), Instant::now());
        let question = |ago: Duration| {
            let answer = std::thread::spawn(|| Ok(()));
            Question { addresses: asked.clone(), at: now - ago, answer }
        };
        assert!(question(Duration::ZERO).is_good_for(&order));
        assert!(!question(GOOD_FOR).is_good_for(&order));
        let mut other = order.clone();
        other.addresses[0].ip = [10, 0, 0, 6].into();
        assert!(!question(Duration::ZERO).is_good_for(&other));
    }
}
