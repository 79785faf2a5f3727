//! Environments on two nodes, as who rents one sees them: reached by HTTP and ssh, each a server of its own that speaks for nobody else,
//! and gone without a trace when destroyed.

use std::{
    io::{Read as _, Write as _},
    time::Duration,
};

use anyhow::{Context, Result};
use lodge_model::{
    environment::{
        share::ENVIRONMENTS,
        view::{EnvironmentView, Phase},
    },
    paths,
};
use sha2::{Digest as _, Sha256};

use super::{Bench, ask_until};
use crate::{
    api::Operator,
    hosting::{Hosting, Wanted, address, http_get},
    machine::Machine,
    rack::CENTER,
    scenario::{Site, hold},
};

/// An environment comes back from a reboot, or goes off, within this on the reference machine.
pub const SOON: Duration = Duration::from_secs(60);
/// Bytes that go through `exec` and back.
const STREAM: usize = 20 << 20;
/// The same, where there is time.
const LONG_STREAM: usize = 100_000_000;

pub fn run(bench: &mut Bench) -> Result<()> {
    let site = bench.site()?;
    let hosting = Hosting::prepare(&site.rack, &site.operator)?;
    let names = ["web1", "web2", "web3"];
    for (name, node) in names.iter().zip(["node1", "node2", "node1"]) {
        let made = hosting.create(&site.operator, &Wanted { name, memory: "96M", more: &["--node", node] })?;
        hold(made.phase == Phase::Running && made.node.as_deref() == Some(node), || {
            format!("{name} is not as asked: {made:?}")
        })?;
    }
    is_a_server(site, &hosting, "web1")?;
    streams(&site.operator, "web1", STREAM)?;
    is_seen_on_its_node(site, "web1")?;
    takes_for_each(site.rack.machine("node1")?, 2)?;
    takes_for_each(site.rack.machine("node2")?, 1)?;
    is_left_alone_by_udev(site.rack.machine("node1")?)?;
    is_open_on_the_share(site, 3)?;
    cannot_forge(site, "web1", "web3")?;
    obeys_its_own_init(site, "web2")?;
    keeps_snapshots(&site.operator, "web3")?;
    site.operator.lodge(&["env", "destroy", "web1", "web2", "web3", "--yes", "--wait"])?;
    leaves_nothing(site)
}

/// As much through `exec` as somebody moves who uses it in place of a file transfer.
pub fn run_long_stream(bench: &mut Bench) -> Result<()> {
    let site = bench.site()?;
    let hosting = Hosting::prepare(&site.rack, &site.operator)?;
    hosting.create(&site.operator, &Wanted { name: "stream", memory: "96M", more: &[] })?;
    streams(&site.operator, "stream", LONG_STREAM)?;
    site.operator.lodge(&["env", "destroy", "stream", "--yes", "--wait"]).map(drop)
}

/// It answers HTTP and ssh from outside, with its own name, memory, processes and root.
fn is_a_server(site: &Site, hosting: &Hosting, name: &str) -> Result<()> {
    let address = address(&site.operator.environment(name)?)?;
    let page = http_get(&site.rack, site.rack.forward(address, 80)?, "/")?;
    hold(page.contains("200 OK") && page.contains(name), || format!("{name} answers {page:?}"))?;
    let port = site.rack.forward(address, 22)?;
    let said = hosting.ssh(&site.rack, port, "hostname; id -u; cat /proc/1/comm; grep MemTotal /proc/meminfo")?;
    let lines: Vec<&str> = said.lines().collect();
    hold(lines[..3] == [name, "0", "init"], || format!("by ssh, {name} says {said:?}"))?;
    let kib = lines.get(3).and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
    hold(kib == Some(96 << 10), || format!("{name} sees {kib:?} KiB of memory, not its own 96 MiB"))
}

/// Exit status, both outputs, and so many bytes in and out unchanged.
fn streams(operator: &Operator, name: &str, bytes: usize) -> Result<()> {
    let output = operator.try_lodge(&["env", "exec", name, "--", "sh", "-c", "echo out; echo err >&2; exit 7"])?;
    let ended = (output.status.code(), output.stdout.as_slice(), output.stderr.as_slice());
    hold(ended == (Some(7), b"out\n", b"err\n"), || format!("exec gave {ended:?}"))?;
    let mut child = operator.spawn(&["env", "exec", name, "--", "sh", "-c", "cat; exit 9"])?;
    let mut input = child.stdin.take().context("no standard input")?;
    let sent: Vec<u8> = (0..bytes).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let digest = Sha256::digest(&sent);
    let writer = std::thread::spawn(move || input.write_all(&sent));
    let mut back = Vec::with_capacity(bytes);
    child.stdout.take().context("no standard output")?.read_to_end(&mut back).context("reading what comes back")?;
    writer.join().map_err(|_| anyhow::anyhow!("the writer panicked"))?.context("writing to cat")?;
    let status = child.wait().context("waiting for exec")?;
    hold(status.code() == Some(9), || format!("after {bytes} bytes exec ended with {status}, not with the command's 9"))?;
    hold(Sha256::digest(&back) == digest, || format!("{} of {bytes} bytes came back, or others", back.len()))
}

