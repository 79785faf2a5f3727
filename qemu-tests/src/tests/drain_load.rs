//! Drains of many environments: ten under load, and a hundred small ones.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    net::TcpStream,
    process::{Child, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use lodge_model::{
    api::NodeState,
    drain::{CertificateView, DrainItem, Verdict},
};

use super::{Bench, crowd::Crowd, install::BOOT_LIMIT, node_loss::WRITER, ready_in_center, records::complete};
use crate::{
    hosting::{Hosting, address, http_get},
    rack::{self, INSTALL_LIMIT},
    router,
    scenario::{Site, hold},
};

const TEN: usize = 10;
/// Ten environments are moved and the node is down within this on the reference machine.
const DOWN: Duration = Duration::from_secs(600);
/// The node that a hundred are on, and those they go to, with their memory in MiB.
const LARGE: [(u8, u32); 3] = [(5, 4352), (6, 2816), (7, 2816)];
const HUNDRED: usize = 100;
/// Addresses for them, besides the 72 that a site of the tests has: the router's DHCP server begins below, and comes to these with its
/// seventeenth machine.
const MORE: &str = "10.77.0.66-10.77.0.127/24";

/// Ten environments: one is asked over HTTP without end, one commits, one has an ssh session open; their node is switched off.
pub fn ten(bench: &mut Bench) -> Result<()> {
    let site = bench.wide(3)?;
    let hosting = Hosting::prepare(&site.rack, &site.operator)?;
    let crowd = Crowd::on(site, &hosting, "node1", "load", TEN, "48M")?;
    crowd.write(site, 2..TEN, "0.5")?;
    let port = |name: &str, port| site.rack.forward(address(&site.operator.environment(name)?)?, port);
    let requests = Requests::start(port("load1", 80)?)?;
    let commits = Commits::start(site, "load2")?;
    let mut session = Session::open(&hosting, port("load3", 22)?, site)?;
    site.operator.lodge(&["node", "poweroff", "node1", "--yes", "--wait", "--reason", "a test"])?;
    let machine = site.rack.machine("node1")?;
    machine.wait_off(DOWN)?;
    let views = crowd.until(site, "all running on two others", |found| found.node.as_deref() != Some("node1"))?;
    let shown = site.operator.node("node1")?.node;
    hold(shown.state == NodeState::Off && shown.reason.starts_with("expected"), || format!("node1 is shown as {shown:?}"))?;
    let targets = ["node2", "node3"].map(|node| views.iter().filter(|found| found.node.as_deref() == Some(node)).count());
    hold(targets.iter().all(|count| *count > 0), || format!("they went to node2 and node3 like this: {targets:?}"))?;
    let acknowledged = commits.end()?;
    complete(&site.operator.exec("load2", "cat /root/records")?, acknowledged)?;
    for name in &crowd.names {
        let page = http_get(&site.rack, port(name, 80)?, "/")?;
        hold(page.contains(name), || format!("{name} answers {page:?} at its address"))?;
    }
    let (answered, longest) = requests.end()?;
    let ended = session.ended()?;
    let again = hosting.ssh(&site.rack, port("load3", 22)?, "echo here again")?;
    hold(again.trim() == "here again", || format!("ssh says {again:?} after the move"))?;
    let items = certified(site, "node1", TEN)?;
    let reached = site.operator.environment("load1")?.moves.last().and_then(|done| done.reach.clone());
    hold(reached.as_ref().is_some_and(|reach| reach.problem.is_empty()), || format!("the history says {reached:?}"))?;
    let epochs = crowd.whole(site, 2..TEN)?;
    let machine = site.rack.machine_mut("node1")?;
    let from = machine.now();
    machine.switch_on()?;
    machine.wait_ready(from, BOOT_LIMIT)?;
    ready_in_center(site, "node1")?;
    crowd.destroy(site)?;
    bench.say(&format!(
        "  {acknowledged} commits acknowledged, none lost; {answered} requests answered, at longest {longest:.1} s apart; the ssh session \
         {ended}\n  went to node2 and node3: {targets:?}; {}\n  epochs {epochs:?}; reached: {reached:?}",
        spread(&items)
    ));
    Ok(())
}

/// A hundred small ones on one node go to two others.
pub fn hundred(bench: &mut Bench) -> Result<()> {
    let site = bench.site()?;
    for (number, memory) in LARGE {
        let mut spec = rack::node_spec(number);
        spec.memory_mib = memory;
        site.rack.add(spec)?.switch_on()?;
    }
    for (number, _) in LARGE {
        let name = rack::node_name(number);
        site.rack.machine(&name)?.wait_ready(0, INSTALL_LIMIT)?;
        ready_in_center(site, &name)?;
        site.nodes.push(number);
    }
    let hosting = Hosting::prepare(&site.rack, &site.operator)?;
    site.operator.lodge(&["pool", "add", "more", MORE, "--gateway", router::ADDRESS])?;
    let node = rack::node_name(LARGE[0].0);
    let made = Instant::now();
    let crowd = Crowd::on(site, &hosting, &node, "small", HUNDRED, "32M")?;
    let made = made.elapsed().as_secs();
    crowd.write(site, (0..HUNDRED).step_by(10), "2")?;
    let since = Instant::now();
    site.operator.lodge(&["node", "drain", &node, "--wait"])?;
    let took = since.elapsed().as_secs();
    crowd.until(site, "all running elsewhere", |found| found.node.as_deref() != Some(node.as_str()))?;
    let items = certified(site, &node, HUNDRED)?;
    crowd.whole(site, (0..HUNDRED).step_by(10))?;
    crowd.destroy(site)?;
    site.operator.lodge(&["pool", "rm", "more"])?;
    bench.say(&format!("  {HUNDRED} made in {made} s, drained in {took} s, none lost; {}", spread(&items)));
    Ok(())
}

fn certified(site: &Site, node: &str, count: usize) -> Result<Vec<DrainItem>> {
    let text = site.operator.lodge(&["node", "certificate", node, "--json"])?;
    let shown: CertificateView = serde_json::from_str(&text).with_context(|| format!("reading {text}"))?;
    let moved: Vec<DrainItem> = shown.items.into_iter().filter(|item| item.verdict == Verdict::Moved).collect();
    hold(moved.len() == count, || format!("{} of {count} were moved", moved.len()))?;
    Ok(moved)
}

/// Least, median, nine of ten, longest.
fn spread(items: &[DrainItem]) -> String {
    let mut gaps: Vec<u64> = items.iter().filter_map(|item| item.gap_ms).collect();
    gaps.sort_unstable();
    let at = |part: usize| gaps.get((gaps.len() * part / 100).min(gaps.len().saturating_sub(1))).copied().unwrap_or(0);
    let seconds = |part| at(part) as f64 / 1000.0;
    format!(
        "gaps: least {:.1} s, median {:.1} s, 90 % {:.1} s, longest {:.1} s",
        seconds(0),
        seconds(50),
        seconds(90),
        seconds(100)
    )
}

/// Asks a web server without end.
struct Requests {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<(u64, f64)>,
}

impl Requests {
    fn start(port: u16) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&stop);
        let ask = move || {
            let (mut answered, mut longest, mut last) = (0, 0.0_f64, Instant::now());
            while !told.load(Ordering::Relaxed) {
                if get(port).is_ok_and(|line| line.contains(" 200 ")) {
                    answered += 1;
                    longest = longest.max(last.elapsed().as_secs_f64());
                    last = Instant::now();
                }
                std::thread::sleep(Duration::from_millis(100));
            }
            (answered, longest)
        };
        let thread = std::thread::Builder::new().name("requests".into()).spawn(ask).context("starting a thread")?;
        Ok(Self { stop, thread })
    }

    /// How many were answered, and the longest time between two answers.
    fn end(self) -> Result<(u64, f64)> {
        self.stop.store(true, Ordering::Relaxed);
        let (answered, longest) = self.thread.join().map_err(|_| anyhow::anyhow!("the thread panicked"))?;
        hold(answered > 0, || "no request was answered".into())?;
        Ok((answered, longest))
    }
}

