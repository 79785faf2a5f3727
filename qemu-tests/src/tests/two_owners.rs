//! Two nodes are told to run the same environment. First what a lock on another descriptor than the disk's own would be worth, so that
//! the rest is known to be able to fail; then forged orders, on the second node's own agent; then a node that the share's server has
//! forgotten: its late writes must not reach a disk that somebody else has.

use std::time::Duration;

use anyhow::{Context, Result};
use lodge_model::{
    environment::{
        share,
        view::{EnvironmentView, Phase},
    },
    paths,
};

use super::{
    Bench, ask_until,
    environments::{leaves_nothing, takes_nothing, until},
    ready_in_center,
    records::{Writer, complete},
};
use crate::{
    hosting::{Hosting, Wanted},
    machine::Machine,
    rack::CENTER,
    scenario::{Site, hold},
};

const FIRST: &str = "node1";
const SECOND: &str = "node2";
const NAME: &str = "two1";
/// A disk of the test's own, on the share.
const PROBE: &str = "probe.img";
/// A forged order is read, tried and refused within this on the reference machine.
const REFUSED: Duration = Duration::from_secs(90);
/// A client notices within this that its server has forgotten it.
const NOTICED: Duration = Duration::from_secs(60);

pub fn run(bench: &mut Bench) -> Result<()> {
    let site = bench.site()?;
    let hosting = Hosting::prepare(&site.rack, &site.operator)?;
    let damage = another_descriptor(site).context("a lock on another descriptor")?;
    let made = hosting.create(&site.operator, &Wanted { name: NAME, memory: "96M", more: &["--node", FIRST] })?;
    let writer = Writer::start(site, &made)?;
    let by_record = forged(site, &made, made.epoch, "belongs to node").context("an order with the same epoch")?;
    let by_lock = forged(site, &made, made.epoch + 1, "somebody else has it").context("an order with the next epoch")?;
    writer.go_on(site, writer.last(site)?)?;
    let late = forgotten(site, &made, &writer).context("a node that the server has forgotten")?;
    site.operator.lodge(&["env", "kill", NAME, "--wait"])?;
    takes_nothing(site.rack.machine(FIRST)?)?;
    site.operator.lodge(&["env", "start", NAME, "--wait"])?;
    complete(&site.operator.exec(NAME, "cat /root/records")?, late.acknowledged)?;
    site.operator.lodge(&["env", "destroy", NAME, "--yes", "--wait"])?;
    leaves_nothing(site)?;
    bench.say(&format!(
        "  lock on another descriptor: {damage}\n  forged, same epoch: {by_record}\n  forged, next epoch: {by_lock}\n  \
         forgotten by the server: record {} failed on {FIRST}, the disk stayed as it was; {} acknowledged records are all there",
        late.failed, late.acknowledged
    ));
    Ok(())
}

/// Takes the lock of a file of the share, the way any program does, and keeps it until it is killed; fails when somebody has it.
fn take_lock(machine: &Machine, file: &str) -> Result<bool> {
    let script = format!(
        "exec 9<>{}/{file}; flock -n 9 || exit 1; setsid sleep infinity >/dev/null 2>&1 & echo $! > /run/holder",
        paths::SHARE
    );
    Ok(machine.shell()?.try_run(&script, NOTICED)?.status == 0)
}

fn drop_lock(machine: &Machine) -> Result<()> {
    machine.run("kill $(cat /run/holder) && rm /run/holder").map(drop)
}

