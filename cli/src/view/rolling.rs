//! The reboot of a whole cluster as people see it.

use lodge_model::rolling::{RebootState, RebootView, TurnState, TurnView};

use super::{Setting, plain, table};

/// The plan, or how it stands: one line a node, and in a plan one line a move.
pub fn rolling(view: &RebootView, setting: &Setting) -> String {
    let mut text = format!("{}\n", plain(&head(view)));
    let rows = view.turns.iter().map(|turn| [turn.node.clone(), state(turn.state).to_owned(), turn.reason.clone()]);
    text.push_str(&table(["NODE", "STATE", ""], rows, setting));
    let items: Vec<_> = view.turns.iter().flat_map(|turn| turn.items.iter().map(|item| (turn.node.clone(), item))).collect();
    if !items.is_empty() {
        let rows = items.iter().map(|(node, item)| {
            [node.clone(), item.environment.clone(), item.to.clone().unwrap_or_else(|| "-".into()), item.reason.clone()]
        });
        text.push_str(&format!("\n{}", table(["FROM", "ENVIRONMENT", "TO", ""], rows, setting)));
    }
    if !view.waits.is_empty() {
        text.push_str(&format!("stopped: {}\n", plain(&view.waits)));
    }
    if view.state == RebootState::Stopped {
        text.push_str("lodge cluster reboot --continue goes on, without a node that is still away; --cancel ends it\n");
    }
    text
}

/// One line for while it is waited for.
pub fn rolling_line(view: &RebootView) -> String {
    let under_way = view.turns.iter().filter(|turn| matches!(turn.state, TurnState::Draining | TurnState::Restarting));
    let under_way: Vec<String> = under_way.map(|turn| format!("{}: {}", turn.node, turn.reason)).collect();
    plain(&format!("{} of {} nodes done; {}", count(view, TurnState::Done), all(view), under_way.join("; ")))
}

/// What is asked before it is begun.
pub fn rolling_question(plan: &RebootView) -> String {
    let stuck = plan.turns.iter().flat_map(|turn| &turn.items).filter(|item| item.to.is_none()).count();
    let nodes: Vec<&str> =
        plan.turns.iter().filter(|turn| turn.state == TurnState::Waits).map(|turn| turn.node.as_str()).collect();
    plain(&format!(
        "{} are drained and restarted, {} at a time; {} environments are moved, {} times at most, and {stuck} that no node takes are shut \
         down at the deadline",
        nodes.join(", "),
        plan.at_once,
        plan.moved,
        plan.most_moves
    ))
}

fn head(view: &RebootView) -> String {
    let why = if view.reason.is_empty() { String::new() } else { format!(" ({})", view.reason) };
    let done = format!("{} of {} nodes", count(view, TurnState::Done), all(view));
    let moved = format!("{} environments moved, {} times at most", view.moved, view.most_moves);
    match view.state {
        RebootState::Planned => {
            format!("{} nodes would be restarted, {} at a time{why}; {moved}", all(view), view.at_once)
        }
        RebootState::Running => format!("the cluster is being restarted{why}: {done} done; {moved}"),
        RebootState::Stopped => format!("the restart of the cluster has stopped{why}: {done} done; {moved}"),
        RebootState::Done => format!("the cluster has been restarted{why}: {done}; {moved}"),
        RebootState::Cancelled => format!("the restart of the cluster was ended{why}: {done} done; {moved}"),
    }
}

fn count(view: &RebootView, state: TurnState) -> usize {
    view.turns.iter().filter(|turn| turn.state == state).count()
}

fn all(view: &RebootView) -> usize {
    view.turns.iter().filter(|turn: &&TurnView| turn.state != TurnState::LeftOut).count()
}

fn state(state: TurnState) -> &'static str {
    match state {
        TurnState::Waits => "waits",
        TurnState::Draining => "is drained",
        TurnState::Restarting => "restarts",
        TurnState::Done => "done",
        TurnState::Failed => "failed",
        TurnState::LeftOut => "left out",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::tz::TimeZone;

    #[test]
    fn a_stopped_restart_says_at_which_node_why_and_how_to_go_on() {
        let turn =
            |node: &str, state, reason: &str| TurnView { node: node.into(), state, reason: reason.into(), items: vec![] };
        let view = RebootView {
            state: RebootState::Stopped,
            ordered: "2026-11-22T10:00:00Z".parse().unwrap(),
            at_once: 1,
            reason: "firmware".into(),
            turns: vec![
                turn("node1", TurnState::Done, "ready again"),
                turn("node2", TurnState::Failed, "node2 has not become ready within 900 s: no word from it"),
                turn("node3", TurnState::Waits, ""),
                turn("center1", TurnState::LeftOut, "it is the share of all others"),
            ],
            waits: "node2 has not become ready within 900 s: no word from it".into(),
            moved: 5,
            most_moves: 2,
            version: 7,
        };
        let setting = Setting { now: view.ordered, zone: TimeZone::UTC, width: None };
        let text = rolling(&view, &setting);
        for part in ["has stopped (firmware): 1 of 3 nodes done", "5 environments moved, 2 times", "node2", "--continue"] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }
}