fn get(port: u16) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_secs(3)))?;
    write!(stream, "GET / HTTP/1.0\r\nHost: load\r\n\r\n")?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line)?;
    Ok(line)
}

/// A writer in an environment, each of whose records is on the disk before it is counted here.
struct Commits {
    writer: Child,
    last: Arc<AtomicU64>,
    thread: JoinHandle<()>,
}

impl Commits {
    fn start(site: &Site, name: &str) -> Result<Self> {
        let mut writer = site.operator.spawn(&["env", "exec", name, "--", "sh", "-c", WRITER])?;
        let lines = BufReader::new(writer.stdout.take().context("no standard output")?).lines();
        let last = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&last);
        let read = move || {
            for number in lines.map_while(|line| line.ok()?.trim().parse().ok()) {
                counted.store(number, Ordering::Relaxed);
            }
        };
        let thread = std::thread::Builder::new().name("commits".into()).spawn(read).context("starting a thread")?;
        Ok(Self { writer, last, thread })
    }

    fn end(mut self) -> Result<u64> {
        self.thread.join().map_err(|_| anyhow::anyhow!("the reader panicked"))?;
        self.writer.wait().context("waiting for the writer")?;
        let last = self.last.load(Ordering::Relaxed);
        hold(last > 10, || format!("only {last} records were acknowledged before the move"))?;
        Ok(last)
    }
}

/// An ssh session that stays open.
struct Session(Child);

impl Session {
    fn open(hosting: &Hosting, port: u16, site: &Site) -> Result<Self> {
        hosting.ssh(&site.rack, port, "true")?;
        let words = hosting.ssh_command(port);
        let (program, arguments) = words.split_first().context("naming a program")?;
        let mut ssh = std::process::Command::new(program);
        ssh.args(["-o", "BatchMode=yes", "-o", "ServerAliveInterval=5"]).args(arguments).arg("cat");
        let mut child =
            ssh.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().context("starting ssh")?;
        let mut input = child.stdin.take().context("no standard input")?;
        writeln!(input, "hello").context("typing into the session")?;
        let mut echo = String::new();
        BufReader::new(child.stdout.as_mut().context("no standard output")?).read_line(&mut echo).context("reading")?;
        hold(echo == "hello\n", || format!("the session echoes {echo:?}"))?;
        child.stdin = Some(input);
        Ok(Self(child))
    }

    /// Whether it has outlived the move: a restart ends it as a shutdown of any server does.
    fn ended(&mut self) -> Result<String> {
        let ended = self.0.try_wait().context("looking at ssh")?;
        if ended.is_none() {
            self.0.kill().context("ending ssh")?;
            self.0.wait().context("waiting for ssh")?;
        }
        Ok(ended.map_or_else(|| "stayed open".to_owned(), |status| format!("was closed by the shutdown ({status})")))
    }
}
