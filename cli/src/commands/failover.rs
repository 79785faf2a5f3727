//! `lodge incident …`, `lodge cluster disarm`, `arm` and `capacity`.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use lodge_client::{Center, Error};
use lodge_model::incident::{ArmOrder, FailoverView};

use crate::arguments::failover::{Arm, Disarm, Incident};
use crate::out::{Out, print};
use crate::view::{self, Setting};

/// Pause before a center that cannot be reached is asked again; it has no way to call us.
const RETRY: Duration = Duration::from_secs(2);

/// `lodge incident …`.
pub async fn incident(center: &Center, command: Incident, out: &Out) -> Result<()> {
    match command {
        Incident::Ls => {
            let incidents = center.incidents().await.context("listing incidents")?;
            let state = center.failover().await.context("asking whether anything is taken over")?;
            out.show(&incidents, |setting| view::incidents(&incidents, &state, setting))
        }
        Incident::Show { id, follow: false } => {
            let incident = center.incident(id).await.with_context(|| format!("showing incident {id}"))?;
            out.show(&incident, |setting| view::incident_page(&incident, setting))
        }
        Incident::Show { id, follow: true } => follow(center, id, out).await,
    }
}

/// The whole of it each time for programs; for people only what is new.
async fn follow(center: &Center, id: u64, out: &Out) -> Result<()> {
    let mut incident = center.incident(id).await.with_context(|| format!("showing incident {id}"))?;
    let mut told = 0;
    loop {
        match out.json {
            true => print(&format!("{}\n", serde_json::to_string(&incident).context("encoding an incident")?))?,
            false => print(&view::timeline(&incident, told, &Setting::here()))?,
        }
        told = incident.timeline.len();
        if incident.closed.is_some() {
            return Ok(());
        }
        let before = incident.version;
        while incident.version == before {
            incident = match center.incident_after(id, before).await {
                Ok(incident) => incident,
                Err(Error::Unreachable { url, why }) => {
                    eprintln!("lodge: the center at {url} cannot be reached: {why}; trying again");
                    tokio::time::sleep(RETRY).await;
                    continue;
                }
                Err(error) => return Err(error).with_context(|| format!("following incident {id}")),
            };
        }
    }
}

/// `lodge cluster disarm`.
pub async fn disarm(center: &Center, asked: &Disarm, out: &Out) -> Result<()> {
    let order = ArmOrder { reason: asked.reason.clone() };
    show(&center.disarm(&order).await.context("disarming takeovers")?, out)
}

/// `lodge cluster arm`.
pub async fn arm(center: &Center, asked: &Arm, out: &Out) -> Result<()> {
    let order = ArmOrder { reason: asked.reason.clone() };
    show(&center.arm(&order).await.context("arming takeovers")?, out)
}

fn show(state: &FailoverView, out: &Out) -> Result<()> {
    out.show(state, |setting| view::failover(state, setting))
}

/// `lodge cluster capacity`: fails where the proof does, so that a script can ask it.
pub async fn capacity(center: &Center, out: &Out) -> Result<()> {
    let capacity = center.capacity().await.context("asking what the death of a node would mean")?;
    out.show(&capacity, |setting| view::capacity(&capacity, setting))?;
    if !capacity.holds {
        bail!("the cluster cannot bear the death of any one node");
    }
    Ok(())
}
