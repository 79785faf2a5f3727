//! `lodge incident …`, `lodge node bmc …`, `lodge cluster disarm`, `arm` and `capacity`.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use lodge_client::{Center, Error};
use lodge_model::bmc::{BmcOrder, Secret, Trust};
use lodge_model::incident::{ArmOrder, FailoverView};

use crate::arguments::failover::{Arm, Bmc, Disarm, Incident, SetBmc};
use crate::out::{Out, print, read_secret};
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

/// `lodge cluster fencing`.
pub async fn fencing(center: &Center, out: &Out) -> Result<()> {
    let fencing = center.fencing().await.context("asking by which ways nodes could be fenced")?;
    out.show(&fencing, |setting| view::fencing(&fencing, setting))
}

/// `lodge node bmc …`.
pub async fn bmc(center: &Center, command: Bmc, out: &Out) -> Result<()> {
    match command {
        Bmc::Set(asked) => set_bmc(center, asked, out).await,
        Bmc::Show { node } => {
            let bmc = center.bmc(&node).await.with_context(|| format!("showing the BMC of {node}"))?;
            out.show(&bmc, |setting| view::bmc(&bmc, setting))
        }
        Bmc::Test { node } => {
            let test = center.test_bmc(&node).await.with_context(|| format!("asking the BMC of {node}"))?;
            out.show(&test, |_| view::bmc_test(&test))
        }
        Bmc::Rm { node, confirm } => {
            let bmc = center.bmc(&node).await.with_context(|| format!("looking for the BMC of {node}"))?;
            let what =
                format!("the BMC of {node} at {} is forgotten: a hung {node} is not switched off by it any more", bmc.url);
            if !out.confirm(confirm, &what, true)? {
                return Ok(());
            }
            center.remove_bmc(&node).await.with_context(|| format!("forgetting the BMC of {node}"))?;
            out.done(&format!("the BMC of {node} is forgotten"))
        }
    }
}

async fn set_bmc(center: &Center, asked: SetBmc, out: &Out) -> Result<()> {
    let SetBmc { node, url, user, password_file, system, fingerprint, ca, stays_off, force } = asked;
    let password = match password_file.as_deref().filter(|file| *file != Path::new("-")) {
        Some(file) => read(file)?.lines().next().unwrap_or_default().to_owned(),
        None => read_secret(&format!("password of {user} at {url}: "))?,
    };
    let trust = match (fingerprint, ca) {
        (Some(fingerprint), _) => Some(Trust::Fingerprint(fingerprint)),
        (None, Some(file)) => Some(Trust::Ca(read(&file)?)),
        (None, None) => None,
    };
    let order = BmcOrder { url, user, password: Secret(password), system, trust, stays_off, force };
    let bmc = center.set_bmc(&node, &order).await.with_context(|| format!("setting the BMC of {node}"))?;
    out.show(&bmc, |setting| view::bmc(&bmc, setting))
}

fn read(file: &Path) -> Result<String> {
    std::fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))
}
