//! What root in one environment can reach of the node, of its kernel and of a neighbour: nothing. A probe tries it by the system calls
//! themselves and tells the error number. Each refusal has its counterpart, which shows that the very thing works where it is
//! allowed: on the node, or in the neighbour that it belongs to.

use std::io::Write as _;

use anyhow::{Context, Result};
use lodge_model::{environment::view::EnvironmentView, paths};

use super::{Bench, ask_until, environments::leaves_nothing};
use crate::{
    api::Operator,
    hosting::{Hosting, Wanted},
    machine::Machine,
    scenario::{Site, hold},
};

/// The node that all of them are on.
const NODE: &str = "node1";
/// The environment that tries, and the one that is to be left alone.
const INSIDE: &str = "inside";
const NEIGHBOUR: &str = "neighbour";

pub fn run(bench: &mut Bench) -> Result<()> {
    let probe = (bench.artifacts.probe)()?;
    let site = bench.site()?;
    let hosting = Hosting::prepare(&site.rack, &site.operator)?;
    for name in [INSIDE, NEIGHBOUR] {
        hosting.create(&site.operator, &Wanted { name, memory: "96M", more: &["--node", NODE] })?;
        put_probe(&site.operator, name, &probe)?;
    }
    for part in [is_refused_what_the_node_may, has_what_is_its_own, sees_nothing_of_a_neighbour, is_mounted_out_of_sight] {
        let told = part(bench.site()?)?;
        bench.say(&told);
    }
    let site = bench.site()?;
    site.operator.lodge(&["env", "destroy", INSIDE, NEIGHBOUR, "--yes", "--wait"])?;
    leaves_nothing(site)
}

/// What is tried in an environment, the error it must end with, what is tried on the node, and how that must end.
struct Denied {
    what: &'static str,
    inside: &'static str,
    error: &'static [&'static str],
    on_node: &'static str,
    works: &'static [&'static str],
}

/// The same deed on both sides.
const fn denied(
    what: &'static str,
    deed: &'static str,
    error: &'static [&'static str],
    works: &'static [&'static str],
) -> Denied {
    Denied { what, inside: deed, error, on_node: deed, works }
}

const EPERM: &[&str] = &["EPERM"];
const EACCES: &[&str] = &["EACCES"];
const ENOENT: &[&str] = &["ENOENT"];
const OK: &[&str] = &["ok"];

