//! The center's word: facts there, decision back, asked for until there is one.

use anyhow::{Context as _, Result};
use lodge_client::{Auth, Center};
use lodge_model::{
    answer::CenterAnswer,
    api::{Decision, Hello},
    facts::Facts,
    ticket::Ticket,
};
use tokio::runtime::Runtime;

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
    look: &mut dyn FnMut() -> Result<Facts>,
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
            Decision::Wait { reason } => {
                if told != reason {
                    report.waiting(&reason);
                    told = reason;
                }
            }
        }
        // The center holds this call until it has news.
        decision = runtime.block_on(center.decision(facts.machine)).with_context(asking)?;
        if matches!(decision, Decision::Wait { .. }) && differs(facts, &look()?) {
            return Ok(Word::LookAgain);
        }
    }
}

/// Addresses and links come and go while the machine waits; what it is made of is what counts.
fn differs(before: &Facts, now: &Facts) -> bool {
    before.disks != now.disks || before.nics.len() != now.nics.len()
}