/// A loop device of one open file, the lock on another: with the lock lost, its writes go on into a disk that the second node has.
fn another_descriptor(site: &Site) -> Result<String> {
    let (first, second) = (site.rack.machine(FIRST)?, site.rack.machine(SECOND)?);
    first.run(&format!("truncate -s 16M {}/{PROBE}", paths::SHARE))?;
    hold(take_lock(first, PROBE)?, || format!("{FIRST} does not get the lock of a new file"))?;
    let device = first.run(&format!("/usr/sbin/losetup -f --show --direct-io=on {}/{PROBE}", paths::SHARE))?;
    let device = device.trim();
    first.run(&format!(
        "setsid sh -c 'n=0; while head -c 4096 /dev/urandom | /usr/bin/dd of={device} bs=4k count=1 seek=$((n % 4096)) oflag=direct conv=notrunc; \
         do n=$((n+1)); echo $n > /run/written; done' >/run/dd 2>&1 & echo $! > /run/writer"
    ))?;
    let written = more_is_written(site, first, 0)?;
    hold(!take_lock(second, PROBE)?, || format!("{SECOND} got a lock that {FIRST} has"))?;
    expire(site, FIRST)?;
    second_gets(site, second, PROBE)?;
    let before = digest(site, PROBE)?;
    let more = more_is_written(site, first, written)? - written;
    let after = digest(site, PROBE)?;
    hold(before != after, || "writes after the loss of such a lock did no damage: the test proves nothing".into())?;
    first.run(&format!("kill -TERM -$(cat /run/writer); rm /run/writer /run/written; /usr/sbin/losetup -d {device}"))?;
    drop_lock(first)?;
    drop_lock(second)?;
    second.run(&format!("rm {}/{PROBE}", paths::SHARE))?;
    Ok(format!("{more} writes of {FIRST} went into the disk that {SECOND} had"))
}

fn more_is_written(site: &Site, machine: &Machine, than: u64) -> Result<u64> {
    ask_until(site.rack.host.scale(NOTICED), "writes through the loop device", || {
        let said = machine.run("cat /run/written 2>/dev/null || true")?;
        Ok(Some(said.trim().parse().unwrap_or(0)).filter(|now| *now > than + 5))
    })
}

/// The server forgets a client, as it does with one whose lease is over when another wants what it has.
fn expire(site: &Site, node: &str) -> Result<()> {
    let center = site.rack.machine(CENTER)?;
    let clients = center.run("grep -H ^name: /proc/fs/nfsd/clients/*/info")?;
    let of_node = |line: &&str| line.split(['"', ' ', '/']).any(|word| word == node);
    let client = clients.lines().find(of_node).and_then(|line| line.split_once("/info:"));
    let (client, _) = client.with_context(|| format!("finding {node} in {clients:?}"))?;
    center.run(&format!("echo expire > {client}/ctl")).map(drop)
}

fn second_gets(site: &Site, machine: &Machine, file: &str) -> Result<()> {
    let got = || Ok(take_lock(machine, file)?.then_some(()));
    ask_until(site.rack.host.scale(NOTICED), &format!("that {} gets the lock of {file}", machine.spec.name), got)
}

/// What the server has, whatever clients believe.
fn digest(site: &Site, file: &str) -> Result<String> {
    site.rack.machine(CENTER)?.run(&format!("sha256sum {}/{file}", paths::SHARE_DATA))
}

