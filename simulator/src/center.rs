//! The center: its real flows over its real store, and its three loops (holding heartbeats, planning, looking around) as
//! `center/src/center.rs` has them, on a clock that is moved by hand. Killed at any moment, it starts again from its store.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Result;
use lodge_center::ca::Ca;
use lodge_center::environments::drain::leaving;
use lodge_center::environments::reconcile;
use lodge_center::failover::look::{begin, look};
use lodge_center::fault::Fault;
use lodge_center::flow::{World, node};
use lodge_center::live::Live;
use lodge_center::store::{Record, Store, Tx};
use lodge_model::api::{Heartbeat, Orders, Register};
use lodge_model::drain::{CertificateReply, Leaving, LeavingReply, SignedCertificate};
use lodge_model::ids::{BootId, NodeId};
use lodge_model::timing::{HEARTBEAT, SILENT_AFTER};
use uuid::Uuid;

use crate::clock::{Millis, length, millis, timestamp};

/// As `center.rs` of the center has it.
const PLAN_PERIOD: Millis = 10_000;
/// The same.
const GUARD_PERIOD: Millis = 1000;

/// What an agent asks.
#[derive(Clone, Debug)]
pub enum Request {
    /// `POST /node/register`.
    Register(Box<Register>),
    /// `POST /node/heartbeat`.
    Heartbeat(Box<Heartbeat>),
    /// `POST /node/leaving`.
    Leaving(Leaving),
    /// `POST /node/certificate`.
    Certificate(SignedCertificate),
    /// `POST /node/off`.
    Off(String),
}

/// What it is answered.
#[derive(Clone, Debug)]
pub enum Reply {
    /// Its orders.
    Orders(Box<Orders>),
    /// How long it has.
    Leaving(LeavingReply),
    /// Whether the certificate is issued.
    Certificate(CertificateReply),
    /// It was taken in.
    Done,
    /// It was not.
    Refused,
    /// Nobody listens, or whoever did has ended.
    Cut,
}

/// A heartbeat whose answer is held.
pub struct Poll {
    /// Whose.
    pub node: NodeId,
    /// Which.
    pub exchange: u64,
    /// Of this boot.
    pub boot: BootId,
    /// Until when.
    pub until: Millis,
}

/// The center.
pub struct Center {
    store: Store,
    world: World,
    /// It is up.
    pub is_up: bool,
    since: Millis,
    /// Heartbeats that are held.
    pub polls: Vec<Poll>,
    /// When it plans next.
    pub plan_at: Millis,
    /// When it looks around next.
    pub look_at: Millis,
    /// When it looks after silent nodes next.
    pub guard_at: Millis,
    changes: u64,
    plans: u64,
    /// The events that have been read.
    told: i64,
    /// The signer of this run's certificates, DER.
    der: Vec<u8>,
    /// Something that must not happen inside.
    pub failure: Option<String>,
}

impl Center {
    /// A new one, with an empty store.
    pub fn new(ca: &Path, der: Vec<u8>) -> Result<Self> {
        let drawn = AtomicU64::new(0);
        let ids =
            Arc::new(move || Uuid::from_u128(0x4000_0000_0000_0000_0000 + u128::from(drawn.fetch_add(1, Ordering::Relaxed))));
        let store = Store::in_memory_with(ids)?;
        let mut center = Self {
            store,
            world: world(ca)?,
            is_up: true,
            since: 0,
            polls: Vec::new(),
            plan_at: 0,
            look_at: 0,
            guard_at: 0,
            changes: 0,
            plans: 0,
            told: 0,
            der,
            failure: None,
        };
        center.start(0, ca)?;
        Ok(center)
    }

    /// Start, with nothing but the store.
    pub fn start(&mut self, now: Millis, ca: &Path) -> Result<()> {
        let _ = self.transact(|tx, _| begin(tx, timestamp(now)));
        self.world = world(ca)?;
        (self.is_up, self.since) = (true, now);
        (self.plan_at, self.look_at, self.guard_at) = (now, now + length(SILENT_AFTER), now);
        self.polls.clear();
        Ok(())
    }

    /// The process is killed. What it held is cut.
    pub fn kill(&mut self) -> Vec<Poll> {
        self.is_up = false;
        std::mem::take(&mut self.polls)
    }

