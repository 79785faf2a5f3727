//! Incidents, takeovers and capacity as people see them.

use lodge_model::incident::{CapacityView, FailoverView, IncidentView};

use super::{Setting, lines, pairs, plain, table, time};

/// `lodge incident ls`.
pub fn incidents(incidents: &[IncidentView], state: &FailoverView, setting: &Setting) -> String {
    let list = match incidents {
        [] => "no node has fallen silent\n".to_owned(),
        incidents => {
            let header = ["NO", "NODE", "OPENED", "STATE", "FENCED", ""];
            let rows = incidents.iter().map(|incident| {
                [
                    incident.id.to_string(),
                    incident.name.clone(),
                    time(incident.opened, setting),
                    if incident.closed.is_some() { "over" } else { "open" }.to_owned(),
                    incident.method.map_or("-", |method| method.words()).to_owned(),
                    about(incident),
                ]
            });
            table(header, rows, setting)
        }
    };
    format!("{list}{}", failover(state, setting))
}

fn about(incident: &IncidentView) -> String {
    match incident.waits.is_empty() {
        true => incident.case.words().to_owned(),
        false => format!("{}; waits: {}", incident.case.words(), incident.waits),
    }
}

/// `lodge incident show`.
pub fn incident_page(incident: &IncidentView, setting: &Setting) -> String {
    let mut rows = vec![
        ("incident", incident.id.to_string()),
        ("node", incident.name.clone()),
        ("boot id", incident.boot.to_string()),
        ("case", incident.case.words().to_owned()),
        ("fenced", incident.method.map_or("no", |method| method.words()).to_owned()),
    ];
    if let Some(closed) = incident.closed {
        rows.push(("over", time(closed, setting)));
    }
    if !incident.waits.is_empty() {
        rows.push(("waits", incident.waits.clone()));
    }
    format!("{}\n{}", pairs("", &rows), timeline(incident, 0, setting))
}

/// Its timeline from a line on, each with the seconds since its first.
pub fn timeline(incident: &IncidentView, from: usize, setting: &Setting) -> String {
    let Some(first) = incident.timeline.first() else { return String::new() };
    let line = |entry: &lodge_model::incident::Entry| {
        let since = entry.at.duration_since(first.at).as_secs_f64();
        let (at, step) = (time(entry.at, setting), entry.step.word());
        format!("{at}  {since:>8.1} s  {step:<13}  {}", plain(&entry.what))
    };
    let told: Vec<String> = incident.timeline.iter().skip(from).map(line).collect();
    lines(&told.join("\n"))
}

/// Whether anything is taken over: after `lodge cluster disarm` and `arm`, and below the incidents.
pub fn failover(state: &FailoverView, setting: &Setting) -> String {
    let since = state.since.map_or(String::new(), |since| format!(" since {}", time(since, setting)));
    let armed = match state.armed {
        true => "takeovers are armed: a node that dies is fenced, and its environments run elsewhere".to_owned(),
        false => format!("takeovers are disarmed{since}: {}; lodge cluster arm", state.reason),
    };
    let held = if state.held.is_empty() {
        String::new()
    } else {
        format!("at present nothing is taken over: {}\n", plain(&state.held))
    };
    format!("{}\n{held}", plain(&armed))
}

/// `lodge cluster capacity`.
pub fn capacity(view: &CapacityView, setting: &Setting) -> String {
    let head = match (view.holds, view.nodes.len()) {
        (_, 0) => "there is no worker",
        (true, _) => "any one node may die: what it runs has room elsewhere",
        (false, _) => "not every node may die",
    };
    let rows = view.nodes.iter().map(|loss| {
        let bound = loss.stranded.iter().filter(|stranded| stranded.bound).count();
        [loss.node.clone(), loss.fits.to_string(), (loss.stranded.len() - bound).to_string(), bound.to_string()]
    });
    let mut text = format!("{head}\n{}", table(["IF IT DIED", "RUN ELSEWHERE", "WOULD NOT", "BOUND TO IT"], rows, setting));
    for loss in &view.nodes {
        for stranded in &loss.stranded {
            let bound = if stranded.bound { " (bound to it)" } else { "" };
            text.push_str(&plain(&format!("without {}: {}{bound}: {}", loss.node, stranded.environment, stranded.why)));
            text.push('\n');
        }
    }
    text
}
