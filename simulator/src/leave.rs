//! The end of a drain and of a boot, as `agent/src/leave.rs` and `agent/src/shutdown.rs` have it: count and sign when the orders say so;
//! going down, tell the center, wait for the certificate, stop what is left, say good-bye, go.

use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Context as _, Result};
use lodge_agent::environment::host::Host as _;
use lodge_client::{KeyPem, sign_certificate};
use lodge_model::drain::{Cause, Certificate, Counts, Leave, Leaving, Power};
use lodge_model::ids::TaskId;

use crate::center::{Reply, Request};
use crate::clock::{Millis, timestamp};
use crate::machine::Node;

/// What the agent needs for its own last words.
const LAST_WORDS: Millis = 2000;
/// What it takes to take down an environment that was killed.
const TAKE_DOWN: Millis = 5000;
/// The last report's time.
const LAST_REPORT: Millis = 4000;
/// The center is late with its own deadline.
const GRACE: Millis = 3000;
/// A request is given up.
const GIVEN_UP: Millis = 5000;
/// A pause after one that failed.
const PAUSE: Millis = 1000;

/// A certificate that the orders ask for.
#[derive(Default)]
pub struct Certifying {
    /// The order that has been carried out.
    done: Option<Leave>,
    /// The certificate that was issued last.
    pub issued: Option<TaskId>,
    waits: Option<(u64, Leave)>,
    next: Millis,
}

/// A machine that goes down.
pub struct Going {
    /// How.
    pub power: Power,
    cause: Cause,
    began: Millis,
    /// Nothing may be left then.
    end: Millis,
    phase: Phase,
}

enum Phase {
    /// The center is told, while there is time for more than a stop.
    Tell { waits: Option<u64>, next: Millis, until: Millis },
    /// Its certificate is awaited.
    Drain { id: TaskId, until: Millis },
    /// What is left is stopped.
    Stop,
    /// The center takes in that nothing is left.
    Report { until: Millis },
    /// It says good-bye.
    GoodBye { waits: u64, until: Millis },
}

/// What a node that goes down does next.
pub enum Next {
    /// Nothing yet.
    Wait,
    /// This is said.
    Say(Request),
    /// The machine is off.
    Off,
}

impl Going {
    /// It was announced.
    pub fn new(power: Power, cause: Cause, seconds: u64, now: Millis) -> Self {
        let deadline = seconds * 1000;
        let until = now + deadline - (60_000.min(deadline / 2) + LAST_WORDS);
        Self { power, cause, began: now, end: now + deadline, phase: Phase::Tell { waits: None, next: now, until } }
    }

    /// A new agent hears of it again.
    pub fn begin_again(&mut self, now: Millis) {
        let until = now + self.end.saturating_sub(now) / 2;
        self.phase = Phase::Tell { waits: None, next: now, until };
    }
}

impl Node {
    /// Go on with going down.
    pub fn go_on(&mut self, now: Millis, exchange: u64) -> Result<Next> {
        let boot = self.host.client.boot;
        let Some(going) = self.going.as_mut() else { return Ok(Next::Wait) };
        // init waits no longer than this.
        if now >= going.end + 10_000 {
            return Ok(Next::Off);
        }
        let Some(agent) = self.agent.as_mut() else { return Ok(Next::Wait) };
        match &mut going.phase {
            Phase::Tell { until, .. } if now >= *until => going.stop(agent, self.since)?,
            Phase::Tell { waits, next, .. } if *next <= now => {
                (*waits, *next) = (Some(exchange), now + GIVEN_UP);
                let said = Leaving { boot, cause: going.cause, power: going.power, seconds: 3600 };
                return Ok(Next::Say(Request::Leaving(said)));
            }
            Phase::Tell { .. } => {}
            Phase::Drain { id, until } => {
                if agent.certifying.issued == Some(*id) || now >= *until {
                    going.stop(agent, self.since)?;
                }
            }
            Phase::Stop => {
                if agent.reports.all_gone || now >= going.end - LAST_WORDS {
                    going.phase = Phase::Report { until: (now + LAST_REPORT).min(going.end) };
                }
            }
            Phase::Report { until } => {
                let is_told = agent.talk.told.as_ref().is_some_and(|told| !agent.reports.is_news(told));
                if (is_told && agent.certifying.issued.is_some()) || now >= *until {
                    agent.talk.is_silent = true;
                    going.phase = Phase::GoodBye { waits: exchange, until: now + LAST_WORDS };
                    return Ok(Next::Say(Request::Off(format!("{:?} by {}", going.power, going.cause.words()).to_lowercase())));
                }
            }
            Phase::GoodBye { until, .. } => {
                if now >= *until {
                    return Ok(Next::Off);
                }
            }
        }
        Ok(Next::Wait)
    }

