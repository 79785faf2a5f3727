//! Templates of environments that are about to move here are fetched before anybody is stopped for them.

use std::sync::{PoisonError, mpsc};

use anyhow::{Context as _, Result};
use lodge_model::environment::order::TemplateRef;
use lodge_model::ids::EnvironmentId;

use super::host::{Action, Progress};
use super::worker::{Event, Surroundings};

const STACK: usize = 512 << 10;

/// The thread that fetches, one after the other. What fails is fetched again when it is ordered again, or by the environment itself.
pub fn start(around: Surroundings) -> Result<mpsc::Sender<TemplateRef>> {
    let (sender, inbox) = mpsc::channel::<TemplateRef>();
    let work = move || {
        while let Ok(template) = inbox.recv() {
            let fetched = fetch(&around, &template);
            if let Err(error) = &fetched {
                tracing::warn!("fetching template {} beforehand: {error:#}", template.digest);
            }
            (around.say)(Event::Warm { digest: template.digest, is_here: fetched.is_ok() });
        }
    };
    let thread = std::thread::Builder::new().name("warm".into()).stack_size(STACK);
    thread.spawn(work).context("starting the thread that fetches templates beforehand")?;
    Ok(sender)
}

/// Fetch one, unless it is here.
pub fn fetch(around: &Surroundings, template: &TemplateRef) -> Result<()> {
    // It is nobody's in particular.
    let nobody: EnvironmentId = NOBODY.parse().context("naming nobody")?;
    if around.host.look(nobody, &[template])?.templates.contains(&template.digest) {
        return Ok(());
    }
    anyhow::ensure!((around.has_share)(), "the share is not mounted");
    let _one_at_a_time = around.fetching.lock().unwrap_or_else(PoisonError::into_inner);
    let action = Action::FetchTemplate(template.clone());
    around.host.perform(nobody, &action, &Silent).map_err(|error| anyhow::anyhow!("{error}"))
}

const NOBODY: &str = "00000000-0000-0000-0000-000000000000";

struct Silent;

impl Progress for Silent {
    fn percent(&self, _: u8) {}
}
