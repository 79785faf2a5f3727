//! What happens to templates: one function a request or outcome, over one transaction and the time.

use jiff::{SignedDuration, Timestamp};
use lodge_model::environment::order::{TaskKind, TaskOutcome, TemplateMeta};
use lodge_model::environment::view::TemplateView;
use lodge_model::ids::{Digest, TaskId};
use lodge_model::layout::MIB;
use lodge_model::node::check_name;

use super::turns::{self, Turn};
use super::{Removal, State, Template};
use crate::environments::records::{Environment, Task};
use crate::environments::tasks;
use crate::fault::Fault;
use crate::store::{EventDraft, Tx};

/// A removal that has failed is tried again after this time.
const RETRY: SignedDuration = SignedDuration::from_secs(60);

/// Versions of a view between two of its record.
const VERSION_STEP: u64 = 128;

/// Whether a template of that name may be imported now. Asked before the upload is sent, and again when it is there.
pub fn may_import(tx: &Tx, name: &str) -> Result<(), Fault> {
    check_name(name).map_err(|why| Fault::bad_input(format!("name: {why}")))?;
    match tx.get::<Template>(&name)?.map(|template| template.state) {
        None | Some(State::Failed { .. }) => Ok(()),
        Some(State::Ready { .. }) => Err(Fault::conflict(format!(
            "there is a template {name} already; import under another name, or remove it first: lodge template rm {name}"
        ))),
        Some(State::Importing { .. }) => Err(Fault::conflict(format!(
            "a template {name} is being imported already; lodge template show {name} says how far it is"
        ))),
    }
}

/// An upload is there: have it imported.
pub fn import(tx: &Tx, name: &str, upload: &Digest, size: u64, now: Timestamp) -> Result<TemplateView, Fault> {
    may_import(tx, name)?;
    let version = tx.get::<Template>(&name)?.map_or(0, |old| old.version) + 1;
    let state = State::Importing { upload: upload.clone(), task: None };
    tx.put(&Template { name: name.to_owned(), created: now, state, version })?;
    log(tx, format!("template {name} is to be imported, from an upload of {} MiB", size.div_ceil(MIB)), now)?;
    begin(tx, now)?;
    tx.show();
    view(tx, name)
}

/// Remove a template; its image goes as well, unless another name stands for it.
pub fn remove(tx: &Tx, name: &str, now: Timestamp) -> Result<(), Fault> {
    let template = get(tx, name)?;
    match &template.state {
        State::Failed { .. } | State::Importing { task: None, .. } => {}
        State::Importing { task: Some(task), .. } => may_withdraw(tx, name, *task)?,
        State::Ready { image } => {
            let others = tx.list::<Template>()?;
            let has_other_name =
                others.iter().any(|other| other.name != name && other.image().is_some_and(|it| it.digest == image.digest));
            if !has_other_name {
                let used = used_by(tx, &image.digest)?;
                if !used.is_empty() {
                    let why = format!("environments are made from {name}: {}; destroy them first", used.join(", "));
                    return Err(Fault::conflict(why));
                }
                tx.put(&Removal { digest: image.digest.clone(), task: None, retry: None })?;
            }
        }
    }
    tx.delete::<Template>(&name)?;
    log(tx, format!("template {name} was removed"), now)?;
    begin(tx, now)?;
    tx.show();
    Ok(())
}

/// What has come of a task about templates. To be called once, in the transaction that takes the task out of the orders.
pub fn told(tx: &Tx, task: TaskId, outcome: &TaskOutcome, now: Timestamp) -> Result<(), Fault> {
    let is_it = |template: &Template| matches!(template.state, State::Importing { task: Some(own), .. } if own == task);
    if let Some(template) = tx.list::<Template>()?.into_iter().find(is_it) {
        imported(tx, template, outcome, now)?;
    } else if let Some(removal) = tx.list::<Removal>()?.into_iter().find(|removal| removal.task == Some(task)) {
        removed(tx, removal, outcome, now)?;
    }
    begin(tx, now)?;
    tx.show();
    Ok(())
}

/// Order what only time has made possible: removals that are tried again.
pub fn look_around(tx: &Tx, now: Timestamp) -> Result<(), Fault> {
    begin(tx, now)
}

/// All templates, by name.
pub fn views(tx: &Tx) -> Result<Vec<TemplateView>, Fault> {
    tx.list::<Template>()?.iter().map(|template| shown(tx, template)).collect()
}

/// One of them.
pub fn view(tx: &Tx, name: &str) -> Result<TemplateView, Fault> {
    shown(tx, &get(tx, name)?)
}

fn get(tx: &Tx, name: &str) -> Result<Template, Fault> {
    let template = tx.get::<Template>(&name)?;
    template.ok_or_else(|| Fault::not_found(format!("there is no template {name:?}; lodge template ls lists them")))
}

/// Withdraw an import that no node has begun; one that goes on cannot be taken back.
fn may_withdraw(tx: &Tx, name: &str, task: TaskId) -> Result<(), Fault> {
    match tx.get::<Task>(&task)? {
        Some(task) if task.node.is_some() => Err(Fault::conflict(format!(
            "template {name} is being imported by a node; wait until that is done or has failed (lodge template show {name})"
        ))),
        Some(task) => tx.delete::<Task>(&task.id),
        None => Ok(()),
    }
}