/// `machinectl` on its node lists it, with its address, and nobody else does.
fn is_seen_on_its_node(site: &Site, name: &str) -> Result<()> {
    let environment = site.operator.environment(name)?;
    let (ip, node) = (address(&environment)?.to_string(), environment.node.unwrap_or_default());
    for other in site.node_names() {
        let listed = site.rack.machine(&other)?.run("machinectl list --no-legend --no-pager")?;
        let line = listed.lines().find(|line| line.split_whitespace().next() == Some(name));
        hold(line.is_some() == (other == node), || format!("{name} runs on {node}; machinectl on {other} lists {listed:?}"))?;
        hold(line.is_none_or(|line| line.contains(&ip)), || {
            format!("{name} has {ip}; machinectl on {other} lists {listed:?}")
        })?;
    }
    Ok(())
}

/// A node's udev has no program to run for the link of an environment, as it has for others.
fn is_left_alone_by_udev(machine: &Machine) -> Result<()> {
    let runs_for = |links: &str| -> Result<bool> {
        let said =
            machine.run(&format!("for link in /sys/class/net/{links}; do udevadm test --action=add $link 2>&1; done"))?;
        hold(said.contains("Queued commands"), || format!("udev says nothing of {links}: {said:?}"))?;
        Ok(said.lines().any(|line| line.trim_start().starts_with("RUN{program}")))
    };
    hold(runs_for("br0")?, || "udev has nothing to run for br0: then this shows nothing".into())?;
    hold(!runs_for("env*")?, || "udev would run a program for the link of an environment".into())
}

/// With another's address, or another hardware address, nothing comes through; with its own again, everything does.
fn cannot_forge(site: &Site, name: &str, other: &str) -> Result<()> {
    let operator = &site.operator;
    let gateway = "10.77.0.10";
    let reaches = |source: &str| -> Result<bool> {
        let ping = format!("ping -c 2 -W 2 {source} {gateway}");
        Ok(operator.try_lodge(&["env", "exec", name, "--", "sh", "-c", &ping])?.status.success())
    };
    hold(reaches("")?, || format!("{name} does not reach {gateway}"))?;
    let victim = address(&operator.environment(other)?)?;
    operator.exec(name, &format!("ip addr add {victim}/24 dev eth0"))?;
    hold(!reaches(&format!("-I {victim}"))?, || format!("{name} spoke as {victim}, the address of {other}"))?;
    operator.exec(name, &format!("ip addr del {victim}/24 dev eth0"))?;
    let own = operator.environment(name)?.mac;
    operator.exec(name, "ip link set eth0 address 02:00:00:00:00:99")?;
    hold(!reaches("")?, || format!("{name} spoke with another hardware address"))?;
    operator.exec(name, &format!("ip link set eth0 address {own}"))?;
    hold(reaches("")?, || format!("{name} does not reach {gateway} any more"))
}

/// `reboot` and `poweroff` inside do what a user expects; stop and start from outside keep its files.
fn obeys_its_own_init(site: &Site, name: &str) -> Result<()> {
    let operator = &site.operator;
    operator.exec(name, "echo kept > /root/note; sync")?;
    let before = operator.environment(name)?.started;
    operator.exec(name, "(sleep 0.2; reboot) >/dev/null 2>&1 &")?;
    until(site, name, "started again after its reboot", |env| env.phase == Phase::Running && env.started != before)?;
    operator.exec(name, "(sleep 0.2; poweroff) >/dev/null 2>&1 &")?;
    until(site, name, "off after its poweroff", |env| env.phase == Phase::Ended)?;
    operator.lodge(&["env", "start", name, "--wait"])?;
    hold(operator.exec(name, "cat /root/note")? == "kept\n", || format!("{name} lost its file"))?;
    operator.lodge(&["env", "stop", name, "--wait"])?;
    hold(operator.environment(name)?.phase == Phase::Stopped, || format!("{name} is not stopped"))?;
    operator.lodge(&["env", "start", name, "--wait"])?;
    operator.lodge(&["env", "kill", name, "--wait"])?;
    Ok(())
}