/// `{disk}` is the node's disk as `major minor`, `{name}` its name, `{dir}` a directory where device nodes work. Where the node does not
/// answer `ok`, its answer shows that the call got past the question whether it is allowed: a module of nothing is no module (ENOEXEC),
/// a file that is not there cannot be swapped to.
const DENIED: &[Denied] = &[
    denied("load a module", "call init_module @nothing 7 @", EPERM, &["ENOEXEC"]),
    denied("unload a module", "call delete_module @nothing-there 0", EPERM, ENOENT),
    denied("load another kernel", "call kexec_load 0 0 0 0", EPERM, OK),
    denied("set the clock", "call clock_settime 0 now", EPERM, OK),
    denied("tune the clock", "call adjtimex u32:1", EPERM, OK),
    denied("read the node's disk", "device {dir} b {disk}", EPERM, OK),
    denied("read kernel memory", "device {dir} c 1 1", EPERM, OK),
    denied("read kcore", "read /proc/kcore", EACCES, OK),
    denied("read the kernel's log", "call syslog 3 @ 256", EPERM, OK),
    denied("use sysrq", "write /proc/sysrq-trigger h", EACCES, OK),
    denied("change what sysrq may do", "rewrite /proc/sys/kernel/sysrq", EACCES, OK),
    denied("catch the node's core dumps", "rewrite /proc/sys/kernel/core_pattern", EACCES, OK),
    denied("change how memory is given", "rewrite /proc/sys/vm/overcommit_memory", EACCES, OK),
    denied("change the limit of files", "rewrite /proc/sys/fs/file-max", EACCES, OK),
    denied("change a device", "mounted-rewrite sysfs block/{name}/queue/read_ahead_kb", &["EACCES", "EPERM"], OK),
    denied("mount a disk", "fs ext4", EPERM, &["EINVAL"]),
    denied("mount the share", "fs nfs4", EPERM, &["EINVAL"]),
    denied("mount all devices", "fs devtmpfs", EPERM, OK),
    denied("mount the kernel's inside", "fs debugfs", EPERM, OK),
    denied("load a program into the kernel", "call bpf 0 u32:2:4:4:1 72", EPERM, OK),
    denied("watch the whole machine", "call perf_event_open u32:1:112 -1 0 -1 0", EPERM, OK),
    denied("open files past mounts", "call open_by_handle_at -100 u32:8:1:2:0 0", EPERM, &["ok", "ESTALE", "EOPNOTSUPP"]),
    denied("swap", "call swapon @/nothing 0", EPERM, ENOENT),
    denied("run in real time", "call sched_setscheduler 0 1 u32:1", EPERM, OK),
    denied("go before others", "call setpriority 0 0 -5", EACCES, OK),
    denied("be spared when memory is short", "write /proc/self/oom_score_adj -1000", EACCES, OK),
    Denied {
        what: "lift its memory limit",
        inside: "rewrite /sys/fs/cgroup/memory.max",
        error: EACCES,
        on_node: "rewrite /sys/fs/cgroup/env/memory.max",
        works: OK,
    },
    denied("see the node's control groups", "mounted cgroup2 env/cgroup.controllers", ENOENT, OK),
    denied("speak on the node's bus", "connect /run/dbus/system_bus_socket", ENOENT, OK),
    denied("speak to the node's init", "connect /run/lodge/init.sock", ENOENT, OK),
];

fn is_refused_what_the_node_may(site: &Site) -> Result<String> {
    let node = site.rack.machine(NODE)?;
    let name = node.run("for disk in vda nvme0n1; do [ -e /sys/block/$disk ] && echo $disk; done; true")?.trim().to_owned();
    let disk = node.run(&format!("tr : ' ' < /sys/block/{name}/dev"))?.trim().to_owned();
    let filled = |deed: &str, dir: &str| deed.replace("{disk}", &disk).replace("{name}", &name).replace("{dir}", dir);
    let inside: Vec<String> = DENIED.iter().map(|denied| filled(denied.inside, "/root")).collect();
    let on_node: Vec<String> = DENIED.iter().map(|denied| filled(denied.on_node, "/dev")).collect();
    let refused = attempt(&site.operator, INSIDE, &[], &inside)?;
    let nested = attempt(&site.operator, INSIDE, &["nested"], &inside)?;
    let works = attempt_on_node(site, &on_node)?;
    let mut told = Vec::new();
    let mut wrong = Vec::new();
    for (at, denied) in DENIED.iter().enumerate() {
        let line = format!("  {:32} inside {}, nested {}, on the node {}", denied.what, refused[at], nested[at], works[at]);
        let is_right = denied.error.contains(&refused[at].as_str())
            && denied.works.contains(&works[at].as_str())
            && nested[at] != "ok"
            && !denied.works.contains(&nested[at].as_str());
        if !is_right {
            wrong.push(line.clone());
        }
        told.push(line);
    }
    hold(wrong.is_empty(), || format!("root in an environment is not refused as it should be:\n{}", wrong.join("\n")))?;
    Ok(told.join("\n"))
}

/// What must work in an environment: without it the refusals would only show that nothing works.
const ALLOWED: &[&str] = &[
    "rewrite /proc/sys/net/ipv4/ip_forward",
    "fs tmpfs",
    "fs proc",
    "mounted cgroup2 cgroup.procs",
    "call setpriority 0 0 5",
    "write /proc/self/oom_score_adj 500",
    "read /dev/urandom",
    "write /dev/null text",
];