fn imported(tx: &Tx, template: Template, outcome: &TaskOutcome, now: Timestamp) -> Result<(), Fault> {
    let name = template.name.clone();
    let state = match outcome {
        TaskOutcome::Running { .. } => return Ok(()),
        TaskOutcome::Done { template: Some(image), .. } => {
            // The image has a name again.
            tx.delete::<Removal>(&image.digest.hex())?;
            log(tx, format!("template {name} is ready"), now)?;
            State::Ready { image: image.clone() }
        }
        TaskOutcome::Done { template: None, .. } | TaskOutcome::Checked(_) => {
            State::Failed { error: "the node made no image, and does not say why".to_owned() }
        }
        TaskOutcome::Failed { error } => State::Failed { error: error.clone() },
    };
    if let State::Failed { error } = &state {
        log(tx, format!("the import of template {name} has failed: {error}"), now)?;
    }
    tx.put(&Template { state, version: template.version + 1, ..template })
}

fn removed(tx: &Tx, removal: Removal, outcome: &TaskOutcome, now: Timestamp) -> Result<(), Fault> {
    match outcome {
        TaskOutcome::Running { .. } => Ok(()),
        TaskOutcome::Done { .. } | TaskOutcome::Checked(_) => tx.delete::<Removal>(&removal.digest.hex()),
        TaskOutcome::Failed { error } => {
            log(tx, format!("removing the image {} has failed and is tried again: {error}", removal.digest), now)?;
            let retry = now.checked_add(RETRY).unwrap_or(Timestamp::MAX);
            tx.put(&Removal { task: None, retry: Some(retry), ..removal })
        }
    }
}

/// Order the tasks whose turn it is.
fn begin(tx: &Tx, now: Timestamp) -> Result<(), Fault> {
    let (templates, removals) = (tx.list::<Template>()?, tx.list::<Removal>()?);
    let imports: Vec<Turn> = templates.iter().map(import_turn).collect();
    let removal_turns: Vec<Turn> = removals.iter().map(|removal| removal_turn(removal, now)).collect();
    let allowed = turns::whose(&removal_turns, &imports);
    for (removal, turn) in removals.into_iter().zip(removal_turns) {
        if allowed.removals && turn == Turn::Waits {
            let task = tasks::order(tx, TaskKind::RemoveTemplate { digest: removal.digest.clone() }, now)?;
            tx.put(&Removal { task: Some(task), retry: None, ..removal })?;
        }
    }
    for template in templates {
        if let State::Importing { upload, task: None } = &template.state
            && allowed.imports
        {
            let task = tasks::order(tx, TaskKind::ImportTemplate { upload: upload.clone() }, now)?;
            let state = State::Importing { upload: upload.clone(), task: Some(task) };
            tx.put(&Template { state, ..template })?;
        }
    }
    Ok(())
}

fn import_turn(template: &Template) -> Turn {
    match &template.state {
        State::Importing { task: Some(_), .. } => Turn::Ordered,
        State::Importing { task: None, .. } => Turn::Waits,
        State::Ready { .. } | State::Failed { .. } => Turn::Rests,
    }
}

fn removal_turn(removal: &Removal, now: Timestamp) -> Turn {
    match (removal.task, removal.retry) {
        (Some(_), _) => Turn::Ordered,
        (None, Some(retry)) if retry > now => Turn::Rests,
        (None, _) => Turn::Waits,
    }
}

fn used_by(tx: &Tx, digest: &Digest) -> Result<Vec<String>, Fault> {
    let all = tx.list::<Environment>()?;
    Ok(all
        .into_iter()
        .filter(|one| one.templates().any(|template| template.digest == *digest))
        .map(|one| one.spec.name)
        .collect())
}

fn shown(tx: &Tx, template: &Template) -> Result<TemplateView, Fault> {
    let image = template.image();
    let environments = image.map_or(Ok(0), |image| used_by(tx, &image.digest).map(|used| used.len()))?;
    let task = match &template.state {
        State::Importing { task: Some(task), .. } => tx.get::<Task>(task)?,
        _ => None,
    };
    // So that the view's version changes with the percent, which is kept with the task.
    let progress = task.as_ref().map_or(0, |task| match task.outcome {
        TaskOutcome::Running { percent } => u64::from(task.node.is_some()) + u64::from(percent.min(100)),
        TaskOutcome::Done { .. } | TaskOutcome::Checked(_) | TaskOutcome::Failed { .. } => 102,
    });
    let (outcome, reason) = match &template.state {
        State::Ready { image } => (TaskOutcome::Done { bytes: image.size, template: Some(image.clone()) }, ""),
        State::Failed { error } => (TaskOutcome::Failed { error: error.clone() }, ""),
        State::Importing { .. } => match task {
            Some(task) if task.node.is_some() => (task.outcome, ""),
            Some(_) => (TaskOutcome::Running { percent: 0 }, "waits for a node that is ready"),
            None => (TaskOutcome::Running { percent: 0 }, "waits until unused images are removed"),
        },
    };
    Ok(TemplateView {
        name: template.name.clone(),
        digest: image.map(|image| image.digest.clone()),
        size: image.map_or(0, |image| image.size),
        meta: image.map_or_else(TemplateMeta::default, |image| image.meta.clone()),
        created: template.created,
        outcome,
        environments: u32::try_from(environments).unwrap_or(u32::MAX),
        reason: reason.to_owned(),
        version: template.version * VERSION_STEP + progress,
    })
}

fn log(tx: &Tx, text: String, now: Timestamp) -> Result<(), Fault> {
    tx.log(&EventDraft { at: now, machine: None, node: None, kind: "template", text, detail: None })
}
