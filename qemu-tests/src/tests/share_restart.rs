//! The share's server goes away while two environments on two nodes write, and comes back: restarted, restarted together with its
//! helper programs that were killed, and frozen. The writers stall and go on; no write fails and no acknowledged record is lost.

use std::time::Duration;

use anyhow::{Result, bail};
use lodge_model::environment::view::EnvironmentView;

use super::{
    Bench,
    records::{Writer, complete, longest_gap},
};
use crate::{
    feed::Waited,
    hosting::{Hosting, Wanted},
    machine::Machine,
    rack::CENTER,
    scenario::{Site, hold},
};

/// The server serves nobody for so long; not scaled, it is the nodes' patience that is tested.
const DOWN: Duration = Duration::from_secs(10);
/// And is frozen for so long: longer than the lease.
const FROZEN: Duration = Duration::from_secs(20);
/// What a node's kernel says when a write to the share fails for good, or a lock is lost.
const BROKEN: [&str; 5] = ["I/O error", "EXT4-fs error", "Aborting journal", "lost 1 locks", "Remounting filesystem read-only"];

pub fn run(bench: &mut Bench) -> Result<()> {
    let site = bench.site()?;
    let hosting = Hosting::prepare(&site.rack, &site.operator)?;
    let mut environments = Vec::new();
    for (name, node) in [("log1", "node1"), ("log2", "node2")] {
        environments.push(hosting.create(&site.operator, &Wanted { name, memory: "96M", more: &["--node", node] })?);
    }
    let from = kernel_lines(site)?;
    let writers: Vec<Writer> =
        environments.iter().map(|environment| Writer::start(site, environment)).collect::<Result<_>>()?;
    let mut told = String::new();
    for (what, at_least, trouble) in TROUBLES {
        let before = last_of(site, &writers)?;
        trouble(site)?;
        // What was acknowledged while the trouble began is no sign that they go on.
        for writer in &writers {
            writer.go_on(site, writer.last(site)?)?;
        }
        told += &stalled(site, &writers, &before, what, at_least)?;
    }
    for (environment, writer) in environments.iter().zip(&writers) {
        told += &nothing_lost(site, environment, writer)?;
    }
    kernels_are_calm(site, &from)?;
    site.operator.lodge(&["env", "destroy", "log1", "log2", "--yes", "--wait"])?;
    bench.say(told.trim_end());
    Ok(())
}

/// What is done to the server, and how long nobody can write then at least.
type Trouble = (&'static str, Duration, fn(&Site) -> Result<()>);
const TROUBLES: [Trouble; 3] =
    [("server restarted", DOWN, restart), ("helpers killed", Duration::ZERO, kill_helpers), ("server frozen", FROZEN, freeze)];

/// Without threads, clients' state is gone as with a restart of the machine; then it starts again as at boot.
fn restart(site: &Site) -> Result<()> {
    let center = site.rack.machine(CENTER)?;
    center.run("rpc.nfsd 0")?;
    hold(threads(center)? == 0, || "rpc.nfsd 0 did not stop the server".into())?;
    no_machine_complains_for(site, DOWN)?;
    center.run("init restart nfsd")?;
    Ok(())
}

fn kill_helpers(site: &Site) -> Result<()> {
    let center = site.rack.machine(CENTER)?;
    let killed = center.run("pids=\"$(pidof nfsdcld) $(pidof rpc.mountd)\"; echo $pids; kill -9 $pids; init restart nfsd")?;
    hold(killed.split_whitespace().count() >= 2, || format!("nfsdcld and rpc.mountd have the processes {killed:?}"))
}

fn freeze(site: &Site) -> Result<()> {
    site.rack.machine(CENTER)?.freeze()?;
    let calm = no_machine_complains_for(site, FROZEN);
    site.rack.machine(CENTER)?.thaw()?;
    calm
}

fn threads(center: &Machine) -> Result<u32> {
    Ok(center.run("cat /proc/fs/nfsd/threads")?.trim().parse()?)
}

/// Let the time pass, watching the consoles.
fn no_machine_complains_for(site: &Site, time: Duration) -> Result<()> {
    let machine = site.rack.machine("node1")?;
    let complaint = machine
        .console
        .lines
        .wait(machine.now(), time, |line| BROKEN.iter().any(|word| line.text.contains(word)).then(|| line.text.clone()));
    match complaint {
        Waited::TimedOut => Ok(()),
        Waited::Found(line, _) => bail!("while the server was away, node1 said: {line}"),
        Waited::Closed => bail!("node1 went off while the server was away"),
    }
}

fn last_of(site: &Site, writers: &[Writer]) -> Result<Vec<u64>> {
    writers.iter().map(|writer| writer.last(site)).collect()
}

/// How long each writer had to wait.
fn stalled(site: &Site, writers: &[Writer], last: &[u64], what: &str, at_least: Duration) -> Result<String> {
    let mut waits = Vec::new();
    for (writer, last) in writers.iter().zip(last) {
        let since: Vec<_> = writer.acknowledged(site)?.into_iter().filter(|(number, _)| number >= last).collect();
        let gap = longest_gap(&since);
        hold(gap >= at_least.as_secs_f64(), || format!("{what}: a writer went on after {gap:.1} s: nothing stood in its way"))?;
        waits.push(format!("{gap:.1} s"));
    }
    Ok(format!("  {what}: the writers waited {}\n", waits.join(" and ")))
}

/// Everything acknowledged is there now, and after its disk was put down and taken up again.
fn nothing_lost(site: &Site, environment: &EnvironmentView, writer: &Writer) -> Result<String> {
    let (operator, name) = (&site.operator, &environment.spec.name);
    let acknowledged = writer.end(site)?.len() as u64;
    let now = operator.environment(name)?;
    hold(now.started == environment.started && now.epoch == environment.epoch, || format!("{name} was started again"))?;
    complete(&operator.exec(name, "cat /root/records")?, acknowledged)?;
    operator.lodge(&["env", "stop", name, "--wait"])?;
    operator.lodge(&["env", "start", name, "--wait"])?;
    complete(&operator.exec(name, "cat /root/records")?, acknowledged)?;
    Ok(format!("  {name}: {acknowledged} records acknowledged, all there\n"))
}

/// How many lines each node's kernel has said.
fn kernel_lines(site: &Site) -> Result<Vec<usize>> {
    site.node_names().iter().map(|name| Ok(site.rack.machine(name)?.run("dmesg")?.lines().count())).collect()
}

fn kernels_are_calm(site: &Site, from: &[usize]) -> Result<()> {
    for (name, from) in site.node_names().iter().zip(from) {
        let said = site.rack.machine(name)?.run("dmesg")?;
        let broken = said.lines().skip(*from).find(|line| BROKEN.iter().any(|word| line.contains(word)));
        hold(broken.is_none(), || format!("the kernel of {name} says {broken:?}"))?;
    }
    Ok(())
}
