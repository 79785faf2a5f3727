//! Incidents, takeovers, BMCs and capacity as people see them.

use lodge_model::bmc::{BmcTest, BmcView, Trust};
use lodge_model::guard::FencingView;
use lodge_model::incident::{CapacityView, FailoverView, IncidentView};

use super::{Setting, lines, or_dash, pairs, plain, table, time};

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

/// `lodge cluster fencing`.
pub fn fencing(view: &FencingView, setting: &Setting) -> String {
    let share = view.share.as_ref().map_or("no node serves the share: nobody could be cut off".to_owned(), |share| {
        format!("{share} serves the share, and cuts off who has to be fenced")
    });
    let wait = match view.lease_wait {
        0 => "lease and watchdog are never taken for a proof (lodge cluster set --lease-wait TIME)".to_owned(),
        wait => format!("without a word of share node or BMC, lease and watchdog are taken for a proof after {wait} s"),
    };
    let is_yes = |why: &str| if why.is_empty() { "yes".to_owned() } else { format!("no: {why}") };
    let rows = view.nodes.iter().map(|node| {
        let guard = node.guard.as_ref();
        let watchdog = guard.and_then(|guard| guard.watchdog.as_ref());
        [
            node.node.clone(),
            is_yes(&node.share),
            or_dash(node.bmc.as_deref()),
            watchdog.map_or_else(|| "-".into(), |watchdog| format!("{}, {} s", watchdog.identity, watchdog.timeout)),
            guard.and_then(|guard| guard.lease_ms).map_or_else(|| "-".into(), |lease| format!("{} s", lease.div_ceil(1000))),
            node.bound.map_or_else(|| "-".into(), |bound| format!("{bound} s")),
            is_yes(&node.lease),
        ]
    });
    let header = ["NODE", "BY SHARE", "BMC", "WATCHDOG", "LEASE", "WRITES AT MOST", "BY LEASE AND WATCHDOG"];
    format!("{share}\n{wait}\n{}", table(header, rows, setting))
}

/// `lodge node bmc show` and `set`.
pub fn bmc(bmc: &BmcView, setting: &Setting) -> String {
    let trust = match &bmc.trust {
        Trust::Fingerprint(fingerprint) => fingerprint.to_string(),
        Trust::Ca(pem) => format!("a CA ({} certificates)", pem.matches("BEGIN CERTIFICATE").count()),
    };
    let rows = [
        ("address", bmc.url.clone()),
        ("user", bmc.user.clone()),
        ("system", or_dash(bmc.system.as_deref())),
        ("known by", trust),
        ("machine", bmc.machine.map_or_else(|| "-".into(), |machine| machine.to_string())),
        ("once fenced", if bmc.stays_off { "stays off" } else { "switched on again" }.to_owned()),
        ("set", time(bmc.set, setting)),
    ];
    pairs("", &rows)
}

/// `lodge node bmc test`.
pub fn bmc_test(test: &BmcTest) -> String {
    let rows = [
        ("power", test.power.clone()),
        ("system", test.system.clone()),
        ("model", or_dash(Some(&test.model))),
        ("machine", test.machine.map_or_else(|| "not said".into(), |machine| machine.to_string())),
        ("offers", if test.resets.is_empty() { "not said".to_owned() } else { test.resets.join(", ") }),
        ("took", format!("{} ms", test.ms)),
    ];
    pairs("", &rows)
}
