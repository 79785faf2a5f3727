//! What is wrong with which node, and what is to be done about it. Pure: signs and the time in, decisions out.
//!
//! A node is taken for dead only on the word of two: the center has not heard it, and the share node has not seen its heartbeat file
//! change. Even then nothing is taken from it before it is fenced, so a wrong decision costs a restart and never a disk. What would cost
//! many restarts is held back: see `brake`.

use std::time::Duration;

use jiff::Timestamp;
use lodge_model::fence::MarkAge;
use lodge_model::ids::{BootId, NodeId};
use lodge_model::incident::Case;
use lodge_model::timing::Timing;

/// Everything that decides.
#[derive(Clone, Debug)]
pub struct Facts {
    /// The time.
    pub now: Timestamp,
    /// How long silence is taken for what.
    pub timing: Timing,
    /// How long the center has been listening.
    pub up_for: Duration,
    /// Why an operator wants no takeovers.
    pub disarmed: Option<String>,
    /// The node that serves the share.
    pub share: Option<ShareFacts>,
    /// When takeovers were last held back for more than one node's sake.
    pub last_wide: Option<Timestamp>,
    /// Workers that have registered, but for those that have gone down in order with nothing left. The share node is never among them.
    pub workers: Vec<Worker>,
}

/// The node that serves the share.
#[derive(Clone, Debug)]
pub struct ShareFacts {
    /// Its name.
    pub name: String,
    /// When it was last heard.
    pub heard: Timestamp,
}

/// A worker.
#[derive(Clone, Debug)]
pub struct Worker {
    /// The node.
    pub node: NodeId,
    /// Its name.
    pub name: String,
    /// Its boot.
    pub boot: BootId,
    /// When it was last heard.
    pub heard: Timestamp,
    /// What the share node said of its heartbeat file, and when.
    pub mark: Option<(MarkAge, Timestamp)>,
    /// It has the right to run something.
    pub holds: bool,
    /// Its boot is fenced, or has certainly ended: nothing more is to be decided.
    pub settled: bool,
    /// Its boot is to be fenced: there is no way back.
    pub banned: bool,
    /// It has gone down, and what it had was not all stopped cleanly.
    pub is_gone: bool,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// About the workers something is wrong with.
    pub verdicts: Vec<Verdict>,
    /// What holds every takeover back, for people; empty when nothing does.
    pub held: String,
    /// It is held back because more than one node is concerned.
    pub is_wide: bool,
}

/// What is to be done about one worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The node.
    pub node: NodeId,
    /// What is wrong.
    pub case: Case,
    /// What was seen, for people.
    pub signs: String,
    /// What follows.
    pub decision: Decision,
}

/// What follows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Nothing, and why; what would help.
    Hold(String),
    /// It is fenced.
    Fence,
}

/// Decide.
pub fn plan(facts: &Facts) -> Plan {
    let seen: Vec<(&Worker, Seen)> =
        facts.workers.iter().filter(|worker| !worker.settled).map(|worker| (worker, see(facts, worker))).collect();
    let count = |wanted: &dyn Fn(&Seen) -> bool| seen.iter().filter(|(_, seen)| wanted(seen)).count();
    let wrong = seen.iter().filter(|(worker, seen)| seen.case.is_some() && !worker.is_gone).count();
    let lost = count(&|seen| seen.case == Some(Case::ShareLost));
    let all_lost = lost > 0 && (lost > limit(seen.len()) || count(&|seen| seen.file == File::Fresh) == 0);
    let brake = brake(facts, wrong, seen.len(), all_lost);
    let well: Vec<&Seen> = seen.iter().map(|(_, seen)| seen).filter(|seen| seen.case.is_none()).collect();
    let verdict = |(worker, seen): &(&Worker, Seen)| {
        let case = match seen.case? {
            Case::ShareLost if all_lost => Case::ShareLostByAll,
            case => case,
        };
        let others = match well.iter().any(|other| other.outlives(seen, case, facts.timing.suspect / 2)) {
            true => Others::Live,
            false if well.is_empty() => Others::None,
            false => Others::Unclear,
        };
        let decision = decide(worker, case, brake.as_ref(), others);
        Some(Verdict { node: worker.node, case, signs: seen.words.clone(), decision })
    };
    Plan {
        verdicts: seen.iter().filter(|(worker, _)| !worker.banned).filter_map(verdict).collect(),
        is_wide: brake.as_ref().is_some_and(|brake| brake.is_wide),
        held: brake.map_or(String::new(), |brake| brake.why),
    }
}

/// As many workers may fail at once; more is taken for a fault of the network, the share or the clock.
pub fn limit(workers: usize) -> usize {
    (workers * 30 / 100).max(1)
}

/// What the signs of one worker say.
struct Seen {
    case: Option<Case>,
    file: File,
    /// How long the center has not heard it.
    silent: Duration,
    /// How old its file is.
    age: Option<Duration>,
    words: String,
}

impl Seen {
    /// It has given the sign that the other one lacks when that one no longer did. Where all are lost at once they are not noticed at once,
    /// and without this the first to be noticed would be taken for the only one.
    fn outlives(&self, other: &Seen, case: Case, margin: Duration) -> bool {
        let is_younger = |own: Duration, others: Duration| own + margin <= others;
        match (case, self.age, other.age) {
            (Case::ShareLost, Some(own), Some(others)) => is_younger(own, others),
            (Case::ShareLost, ..) => false,
            _ => is_younger(self.silent, other.silent),
        }
    }
}

