//! Drains, certificates and settings as people see them.

use lodge_model::drain::{Cause, CertificateView, DrainItem, DrainState, DrainView, MoveView, Power, Settings, Verdict};

use super::{Setting, lines, pairs, plain, table, time};

/// The plan, or how it stands: one line an environment.
pub fn drain(view: &DrainView, setting: &Setting) -> String {
    let mut text = format!("{}\n", plain(&head(view, setting)));
    if !view.items.is_empty() {
        text.push_str(&items(&view.items, setting));
    }
    if !view.waits.is_empty() {
        text.push_str(&format!("waits: {}\n", plain(&view.waits)));
    }
    if view.state == DrainState::Drained && view.then.is_none() {
        text.push_str(&format!(
            "lodge node certificate {0} shows the certificate, lodge node undrain {0} ends it\n",
            plain(&view.node)
        ));
    }
    text
}

/// One line for while it is waited for.
pub fn drain_line(view: &DrainView) -> String {
    let count = |wanted: fn(Verdict) -> bool| view.items.iter().filter(|item| wanted(item.verdict)).count();
    let gone = count(Verdict::is_final);
    let under_way = count(|verdict| matches!(verdict, Verdict::Stopping | Verdict::Starting));
    let waits = if view.waits.is_empty() { String::new() } else { format!("; {}", view.waits) };
    plain(&format!("{}: {gone} of {} have left, {under_way} under way{waits}", view.node, view.items.len()))
}

/// `lodge node certificate`.
pub fn certificate(view: &CertificateView, setting: &Setting) -> String {
    let why = if view.reason.is_empty() { String::new() } else { format!(": {}", view.reason) };
    let rows = vec![
        ("node", view.node.clone()),
        ("node id", view.certificate.node.to_string()),
        ("boot id", view.certificate.boot.to_string()),
        ("issued", time(view.issued, setting)),
        ("cause", format!("{}{why}", cause(view.cause))),
        ("counted", view.certificate.counts.words()),
        ("signature", "good: by the node's key, which the center's CA has certified".to_owned()),
    ];
    let list = if view.items.is_empty() { "it had no environments\n".to_owned() } else { items(&view.items, setting) };
    lines(&format!("{}\n{list}", pairs("", &rows)))
}

/// `lodge cluster settings`.
pub fn settings(settings: &Settings) -> String {
    let seconds = |value: u32| format!("{value} s");
    let rows = vec![
        ("operator-deadline", seconds(settings.operator_deadline)),
        ("button-deadline", seconds(settings.button_deadline)),
        ("ups-deadline", seconds(settings.ups_deadline)),
        ("moves-per-source", settings.moves_per_source.to_string()),
        ("moves-per-target", settings.moves_per_target.to_string()),
        ("moves-per-cluster", settings.moves_per_cluster.to_string()),
        ("move", settings.move_by.word().to_owned()),
        ("patience", settings.patience.to_string()),
        ("spare", settings.spare.to_string()),
        ("lease-wait", if settings.lease_wait == 0 { "never".to_owned() } else { seconds(settings.lease_wait) }),
    ];
    pairs("", &rows)
}

/// A move that is done: `moved from n1 to n2, away for 3.2 s (stop 1.1 s)`.
pub fn moved(done: &MoveView) -> String {
    let to = done.to.as_deref().unwrap_or("-");
    let stop = done.stop_ms.map_or(String::new(), |stop| format!(" (stop {})", gap(Some(stop))));
    let note = if done.note.is_empty() { String::new() } else { format!("; {}", done.note) };
    let reach = done.reach.as_ref().map_or(String::new(), |reach| match reach.problem.as_str() {
        "" => format!("; reached from {} after {} ms", reach.from, reach.ms),
        problem => format!("; not reached from {}: {problem}", reach.from),
    });
    let way = by_way(&done.way, "");
    format!("moved from {} to {to} {way}, away for {}{stop}{note}{reach}", done.from, gap(done.gap_ms))
}

/// A move that is planned or goes on: `from n1 to n2 live (nothing speaks against it)`.
pub fn would_move(moving: &MoveView) -> String {
    let to = moving.to.as_deref().unwrap_or("-");
    format!("from {} to {to} {}", moving.from, by_way(&moving.way, &moving.because))
}

/// How it moves, and why.
pub fn by_way(way: &str, because: &str) -> String {
    let why = if because.is_empty() { String::new() } else { format!(" ({because})") };
    match way {
        "live" => format!("live{why}"),
        _ => format!("by {way}{why}"),
    }
}

