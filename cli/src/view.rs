//! What people see. Pure: values and the time in, text out.
//!
//! Text that comes from machines may hold anything; control characters never reach the terminal.

mod drain;
mod environment;
mod failover;
mod hosting;
mod node;
mod rolling;
#[cfg(test)]
pub mod samples;

pub use drain::{by_way, certificate, drain, drain_line, moved, settings, would_move};
pub use environment::{Before, environment_line, environment_page, environments, plan, restart, snapshots, stats, verdict};
pub use failover::{bmc, bmc_test, capacity, failover, fencing, incident_page, incidents, timeline};
pub use hosting::{pools, template_page, templates, user_token, users};
pub use node::node_page;
pub use rolling::{rolling, rolling_line, rolling_question};

use comfy_table::{ColumnConstraint, ContentArrangement, Table, Width, presets};
use jiff::tz::TimeZone;
use jiff::{Timestamp, Unit};
use lodge_model::api::{ClusterView, EventView, NodeState, NodeView, TicketView, TokenView};
use lodge_model::node::Role;

const LAST_COLUMN: ColumnConstraint = ColumnConstraint::LowerBoundary(Width::Fixed(20));

/// What a view depends on besides its values.
#[derive(Clone, Debug)]
pub struct Setting {
    /// Now.
    pub now: Timestamp,
    /// The reader's.
    pub zone: TimeZone,
    /// Columns of the terminal; unlimited where there is none.
    pub width: Option<u16>,
}

/// `lodge node ls`.
pub fn nodes(nodes: &[NodeView], setting: &Setting) -> String {
    if nodes.is_empty() {
        return "no node yet: start a machine from lodge.iso or from the network; `lodge token new` gives it a token\n".into();
    }
    let header = ["NAME", "STATE", "ROLES", "ADDRESS", "VERSION", "SEEN", ""];
    let rows = nodes.iter().map(|node| {
        [
            node.name.clone(),
            state(node.state).to_owned(),
            roles(&node.roles),
            or_dash(node.address.as_deref()),
            or_dash(node.version.as_deref()),
            node.seen.map_or_else(|| "-".into(), |seen| ago(seen, setting.now)),
            about(node),
        ]
    });
    table(header, rows, setting)
}

/// `lodge ticket ls`.
pub fn tickets(tickets: &[TicketView], setting: &Setting) -> String {
    if tickets.is_empty() {
        return "no ticket yet\n".into();
    }
    let header = ["TICKET", "NODE", "MACHINE", "DISK", "OVERWRITE", "STATE", "CREATED", "EXPIRES"];
    let rows = tickets.iter().map(|ticket| {
        [
            ticket.id.to_string(),
            ticket.node.clone(),
            ticket.machine.to_string(),
            ticket.disk_serial.clone(),
            if ticket.wipe { "yes" } else { "no" }.to_owned(),
            ticket.state.clone(),
            time(ticket.created, setting),
            time(ticket.expires, setting),
        ]
    });
    table(header, rows, setting)
}

/// One line of `lodge node events`.
pub fn event(event: &EventView, setting: &Setting) -> String {
    let machine = || event.machine.map_or_else(|| "-".to_owned(), |machine| machine.to_string());
    let node = event.node.clone().unwrap_or_else(machine);
    plain(&format!("{:>6}  {}  {node:<16} {:<12} {}", event.id, time(event.at, setting), event.kind, event.text)) + "\n"
}

/// `lodge token new`.
pub fn token(token: &TokenView, setting: &Setting) -> String {
    let TokenView { token, expires, words } = token;
    let until = time(*expires, setting);
    format!(
        "{token}\n\nGood for one machine, until {until}; it is not shown again.\n\
         For a kernel command line, an SMBIOS string or a DHCP option:\n  {words}\n"
    )
}

