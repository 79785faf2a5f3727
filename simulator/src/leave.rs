//! The end of a drain and of a boot, as `agent/src/leave.rs`, `agent/src/shutdown.rs` and `agent/src/farewell.rs` have it: count and sign
//! when the orders say so; going down, tell the center, wait for the certificate, stop what is left, leave the last word on the share, say
//! good-bye, go.

use std::time::Duration;

use anyhow::Result;
use lodge_agent::environment::host::Host as _;
use lodge_client::{sign_certificate, sign_last_word};
use lodge_model::drain::{Cause, Certificate, CertificateReply, Counts, Leave, Leaving, Power};
use lodge_model::farewell::LastWord;
use lodge_model::ids::TaskId;
use lodge_model::timing::INHIBIT_DELAY_MAX;

use crate::center::{Reply, Request};
use crate::clock::{Millis, length, timestamp};
use crate::machine::{Agent, Node};
use crate::signer::signer;

/// What the agent needs for its own last words.
const LAST_WORDS: Millis = 2000;
/// What environments are given to shut down at least, where there is so much time.
const STOP_TIME: Millis = 60_000;
/// What it takes to take down an environment that was killed.
const TAKE_DOWN: Millis = 5000;
/// The last report's time.
const LAST_REPORT: Millis = 4000;
/// The last word's.
const FAREWELL: Millis = 3000;
/// The center is waited for so long when nothing runs here.
const NOTHING_TO_MOVE: Millis = 5000;
/// The center is late with its own deadline.
const GRACE: Millis = 3000;
/// init waits longer than the center's word goes.
const MARGIN: Millis = 10_000;
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
    /// The last word has been said: nothing is started any more, by no agent of this boot.
    has_said: bool,
}

#[derive(Clone, Copy)]
enum Phase {
    /// The center is told, while there is time for more than a stop.
    Tell { waits: Option<u64>, next: Millis, until: Millis },
    /// Its certificate is awaited.
    Drain { id: TaskId, until: Millis },
    /// What is left is stopped.
    Stop,
    /// The last word is left on the share.
    Word { until: Millis },
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
        let phase = Phase::Tell { waits: None, next: now, until: Millis::MAX };
        Self { power, cause, began: now, end: now + deadline, phase, has_said: false }
    }

    /// A new agent hears of it again.
    pub fn begin_again(&mut self, agent: &mut Agent, now: Millis, since: Millis) -> Result<()> {
        self.phase = Phase::Tell { waits: None, next: now, until: Millis::MAX };
        if self.has_said { agent.leave(Duration::from_millis(now - since)) } else { Ok(()) }
    }

    /// How long the center is waited for while it does not answer.
    fn alone(&self, agent: &Agent) -> Millis {
        let has_none = agent.reports.environments.is_empty();
        let reserve = if has_none { 0 } else { STOP_TIME.min((self.end - self.began) / 2) };
        let limit = self.end.saturating_sub(length(INHIBIT_DELAY_MAX) + reserve + LAST_WORDS);
        if has_none { limit.min(self.began + NOTHING_TO_MOVE) } else { limit }
    }

    fn stop(&mut self, agent: &mut Agent, since: Millis) -> Result<()> {
        self.phase = Phase::Stop;
        agent.leave(Duration::from_millis(self.end.saturating_sub(since + LAST_WORDS + TAKE_DOWN)))
    }
}

impl Node {
    /// Go on with going down.
    pub fn go_on(&mut self, now: Millis, exchange: u64) -> Result<Next> {
        let Some(mut going) = self.going.take() else { return Ok(Next::Wait) };
        let next = loop {
            let before = std::mem::discriminant(&going.phase);
            let next = self.step(&mut going, now, exchange)?;
            if !matches!(next, Next::Wait) || std::mem::discriminant(&going.phase) == before {
                break next;
            }
        };
        self.going = Some(going);
        Ok(next)
    }