    /// The center has answered.
    pub fn told_of_leaving(&mut self, exchange: u64, reply: &Reply, now: Millis) {
        let Some(going) = self.going.as_mut() else { return };
        match (&mut going.phase, reply) {
            (Phase::Tell { waits, .. }, Reply::Leaving(reply)) if *waits == Some(exchange) => {
                going.end = going.began + u64::from(reply.total) * 1000;
                going.phase = Phase::Drain { id: reply.id, until: now + u64::from(reply.seconds) * 1000 + GRACE };
            }
            (Phase::Tell { waits, next, .. }, Reply::Refused) if *waits == Some(exchange) => *next = now + PAUSE,
            (Phase::GoodBye { waits, until }, _) if *waits == exchange => *until = now,
            _ => {}
        }
    }

    /// Count and sign, if the orders ask for it; or begin to go down.
    pub fn follow_leave(&mut self, now: Millis, exchange: u64) -> Result<Option<Request>> {
        let (host, is_going) = (self.host.clone(), self.going.is_some());
        let Some(agent) = self.agent.as_mut() else { return Ok(None) };
        let leave = agent.orders.as_ref().and_then(|orders| orders.leave.clone());
        let leave = leave.filter(|leave| agent.certifying.done.as_ref() != Some(leave));
        match leave {
            Some(Leave::Certify { id, boot }) if boot == host.client.boot && agent.certifying.next <= now => {
                let at = timestamp(now).as_second();
                let certificate = Certificate { id, node: host.client.node, boot, at, counts: host.count()? };
                agent.certifying.waits = Some((exchange, Leave::Certify { id, boot }));
                agent.certifying.next = now + GIVEN_UP;
                Ok(Some(Request::Certificate(sign_certificate(&certificate, &signer()?.key)?)))
            }
            Some(Leave::GoDown { boot, power }) if boot == host.client.boot && !is_going => {
                agent.certifying.done = Some(Leave::GoDown { boot, power });
                self.going = Some(Going::new(power, Cause::Request, 120, now));
                Ok(None)
            }
            _ => Ok(None),
        }
    }

    /// The center has answered to a certificate. What was counted, if it was issued.
    pub fn told_of_certificate(&mut self, exchange: u64, reply: &Reply, now: Millis) -> Result<Option<Counts>> {
        let counts = self.host.count()?;
        let Some(agent) = self.agent.as_mut() else { return Ok(None) };
        let awaited = agent.certifying.waits.take_if(|(awaited, _)| *awaited == exchange);
        let (Some((_, leave)), Reply::Certificate(reply)) = (awaited, reply) else { return Ok(None) };
        if !reply.issued {
            agent.certifying.next = now + PAUSE;
            return Ok(None);
        }
        if let Leave::Certify { id, .. } = &leave {
            agent.certifying.issued = Some(*id);
        }
        agent.certifying.done = Some(leave);
        Ok(Some(counts))
    }
}

impl Going {
    fn stop(&mut self, agent: &mut crate::machine::Agent, since: Millis) -> Result<()> {
        self.phase = Phase::Stop;
        agent.leave(Duration::from_millis(self.end.saturating_sub(since + LAST_WORDS + TAKE_DOWN)))
    }
}

/// Whoever signs: all nodes have the same key, which is of no importance to anything that is looked at here.
pub struct Signer {
    /// The key.
    pub key: KeyPem,
    /// Its certificate, DER.
    pub der: Vec<u8>,
    /// Where the authority's key is.
    pub ca: tempfile::TempDir,
}

/// The signer of this process; made once, for keys take longer than runs.
pub fn signer() -> Result<&'static Signer> {
    static SIGNER: OnceLock<Signer> = OnceLock::new();
    if let Some(signer) = SIGNER.get() {
        return Ok(signer);
    }
    let ca = tempfile::tempdir().context("making a directory for the authority")?;
    let authority = lodge_center::ca::Ca::open(ca.path())?;
    let (key, request) = lodge_client::new_key_and_csr()?;
    let node = lodge_model::ids::NodeId(uuid::Uuid::from_u128(1));
    let signed = authority.sign_node(&request.0, node)?;
    let der = rustls_pki_types::pem::PemObject::from_pem_slice(signed.pem.as_bytes());
    let der: rustls_pki_types::CertificateDer<'static> =
        der.map_err(|error| anyhow::anyhow!("reading a certificate: {error}"))?;
    Ok(SIGNER.get_or_init(|| Signer { key, der: der.to_vec(), ca }))
}
