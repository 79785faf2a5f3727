//! How the machine of a new center becomes its first node: the center leaves a one-shot token for this machine in `join.json`, the
//! agent enrols with it over TLS like every other machine.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use lodge_client::{Auth, Center, new_key_and_csr};
use lodge_model::api::{EnrolRequest, LocalJoin};
use lodge_model::node::{CenterRef, NodeFile};
use lodge_model::timing;

use crate::backoff::Backoff;
use crate::identity::{self, Files, Identity};
use crate::watch::FileWatch;

/// Wait for the token and enrol, however long it takes.
pub async fn enrol(files: &Files, file: &NodeFile, join: &Path, address: &str) -> Result<Identity> {
    let mut watch = FileWatch::new(join)?;
    let mut backoff = Backoff::up_to(timing::RETRY_MAX);
    loop {
        match try_enrol(files, file, join, address).await {
            Ok(Some(identity)) => return Ok(identity),
            Ok(None) => {
                tracing::info!("waiting for the center on this machine to write {}", join.display());
                watch.changed().await?;
                backoff.reset();
            }
            Err(error) => {
                tracing::warn!("enrolling with the center on this machine: {error:#}; trying again");
                wait(&mut watch, backoff.pause()).await?;
            }
        }
    }
}

/// A new token is tried at once; the same one again after a pause, since the center may still be starting.
async fn wait(watch: &mut FileWatch, pause: Duration) -> Result<()> {
    tokio::time::timeout(pause, watch.changed()).await.unwrap_or(Ok(()))
}

async fn try_enrol(files: &Files, file: &NodeFile, join: &Path, address: &str) -> Result<Option<Identity>> {
    let text = match fs::read_to_string(join) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("reading {}", join.display())),
    };
    let join: LocalJoin = serde_json::from_str(&text).with_context(|| format!("reading {}", join.display()))?;
    let center = Center::new(&join.url, &join.ca, Auth::Token(join.token))?;
    let (key, csr) = new_key_and_csr()?;
    let request = EnrolRequest {
        ticket: None,
        name: Some(file.name.clone()),
        roles: file.roles.clone(),
        csr: csr.0,
        address: address.to_owned(),
    };
    let reply = center.enrol(file.machine, &request).await?;
    identity::store(files, file, &key, &reply, CenterRef { url: join.url, ca: join.ca }).map(Some)
}
