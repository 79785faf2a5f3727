//! Bare machines become a site: how each was booted, what each says it is, how large and how hungry everything is.

use std::time::Duration;

use anyhow::{Context, Result};
use lodge_model::{
    api::{NodeDetail, ShareHealth},
    layout::Slot,
    paths,
};

use super::{Bench, ready_in_center};
use crate::{
    artifacts::{self, Artifacts},
    machine::Machine,
    rack::{self, CENTER, CENTER_DISK},
    scenario::{Site, hold},
};

const MIB: u64 = 1 << 20;
const UKI_MAX: u64 = 64 * MIB;
const BUNDLE_MAX: u64 = 250 * MIB;
const INIT_MAX_KIB: u64 = 4 << 10;
const AGENT_MAX_KIB: u64 = 24 << 10;

pub fn run(bench: &mut Bench) -> Result<()> {
    sizes(&bench.artifacts)?;
    let artifacts = bench.artifacts.clone();
    let site = bench.site()?;
    let disks = [(CENTER.to_owned(), CENTER_DISK.to_owned())];
    let disks = disks.into_iter().chain(site.nodes.iter().map(|number| (rack::node_name(*number), rack::node_disk(*number))));
    let mut memory = String::new();
    for (name, serial) in disks {
        let machine = site.rack.machine(&name)?;
        booted_as_meant(machine)?;
        shown_right(site, machine, &serial, &version(&artifacts)?)?;
        memory += &memory_within_bounds(machine)?;
    }
    let listed = site.operator.nodes()?.len();
    hold(listed == site.nodes.len() + 1, || format!("lodge node ls shows {listed} machines"))?;
    bench.say(memory.trim_end());
    Ok(())
}

/// Version in the bundle's full name.
pub fn version(artifacts: &Artifacts) -> Result<String> {
    let bundle = artifacts.bundle();
    let full = bundle.canonicalize().with_context(|| format!("following {}", bundle.display()))?;
    let name = full.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let version = name.strip_prefix("lodge-os-").and_then(|rest| rest.strip_suffix(".tar.gz"));
    version.map(str::to_owned).with_context(|| format!("{name} is not lodge-os-VERSION.tar.gz"))
}

fn sizes(artifacts: &Artifacts) -> Result<()> {
    for (path, most) in [(artifacts.uki(), UKI_MAX), (artifacts.bundle(), BUNDLE_MAX)] {
        let size = artifacts::size(&path)?;
        hold(size <= most, || format!("{} has {} MiB, at most {} are allowed", path.display(), size / MIB, most / MIB))?;
    }
    Ok(())
}

/// It had 1 GiB, came in by the way it should, and runs from its own disk.
fn booted_as_meant(machine: &Machine) -> Result<()> {
    let name = &machine.spec.name;
    hold(machine.spec.memory_mib == 1024, || format!("{name} has {} MiB", machine.spec.memory_mib))?;
    let says = |text: &str| machine.console.lines.read(0, |lines| lines.iter().any(|line| line.text.contains(text)));
    let way = match machine.spec.netboot {
        Some(crate::machine::spec::Netboot::Http) => ">>Start HTTP Boot over IPv4",
        Some(crate::machine::spec::Netboot::Pxe) => ">>Start PXE over IPv4",
        None => "DVD-ROM",
    };
    hold(says(way), || format!("the firmware of {name} never said {way:?}"))?;
    let started = machine.console.lines.read(0, |lines| {
        let starting = lines.iter().rev().find(|line| line.text.contains("BdsDxe: starting"));
        starting.map(|line| line.text.clone()).unwrap_or_default()
    });
    let from_disk = !started.is_empty() && !["PXE", "HTTP", "DVD"].iter().any(|way| started.contains(way));
    hold(from_disk, || format!("{name} last started {started:?}, not its disk"))
}

/// `lodge node show` tells what is true.
fn shown_right(site: &Site, machine: &Machine, serial: &str, version: &str) -> Result<()> {
    let name = &machine.spec.name;
    let node = ready_in_center(site, name)?;
    let wrong = |what: &str| format!("lodge node show {name}: {what} is wrong: {node:?}");
    hold(node.node.machine.0 == machine.spec.uuid(), || wrong("machine"))?;
    hold(node.node.version.as_deref() == Some(version), || wrong("version"))?;
    hold(node.disk_serial.as_deref() == Some(serial), || wrong("disk serial"))?;
    hold(node.slot == Some(Slot::A), || wrong("slot"))?;
    let disks = node.facts.as_ref().map(|facts| facts.disks.clone()).unwrap_or_default();
    hold(disks.iter().any(|disk| disk.serial == serial), || wrong("list of disks"))?;
    let boot = machine.run("cat /proc/sys/kernel/random/boot_id")?;
    hold(node.boot.is_some_and(|shown| shown.to_string() == boot.trim()), || wrong("boot id"))?;
    let share = if name == CENTER {
        matches!(node.share, ShareHealth::Serving)
    } else {
        let mounts = machine.run("cat /proc/mounts")?;
        matches!(node.share, ShareHealth::Mounted { .. })
            && mounts.lines().any(|mount| mount.contains(&format!(" {} nfs4 ", paths::SHARE)))
    };
    hold(share, || wrong("share"))?;
    hold(times_are_there(&node, name), || wrong("list of step times"))
}

/// Every step of the installation and of the boot has its time. The center machine was installed before there was a center.
fn times_are_there(node: &NodeDetail, name: &str) -> bool {
    let steps = name == CENTER || (node.install.len() >= 4 && node.install.iter().all(|step| step.seconds >= 0.0));
    let in_order = node.phases.windows(2).all(|pair| pair[0].at <= pair[1].at);
    steps && node.phases.len() >= 3 && in_order
}

/// Resident memory of init and the agent, on a node that has nothing to do.
fn memory_within_bounds(machine: &Machine) -> Result<String> {
    let name = &machine.spec.name;
    let agent = agent_pid(machine)?;
    let [init, agent] = [("1", INIT_MAX_KIB), (agent.as_str(), AGENT_MAX_KIB)].map(|(pid, most)| -> Result<u64> {
        let status = machine.run(&format!("grep -E '^(Name|VmRSS):' /proc/{pid}/status"))?;
        let resident = resident_kib(&status).with_context(|| format!("reading {status:?}"))?;
        hold(resident <= most, || format!("process {pid} of {name} has {resident} KiB resident, at most {most} are allowed"))?;
        Ok(resident)
    });
    Ok(format!("{name}: init {} KiB, agent {} KiB resident\n", init?, agent?))
}

/// Process of the agent that registers, not of the one that keeps the network.
pub fn agent_pid(machine: &Machine) -> Result<String> {
    let pids = machine.run("pgrep -fx '/usr/lib/lodge/agent run'")?;
    let pids: Vec<&str> = pids.split_whitespace().collect();
    match pids[..] {
        [pid] => Ok(pid.to_owned()),
        _ => anyhow::bail!("{} runs {} agents: {pids:?}", machine.spec.name, pids.len()),
    }
}

fn resident_kib(status: &str) -> Option<u64> {
    status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?.trim().strip_suffix(" kB")?.trim().parse().ok()
}

/// Longest wait for a node to come back from its disk, on the reference machine.
pub const BOOT_LIMIT: Duration = Duration::from_secs(180);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resident_memory_is_read_as_the_kernel_writes_it() {
        assert_eq!(resident_kib("Name:\tinit\nVmRSS:\t    2104 kB\n"), Some(2104));
        assert_eq!(resident_kib("Name:\tkthreadd\n"), None);
    }
}
