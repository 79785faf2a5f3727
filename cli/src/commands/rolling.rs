//! `lodge cluster reboot`.

use std::io::{IsTerminal as _, stderr};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use lodge_client::{Center, Error};
use lodge_model::rolling::{RebootOrder, RebootState, RebootView};

use crate::arguments::rolling::Reboot;
use crate::out::{Out, Progress};
use crate::view;

/// Pause before a center that cannot be reached is asked again; it has no way to call us.
const RETRY: Duration = Duration::from_secs(2);

/// `lodge cluster reboot`.
pub async fn reboot(center: &Center, asked: &Reboot, out: &Out) -> Result<()> {
    let view = if asked.status {
        center.cluster_reboot().await.context("asking how the restart of the cluster stands")?
    } else if asked.cancel {
        center.cancel_cluster_reboot().await.context("ending the restart of the cluster")?
    } else if asked.go_on {
        center.continue_cluster_reboot().await.context("going on with the restart of the cluster")?
    } else {
        match order(center, asked, out).await? {
            Some(view) => view,
            None => return Ok(()),
        }
    };
    let orders = !asked.status && !asked.cancel;
    let waits = asked.wait.wait || (orders && !asked.wait.no_wait && !out.json && stderr().is_terminal());
    if !waits || view.state != RebootState::Running {
        return out.show(&view, |setting| view::rolling(&view, setting));
    }
    let last = follow(center, view).await?;
    out.show(&last, |setting| view::rolling(&last, setting))?;
    match last.state {
        RebootState::Stopped => bail!("the restart of the cluster has stopped: {}", last.waits),
        _ => Ok(()),
    }
}

/// The plan, the question, the order; nothing where that was all that was asked for.
async fn order(center: &Center, asked: &Reboot, out: &Out) -> Result<Option<RebootView>> {
    let order = RebootOrder {
        at_once: asked.at_once,
        deadline: asked.deadline.map(u32::try_from).transpose().context("that is too long a deadline")?,
        patience: u32::try_from(asked.patience).context("that is too long a patience")?,
        reason: asked.reason.clone(),
        dry_run: true,
    };
    let plan = center.reboot_cluster(&order).await.context("planning the restart of the cluster")?;
    if asked.confirm.dry_run {
        out.show(&plan, |setting| view::rolling(&plan, setting))?;
        return Ok(None);
    }
    if !out.confirm(asked.confirm, &view::rolling_question(&plan), true)? {
        return Ok(None);
    }
    let order = RebootOrder { dry_run: false, ..order };
    center.reboot_cluster(&order).await.context("restarting the cluster").map(Some)
}

async fn follow(center: &Center, mut view: RebootView) -> Result<RebootView> {
    let mut progress = Progress::spinner();
    while view.state == RebootState::Running {
        progress.say(&view::rolling_line(&view));
        view = match center.cluster_reboot_after(view.version).await {
            Ok(view) => view,
            Err(Error::Unreachable { why, .. }) => {
                progress.say(&format!("the center cannot be reached: {why}; trying again"));
                tokio::time::sleep(RETRY).await;
                continue;
            }
            Err(error) => return Err(error.into()),
        };
    }
    Ok(view)
}
