//! `lodge env repair`.

use anyhow::{Context as _, Result, anyhow};
use lodge_client::Center;
use lodge_model::environment::view::{RepairEnd, RepairOrder};

use super::environment::{finish, keys};
use crate::arguments::repair::{Repair, addresses};
use crate::out::Out;
use crate::view;
use crate::wait::Goal;

/// Begin a repair, or end it.
pub async fn repair(center: &Center, asked: &Repair, out: &Out) -> Result<()> {
    match asked.finish {
        true => end(center, asked, out).await,
        false => begin(center, asked, out).await,
    }
}

async fn begin(center: &Center, asked: &Repair, out: &Out) -> Result<()> {
    let name = &asked.name;
    let order = RepairOrder {
        template: asked.template.clone(),
        node: asked.node.clone(),
        addresses: addresses(&asked.address).map_err(|why| anyhow!(why))?,
        ssh_keys: keys(&asked.ssh_key)?,
        snapshot: !asked.no_snapshot,
    };
    if asked.confirm.dry_run {
        let now = center.environment(name).await.with_context(|| format!("looking at {name}"))?;
        let kept = if order.snapshot { "kept as a snapshot and " } else { "" };
        let what = format!(
            "{name} would be stopped, its disk {kept}opened at /repair of a clean system. Now: {}",
            view::environment_line(&now)
        );
        return out.confirm(asked.confirm, &what, false).map(drop);
    }
    center.repair(name, &order).await.with_context(|| format!("beginning the repair of {name}"))?;
    finish(center, name, asked.wait, Goal::Repair, "is being stopped, kept as a snapshot and opened for repair", out).await
}

async fn end(center: &Center, asked: &Repair, out: &Out) -> Result<()> {
    let name = &asked.name;
    let now = center.environment(name).await.with_context(|| format!("looking at {name}"))?;
    let snapshot = now.repair.as_ref().and_then(|repair| repair.snapshot.as_deref()).unwrap_or("of before");
    let what = match asked.rollback {
        true => format!("{name} is put back to snapshot {snapshot}: what was written since, in the repair too, is lost"),
        false => format!("the repair of {name} ends, and {name} is started with its disk as it is now"),
    };
    if !out.confirm(asked.confirm, &what, asked.rollback)? {
        return Ok(());
    }
    let end = RepairEnd { rollback: asked.rollback };
    center.finish_repair(name, end).await.with_context(|| format!("ending the repair of {name}"))?;
    finish(center, name, asked.wait, Goal::Repaired, "gets its disk back, and is started", out).await
}
