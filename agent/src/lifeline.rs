//! What keeps a worker's environments running: it writes its heartbeat file on the share, or hears from the center. A node that can do
//! neither takes its environments off the network, so that nobody talks to two copies of a server when they are started elsewhere; one
//! that finds nobody at all, or is told that it was fenced, ends them and has init restart the machine. While it may run what it runs it
//! vouches for it to init, which restarts the machine when the agent no longer can.
//!
//! It is a thread of its own that waits for nothing but nft and init: a share that hangs others does not hang it. It does ask for a pulse of the
//! rest of the agent, which could not be told of a fence otherwise.
//!
//! The data never depend on it: the fence and the lock on each disk keep a cut-off node from writing (docs/decisions/0021).
//!
//! | file | what |
//! |---|---|
//! | `lifeline/stand.rs` | the decision |
//! | `lifeline/mark.rs` | the heartbeat file |
//! | `lifeline/neighbours.rs` | whether anybody is there |

mod mark;
mod neighbours;
mod stand;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result};
use lodge_model::api::Orders;
use lodge_model::ids::{BootId, NodeId};
use lodge_model::initproto::{Request, Vouch};
use lodge_model::timing::Timing;
use lodge_sys::cgroup::Cgroup;
use tokio::sync::watch;

use crate::init;
use crate::moments::since_boot;
use mark::Written;
use stand::{Facts, Neighbours, Stand, stand};

/// How often the stand is looked at: time alone changes it.
const LOOK: Duration = Duration::from_secs(1);
/// init is told this often at least.
const VOUCH_EVERY: Duration = Duration::from_secs(5);
const STACK: usize = 256 << 10;
/// There while this node holds itself to a lease: an agent that is started anew and reaches nobody goes on with that.
const LEASE_FILE: &str = "/run/lodge/lease";

/// What the lifeline needs of the node.
pub struct Setting {
    /// Where the share of another machine is mounted; `None` where this node serves it itself.
    pub share: Option<PathBuf>,
    /// The node.
    pub node: NodeId,
    /// This boot.
    pub boot: BootId,
    /// The center's URL.
    pub center: String,
    /// init's socket.
    pub init: PathBuf,
    /// The control group of all environments.
    pub environments: Cgroup,
    /// The orders.
    pub orders: watch::Receiver<Option<Orders>>,
    /// When the center answered last.
    pub heard: watch::Receiver<Option<Heard>>,
    /// The lease that init holds this machine to, once it has been told.
    pub lease: watch::Sender<Option<Duration>>,
}

/// The center answered. Times are since the kernel started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heard {
    /// When it was asked: what it knows is no younger.
    pub asked: Duration,
    /// When it answered.
    pub answered: Duration,
}

/// A moment that one thread tells another.
#[derive(Clone, Debug, Default)]
struct Moment(Arc<AtomicU64>);

struct Lifeline {
    setting: Setting,
    written: Written,
    pulse: Moment,
    isolated: Option<bool>,
    vouched: Option<(Vouch, Duration)>,
    neighbours: Neighbours,
    complaint: String,
}

/// Hold it, and give it a pulse, for as long as the agent lives.
pub async fn run(setting: Setting) -> Result<()> {
    let written = match &setting.share {
        Some(share) => mark::write_to(share, setting.node, setting.boot)?,
        None => Written::always(),
    };
    let pulse = Moment::now();
    let lifeline = Lifeline {
        setting,
        written,
        pulse: pulse.clone(),
        isolated: None,
        vouched: None,
        neighbours: Neighbours::Unknown,
        complaint: String::new(),
    };
    let thread = std::thread::Builder::new().name("lifeline".into()).stack_size(STACK);
    thread.spawn(move || lifeline.hold()).context("starting the lifeline's thread")?;
    let mut ticks = tokio::time::interval(LOOK);
    loop {
        ticks.tick().await;
        pulse.set(since_boot());
    }
}

impl Lifeline {
    fn hold(mut self) {
        loop {
            let facts = self.look();
            if let Err(error) = self.take(&stand(&facts), &facts) {
                let text = format!("{error:#}");
                if text != self.complaint {
                    tracing::warn!("{text}; trying again");
                    self.complaint = text;
                }
            }
            std::thread::sleep(LOOK);
        }
    }

    fn look(&self) -> Facts {
        let fence = self.setting.orders.borrow().as_ref().map(|orders| orders.fence.clone());
        let holds_lease = fence.as_ref().map_or_else(|| Path::new(LEASE_FILE).exists(), |fence| fence.lease);
        let fence = fence.unwrap_or_default();
        let now = since_boot();
        let heard = *self.setting.heard.borrow();
        // What cannot be read is taken for something that runs.
        let populated = self.setting.environments.read_key("cgroup.events", "populated");
        Facts {
            now,
            written: self.written.at(now),
            heard: heard.map(|heard| heard.answered),
            renewed: self.written.proven(now).max(heard.map(|heard| heard.asked)),
            holds_lease,
            pulse: self.pulse.get(),
            is_fenced: fence.fenced == Some(self.setting.boot),
            runs: populated.map_or(true, |populated| populated == Some(1)),
            neighbours: self.neighbours,
            timing: Timing::new(fence.patience),
        }
    }