fn head(view: &DrainView, setting: &Setting) -> String {
    let state = match view.state {
        DrainState::Planned => "would be drained",
        DrainState::Draining => "is being drained",
        DrainState::Certifying => "is empty and counts what is left on it",
        DrainState::Drained => "has been drained; its certificate is issued",
    };
    let then = match view.then {
        Some(Power::Poweroff) => ", and is switched off then",
        Some(Power::Reboot) => ", and is restarted then",
        None => "",
    };
    let why = if view.reason.is_empty() { String::new() } else { format!(" ({})", view.reason) };
    let until = view.deadline.map_or(String::new(), |end| format!("; what is left at {} is shut down", time(end, setting)));
    format!("{} {state}{then}, by {}{why}{until}", view.node, cause(view.cause))
}

fn cause(cause: Cause) -> &'static str {
    cause.words()
}

fn items(items: &[DrainItem], setting: &Setting) -> String {
    let header = ["ENVIRONMENT", "TO", "WAY", "STATE", "GAP", ""];
    let rows = items.iter().map(|item| {
        let measured = item.gap_ms.map(|value| gap(Some(value)));
        let expected = || item.expected_ms.map(|value| format!("~{}", gap(Some(value))));
        [
            item.environment.clone(),
            item.to.clone().unwrap_or_else(|| "-".into()),
            item.way.clone(),
            verdict(item.verdict).to_owned(),
            measured.or_else(expected).unwrap_or_else(|| "-".into()),
            about(item),
        ]
    });
    table(header, rows, setting)
}

/// What keeps it, or is worth knowing of how it went; of one that is still to go, why it goes that way.
fn about(item: &DrainItem) -> String {
    let because = Some(item.because.clone()).filter(|_| !item.verdict.is_final());
    let parts = [Some(item.reason.clone()), because].into_iter().flatten().filter(|part| !part.is_empty());
    parts.collect::<Vec<_>>().join("; ")
}

fn verdict(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Waits => "waits",
        Verdict::Stopping => "stopping",
        Verdict::Starting => "starting",
        Verdict::Moved => "moved",
        Verdict::MovedLive => "moved live",
        Verdict::Stopped => "stopped",
        Verdict::Killed => "killed",
    }
}

fn gap(millis: Option<u64>) -> String {
    millis.map_or_else(|| "-".into(), |millis| format!("{}.{} s", millis / 1000, millis % 1000 / 100))
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::tz::TimeZone;

    fn setting() -> Setting {
        Setting { now: "2026-11-22T10:00:00Z".parse().unwrap(), zone: TimeZone::UTC, width: None }
    }

    fn item(name: &str, verdict: Verdict, to: Option<&str>) -> DrainItem {
        DrainItem {
            environment: name.into(),
            to: to.map(str::to_owned),
            way: "restart".into(),
            because: "its template does not say that it can be moved live".into(),
            verdict,
            reason: if to.is_none() { "not enough free memory on node2".into() } else { String::new() },
            expected_ms: Some(4200),
            gap_ms: matches!(verdict, Verdict::Moved | Verdict::MovedLive).then_some(3199),
        }
    }

    fn view() -> DrainView {
        DrainView {
            node: "node1".into(),
            state: DrainState::Draining,
            cause: Cause::Operator,
            reason: "new memory".into(),
            ordered: "2026-11-22T10:00:00Z".parse().unwrap(),
            deadline: Some("2026-11-22T10:15:00Z".parse().unwrap()),
            then: Some(Power::Poweroff),
            items: vec![
                item("web1", Verdict::Moved, Some("node2")),
                item("db1", Verdict::Stopping, Some("node3")),
                item("big", Verdict::Waits, None),
            ],
            waits: "no node takes big: not enough free memory on node2".into(),
            version: 3,
        }
    }

    #[test]
    fn a_drain_names_each_with_its_target_its_gap_and_what_keeps_it() {
        let text = drain(&view(), &setting());
        for part in [
            "node1 is being drained, and is switched off then, by an operator (new memory)",
            "3.1 s",
            "~4.2 s",
            "not enough free memory on node2; its template",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert_eq!(
            drain_line(&view()),
            "node1: 1 of 3 have left, 1 under way; no node takes big: not enough free memory on node2"
        );
    }

    #[test]
    fn a_move_is_told_in_one_sentence() {
        let done = MoveView {
            from: "node1".into(),
            to: Some("node2".into()),
            way: "restart".into(),
            because: "it was asked for".into(),
            not_live: None,
            at: None,
            stop_ms: Some(1100),
            gap_ms: Some(3250),
            note: String::new(),
            reach: None,
        };
        assert_eq!(would_move(&done), "from node1 to node2 by restart (it was asked for)");
        assert_eq!(
            moved(&MoveView { way: "live".into(), ..done.clone() }),
            "moved from node1 to node2 live, away for 3.2 s (stop 1.1 s)"
        );
        assert_eq!(moved(&done), "moved from node1 to node2 by restart, away for 3.2 s (stop 1.1 s)");
    }
}