fn keeps_snapshots(operator: &Operator, name: &str) -> Result<()> {
    operator.exec(name, "echo before > /root/state; sync")?;
    operator.lodge(&["env", "snapshot", name, "before", "--wait"])?;
    operator.exec(name, "echo after > /root/state; sync")?;
    operator.lodge(&["env", "stop", name, "--wait"])?;
    operator.lodge(&["env", "rollback", name, "before", "--yes", "--wait"])?;
    operator.lodge(&["env", "start", name, "--wait"])?;
    let state = operator.exec(name, "cat /root/state")?;
    hold(state == "before\n", || format!("after the rollback the file says {state:?}"))
}

/// What environments take of a node, each with a command that counts it.
const TAKEN: [(&str, &str); 9] = [
    ("mounts", "cat /proc/[0-9]*/mounts 2>/dev/null | sort -u | grep -c -e /run/lodge/environments/ -e /run/lodge/templates/"),
    ("loop devices", "ls -d /sys/block/loop*/loop/backing_file 2>/dev/null | wc -l"),
    ("control groups", "find /sys/fs/cgroup/env -mindepth 1 -type d 2>/dev/null | wc -l"),
    ("processes", "find /sys/fs/cgroup/env -name cgroup.procs -exec cat {} + 2>/dev/null | wc -l"),
    ("links", "ls /sys/class/net | grep -c '^env'"),
    ("guards", "nft list table bridge lodge 2>/dev/null | grep -o -e 'chain environment-' -e goto | wc -l"),
    ("directories", "ls /run/lodge/environments 2>/dev/null | wc -l"),
    ("containers", "ls /run/lodge/crun 2>/dev/null | wc -l"),
    ("console sockets", "ls /run/lodge/consoles 2>/dev/null | grep -c sock"),
];
/// A client gives a lock back on its own time, after the file is closed.
const LOCKS_GONE: Duration = Duration::from_secs(10);

/// Counted on the nodes, on the share and in its server: mounts, loop devices, control groups, links, processes, files, locks.
pub fn leaves_nothing(site: &Site) -> Result<()> {
    hold(site.operator.environments()?.is_empty(), || "the center still lists environments".into())?;
    for name in site.node_names() {
        takes_nothing(site.rack.machine(&name)?)?;
    }
    let center = site.rack.machine(CENTER)?;
    let files = count(center, &files())?;
    hold(files == 0, || format!("{files} environments have files left on the share"))?;
    ask_until(site.rack.host.scale(LOCKS_GONE), "that no disk on the share is open or locked", || {
        Ok((count(center, OPEN)? == 0 && count(center, LOCKED)? == 0).then_some(()))
    })
}

/// What the share's server knows of its clients' files. A client that may decide alone keeps its locks to itself; opens it always tells.
const OPEN: &str = "cat /proc/fs/nfsd/clients/*/states | grep -c disk.img";
const LOCKED: &str = "cat /proc/fs/nfsd/clients/*/states | grep -c 'type: lock'";

fn files() -> String {
    format!("ls {}/{ENVIRONMENTS} | wc -l", paths::SHARE_DATA)
}

/// The counts on the share see the environments that there are.
pub fn is_open_on_the_share(site: &Site, environments: u64) -> Result<()> {
    let center = site.rack.machine(CENTER)?;
    let (files, open) = (count(center, &files())?, count(center, OPEN)?);
    hold(files == environments && open >= environments, || {
        format!("{environments} environments run: {files} have files, {open} opens of disks are known to the server")
    })
}

/// Every count sees the environments that run on a machine: only then do its zeros mean something.
pub fn takes_for_each(machine: &Machine, environments: usize) -> Result<()> {
    for (what, command) in TAKEN {
        let found = count(machine, command)?;
        hold(found >= environments as u64, || {
            format!("{} counts {found} {what} while {environments} environments run", machine.spec.name)
        })?;
    }
    Ok(())
}

/// Nothing of any environment is left on a machine.
pub fn takes_nothing(machine: &Machine) -> Result<()> {
    for (what, command) in TAKEN {
        let left = count(machine, command)?;
        hold(left == 0, || format!("{} has {left} {what} left", machine.spec.name))?;
    }
    Ok(())
}

fn count(machine: &Machine, command: &str) -> Result<u64> {
    let said = machine.run(&format!("{command} || true"))?;
    said.trim().parse().with_context(|| format!("{} counts {said:?} with {command:?}", machine.spec.name))
}

/// Wait until the center shows an environment so.
pub fn until(site: &Site, name: &str, what: &str, is_so: impl Fn(&EnvironmentView) -> bool) -> Result<EnvironmentView> {
    let limit = site.rack.host.scale(SOON);
    ask_until(limit, &format!("{name} {what}"), || Ok(Some(site.operator.environment(name)?).filter(|found| is_so(found))))
}