    /// Off the network first, then the end, then the word to init.
    fn take(&mut self, stand: &Stand, facts: &Facts) -> Result<()> {
        let isolated = self.isolate(stand);
        let ended = if stand.ends { self.end(stand) } else { Ok(()) };
        // What cannot be taken off the network is not vouched for.
        let may_speak = isolated.is_ok() || !stand.isolated || stand.ends;
        if let Some(word) = stand.vouch.filter(|_| may_speak) {
            note_lease(Path::new(LEASE_FILE), facts.holds_lease)?;
            self.vouch(
                if facts.holds_lease { shortened(word, since_boot().saturating_sub(facts.now)) } else { word },
                facts.now,
            )?;
            let lease = facts.holds_lease.then_some(facts.timing.lease);
            self.setting.lease.send_if_modified(|told| std::mem::replace(told, lease) != lease);
        }
        self.neighbours = if stand.asks { self.ask()? } else { Neighbours::Unknown };
        isolated.and(ended)?;
        self.complaint.clear();
        Ok(())
    }

    fn isolate(&mut self, stand: &Stand) -> Result<()> {
        if self.isolated == Some(stand.isolated) {
            return Ok(());
        }
        lodge_network::set_isolated(stand.isolated)?;
        match (stand.isolated, self.isolated) {
            (true, _) => tracing::warn!("environments are off the network: {}", stand.why),
            (false, Some(_)) => tracing::info!("environments are on the network again"),
            (false, None) => {}
        }
        self.isolated = Some(stand.isolated);
        Ok(())
    }

    fn end(&self, stand: &Stand) -> Result<()> {
        tracing::error!("everything that runs here is ended, and the machine restarted: {}", stand.why);
        self.setting.environments.kill()
    }

    fn vouch(&mut self, word: Vouch, now: Duration) -> Result<()> {
        if self.vouched.is_some_and(|(last, at)| last == word && now < at + VOUCH_EVERY) {
            return Ok(());
        }
        init::request_and_wait(&self.setting.init, &Request::Vouch(word))?;
        self.vouched = Some((word, now));
        Ok(())
    }

    fn ask(&self) -> Result<Neighbours> {
        let known = neighbours::known(&self.setting.center, self.setting.orders.borrow().as_ref());
        neighbours::ask(&known).context("asking whether anybody is there")
    }
}

/// init counts from when it hears a word, a lease from what was seen.
fn shortened(word: Vouch, late: Duration) -> Vouch {
    match word {
        Vouch::For(seconds) => {
            let late = u32::try_from(late.as_millis().div_ceil(1000)).unwrap_or(u32::MAX);
            Vouch::For(seconds.saturating_sub(late))
        }
        other => other,
    }
}

fn note_lease(file: &Path, holds: bool) -> Result<()> {
    match holds {
        true if !file.exists() => std::fs::write(file, "").with_context(|| format!("writing {}", file.display())),
        false if file.exists() => std::fs::remove_file(file).with_context(|| format!("removing {}", file.display())),
        _ => Ok(()),
    }
}

impl Moment {
    fn now() -> Self {
        let moment = Self::default();
        moment.set(since_boot());
        moment
    }

    fn set(&self, at: Duration) {
        self.0.store(u64::try_from(at.as_millis()).unwrap_or(u64::MAX), Ordering::Release);
    }

    fn get(&self) -> Duration {
        Duration::from_millis(self.0.load(Ordering::Acquire))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead as _, BufReader, Write as _};
    use std::os::unix::net::UnixListener;

    /// init, as far as one word goes: what it was told.
    fn heard_by_init(listener: &UnixListener) -> String {
        let (mut stream, _) = listener.accept().unwrap();
        let mut line = String::new();
        BufReader::new(stream.try_clone().unwrap()).read_line(&mut line).unwrap();
        stream.write_all(b"ok\n").unwrap();
        line
    }

    #[test]
    fn init_is_told_at_once_what_is_new_and_again_before_it_worries() {
        let dir = tempfile::tempdir().unwrap();
        let init = dir.path().join("init.sock");
        let listener = UnixListener::bind(&init).unwrap();
        let (orders, heard, lease) = (watch::channel(None).1, watch::channel(None).1, watch::channel(None).0);
        let environments = Cgroup::at(dir.path().join("env"));
        let (node, boot) = (NodeId(uuid::Uuid::from_u128(1)), BootId(uuid::Uuid::from_u128(2)));
        let setting = Setting { share: None, node, boot, center: String::new(), init, environments, orders, heard, lease };
        let mut lifeline = Lifeline {
            setting,
            written: Written::always(),
            pulse: Moment::now(),
            isolated: Some(false),
            vouched: None,
            neighbours: Neighbours::Unknown,
            complaint: String::new(),
        };
        assert!(!lifeline.look().runs, "no control group, nothing runs");
        let told = std::thread::spawn(move || [(); 3].map(|()| heard_by_init(&listener)));
        let at = Duration::from_secs;
        lifeline.vouch(Vouch::NothingRuns, at(1)).unwrap();
        lifeline.vouch(Vouch::NothingRuns, at(2)).unwrap();
        lifeline.vouch(Vouch::For(40), at(3)).unwrap();
        lifeline.vouch(Vouch::For(40), at(4)).unwrap();
        lifeline.vouch(Vouch::For(40), at(3) + VOUCH_EVERY).unwrap();
        assert_eq!(told.join().unwrap(), ["vouch nothing-runs\n", "vouch 40\n", "vouch 40\n"]);
        assert!(VOUCH_EVERY * 4 < Timing::new(1).vouch);
    }
}