fn has_what_is_its_own(site: &Site) -> Result<String> {
    let deeds: Vec<String> = ALLOWED.iter().map(|deed| (*deed).to_owned()).collect();
    let answers = attempt(&site.operator, INSIDE, &[], &deeds)?;
    hold(answers.iter().all(|answer| answer == "ok"), || format!("of {ALLOWED:?} an environment may only {answers:?}"))?;
    Ok(format!("  allowed: {}", ALLOWED.join(", ")))
}

/// A process, a file, a socket, a piece of shared memory of a neighbour: it has them, and nobody else sees or reaches them.
fn sees_nothing_of_a_neighbour(site: &Site) -> Result<String> {
    let operator = &site.operator;
    operator.exec(
        NEIGHBOUR,
        "cp /usr/bin/sleep /root/of-the-neighbour
        setsid /root/of-the-neighbour 1000 >/dev/null 2>&1 </dev/null &
        setsid /root/probe listen of-the-neighbour >/dev/null 2>&1 </dev/null &
        true",
    )?;
    let made = attempt(operator, NEIGHBOUR, &[], &["call shmget 4711 4096 950".to_owned()])?;
    hold(made == ["ok"], || format!("{NEIGHBOUR} cannot make shared memory: {made:?}"))?;
    let looks = [
        ("processes", "ps ax -o args | grep -c '^/root/of-the-neighbour' || true"),
        ("files", "find / -name of-the-neighbour 2>/dev/null | grep -c / || true"),
    ];
    for (what, command) in looks {
        let count = |name: &str| -> Result<u32> { Ok(operator.exec(name, command)?.trim().parse()?) };
        let (own, others) = (count(NEIGHBOUR)?, count(INSIDE)?);
        hold(own > 0 && others == 0, || format!("{NEIGHBOUR} sees {own} {what} of its own, {INSIDE} {others}"))?;
    }
    let deeds = ["connect @of-the-neighbour".to_owned(), "call shmget 4711 0 0".to_owned()];
    let (own, others) = (attempt(operator, NEIGHBOUR, &[], &deeds)?, attempt(operator, INSIDE, &[], &deeds)?);
    hold(own == ["ok", "ok"] && others == ["ECONNREFUSED", "ENOENT"], || {
        format!("{deeds:?}: in {NEIGHBOUR} {own:?}, in {INSIDE} {others:?}")
    })?;
    Ok(format!("  of a neighbour: no process, no file; {deeds:?} there {own:?}, from next door {others:?}"))
}

/// Mounts of environments are the agent's alone: nothing else on the node has them, nor has another environment, and the next agent finds
/// them again.
fn is_mounted_out_of_sight(site: &Site) -> Result<String> {
    let (operator, node) = (&site.operator, site.rack.machine(NODE)?);
    let (inside, neighbour) = (operator.environment(INSIDE)?, operator.environment(NEIGHBOUR)?);
    // An overlay tells where its layers are, by names that lead nowhere from inside.
    let layers = format!("/run/lodge/environments/{}/", inside.id);
    let own = operator.exec(INSIDE, "cat /proc/self/mountinfo")?.replace(&layers, "");
    for foreign in [neighbour.id.to_string().as_str(), " /state", " nfs4 ", "/run/lodge"] {
        hold(!own.contains(foreign), || format!("{INSIDE} sees {foreign:?} among its mounts:\n{own}"))?;
    }
    let before = mounts(node, &inside)?;
    hold(before.elsewhere == 0 && before.agents >= 3, || format!("mounts of {INSIDE} on {NODE}: {before:?}"))?;
    let pid = |node: &Machine| -> Result<Option<u32>> {
        Ok(node.run("pgrep -fx '/usr/lib/lodge/agent run' || true")?.trim().parse().ok())
    };
    let first = pid(node)?.context("no agent")?;
    node.run(&format!("kill -9 {first}"))?;
    ask_until(site.rack.host.scale(super::environments::SOON), "another agent", || Ok(pid(node)?.filter(|pid| *pid != first)))?;
    operator.lodge(&["env", "restart", INSIDE, "--wait"])?;
    let after = mounts(node, &operator.environment(INSIDE)?)?;
    hold(after.elsewhere == 0 && after.agents == before.agents, || format!("{before:?}, with the next agent {after:?}"))?;
    let share = node.run(&format!("ls {}/environments", paths::SHARE))?;
    hold(share.contains(&inside.id.to_string()), || format!("{NODE} itself does not see the share: {share:?}"))?;
    Ok(format!("  mounts of one: {before:?}; the same with the next agent"))
}

