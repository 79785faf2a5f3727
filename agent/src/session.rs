//! The agent's talk with the center: register, then one heartbeat after the other. The answers are orders; what is reported is
//! whatever the reconciler and the keeper of environments said last.
//!
//! The center holds a heartbeat while it has no news, so that orders arrive at once. When the center is away the node goes on as it
//! is; the pauses between tries stay short, so that the node is `ready` again soon after the center is back.

#[cfg(test)]
mod tests;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use lodge_client::{Center, Error};
use lodge_model::api::{Heartbeat, Orders, Register, ShareHealth};
use lodge_model::ids::BootId;
use lodge_model::live::Capability;
use lodge_model::node::{BootFile, NodeFile};
use lodge_model::{progress, timing};
use lodge_sys::kmsg::{Kmsg, Level};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::backoff::Backoff;
use crate::durable;
use crate::environment::report::Reports;
use crate::fence::Witness;
use crate::lifeline::Heard;
use crate::moments::{self, Moments, since_boot};
use crate::outlook::Outlook;
use crate::reconcile::plan::Report;
use crate::uplink;
use crate::watch::FileWatch;

/// Half of what the center may count on, so that a connect time limit fits into it as well.
const PAUSE_MAX: Duration = Duration::from_secs(timing::RETRY_MAX.as_secs() / 2);
/// A center that answers at once with nothing new is not asked more often than this.
const BEAT_MIN: Duration = Duration::from_millis(500);
/// That new orders are carried out is awaited for so long, and told with the next heartbeat, not with one more.
const GATHER: Duration = Duration::from_millis(50);
/// The newest generation seen in this boot, so that a restart of the agent does not forget it.
pub const GENERATION_FILE: &str = "/run/lodge/generation";

/// One side of the talk.
pub struct Session {
    /// The center.
    pub center: Center,
    /// What the installer wrote.
    pub file: NodeFile,
    /// What the initrd wrote.
    pub boot: BootFile,
    /// Times of this boot.
    pub moments: Moments,
    /// Where orders go.
    pub orders: watch::Sender<Option<Orders>>,
    /// Where reports come from.
    pub report: watch::Receiver<Report>,
    /// What this node can do about processes of environments, once that is known.
    pub criu: watch::Receiver<Option<Capability>>,
    /// Where the reports on environments come from.
    pub environments: watch::Receiver<Reports>,
    /// Set when the node goes down and everything has been said: then nothing more is.
    pub silent: watch::Receiver<bool>,
    /// The reports on environments that the center has taken in last.
    pub told: watch::Sender<Reports>,
    /// What this node has seen of others.
    pub witness: Witness,
    /// The same for the center's questions about them.
    pub outlook: Outlook,
    /// When the center answered last.
    pub heard: watch::Sender<Option<Heard>>,
}

/// Why a round of heartbeats ended.
enum End {
    /// Register (again).
    Register,
    /// The node is going down.
    Down,
}

/// What a talk remembers from one heartbeat to the next.
struct Memory {
    newest: Generation,
    phases_told: usize,
    is_criu_told: bool,
    backoff: Backoff,
    complaint: String,
}

impl Session {
    /// Talk until the node goes down. The channels stay open as long as this lives: the reconciler goes on.
    pub async fn run(&mut self) -> Result<()> {
        let newest = Generation::read(GENERATION_FILE.into());
        let mut memory = Memory {
            newest,
            phases_told: 0,
            is_criu_told: false,
            backoff: Backoff::up_to(PAUSE_MAX),
            complaint: String::new(),
        };
        let mut network = FileWatch::new(Path::new(uplink::FILE))?;
        loop {
            let mut silent = self.silent.clone();
            let registered = tokio::select! {
                registered = self.register(&mut memory) => registered,
                end = down(&mut silent) => return end,
            };
            let address = match registered {
                Ok(address) => address,
                Err(error) => {
                    self.complain(&mut memory, &error, "registering with the center");
                    tokio::select! {
                        () = sleep(memory.backoff.pause()) => continue,
                        end = down(&mut silent) => return end,
                    }
                }
            };
            match self.beat(&mut memory, &mut network, &address).await? {
                End::Register => {}
                End::Down => return Ok(()),
            }
        }
    }