    fn step(&mut self, going: &mut Going, now: Millis, exchange: u64) -> Result<Next> {
        if now >= going.end + MARGIN {
            return Ok(Next::Off);
        }
        let (host, since) = (self.host.clone(), self.since);
        let Some(agent) = self.agent.as_mut() else { return Ok(Next::Wait) };
        match going.phase {
            Phase::Tell { waits, next, until: Millis::MAX } => {
                going.phase = Phase::Tell { waits, next, until: going.alone(agent) };
                return self.step(going, now, exchange);
            }
            Phase::Tell { until, .. } if now >= until => going.stop(agent, since)?,
            Phase::Tell { next, until, .. } if next <= now => {
                going.phase = Phase::Tell { waits: Some(exchange), next: now + GIVEN_UP, until };
                let said = Leaving { boot: host.client.boot, cause: going.cause, power: going.power, seconds: 3600 };
                return Ok(Next::Say(Request::Leaving(said)));
            }
            Phase::Tell { .. } => {}
            Phase::Drain { id, until } => {
                if agent.certifying.issued == Some(id) || now >= until {
                    going.stop(agent, since)?;
                }
            }
            Phase::Stop => {
                if agent.reports.all_gone || now >= going.end - LAST_WORDS {
                    going.phase = Phase::Word { until: (now + FAREWELL).min(going.end) };
                }
            }
            Phase::Word { until } => {
                let is_empty = host.count()?.are_zero();
                if is_empty && host.answers() {
                    self.leave_word(going, now)?;
                }
                if !is_empty || going.has_said || now >= until {
                    going.phase = Phase::Report { until: (now + LAST_REPORT).min(going.end.max(now)) };
                }
            }
            Phase::Report { until } => {
                let is_told = agent.talk.told.as_ref().is_some_and(|told| !agent.reports.is_news(told));
                if (is_told && agent.certifying.issued.is_some()) || now >= until {
                    agent.talk.is_silent = true;
                    going.phase = Phase::GoodBye { waits: exchange, until: now + LAST_WORDS };
                    return Ok(Next::Say(Request::Off(format!("{:?} by {}", going.power, going.cause.words()).to_lowercase())));
                }
            }
            Phase::GoodBye { until, .. } => {
                if now >= until {
                    return Ok(Next::Off);
                }
            }
        }
        Ok(Next::Wait)
    }

    fn leave_word(&self, going: &mut Going, now: Millis) -> Result<()> {
        let client = self.host.client;
        let (at, counts) = (timestamp(now).as_second(), self.host.count()?);
        let word = LastWord { node: client.node, last_of: client.boot, at, cause: going.cause, power: going.power, counts };
        let signer = signer()?;
        let signed = sign_last_word(&word, &signer.key, &signer.pem)?;
        going.has_said = true;
        self.host.leave_word(signed);
        Ok(())
    }

    /// The center has answered.
    pub fn told_of_leaving(&mut self, exchange: u64, reply: &Reply, now: Millis) {
        let Some(going) = self.going.as_mut() else { return };
        match (going.phase, reply) {
            (Phase::Tell { waits, .. }, Reply::Leaving(reply)) if waits == Some(exchange) => {
                going.end = going.began + u64::from(reply.total) * 1000;
                going.phase = Phase::Drain { id: reply.id, until: now + u64::from(reply.seconds) * 1000 + GRACE };
            }
            (Phase::Tell { waits, until, .. }, Reply::Refused | Reply::Cut) if waits == Some(exchange) => {
                going.phase = Phase::Tell { waits: None, next: now + PAUSE, until };
            }
            (Phase::GoodBye { waits, .. }, _) if waits == exchange => {
                going.phase = Phase::GoodBye { waits, until: now };
            }
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
        let Some((_, leave)) = awaited else { return Ok(None) };
        let Reply::Certificate(CertificateReply { issued: true, .. }) = reply else {
            agent.certifying.next = now + PAUSE;
            return Ok(None);
        };
        agent.certifying.next = now;
        if let Leave::Certify { id, .. } = &leave {
            agent.certifying.issued = Some(*id);
        }
        agent.certifying.done = Some(leave);
        Ok(Some(counts))
    }
}