/// The second node's agent is given the first one's assignments, made out to its own boot, while it cannot reach the center. What it says.
fn forged(site: &Site, environment: &EnvironmentView, epoch: u64, refusal: &str) -> Result<String> {
    let (first, second) = (site.rack.machine(FIRST)?, site.rack.machine(SECOND)?);
    let log = format!("{}/agent.log", paths::LOG_DIR);
    let assignments = "/run/lodge/assignments.json";
    // A name of its own: a client remembers for a while that there is no such file.
    let forged = format!("{}/forged-{epoch}", paths::SHARE);
    first.run(&format!("cp {assignments} {forged}"))?;
    second.run(
        "nft 'add table inet forged; add chain inet forged out { type filter hook output priority 0; }; \
         add rule inet forged out tcp dport 8443 drop; add chain inet forged in { type filter hook input priority 0; }; \
         add rule inet forged in tcp sport 8443 drop'",
    )?;
    let said_before = second.run(&format!("grep -c '{refusal}' {log} || true"))?;
    second.run(&format!(
        "boot=$(cat /proc/sys/kernel/random/boot_id); sed -e \"s/\\\"boot\\\":\\\"[^\\\"]*\\\"/\\\"boot\\\":\\\"$boot\\\"/\" \
         -e 's/\"epoch\":[0-9]*/\"epoch\":{epoch}/' {forged} > {assignments} && init restart agent"
    ))?;
    hold(second.run(&format!("cat {assignments}"))?.contains(&environment.id.to_string()), || "the order is not there".into())?;
    ask_until(site.rack.host.scale(REFUSED), &format!("that {SECOND} refuses: {refusal}"), || {
        Ok((second.run(&format!("grep -c '{refusal}' {log} || true"))? != said_before).then_some(()))
    })
    .with_context(|| second.run(&format!("tail -n 20 {log}")).unwrap_or_default())?;
    only_on_first(site, environment)?;
    let said = second.run(&format!("grep '{refusal}' {log} | tail -n 1"))?;
    second.run(&format!("rm {forged} && nft delete table inet forged"))?;
    ready_in_center(site, SECOND)?;
    ask_until(site.rack.host.scale(REFUSED), "that nothing of the forged order is left", || Ok(takes_nothing(second).ok()))?;
    let now = until(site, NAME, "running", |found| found.phase == Phase::Running)?;
    hold(now.epoch == environment.epoch && now.started == environment.started, || format!("it was disturbed: {now:?}"))?;
    Ok(said.trim().to_owned())
}

fn only_on_first(site: &Site, environment: &EnvironmentView) -> Result<()> {
    let processes =
        format!("find /sys/fs/cgroup/env/{} -name cgroup.procs -exec cat {{}} + 2>/dev/null | wc -l", environment.id);
    let count = |node: &str| -> Result<u64> { Ok(site.rack.machine(node)?.run(&processes)?.trim().parse()?) };
    let (first, second) = (count(FIRST)?, count(SECOND)?);
    hold(first > 0 && second == 0, || format!("{first} processes of it run on {FIRST}, {second} on {SECOND}"))?;
    let disks =
        site.rack.machine(SECOND)?.run("cat /sys/block/loop*/loop/backing_file 2>/dev/null | grep -c disk.img || true")?;
    hold(disks.trim() == "0", || format!("{SECOND} has a disk of an environment"))
}

/// How the writer fared.
struct Late {
    acknowledged: u64,
    failed: u64,
}

/// The server forgets the first node, and the second one takes the lock of the disk: the writer fails, and not one byte changes.
fn forgotten(site: &Site, environment: &EnvironmentView, writer: &Writer) -> Result<Late> {
    let second = site.rack.machine(SECOND)?;
    let disk = format!("{}/{}", share::environment(environment.id), share::DISK);
    hold(!take_lock(second, &disk)?, || format!("{SECOND} got the lock of a disk that {FIRST} has"))?;
    let told_before = losses(site)?;
    expire(site, FIRST)?;
    second_gets(site, second, &disk)?;
    let before = digest(site, &disk)?;
    let failed = ask_until(site.rack.host.scale(NOTICED), "a failed write", || writer.failed(site))?;
    let acknowledged = writer.acknowledged(site)?.last().map_or(0, |(number, _)| *number);
    let after = digest(site, &disk)?;
    hold(before == after, || format!("{FIRST} has written into the disk that {SECOND} had"))?;
    hold(losses(site)? > told_before, || format!("the kernel of {FIRST} does not say that it lost its lock"))?;
    drop_lock(second)?;
    Ok(Late { acknowledged, failed })
}

/// How often the first node's kernel said that it lost locks.
fn losses(site: &Site) -> Result<u64> {
    Ok(site.rack.machine(FIRST)?.run("dmesg | grep -c 'lost .* locks' || true")?.trim().parse()?)
}