/// `lodge cluster show`.
pub fn cluster(cluster: &ClusterView, setting: &Setting) -> String {
    let rows = vec![
        ("nodes", format!("{} registered, {} ready", cluster.nodes, cluster.ready)),
        ("center", format!("version {}", cluster.version)),
        ("bundle", cluster.bundle.clone().unwrap_or_else(|| "none: nodes cannot be installed from this center".into())),
        ("ca", cluster.ca.to_string()),
        ("time", time(cluster.now, setting)),
    ];
    pairs("", &rows)
}

/// What a node waits for, or how far it is.
fn about(node: &NodeView) -> String {
    let step = node.step.as_ref().map(|(step, percent)| format!("{step} {percent} %"));
    let reason = (!node.reason.is_empty()).then(|| node.reason.clone());
    let drain = (!node.drain.is_empty()).then(|| node.drain.clone());
    [step, reason, drain].into_iter().flatten().collect::<Vec<_>>().join("; ")
}

fn state(state: NodeState) -> &'static str {
    match state {
        NodeState::Waiting => "waiting",
        NodeState::Installing => "installing",
        NodeState::Installed => "installed",
        NodeState::Registered => "registered",
        NodeState::Ready => "ready",
        NodeState::Silent => "silent",
        NodeState::Off => "off",
    }
}

fn roles(roles: &[Role]) -> String {
    let roles: Vec<String> = roles.iter().map(ToString::to_string).collect();
    if roles.is_empty() { "-".into() } else { roles.join(",") }
}

fn or_dash(text: Option<&str>) -> String {
    text.filter(|text| !text.is_empty()).unwrap_or("-").to_owned()
}

/// `12 s ago`, the coarser the longer; a clock that is a little ahead is no reason for a negative number.
fn ago(then: Timestamp, now: Timestamp) -> String {
    let seconds = now.duration_since(then).as_secs().max(0);
    match seconds {
        0 => "now".into(),
        1..120 => format!("{seconds} s ago"),
        120..7200 => format!("{} min ago", seconds / 60),
        7200..172_800 => format!("{} h ago", seconds / 3600),
        _ => format!("{} days ago", seconds / 86_400),
    }
}

/// In the reader's time zone, to the second.
fn time(at: Timestamp, setting: &Setting) -> String {
    let zoned = at.to_zoned(setting.zone.clone());
    zoned.round(Unit::Second).unwrap_or(zoned).strftime("%Y-%m-%d %H:%M:%S").to_string()
}

fn table<const N: usize>(header: [&str; N], rows: impl Iterator<Item = [String; N]>, setting: &Setting) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(header);
    match setting.width {
        Some(width) => table.set_content_arrangement(ContentArrangement::Dynamic).set_width(width),
        None => table.set_content_arrangement(ContentArrangement::Disabled),
    };
    table.add_rows(rows.map(|row| row.map(|cell| plain(&cell))));
    for (at, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, 2));
        // An address or a name in two pieces cannot be copied: only the last column is broken.
        column.set_constraint(if at + 1 < N { ColumnConstraint::ContentWidth } else { LAST_COLUMN });
    }
    lines(&table.to_string())
}

/// Names, right-padded, and their values.
fn pairs(indent: &str, rows: &[(&str, String)]) -> String {
    let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    rows.iter().map(|(name, value)| format!("{indent}{name:<width$}  {}\n", plain(value))).collect()
}

/// Without the blanks that padding leaves at the ends of lines.
fn lines(text: &str) -> String {
    text.lines().map(|line| format!("{}\n", line.trim_end())).collect()
}

/// Without control characters.
fn plain(text: &str) -> String {
    text.chars().map(|char| if char.is_control() { ' ' } else { char }).collect()
}

/// A text of many lines without control characters, for a terminal.
pub fn plain_lines(text: &str) -> String {
    text.chars().filter(|char| !char.is_control() || matches!(char, '\n' | '\t')).collect()
}

#[cfg(test)]
mod tests;
