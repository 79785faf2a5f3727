//! Doing what the plan says: one arm an action. What may take a while runs beside the event loop; what may hang is the helper's.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use lodge_model::initproto::{Down, Request};
use lodge_model::paths;
use lodge_sys::mount;

use super::World;
use super::plan::{Action, Failure, Step};
use crate::exports::Export;
use crate::moments::since_boot;
use crate::{esp, fence, init};

impl World {
    /// Do it, and remember how it ended where the plan needs to know.
    pub(super) async fn apply(&mut self, action: Action) {
        match action {
            Action::Fence(step) => {
                tracing::info!("fence: {step}");
                let done = beside(move || fence::perform(&step)).await;
                self.note(Step::Fence, done.context("cutting nodes from the share"));
            }
            Action::Export { remove, add } => {
                let done = beside(move || change_exports(&remove, &add)).await;
                self.note(Step::Exports, done);
            }
            Action::Bind => {
                let done = beside(bind_own_data).await;
                self.note(Step::Bind, done);
            }
            Action::Start(job) => {
                if let Err(error) = self.helper.begin(job) {
                    // Without its thread the agent is of no use; init starts a new one.
                    tracing::error!("{error:#}");
                    std::process::exit(1);
                }
            }
            Action::LeaveAnswer(answer) => {
                let (boot, network, center) = (self.boot.clone(), self.file.network.clone(), answer.clone());
                let done = beside(move || esp::leave_answer(&boot, &center, network.as_ref())).await;
                if self.note(Step::LeaveAnswer, done.context("preparing the reinstall")) {
                    tracing::info!("reinstall ordered: the next boot starts the installer");
                    self.left = Some(answer);
                }
            }
            Action::Restart => {
                let done = init::request(Path::new(paths::INIT_SOCKET), &Request::Shutdown(Down::Reboot)).await;
                if self.note(Step::Restart, done.context("asking init for a restart")) {
                    self.restart_asked = Some(since_boot());
                }
            }
            Action::Bless => {
                let boot = self.boot.clone();
                let done = beside(move || esp::bless(&boot)).await.map(|renamed| {
                    if renamed {
                        tracing::info!("boot entry of {} is good", self.boot.version);
                    }
                });
                self.blessed = self.note(Step::Bless, done.context("marking the boot entry good"));
            }
        }
    }

    /// Whether it went well. A failure is remembered until the step goes well.
    fn note(&mut self, step: Step, done: Result<()>) -> bool {
        match done {
            Ok(()) => self.failures.remove(&step).is_none_or(|_| true),
            Err(error) => {
                let text = format!("{error:#}");
                if self.failures.get(&step).is_none_or(|last| last.text != text) {
                    tracing::warn!("{text}");
                }
                self.failures.insert(step, Failure { at: since_boot(), text });
                false
            }
        }
    }
}

async fn beside<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.context("waiting for a thread")?
}

fn change_exports(remove: &[Export], add: &[Export]) -> Result<()> {
    remove.iter().try_for_each(Export::remove)?;
    add.iter().try_for_each(Export::add)
}

fn bind_own_data() -> Result<()> {
    let (data, share) = (Path::new(paths::SHARE_DATA), Path::new(paths::SHARE));
    fs::create_dir_all(share).with_context(|| format!("making {}", share.display()))?;
    mount::bind(data, share)
}
