//! `lodge node show`: everything about one node, on one page.

use lodge_model::api::{NodeDetail, ShareHealth};
use lodge_model::facts::{Disk, Facts, Firmware, human_bytes};
use lodge_model::layout::Slot;

use super::{Setting, about, ago, lines, or_dash, pairs, plain, roles, state, time};

/// The page.
pub fn node_page(node: &NodeDetail, setting: &Setting) -> String {
    let mut page = head(node, setting);
    if let Some(facts) = &node.facts {
        page.push_str(&hardware(facts, node.disk_serial.as_deref()));
    }
    page.push_str(&installation(node, setting));
    page.push_str(&boot(node));
    lines(&page)
}

fn head(node: &NodeDetail, setting: &Setting) -> String {
    let view = &node.node;
    let about = about(view);
    let state = state(view.state);
    let rows = vec![
        ("state", if about.is_empty() { state.to_owned() } else { format!("{state}: {about}") }),
        ("roles", roles(&view.roles)),
        ("address", or_dash(view.address.as_deref())),
        ("seen", view.seen.map_or_else(|| "-".into(), |seen| format!("{} ({})", time(seen, setting), ago(seen, setting.now)))),
        ("node id", view.node.map_or_else(|| "-".into(), |node| node.to_string())),
        ("machine id", view.machine.to_string()),
        ("boot id", node.boot.map_or_else(|| "-".into(), |boot| boot.to_string())),
        ("version", or_dash(view.version.as_deref())),
        ("kernel", or_dash(node.kernel.as_deref())),
        ("slot", node.slot.map_or("-", slot).to_owned()),
        ("disk", or_dash(node.disk_serial.as_deref())),
        ("share", share(&node.share)),
    ];
    format!("{}\n{}", plain(&view.name), pairs("  ", &rows))
}

fn slot(slot: Slot) -> &'static str {
    match slot {
        Slot::A => "A",
        Slot::B => "B",
    }
}

fn share(health: &ShareHealth) -> String {
    match health {
        ShareHealth::Unknown => "-".into(),
        ShareHealth::Serving => "served by this node".into(),
        ShareHealth::Mounted { probe_ms } => format!("mounted, last proof took {probe_ms} ms"),
        ShareHealth::Failed { error } => format!("FAILED: {error}"),
    }
}

fn hardware(facts: &Facts, installed_on: Option<&str>) -> String {
    let firmware = match facts.firmware {
        Firmware::Uefi => "UEFI",
        Firmware::Bios => "BIOS",
    };
    let rows = vec![
        ("product", or_dash(Some(&facts.product))),
        ("firmware", firmware.to_owned()),
        ("processors", format!("{} ({})", facts.cpus, or_dash(Some(&facts.cpu_model)))),
        ("memory", human_bytes(facts.memory)),
    ];
    let disks = facts.disks.iter().map(|disk| format!("  disk        {}\n", plain(&describe(disk, installed_on))));
    let nics = facts.nics.iter().map(|nic| {
        let link = match (nic.link, nic.speed) {
            (false, _) => "no link".to_owned(),
            (true, Some(speed)) => format!("link at {speed} Mbit/s"),
            (true, None) => "link".to_owned(),
        };
        let parts = [nic.name.as_str(), nic.mac.as_str(), nic.driver.as_str(), &link, &nic.addresses.join(" ")];
        let parts: Vec<&str> = parts.into_iter().filter(|part| !part.is_empty()).collect();
        format!("  network     {}\n", plain(&parts.join(", ")))
    });
    let (disks, nics): (String, String) = (disks.collect(), nics.collect());
    format!("\nhardware\n{}{disks}{nics}", pairs("  ", &rows))
}

fn describe(disk: &Disk, installed_on: Option<&str>) -> String {
    let mut notes = Vec::new();
    notes.extend((installed_on == Some(disk.serial.as_str()) && !disk.serial.is_empty()).then_some("Lodge is on it"));
    notes.extend(disk.removable.then_some("removable"));
    notes.extend(disk.read_only.then_some("read-only"));
    let notes = if notes.is_empty() { String::new() } else { format!("; {}", notes.join(", ")) };
    format!("{}{notes}", disk.describe())
}

fn installation(node: &NodeDetail, setting: &Setting) -> String {
    let Some(last) = node.install.last() else { return String::new() };
    let total: f64 = node.install.iter().map(|step| step.seconds).sum();
    let width = node.install.iter().map(|step| step.step.len()).max().unwrap_or(0);
    let steps = node.install.iter().map(|step| format!("  {:<width$}  {:>8.1} s\n", plain(&step.step), step.seconds));
    let steps: String = steps.collect();
    format!("\ninstallation, done {}\n{steps}  {:<width$}  {total:>8.1} s\n", time(last.at, setting), "in all")
}

/// Each moment, and how long it was after the one before.
fn boot(node: &NodeDetail) -> String {
    if node.phases.is_empty() {
        return String::new();
    }
    let width = node.phases.iter().map(|phase| phase.name.len()).max().unwrap_or(0);
    let mut before = 0.0;
    let phases: String = node
        .phases
        .iter()
        .map(|phase| {
            let took = phase.at - std::mem::replace(&mut before, phase.at);
            format!("  {:<width$}  {:>8.1} s  +{took:.1} s\n", plain(&phase.name), phase.at)
        })
        .collect();
    format!("\nlast boot, seconds since the kernel started\n{phases}")
}
