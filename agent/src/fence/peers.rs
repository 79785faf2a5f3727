//! Who of the neighbours that the center asks after answers at its address (ARP, neighbour discovery). It tells people what was seen; no
//! decision rests on it alone.

use std::net::IpAddr;

use anyhow::{Context as _, Result};
use lodge_model::api::Orders;
use lodge_model::fence::{Peer, PeerWord};
use lodge_model::timing;
use lodge_network::{Taken, probe_on};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use crate::uplink;

/// Ask for as long as the agent lives, and only while there is somebody to ask after.
pub async fn follow(mut orders: watch::Receiver<Option<Orders>>, words: watch::Sender<Vec<PeerWord>>) -> Result<()> {
    let mut complaint = String::new();
    loop {
        let peers = orders.borrow_and_update().as_ref().map(|orders| orders.fence.ask_about.clone()).unwrap_or_default();
        if peers.is_empty() {
            words.send_if_modified(|last| !std::mem::take(last).is_empty());
            orders.changed().await.context("waiting for orders")?;
            continue;
        }
        let began = Instant::now();
        let asked: Vec<IpAddr> = peers.iter().map(|peer| peer.address).collect();
        match tokio::task::spawn_blocking(move || ask(&asked)).await.context("waiting for a thread")? {
            Ok(found) => {
                let found: Vec<IpAddr> = found.iter().map(|taken| taken.address).collect();
                let said: Vec<PeerWord> = peers.iter().map(|peer| word(peer, &found)).collect();
                words.send_if_modified(|last| std::mem::replace(last, said.clone()) != said);
            }
            Err(error) => {
                let text = format!("asking after neighbours: {error:#}");
                if text != complaint {
                    tracing::warn!("{text}");
                    complaint = text;
                }
            }
        }
        tokio::select! {
            () = sleep_until(began + timing::MARK) => {}
            changed = orders.changed() => changed.context("waiting for orders")?,
        }
    }
}

fn ask(addresses: &[IpAddr]) -> Result<Vec<Taken>> {
    probe_on(&uplink::read()?.interface, addresses)
}

fn word(peer: &Peer, found: &[IpAddr]) -> PeerWord {
    PeerWord { node: peer.node, answers: found.contains(&peer.address) }
}
