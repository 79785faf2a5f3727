//! What the center remembers: records by kind and key, and an event log.
//!
//! Why this shape: every change is one transaction over whole records, read and written through `Tx` alone. That is what
//! SQLite gives under a lock and what etcd gives by comparing revisions before it commits, so several centers can follow
//! without touching a flow. A transaction's closure must therefore do nothing but read and write its `Tx`: a store that
//! compares may run it again. It assumes one process a data directory. It decides nothing.

mod events;
mod schema;

use std::cell::Cell;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context;
use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use uuid::Uuid;

use crate::fault::Fault;
pub use events::EventDraft;

/// Something with a kind and a key that the store keeps as a whole.
pub trait Record: Serialize + DeserializeOwned {
    /// Name of the kind, in the database.
    const KIND: &'static str;
    /// Its key among its kind.
    fn key(&self) -> String;
}

/// Draws an id that nobody has had.
pub type Ids = Arc<dyn Fn() -> Uuid + Send + Sync>;

/// The store. Clones share it.
#[derive(Clone)]
pub struct Store {
    connection: Arc<Mutex<Connection>>,
    ids: Ids,
    changes: watch::Sender<u64>,
    events: watch::Sender<u64>,
    plans: watch::Sender<u64>,
    views: watch::Sender<u64>,
}

/// One transaction: all of it happens or nothing.
pub struct Tx<'a> {
    inner: rusqlite::Transaction<'a>,
    ids: &'a Ids,
    signals: Cell<Signals>,
}

/// Who is to look again once a transaction is committed.
#[derive(Clone, Copy, Default)]
struct Signals {
    wakes: bool,
    logged: bool,
    plans: bool,
    shows: bool,
}

impl Store {
    /// Open or make the database of a center, and bring it to the newest schema.
    pub fn open(path: &Path) -> anyhow::Result<Self> {
        let connection = Connection::open(path).with_context(|| format!("opening the database {}", path.display()))?;
        // It holds passwords. Its log and index get the same rights from SQLite.
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))
            .with_context(|| format!("closing the database {}", path.display()))?;
        Self::prepare(connection).with_context(|| format!("preparing the database {}", path.display()))
    }

    /// A store that is gone with the process, for tests.
    #[cfg(test)]
    pub fn in_memory() -> Self {
        Self::in_memory_with(Arc::new(Uuid::new_v4)).unwrap()
    }

    /// A store that is gone with the process, for the simulator, whose ids are the same in each run.
    pub fn in_memory_with(ids: Ids) -> anyhow::Result<Self> {
        let connection = Connection::open_in_memory().context("opening a database in memory")?;
        Ok(Self { ids, ..Self::prepare(connection)? })
    }

    fn prepare(mut connection: Connection) -> anyhow::Result<Self> {
        connection.pragma_update(None, "journal_mode", "WAL").context("switching to a write-ahead log")?;
        // FULL: what a machine has been told (a ticket, a certificate) must outlive a power cut.
        connection.pragma_update(None, "synchronous", "FULL").context("setting synchronous writes")?;
        schema::migrate(&mut connection)?;
        let [changes, events, plans, views] = std::array::from_fn(|_| watch::channel(0).0);
        let ids: Ids = Arc::new(Uuid::new_v4);
        Ok(Self { connection: Arc::new(Mutex::new(connection)), ids, changes, events, plans, views })
    }

    /// Run one transaction on a thread where blocking is allowed.
    pub async fn transact<T, F>(&self, work: F) -> Result<T, Fault>
    where
        T: Send + 'static,
        F: Fn(&Tx) -> Result<T, Fault> + Send + 'static,
    {
        let store = self.clone();
        tokio::task::spawn_blocking(move || store.transact_blocking(work)).await.context("joining a database task")?
    }

    /// Run one transaction on this thread.
    pub fn transact_blocking<T>(&self, work: impl Fn(&Tx) -> Result<T, Fault>) -> Result<T, Fault> {
        let (done, signals) = self.commit(work)?;
        let told = [
            (signals.wakes, &self.changes),
            (signals.logged, &self.events),
            (signals.plans, &self.plans),
            (signals.shows, &self.views),
        ];
        for (_, sender) in told.into_iter().filter(|(is_set, _)| *is_set) {
            sender.send_modify(|count| *count += 1);
        }
        Ok(done)
    }

    fn commit<T>(&self, work: impl Fn(&Tx) -> Result<T, Fault>) -> Result<(T, Signals), Fault> {
        // A panic inside a transaction rolls it back when it unwinds, so the connection stays good.
        let mut connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        let inner = connection.transaction_with_behavior(TransactionBehavior::Immediate).context("beginning a transaction")?;
        let tx = Tx { inner, ids: &self.ids, signals: Cell::default() };
        let done = work(&tx)?;
        let signals = tx.signals.get();
        tx.inner.commit().context("committing a transaction")?;
        Ok((done, signals))
    }

    /// Counts commits after which a decision or an order may be another one.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Counts commits that added to the event log.
    pub fn events(&self) -> watch::Receiver<u64> {
        self.events.subscribe()
    }

    /// Counts commits after which environments may have to be placed or told otherwise.
    pub fn plans(&self) -> watch::Receiver<u64> {
        self.plans.subscribe()
    }

    /// Counts commits that changed what is shown of environments and templates.
    pub fn views(&self) -> watch::Receiver<u64> {
        self.views.subscribe()
    }
}

