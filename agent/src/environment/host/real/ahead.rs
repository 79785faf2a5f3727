//! Work for environments that is begun before it is needed, each on a thread of its own. Most of it is waiting. What was begun is forgotten
//! with the agent: whoever needs it then does it himself.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use anyhow::{Result, anyhow};
use lodge_model::ids::EnvironmentId;

/// What goes on, one for each environment at most.
#[derive(Debug)]
pub(super) struct Ahead<T>(Mutex<BTreeMap<EnvironmentId, JoinHandle<Result<T>>>>);

impl<T> Default for Ahead<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T: Send + 'static> Ahead<T> {
    /// Begin it. What was begun before is waited for, and of no use.
    pub(super) fn begin(&self, id: EnvironmentId, work: impl FnOnce() -> Result<T> + Send + 'static) {
        self.end(id);
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(id, thread::spawn(work));
    }

    /// Nothing of it goes on any more. What has come of it; `None` where nothing was begun.
    pub(super) fn end(&self, id: EnvironmentId) -> Option<Result<T>> {
        let begun = self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&id)?;
        Some(begun.join().unwrap_or_else(|_| Err(anyhow!("a thread that worked ahead panicked"))))
    }
}