    /// One transaction.
    pub fn transact<T>(&mut self, work: impl Fn(&Tx, &World) -> Result<T, Fault>) -> Result<T, String> {
        match self.store.transact_blocking(|tx| work(tx, &self.world)) {
            Ok(done) => Ok(done),
            Err(Fault::Refused(_, why)) => Err(why),
            Err(Fault::Internal(error)) => {
                let text = format!("the center failed inside: {error:#}");
                self.failure.get_or_insert(text.clone());
                Err(text)
            }
        }
    }

    /// All records of a kind.
    pub fn all<T: Record>(&self) -> Vec<T> {
        self.store.transact_blocking(|tx| tx.list::<T>()).unwrap_or_default()
    }

    /// Take a request in. No answer: it is held.
    pub fn take(&mut self, id: NodeId, exchange: u64, request: &Request, now: Millis) -> Option<Reply> {
        let at = timestamp(now);
        let reply = match request {
            Request::Register(said) => {
                self.transact(|tx, world| node::register(tx, world, id, said, at)).map(|orders| Reply::Orders(Box::new(orders)))
            }
            Request::Heartbeat(said) => {
                let orders = self.transact(|tx, world| node::beat(tx, world, id, said, at));
                return match orders {
                    Err(_) => Some(Reply::Refused),
                    Ok(orders) if orders.register_again || self.world.live.is_news(id, said.boot, orders.generation) => {
                        Some(Reply::Orders(Box::new(orders)))
                    }
                    Ok(_) => {
                        self.polls.push(Poll { node: id, exchange, boot: said.boot, until: now + length(HEARTBEAT) });
                        None
                    }
                };
            }
            Request::Leaving(said) => self.transact(|tx, world| leaving::leaving(tx, world, id, said, at)).map(Reply::Leaving),
            Request::Certificate(signed) => {
                let der = self.der.clone();
                self.transact(|tx, world| leaving::certify(tx, world, id, &der, signed, at)).map(Reply::Certificate)
            }
            Request::Off(reason) => self.transact(|tx, world| node::off(tx, world, id, reason, at)).map(|()| Reply::Done),
        };
        Some(reply.unwrap_or(Reply::Refused))
    }

    /// Plan.
    pub fn plan(&mut self, now: Millis) {
        let listens = now >= self.since + length(SILENT_AFTER);
        let next = self.transact(|tx, world| reconcile::run(tx, world, listens, timestamp(now)));
        let next = next.ok().flatten().map(millis).filter(|next| *next > now);
        self.plan_at = next.map_or(now + PLAN_PERIOD, |next| next.min(now + PLAN_PERIOD));
    }

    /// Look around.
    pub fn look(&mut self, now: Millis) {
        let _ = self.transact(|tx, world| node::look_around(tx, world, timestamp(now)));
        self.look_at = now + length(HEARTBEAT);
    }

    /// Look after silent nodes.
    pub fn guard(&mut self, now: Millis) {
        let up_for = Duration::from_millis(now - self.since);
        let _ = self.transact(|tx, world| look(tx, world, up_for, timestamp(now)));
        self.guard_at = now + GUARD_PERIOD;
    }

    /// What follows from what was committed since the last time: it plans soon, and whoever has news is answered.
    pub fn follow(&mut self, now: Millis) -> Vec<(Poll, Orders)> {
        let (changes, plans) = (*self.store.changes().borrow(), *self.store.plans().borrow());
        if self.plans != plans {
            self.plans = plans;
            self.plan_at = self.plan_at.min(now + 1);
        }
        let is_news = std::mem::replace(&mut self.changes, changes) != changes;
        let mut answers = Vec::new();
        let mut kept = Vec::new();
        for poll in std::mem::take(&mut self.polls) {
            if !is_news && now < poll.until {
                kept.push(poll);
                continue;
            }
            let Ok(orders) = self.transact(|tx, _| node::orders(tx, poll.node)) else { continue };
            if now >= poll.until || self.world.live.is_news(poll.node, poll.boot, orders.generation) {
                answers.push((poll, orders));
            } else {
                kept.push(poll);
            }
        }
        self.polls = kept;
        answers
    }

    /// What the event log says, as far as it has not been read.
    pub fn news(&mut self) -> Vec<(Millis, String)> {
        let told = self.told;
        let events = self.transact(|tx, _| tx.events_after(told, None)).unwrap_or_default();
        self.told = events.last().map_or(told, |event| event.id);
        events.into_iter().map(|event| (millis(event.at), event.text)).collect()
    }
}

fn world(ca: &Path) -> Result<World> {
    Ok(World { ca: Ca::open(ca)?, url: "https://10.0.0.1:8443".to_owned(), live: Live::default() })
}