    /// Say who this is and what it is made of; the address that was registered.
    async fn register(&self, memory: &mut Memory) -> Result<String> {
        let address = uplink::read()?.ip().to_owned();
        let phases = self.moments.phases(&self.boot);
        let told = phases.len();
        let facts = tokio::task::spawn_blocking(lodge_sys::facts::gather).await.context("gathering facts")??;
        let register = Register {
            boot: boot_id()?,
            facts,
            roles: self.file.roles.clone(),
            version: self.boot.version.clone(),
            kernel: kernel()?,
            slot: self.boot.slot,
            disk_serial: self.file.disk_serial.clone(),
            address: address.clone(),
            phases,
        };
        let asked = since_boot();
        let orders = self.center.register(&register).await?;
        (memory.phases_told, memory.is_criu_told) = (told, false);
        self.moments.record(moments::REGISTERED)?;
        self.well(memory);
        tracing::info!("registered with the center at {}", self.center.url());
        self.take(memory, orders, asked)?;
        Ok(address)
    }

    /// Heartbeats until something else must be done.
    async fn beat(&mut self, memory: &mut Memory, network: &mut FileWatch, address: &str) -> Result<End> {
        let boot = boot_id()?;
        loop {
            let (began, asked) = (Instant::now(), since_boot());
            let report = self.report.borrow_and_update().clone();
            let phases = self.moments.phases(&self.boot);
            let all = phases.len();
            let phases = if all > memory.phases_told { phases } else { Vec::new() };
            let kept = self.environments.borrow_and_update().clone();
            let Report { share, generation, problem, fenced } = report.clone();
            let Reports { environments, tasks, warm, .. } = kept.clone();
            let signs = self.witness.signs(fenced);
            let last_words = self.outlook.last_words.borrow().clone();
            let reached = self.outlook.reached.borrow().clone();
            let criu = if memory.is_criu_told { None } else { self.criu.borrow().clone() };
            let heartbeat = Heartbeat {
                boot,
                share,
                generation,
                problem,
                phases,
                environments,
                tasks,
                warm,
                last_words,
                reached,
                signs,
                criu,
            };
            tokio::select! {
                answer = self.center.heartbeat(&heartbeat) => match answer {
                    Ok(orders) if orders.register_again => return Ok(End::Register),
                    Ok(orders) => {
                        self.told.send_replace(kept.clone());
                        memory.phases_told = all;
                        memory.is_criu_told |= heartbeat.criu.is_some();
                        self.well(memory);
                        self.say_ready(&heartbeat.share);
                        let before = memory.newest.value;
                        self.take(memory, orders, asked)?;
                        if memory.newest.value != before {
                            let newest = memory.newest.value;
                            let mut carried_out = self.report.clone();
                            // Whether they are carried out in time or not: the next heartbeat says so.
                            let _ = timeout(GATHER, carried_out.wait_for(|report| report.generation == newest)).await;
                            continue;
                        }
                        let (mut report_now, mut kept_now) = (self.report.clone(), self.environments.clone());
                        tokio::select! {
                            () = sleep_until(began + BEAT_MIN) => {}
                            () = urgent(&mut report_now, &report) => {}
                            () = urgent_of_environments(&mut kept_now, &kept) => {}
                            end = down(&mut self.silent) => return end.map(|()| End::Down),
                        }
                    }
                    Err(error) => {
                        let again = matches!(error, Error::Refused { .. });
                        self.complain(memory, &error.into(), "reporting to the center");
                        sleep(memory.backoff.pause()).await;
                        if again {
                            return Ok(End::Register);
                        }
                    }
                },
                // News do not wait for the answer to old ones.
                () = urgent(&mut self.report, &report) => {}
                () = urgent_of_environments(&mut self.environments, &kept) => {}
                changed = network.changed() => {
                    changed?;
                    if uplink::read()?.ip() != address {
                        return Ok(End::Register);
                    }
                }
                end = down(&mut self.silent) => return end.map(|()| End::Down),
            }
        }
    }

