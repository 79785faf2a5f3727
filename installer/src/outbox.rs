//! Events on their way to the center, by a thread of their own: an installation never waits for a report. What cannot be sent is
//! kept, within a bound, and sent when the center is back.

use std::{
    collections::VecDeque,
    sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel, sync_channel},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use lodge_client::{Center, Error};
use lodge_model::{api::MachineEvent, ids::MachineId};
use tokio::runtime::Handle;

/// At most this much is kept for a center that is away; the oldest goes first.
const KEPT: usize = 2000;
/// Pauses between tries to reach a center that cannot tell us when it is back.
const PAUSE_MIN: Duration = Duration::from_millis(500);
const PAUSE_MAX: Duration = Duration::from_secs(10);

/// What is sent.
#[derive(Clone, Debug)]
pub enum Item {
    /// An event.
    Event(MachineEvent),
    /// A line that was on the consoles.
    Console(String),
}

enum Order {
    Send(Item),
    /// Answer when all before has been sent or given up.
    Flush(SyncSender<()>),
}

/// A center that is being told.
#[derive(Debug)]
pub struct Outbox {
    orders: Sender<Order>,
}

impl Outbox {
    /// Start telling this center of this machine. The runtime is the one that the center's other calls are made in, because calls
    /// share connections and a connection is driven by the runtime that opened it; so it must have workers of its own.
    pub fn start(center: Center, machine: MachineId, runtime: Handle) -> Result<Self> {
        let (orders, receiver) = channel();
        let work = move || {
            let send = |batch: &[Item]| runtime.block_on(send(&center, machine, batch));
            run(&receiver, &send);
        };
        thread::Builder::new().name("outbox".to_owned()).spawn(work).context("starting the outbox")?;
        Ok(Self { orders })
    }

    /// Queue; never waits.
    pub fn put(&self, item: Item) {
        // The thread ends only with this sender.
        let _ = self.orders.send(Order::Send(item));
    }

    /// Wait until all is sent, at most this long.
    pub fn flush(&self, limit: Duration) {
        let (done, wait) = sync_channel(1);
        if self.orders.send(Order::Flush(done)).is_ok() {
            let _ = wait.recv_timeout(limit);
        }
    }
}

/// Take orders until the sender is gone; batches what has come meanwhile.
fn run(orders: &Receiver<Order>, send: &dyn Fn(&[Item]) -> Result<(), Error>) {
    let mut queue = VecDeque::new();
    let mut flushes: Vec<SyncSender<()>> = Vec::new();
    let mut pause = PAUSE_MIN;
    let mut next_try = Instant::now();
    loop {
        let wait =
            if queue.is_empty() { Duration::from_secs(3600) } else { next_try.saturating_duration_since(Instant::now()) };
        match orders.recv_timeout(wait) {
            Ok(Order::Send(item)) => keep(&mut queue, item),
            Ok(Order::Flush(done)) => flushes.push(done),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        while let Ok(order) = orders.try_recv() {
            match order {
                Order::Send(item) => keep(&mut queue, item),
                Order::Flush(done) => flushes.push(done),
            }
        }
        if !queue.is_empty() && Instant::now() >= next_try {
            match send(queue.make_contiguous()) {
                // A center that refuses will refuse again.
                Ok(()) | Err(Error::Refused { .. }) => {
                    queue.clear();
                    pause = PAUSE_MIN;
                }
                Err(_) => {
                    next_try = Instant::now() + pause;
                    pause = (pause * 2).min(PAUSE_MAX);
                }
            }
        }
        if queue.is_empty() {
            for done in flushes.drain(..) {
                // Whoever waited may have lost patience.
                let _ = done.send(());
            }
        }
    }
}

/// A step's newer progress replaces its older; what is too much goes.
fn keep(queue: &mut VecDeque<Item>, item: Item) {
    if let (Item::Event(MachineEvent::Step { step: new, .. }), Some(Item::Event(MachineEvent::Step { step: old, .. }))) =
        (&item, queue.back())
        && new == old
    {
        queue.pop_back();
    }
    queue.push_back(item);
    if queue.len() > KEPT {
        queue.pop_front();
    }
}

async fn send(center: &Center, machine: MachineId, batch: &[Item]) -> Result<(), Error> {
    let event = |item: &Item| if let Item::Event(event) = item { Some(event.clone()) } else { None };
    let events: Vec<MachineEvent> = batch.iter().filter_map(event).collect();
    if !events.is_empty() {
        center.machine_events(machine, &events).await?;
    }
    let line = |item: &Item| if let Item::Console(line) = item { Some(format!("{line}\n")) } else { None };
    let text: String = batch.iter().filter_map(line).collect();
    if !text.is_empty() {
        center.machine_console(machine, &text).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{cell::RefCell, sync::Mutex};

    fn step(name: &str, percent: u8) -> Item {
        Item::Event(MachineEvent::Step { step: name.into(), percent, done: 0, total: 0, left: None })
    }

    #[test]
    fn only_the_newest_progress_of_a_step_is_kept() {
        let mut queue = VecDeque::new();
        [step("a", 1), step("a", 2), step("b", 0), step("b", 9)].into_iter().for_each(|item| keep(&mut queue, item));
        assert_eq!(format!("{queue:?}"), format!("{:?}", [step("a", 2), step("b", 9)]));
        (0..KEPT * 2).for_each(|_| keep(&mut queue, Item::Console("x".into())));
        assert_eq!(queue.len(), KEPT);
    }

    #[test]
    fn what_could_not_be_sent_is_sent_later_and_in_order() {
        let (orders, receiver) = channel();
        let sent = std::sync::Arc::new(Mutex::new(Vec::new()));
        let seen = std::sync::Arc::clone(&sent);
        let thread = thread::spawn(move || {
            let failures = RefCell::new(2);
            let send = |batch: &[Item]| {
                if *failures.borrow() > 0 {
                    *failures.borrow_mut() -= 1;
                    return Err(Error::Unreachable { url: "https://x".into(), why: "away".into() });
                }
                seen.lock().unwrap().extend(batch.iter().map(|item| format!("{item:?}")));
                Ok(())
            };
            run(&receiver, &send);
        });
        let outbox = Outbox { orders };
        ["one", "two", "three"].iter().for_each(|line| outbox.put(Item::Console((*line).into())));
        outbox.flush(Duration::from_secs(20));
        assert_eq!(*sent.lock().unwrap(), ["Console(\"one\")", "Console(\"two\")", "Console(\"three\")"]);
        drop(outbox);
        thread.join().unwrap();
    }
}
