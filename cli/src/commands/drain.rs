//! `lodge node drain` and what belongs to it, `lodge env move`, `lodge cluster settings`.

use std::io::{IsTerminal as _, stderr};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use lodge_client::{Center, Error, verify_certificate};
use lodge_model::drain::{DrainOrder, DrainState, DrainView, MoveOrder, Power, SettingsChange};
use lodge_model::live::MoveBy;

use crate::arguments::drain::{Down, Drain, DrainWait, Move, Set};
use crate::out::{Out, Progress};
use crate::view;
use crate::wait::{self, Goal};

/// Pause before a center that cannot be reached is asked again; it has no way to call us.
const RETRY: Duration = Duration::from_secs(2);

/// `lodge node drain`.
pub async fn drain(center: &Center, asked: &Drain, out: &Out) -> Result<()> {
    let node = &asked.node;
    if asked.cancel {
        return undrain(center, node, out).await;
    }
    if asked.status {
        let mut view = center.drain_of(node).await.with_context(|| format!("asking how the drain of {node} stands"))?;
        if asked.wait.wait {
            view = follow(center, node, view).await?;
        }
        return out.show(&view, |setting| view::drain(&view, setting));
    }
    let order = DrainOrder {
        deadline: seconds(asked.deadline)?,
        reason: asked.reason.clone(),
        dry_run: asked.dry_run,
        then: None,
        force: asked.force,
    };
    order_it(center, node, &order, asked.wait, out).await
}

/// `lodge node poweroff` and `lodge node reboot`.
pub async fn down(center: &Center, asked: &Down, power: Power, out: &Out) -> Result<()> {
    let node = &asked.node;
    let order = DrainOrder {
        deadline: seconds(asked.deadline)?,
        reason: asked.reason.clone(),
        dry_run: true,
        then: Some(power),
        force: asked.force,
    };
    let plan = center.drain(node, &order).await.with_context(|| format!("planning the drain of {node}"))?;
    if asked.confirm.dry_run {
        return out.show(&plan, |setting| view::drain(&plan, setting));
    }
    let stuck = plan.items.iter().filter(|item| item.to.is_none()).count();
    let verb = match power {
        Power::Poweroff => "switched off",
        Power::Reboot => "restarted",
    };
    let what = format!(
        "{node} is drained and {verb}; {} environments are moved, and {stuck} that no node takes now are shut down at the deadline",
        plan.items.len() - stuck
    );
    if !out.confirm(asked.confirm, &what, true)? {
        return Ok(());
    }
    order_it(center, node, &DrainOrder { dry_run: false, ..order }, asked.wait, out).await
}

async fn order_it(center: &Center, node: &str, order: &DrainOrder, asked: DrainWait, out: &Out) -> Result<()> {
    let view = center.drain(node, order).await.with_context(|| format!("draining {node}"))?;
    let waits = asked.wait || (!asked.no_wait && !order.dry_run && !out.json && stderr().is_terminal());
    if !waits || order.dry_run {
        return out.show(&view, |setting| view::drain(&view, setting));
    }
    eprint!("{}", view::drain(&view, &view::Setting::here()));
    let last = follow(center, node, view).await?;
    out.show(&last, |setting| view::drain(&last, setting))
}

/// Until the certificate is issued, or the node has started anew, which is the end of it too.
async fn follow(center: &Center, node: &str, mut view: DrainView) -> Result<DrainView> {
    let mut progress = Progress::spinner();
    while view.state != DrainState::Drained {
        progress.say(&view::drain_line(&view));
        view = match center.drain_after(node, view.version).await {
            Ok(view) => view,
            Err(Error::Unreachable { why, .. }) => {
                progress.say(&format!("the center cannot be reached: {why}; trying again"));
                tokio::time::sleep(RETRY).await;
                continue;
            }
            Err(Error::Refused { status: 404, .. }) => {
                bail!("the drain of {node} was ended before its certificate was issued; `lodge node events {node}` tells how");
            }
            Err(error) => return Err(error.into()),
        };
    }
    Ok(view)
}

/// `lodge node undrain`.
pub async fn undrain(center: &Center, node: &str, out: &Out) -> Result<()> {
    center.undrain(node).await.with_context(|| format!("ending the drain of {node}"))?;
    out.done(&format!("{node} takes environments again"))
}

/// `lodge node certificate`: what the center shows is checked here once more.
pub async fn certificate(center: &Center, node: &str, out: &Out) -> Result<()> {
    let shown = center.certificate(node).await.with_context(|| format!("showing the certificate of {node}"))?;
    let ca = center.ca_der().context("the center has shown no certificate")?;
    let verified =
        verify_certificate(&shown.signed, &shown.signer, ca).with_context(|| format!("checking the certificate of {node}"))?;
    if verified != shown.certificate || !verified.counts.are_zero() {
        bail!("the certificate of {node} is not what the node has signed: {}", shown.signed.payload);
    }
    out.show(&shown, |setting| view::certificate(&shown, setting))
}

/// `lodge env move`.
pub async fn move_one(center: &Center, asked: &Move, out: &Out) -> Result<()> {
    let name = &asked.name;
    let by = match (asked.live, asked.restart) {
        (true, _) => Some(MoveBy::Live),
        (_, true) => Some(MoveBy::Restart),
        (false, false) => None,
    };
    let order = MoveOrder { to: asked.to.clone(), by, dry_run: asked.dry_run };
    let before = center.environment(name).await.with_context(|| format!("looking for {name}"))?;
    let moving = center.move_environment(name, &order).await.with_context(|| format!("moving {name}"))?;
    let target = moving.moving.as_ref().and_then(|moving| moving.to.clone()).unwrap_or_else(|| "another node".to_owned());
    if let (true, Some(plan)) = (asked.dry_run, &moving.moving) {
        return out.show(plan, |_| format!("would be done: {name} moves {}\n", view::would_move(plan)));
    }
    if !asked.wait.wait {
        return out.done(&format!("{name} moves to {target}; `lodge env show {name}` follows it"));
    }
    let goal = Goal::Moved(before.moves.last().and_then(|last| last.at));
    let line = wait::until(center, name, goal, asked.wait.timeout).await?;
    match out.json {
        true => out.json(&center.environment(name).await?.moves.last()),
        false => out.done(&line),
    }
}

/// `lodge cluster settings`.
pub async fn settings(center: &Center, out: &Out) -> Result<()> {
    let settings = center.settings().await.context("reading the settings")?;
    out.show(&settings, |_| view::settings(&settings))
}

/// `lodge cluster set`.
pub async fn set(center: &Center, asked: &Set, out: &Out) -> Result<()> {
    let change = SettingsChange {
        operator_deadline: seconds(asked.operator_deadline)?,
        button_deadline: seconds(asked.button_deadline)?,
        ups_deadline: seconds(asked.ups_deadline)?,
        moves_per_source: asked.moves_per_source,
        moves_per_target: asked.moves_per_target,
        moves_per_cluster: asked.moves_per_cluster,
        move_by: asked.move_by.map(Into::into),
        patience: asked.patience,
        spare: asked.spare,
        lease_wait: seconds(asked.lease_wait)?,
    };
    let settings = center.change_settings(&change).await.context("changing the settings")?;
    out.show(&settings, |_| view::settings(&settings))
}

fn seconds(asked: Option<u64>) -> Result<Option<u32>> {
    asked.map(|asked| u32::try_from(asked).context("that is too long a time")).transpose()
}
