//! The center's word: facts there, decision back, asked for until there is one.

use std::os::fd::AsFd as _;

use anyhow::{Context as _, Result};
use lodge_client::{Auth, Center};
use lodge_model::{
    answer::CenterAnswer,
    api::{Decision, Hello},
    facts::Facts,
    ticket::Ticket,
};
use lodge_sys::uevent::Uevents;
use tokio::{
    io::{Interest, unix::AsyncFd},
    runtime::Runtime,
};

use crate::{outbox::Outbox, report::Report};

/// What the center wants.
#[derive(Debug)]
pub enum Word {
    /// Install by this ticket, whose signature has been checked.
    Install(Box<Ticket>),
    /// Nothing is to be done.
    BootDisk,
    /// The machine has changed: look at it again.
    LookAgain,
}

/// A center that can be asked.
pub fn connect(answer: &CenterAnswer) -> Result<Center> {
    Center::new(&answer.url, &answer.ca, Auth::Token(answer.token.clone()))
}

/// Ask until there is a decision, or until the machine is no longer as `facts` say. From the first answer on the center hears all
/// that is reported.
pub fn ask(
    (answer, center): (&CenterAnswer, &Center),
    runtime: &Runtime,
    facts: &Facts,
    name: Option<String>,
    report: &mut Report,
    (since_look, look): (&Uevents, &mut dyn FnMut() -> Result<Facts>),
) -> Result<Word> {
    let hello = Hello { facts: facts.clone(), name, version: env!("CARGO_PKG_VERSION").to_owned() };
    let asking = || format!("asking the center at {}", center.url());
    let mut decision = runtime.block_on(center.hello(facts.machine, &hello)).with_context(asking)?;
    report.connect(answer, || Outbox::start(center.clone(), facts.machine, runtime.handle().clone()))?;
    let mut told = String::new();
    loop {
        match decision {
            Decision::Install { ticket } => {
                let ca = center.ca_der().context("the center presented no CA certificate")?;
                return Ok(Word::Install(Box::new(lodge_client::verify_ticket(&ticket, ca)?)));
            }
            Decision::BootDisk => return Ok(Word::BootDisk),
            Decision::Wait { ref reason } => {
                if told != *reason {
                    report.waiting(reason);
                    told.clone_from(reason);
                }
            }
        }
        // The center holds this call until it has news; a device that comes or goes ends it.
        let news = runtime.block_on(async {
            tokio::select! {
                decision = center.decision(facts.machine) => decision.with_context(asking).map(Some),
                change = device_change(since_look) => change.map(|()| None),
            }
        })?;
        if !matches!(news, Some(Decision::Install { .. } | Decision::BootDisk)) && differs(facts, &look()?) {
            return Ok(Word::LookAgain);
        }
        if let Some(news) = news {
            decision = news;
        }
    }
}

/// Done when a disk or a network interface has changed.
async fn device_change(events: &Uevents) -> Result<()> {
    let descriptor = events.as_fd().try_clone_to_owned().context("waiting for device events")?;
    // tokio deprecates it for types whose descriptor may change or close under it; an OwnedFd's cannot.
    #[expect(deprecated, reason = "the replacement is unsafe, and the installer has no unsafe code")]
    let descriptor = AsyncFd::with_interest(descriptor, Interest::READABLE).context("waiting for device events")?;
    loop {
        let mut ready = descriptor.readable().await.context("waiting for device events")?;
        if events.heard()? {
            return Ok(());
        }
        ready.clear_ready();
    }
}

/// Addresses and links come and go while the machine waits; what it is made of is what counts.
fn differs(before: &Facts, now: &Facts) -> bool {
    before.disks != now.disks || before.nics.len() != now.nics.len()
}