    /// One line on every console, once a boot, when the center has taken in that the share is in order: whoever reads it finds the node
    /// ready there.
    fn say_ready(&self, told: &ShareHealth) {
        if !matches!(told, ShareHealth::Serving | ShareHealth::Mounted { .. }) {
            return;
        }
        match self.moments.record(moments::READY) {
            Ok(false) => {}
            Ok(true) => say(&progress::ready_line(&self.file.name)),
            Err(error) => tracing::warn!("{error:#}"),
        }
    }

    /// Orders older than the newest that was seen are refused.
    fn take(&self, memory: &mut Memory, orders: Orders, asked: Duration) -> Result<()> {
        self.heard.send_replace(Some(Heard { asked, answered: since_boot() }));
        if let Err(refusal) = memory.newest.accept(orders.generation)? {
            tracing::warn!("{refusal}");
            return Ok(());
        }
        self.orders.send_if_modified(|last| {
            let news = last.as_ref() != Some(&orders);
            *last = Some(orders);
            news
        });
        Ok(())
    }

    fn well(&self, memory: &mut Memory) {
        if !memory.complaint.is_empty() {
            tracing::info!("the center at {} answers again", self.center.url());
        }
        memory.complaint.clear();
        memory.backoff.reset();
    }

    /// Each complaint is logged once, not with every try.
    fn complain(&self, memory: &mut Memory, error: &anyhow::Error, doing: &str) {
        let text = format!("{doing}: {error:#}");
        if text != memory.complaint {
            tracing::warn!("{text}; trying again");
            memory.complaint = text;
        }
    }
}

/// Wait for a report that the center should have now: not for another number of milliseconds.
async fn urgent(report: &mut watch::Receiver<Report>, told: &Report) {
    let is_news = |now: &Report| {
        let same_health = std::mem::discriminant(&now.share) == std::mem::discriminant(&told.share);
        let same_failure = !matches!(now.share, ShareHealth::Failed { .. }) || now.share == told.share;
        let same_words = now.generation == told.generation && now.problem == told.problem && now.fenced == told.fenced;
        !(same_health && same_failure && same_words)
    };
    if report.wait_for(is_news).await.is_err() {
        // The reconciler has ended, and the agent with it.
        std::future::pending::<()>().await;
    }
}

/// Wait for news of environments that the center should have now.
async fn urgent_of_environments(reports: &mut watch::Receiver<Reports>, told: &Reports) {
    if reports.wait_for(|now| now.is_news(told)).await.is_err() {
        // The keeper has ended, and the agent with it.
        std::future::pending::<()>().await;
    }
}

/// The kernel log reaches every console; where there is none, standard error does.
fn say(line: &str) {
    let name = progress::PREFIX.trim_end_matches(": ");
    match Kmsg::open(name) {
        Ok(kmsg) => kmsg.log(Level::Notice, line.strip_prefix(progress::PREFIX).unwrap_or(line)),
        Err(_) => eprintln!("{line}"),
    }
}

async fn down(silent: &mut watch::Receiver<bool>) -> Result<()> {
    silent.wait_for(|silent| *silent).await.map(drop).context("following the shutdown")
}

/// The newest generation of orders that was seen in this boot.
pub struct Generation {
    value: u64,
    path: PathBuf,
}

impl Generation {
    /// As it is kept in this file, which must not be there after a boot.
    pub fn read(path: PathBuf) -> Self {
        let value = fs::read_to_string(&path).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0);
        Self { value, path }
    }

    /// The inner result says why orders are refused.
    pub fn accept(&mut self, generation: u64) -> Result<Result<(), String>> {
        let newest = self.value;
        if generation < newest {
            return Ok(Err(format!("orders of generation {generation} are refused: {newest} has been seen")));
        }
        if generation > newest {
            durable::write(&self.path, generation.to_string().as_bytes(), 0o600)?;
            self.value = generation;
        }
        Ok(Ok(()))
    }
}

/// The id of this boot.
pub fn boot_id() -> Result<BootId> {
    const PATH: &str = "/proc/sys/kernel/random/boot_id";
    let text = fs::read_to_string(PATH).with_context(|| format!("reading {PATH}"))?;
    text.parse().with_context(|| format!("reading {PATH}"))
}

fn kernel() -> Result<String> {
    let name = nix::sys::utsname::uname().context("asking for the kernel's release")?;
    name.release().to_str().map(str::to_owned).ok_or_else(|| anyhow!("the kernel's release is not UTF-8"))
}