impl Tx<'_> {
    /// The record of that key.
    pub fn get<T: Record>(&self, key: &impl ToString) -> Result<Option<T>, Fault> {
        let key = key.to_string();
        let text: Option<String> = self
            .inner
            .prepare_cached("SELECT value FROM records WHERE kind = ?1 AND key = ?2")
            .and_then(|mut query| query.query_row(params![T::KIND, key], |row| row.get(0)).optional())
            .with_context(|| format!("reading {} {key}", T::KIND))?;
        text.map(|text| parse(&key, &text)).transpose()
    }

    /// All records of a kind, by key.
    pub fn list<T: Record>(&self) -> Result<Vec<T>, Fault> {
        let mut query = self.inner.prepare_cached("SELECT key, value FROM records WHERE kind = ?1 ORDER BY key")?;
        let mut rows = query.query(params![T::KIND])?;
        let mut records = Vec::new();
        while let Some(row) = rows.next()? {
            let (key, text): (String, String) = (row.get(0)?, row.get(1)?);
            records.push(parse(&key, &text)?);
        }
        Ok(records)
    }

    /// Write a record whole.
    pub fn put<T: Record>(&self, record: &T) -> Result<(), Fault> {
        let value = serde_json::to_string(record).with_context(|| format!("encoding a {}", T::KIND))?;
        self.inner
            .prepare_cached(
                "INSERT INTO records (kind, key, value) VALUES (?1, ?2, ?3)
                 ON CONFLICT (kind, key) DO UPDATE SET value = excluded.value",
            )?
            .execute(params![T::KIND, record.key(), value])
            .with_context(|| format!("writing {} {}", T::KIND, record.key()))?;
        Ok(())
    }

    /// Remove a record, if it is there.
    pub fn delete<T: Record>(&self, key: &impl ToString) -> Result<(), Fault> {
        self.inner
            .prepare_cached("DELETE FROM records WHERE kind = ?1 AND key = ?2")?
            .execute(params![T::KIND, key.to_string()])
            .with_context(|| format!("removing {} {}", T::KIND, key.to_string()))?;
        Ok(())
    }

    /// An id that nobody has had.
    pub fn new_id(&self) -> Uuid {
        (self.ids)()
    }

    /// Whoever waits for a decision or for orders looks again once this is committed.
    pub fn wake(&self) {
        self.signal(|signals| signals.wakes = true);
    }

    /// Environments are looked at as a whole once this is committed.
    pub fn replan(&self) {
        self.signal(|signals| signals.plans = true);
    }

    /// Whether environments are to be looked at as a whole. Whoever asks does it, in this transaction.
    pub fn takes_plan(&self) -> bool {
        let asked = self.signals.get().plans;
        self.signal(|signals| signals.plans = false);
        asked
    }

    /// Whoever waits for another view of an environment or a template looks again once this is committed.
    pub fn show(&self) {
        self.signal(|signals| signals.shows = true);
    }

    fn signal(&self, set: impl Fn(&mut Signals)) {
        let mut signals = self.signals.get();
        set(&mut signals);
        self.signals.set(signals);
    }
}

fn parse<T: Record>(key: &str, text: &str) -> Result<T, Fault> {
    Ok(serde_json::from_str(text).with_context(|| format!("reading {} {key} from the database", T::KIND))?)
}

#[cfg(test)]
mod tests;
