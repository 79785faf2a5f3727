//! `lodge env repair`.

use anyhow::{Context as _, Result, anyhow};
use lodge_client::Center;
use lodge_model::environment::order::Verdict;
use lodge_model::environment::view::{CheckOrder, ReinstallOrder, RepairEnd, RepairOrder};

use super::environment::{finish, keys};
use crate::arguments::repair::{Fsck, Reinstall, Repair, addresses};
use crate::failure::{DAMAGED, OK};
use crate::out::Out;
use crate::view;
use crate::wait::{self, Goal};

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
    center.repair(name, &order, asked.force).await.with_context(|| format!("beginning the repair of {name}"))?;
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

/// Check a disk, or mend it; the exit status.
pub async fn fsck(center: &Center, asked: &Fsck, out: &Out) -> Result<u8> {
    let name = &asked.name;
    let ordered = center
        .check_disk(name, CheckOrder { mend: asked.yes })
        .await
        .with_context(|| format!("checking the disk of {name}"))?;
    wait::until(center, name, Goal::Idle, asked.timeout).await?;
    let now = center.environment(name).await.with_context(|| format!("looking at {name}"))?;
    let told = now.disk_check.filter(|check| ordered.disk_check.as_ref() != Some(check));
    let check = told.with_context(|| format!("the check of {name} has ended, and nobody says how"))?;
    let is_damaged = check.found.verdict == Verdict::Damaged;
    let next = match is_damaged && !asked.yes {
        true => format!("; to mend it: lodge env fsck {name} --yes (lodge env snapshot {name} keeps it as it is first)"),
        false => String::new(),
    };
    out.show(&check, |_| {
        format!("{}the disk of {name}: {}{next}\n", view::plain_lines(&check.found.text), view::verdict(&check.found))
    })?;
    Ok(if is_damaged { DAMAGED } else { OK })
}

/// Give an environment a new system.
pub async fn reinstall(center: &Center, asked: &Reinstall, out: &Out) -> Result<()> {
    let name = &asked.name;
    let now = center.environment(name).await.with_context(|| format!("looking at {name}"))?;
    let template = asked.template.as_ref().unwrap_or(&now.spec.template);
    let kept = if asked.no_snapshot { "" } else { ", and are kept as a snapshot" };
    let gone = now.old.as_ref().map(|_| "; what is at /old now goes").unwrap_or_default();
    let line = view::environment_line(&now);
    let what = format!("{name} gets a new system from {template}: its files move to /old{kept}{gone}. Now: {line}");
    if !out.confirm(asked.confirm, &what, true)? {
        return Ok(());
    }
    let order = ReinstallOrder { template: asked.template.clone(), snapshot: !asked.no_snapshot };
    center.reinstall_environment(name, &order, asked.force).await.with_context(|| format!("reinstalling {name}"))?;
    finish(center, name, asked.wait, Goal::Anew(now.epoch), "is stopped, kept as a snapshot and given a new system", out).await
}
