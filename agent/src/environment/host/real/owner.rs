//! The owner record: who may run an environment, as the share says.

use std::fs;

use anyhow::Context as _;
use lodge_model::environment::share::{self, Owner};
use lodge_model::ids::EnvironmentId;

use super::{Real, StepError};
use crate::durable;

impl Real {
    /// The record; `None` where there is none yet.
    pub(super) fn owner(&self, id: EnvironmentId) -> Result<Option<Owner>, StepError> {
        let path = self.layout.on_share(id).join(share::OWNER);
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(anyhow::Error::new(error).context(format!("reading {}", path.display())).into()),
        };
        serde_json::from_slice(&text)
            .map(Some)
            .map_err(|error| StepError::Refused(format!("the owner record {} cannot be understood: {error}", path.display())))
    }

    /// Whether this node may hold it with this epoch now; the record that was found.
    pub(super) fn may_hold(&self, id: EnvironmentId, epoch: u64) -> Result<Option<Owner>, StepError> {
        let found = self.owner(id)?;
        share::may_hold(found.as_ref(), &self.record(id, epoch)).map_err(StepError::Refused)?;
        Ok(found)
    }

    /// Say that this node holds it. The caller has the lock.
    pub(super) fn write_owner(&self, record: &Owner) -> anyhow::Result<()> {
        let text = serde_json::to_vec(record).context("encoding the owner record")?;
        durable::write(&self.layout.on_share(record.environment).join(share::OWNER), &text, 0o600)
    }

    /// The record of this node.
    pub(super) fn record(&self, environment: EnvironmentId, epoch: u64) -> Owner {
        Owner { environment, epoch, node: self.node, boot: self.boot, released: false }
    }
}
