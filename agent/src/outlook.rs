//! What this node sees of others, for the center: the last words of nodes that are away, and whether environments that have moved are
//! reached from here.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use lodge_model::api::Orders;
use lodge_model::farewell::{SignedWord, word_path};
use lodge_model::ids::NodeId;
use lodge_model::reach::{Reach, Reached};
use lodge_network::{Taken, probe_on};
use tokio::sync::watch;
use tokio::time::sleep;

use crate::uplink;

/// The share cannot say that a last word has come: it is looked for this often.
const LOOK_AGAIN: Duration = Duration::from_secs(2);
/// An environment that does not answer for so long is not reached. A switch learns its new port from the first frame.
const GIVE_UP: Duration = Duration::from_secs(10);
/// Pause after a try that could not be made.
const TRY_AGAIN: Duration = Duration::from_secs(1);

/// What is seen.
pub struct Outlook {
    /// Last words of nodes that are away.
    pub last_words: watch::Receiver<Vec<SignedWord>>,
    /// Which environments were reached.
    pub reached: watch::Receiver<Vec<Reached>>,
}

type Ordered = watch::Receiver<Option<Orders>>;

/// Look for as long as the agent lives, at what the orders ask for.
pub fn follow(orders: Ordered, share: &Path) -> (Outlook, impl Future<Output = Result<()>> + use<>) {
    let (words, last_words) = watch::channel(Vec::new());
    let (answers, reached) = watch::channel(Vec::new());
    let (reading, share) = (orders.clone(), share.to_owned());
    let look = async move {
        tokio::select! {
            ended = read_words(reading, share, words) => ended,
            ended = try_all(orders, answers) => ended,
        }
    };
    (Outlook { last_words, reached }, look)
}

async fn read_words(mut orders: Ordered, share: PathBuf, words: watch::Sender<Vec<SignedWord>>) -> Result<()> {
    loop {
        let absent = orders.borrow_and_update().as_ref().map(|orders| orders.absent.clone()).unwrap_or_default();
        let is_idle = absent.is_empty();
        let share = share.clone();
        let read = move || absent.iter().filter_map(|node| read_word(&share, *node)).collect::<Vec<_>>();
        let found = tokio::task::spawn_blocking(read).await.context("waiting for a thread")?;
        words.send_if_modified(|last| std::mem::replace(last, found.clone()) != found);
        tokio::select! {
            () = sleep(LOOK_AGAIN), if !is_idle => {}
            changed = orders.changed() => changed.context("waiting for orders")?,
        }
    }
}

/// None there is the usual thing; one that cannot be read is none.
fn read_word(share: &Path, node: NodeId) -> Option<SignedWord> {
    let path = share.join(word_path(node));
    let text = std::fs::read_to_string(&path).ok()?;
    serde_json::from_str(&text).inspect_err(|error| tracing::warn!("reading {}: {error}", path.display())).ok()
}

async fn try_all(mut orders: Ordered, answers: watch::Sender<Vec<Reached>>) -> Result<()> {
    let mut known: Vec<Reached> = Vec::new();
    loop {
        let asked = orders.borrow_and_update().as_ref().map(|orders| orders.reach.clone()).unwrap_or_default();
        let is_about = |done: &Reached, reach: &Reach| (done.id, done.epoch) == (reach.id, reach.epoch);
        known.retain(|done| asked.iter().any(|reach| is_about(done, reach)));
        answers.send_if_modified(|last| std::mem::replace(last, known.clone()) != known);
        match asked.iter().find(|reach| !known.iter().any(|done| is_about(done, reach))) {
            Some(reach) => known.push(try_one(reach).await),
            None => orders.changed().await.context("waiting for orders")?,
        }
    }
}

async fn try_one(reach: &Reach) -> Reached {
    let began = Instant::now();
    loop {
        let addresses = reach.addresses.clone();
        let asked = tokio::task::spawn_blocking(move || probe_on(&uplink::read()?.interface, &addresses)).await;
        let problem = match asked.context("waiting for a thread").flatten() {
            Ok(answers) => problem(reach, &answers),
            Err(error) => {
                sleep(TRY_AGAIN).await;
                format!("{error:#}")
            }
        };
        let waited = began.elapsed();
        if problem.is_empty() || waited >= GIVE_UP {
            let ms = u32::try_from(waited.as_millis()).unwrap_or(u32::MAX);
            return Reached { id: reach.id, epoch: reach.epoch, ms, problem };
        }
    }
}

/// What is wrong with these answers.
fn problem(reach: &Reach, answers: &[Taken]) -> String {
    let wrong = reach.addresses.iter().filter_map(|address| match answers.iter().find(|taken| taken.address == *address) {
        None => Some(format!("{address} does not answer")),
        Some(taken) if !taken.mac.eq_ignore_ascii_case(&reach.mac) => Some(format!("{} answers for {address}", taken.mac)),
        Some(_) => None,
    });
    wrong.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use lodge_model::drain::SignedCertificate;
    use lodge_model::ids::EnvironmentId;
    use uuid::Uuid;

    #[test]
    fn an_answer_counts_if_it_is_the_environments_own() {
        let one = "10.0.0.5".parse().unwrap();
        let other = "2001:db8::5".parse().unwrap();
        let id = EnvironmentId(Uuid::from_u128(1));
        let reach = Reach { id, epoch: 2, addresses: vec![one, other], mac: "02:00:00:00:00:0a".into() };
        let taken = |address, mac: &str| Taken { address, mac: mac.into() };
        assert_eq!(problem(&reach, &[taken(one, "02:00:00:00:00:0A"), taken(other, "02:00:00:00:00:0a")]), "");
        assert_eq!(
            problem(&reach, &[taken(one, "02:00:00:00:00:ff")]),
            "02:00:00:00:00:ff answers for 10.0.0.5, 2001:db8::5 does not answer"
        );
    }

    #[tokio::test]
    async fn a_last_word_is_found_when_it_comes() {
        let share = tempfile::tempdir().unwrap();
        let node = NodeId(Uuid::from_u128(3));
        let (_orders, ordered) = watch::channel(Some(Orders { absent: vec![node], ..Orders::none("n1") }));
        let (mut outlook, look) = follow(ordered, share.path());
        tokio::spawn(look);
        let signed = SignedCertificate { payload: "{}".into(), signature: "AA".into() };
        let word = SignedWord { signed, signer: "AA".into() };
        crate::durable::write(&share.path().join(word_path(node)), &serde_json::to_vec(&word).unwrap(), 0o644).unwrap();
        let found = tokio::time::timeout(Duration::from_secs(20), outlook.last_words.wait_for(|words| !words.is_empty()));
        assert_eq!(*found.await.unwrap().unwrap(), [word]);
    }
}