/// Whether anybody could take over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Others {
    /// No other worker is well.
    None,
    /// It is not seen yet whether they were lost at the same time.
    Unclear,
    /// Some worker has outlived it.
    Live,
}

/// Its heartbeat file, as far as the share node's word goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum File {
    /// It was written lately.
    Fresh,
    /// Not for too long.
    Old,
    /// The last word says neither; the next one will.
    Between,
    /// The share node is heard, and knows of no file of this boot.
    Never,
    /// The share node is not heard.
    Unheard,
}

fn see(facts: &Facts, worker: &Worker) -> Seen {
    let suspect = facts.timing.suspect;
    let silent = since(worker.heard, facts.now);
    let (file, age, of_file) = file(facts, worker);
    let is_heard = silent <= suspect;
    let case = match (is_heard, file) {
        // It is the center that was away; who is well says so before it has listened long enough.
        (false, _) if facts.up_for < facts.timing.listen => None,
        // One that has just died was heard a moment later than it wrote.
        (true, File::Old) if silent > suspect / 2 => None,
        (true, File::Old) => Some(Case::ShareLost),
        (true, _) | (false, File::Between) => None,
        (false, File::Fresh) => Some(Case::CenterCut),
        (false, File::Old) => Some(Case::NodeSilent),
        (false, File::Never) if silent <= suspect + facts.timing.corroborate => None,
        (false, File::Never) => Some(Case::NodeSilent),
        (false, File::Unheard) => Some(Case::Unclear),
    };
    let heard = match is_heard {
        _ if worker.is_gone => "it has gone down, and left something behind that did not stop cleanly".to_owned(),
        true => "the center hears it".to_owned(),
        false => format!("no heartbeat for {:.1} s", silent.as_secs_f64()),
    };
    Seen { case, file, silent, age, words: format!("{heard}; {of_file}") }
}

fn file(facts: &Facts, worker: &Worker) -> (File, Option<Duration>, String) {
    let suspect = facts.timing.suspect;
    let Some(share) = facts.share.as_ref().filter(|share| since(share.heard, facts.now) <= suspect) else {
        return (File::Unheard, None, "the share node is not heard".to_owned());
    };
    let of_boot = worker.mark.as_ref().filter(|(mark, _)| mark.boot == worker.boot);
    let Some((mark, said)) = of_boot else {
        return (File::Never, None, format!("{} knows no heartbeat file of this boot", share.name));
    };
    // A word as old as that says nothing about now.
    let age = Duration::from_millis(mark.age_ms);
    let kind = match (age >= suspect, since(*said, facts.now) + age <= suspect) {
        (true, _) => File::Old,
        (false, true) => File::Fresh,
        (false, false) => File::Between,
    };
    let now = since(*said, facts.now) + age;
    (kind, Some(now), format!("{} saw its heartbeat file change {:.1} s ago", share.name, now.as_secs_f64()))
}

/// Why nothing is taken over at present.
struct Brake {
    why: String,
    is_wide: bool,
}

fn brake(facts: &Facts, wrong: usize, workers: usize, all_lost: bool) -> Option<Brake> {
    let listen = facts.timing.listen;
    let wide = |why| Some(Brake { why, is_wide: true });
    let this = |why| Some(Brake { why, is_wide: false });
    if facts.up_for < listen {
        return this(format!("the center has just started, and listens for {} s first", listen.as_secs()));
    }
    match &facts.share {
        None => return this("no share node is registered".to_owned()),
        Some(share) if since(share.heard, facts.now) > facts.timing.suspect => {
            let name = &share.name;
            return wide(format!(
                "the share node {name} is silent itself: without it nothing can be fenced; bring {name} back"
            ));
        }
        Some(_) => {}
    }
    if all_lost {
        return wide("the workers have lost the share together: nobody is fenced, they go on when it is back".to_owned());
    }
    if wrong > limit(workers) {
        return wide(format!(
            "{wrong} of {workers} workers are silent at once, more than {}: mend the network, or say of each that is off: lodge node \
             confirm-off NODE",
            limit(workers)
        ));
    }
    if let Some(reason) = &facts.disarmed {
        return this(format!("takeovers are disarmed ({reason}); lodge cluster arm"));
    }
    if facts.last_wide.is_some_and(|last| since(last, facts.now) < listen) {
        return this(format!("many nodes have just come back; it is looked at again {} s after that", listen.as_secs()));
    }
    None
}

fn decide(worker: &Worker, case: Case, brake: Option<&Brake>, others: Others) -> Decision {
    let name = &worker.name;
    match (case, brake) {
        (Case::CenterCut, _) => Decision::Hold(format!("{name} works on; mend its way to the center")),
        (_, _) if !worker.holds => Decision::Hold(format!("nothing is to be taken over from {name}")),
        (_, Some(brake)) => Decision::Hold(brake.why.clone()),
        (Case::ShareLostByAll | Case::Unclear, None) => Decision::Hold("it is not clear what is wrong".to_owned()),
        (Case::NodeSilent | Case::ShareLost, None) => match others {
            Others::None => {
                Decision::Hold(format!("no other worker could take anything; bring {name} back, or another worker"))
            }
            Others::Unclear => Decision::Hold("it is not seen yet whether the other workers are well".to_owned()),
            Others::Live => Decision::Fence,
        },
    }
}

/// How long ago; a clock that was set back makes it nothing.
fn since(then: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(now.duration_since(then)).unwrap_or_default()
}

#[cfg(test)]
mod tests;