#[derive(Debug)]
struct Mounts {
    /// In the agent's namespace.
    agents: u32,
    /// In any other. An environment's own root names its layers here as its options, and lies at `/`.
    elsewhere: u32,
}

fn mounts(node: &Machine, environment: &EnvironmentView) -> Result<Mounts> {
    let (pin, id) = (paths::AGENT_NAMESPACE, environment.id);
    let agents = node.run(&format!(
        "nsenter --mount={pin} cut -d ' ' -f 2 /proc/self/mounts | grep -c ^/run/lodge/environments/{id}/ || true"
    ))?;
    let elsewhere = node.run(&format!(
        "agents=$(nsenter --mount={pin} readlink /proc/self/ns/mnt); for process in /proc/[0-9]*; do
        [ \"$(readlink $process/ns/mnt)\" = \"$agents\" ] || cut -d ' ' -f 2 $process/mounts; done 2>/dev/null |
        grep -c ^/run/lodge/environments/{id}/ || true"
    ))?;
    Ok(Mounts { agents: agents.trim().parse()?, elsewhere: elsewhere.trim().parse()? })
}

/// Put the probe into an environment.
pub fn put_probe(operator: &Operator, name: &str, probe: &std::path::Path) -> Result<()> {
    let program = std::fs::read(probe).with_context(|| format!("reading {}", probe.display()))?;
    fed(operator, name, &["sh", "-c", "cat > /root/probe && chmod 755 /root/probe"], &program).map(drop)
}

/// Have deeds tried in an environment; the answer to each.
fn attempt(operator: &Operator, name: &str, arguments: &[&str], deeds: &[String]) -> Result<Vec<String>> {
    let text = deeds.join("\n") + "\n";
    let command = [&["/root/probe"], arguments].concat();
    answers(fed(operator, name, &command, text.as_bytes())?, deeds)
}

/// The same by the node's root, with the probe of an environment.
fn attempt_on_node(site: &Site, deeds: &[String]) -> Result<Vec<String>> {
    fed(&site.operator, INSIDE, &["sh", "-c", "cat > /root/deeds"], (deeds.join("\n") + "\n").as_bytes())?;
    let id = site.operator.environment(INSIDE)?.id;
    let root = format!("/run/lodge/environments/{id}/root/root");
    let enter = format!("nsenter --mount={}", paths::AGENT_NAMESPACE);
    answers(site.rack.machine(NODE)?.run(&format!("{enter} cat {root}/deeds | {enter} {root}/probe"))?, deeds)
}

fn answers(said: String, deeds: &[String]) -> Result<Vec<String>> {
    let answers: Vec<String> = said.lines().map(str::to_owned).collect();
    hold(answers.len() == deeds.len(), || format!("{} deeds, answered with {answers:?}", deeds.len()))?;
    Ok(answers)
}

/// Run a program in an environment with this on its standard input; what it prints.
fn fed(operator: &Operator, name: &str, command: &[&str], input: &[u8]) -> Result<String> {
    let mut child = operator.spawn(&[&["env", "exec", name, "--"], command].concat())?;
    let mut stdin = child.stdin.take().context("no standard input")?;
    std::thread::scope(|scope| {
        let feeding = scope.spawn(move || stdin.write_all(input));
        let output = child.wait_with_output().context("waiting for exec")?;
        feeding.join().map_err(|_| anyhow::anyhow!("the writer panicked"))?.context("writing")?;
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        hold(output.status.success(), || format!("in {name} {command:?} ended with {}: {said}", output.status))?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    })
}
