//! An environment is moved live: its processes, an open ssh session with a terminal and a plain TCP connection from outside go on as if
//! nothing had been, twice in a row. One whose processes cannot be kept moves by a restart, and says why. A whole Debian with systemd, and
//! somebody logged in, goes live by itself when its node is drained.

mod session;

use std::{io::Read as _, time::Duration};

use anyhow::{Context as _, Result, bail};
use lodge_model::{
    drain::{DrainView, MoveView, Verdict},
    environment::{
        share::{CHECKPOINT, environment},
        view::Phase,
    },
    paths,
};

use self::session::{Connection, Session};
use super::{Bench, ask_until};
use crate::{
    hosting::{Hosting, Wanted, address, http_get},
    rack::CENTER,
    scenario::{Site, hold},
};

const SMALL: &str = "live1";
const DEBIAN: &str = "live2";
/// Name of its template in the center.
const TEMPLATE: &str = "debian-13";
/// A process that criu cannot write down with the others.
const NESTED: &str = "setsid unshare --net sleep 10000 > /dev/null 2>&1 < /dev/null & sleep 1; echo started";
/// systemd and its services are up, and its node has looked at it since, within this on the reference machine.
const BOOT: Duration = Duration::from_secs(180);
/// A setting of its network that nobody sets by himself.
const SETTING: &str = "/proc/sys/net/ipv4/tcp_keepalive_time";
/// Between two questions.
const PACE: Duration = Duration::from_millis(100);
/// The connection is asked with every such question of the session: its server closes after a thousand, and after a minute without any.
const EVERY: u32 = 20;

pub fn run(bench: &mut Bench) -> Result<()> {
    let debian = (bench.artifacts.debian)()?.template;
    let site = bench.site()?;
    let hosting = Hosting::prepare(&site.rack, &site.operator)?;
    let mut said = small(site, &hosting)?;
    if !site.operator.templates()?.iter().any(|template| template.name == TEMPLATE) {
        site.operator.lodge(&["template", "import", TEMPLATE, &debian.display().to_string()])?;
    }
    said.push(drained(site, &hosting)?);
    for line in said {
        bench.say(&format!("  {line}"));
    }
    Ok(())
}

/// There and back, then with something that cannot be kept.
fn small(site: &Site, hosting: &Hosting) -> Result<Vec<String>> {
    let made = hosting.create(&site.operator, &Wanted { name: SMALL, memory: "96M", more: &[] })?;
    let (address, id) = (address(&made)?, made.id);
    let (ssh, web) = (site.rack.forward(address, 22)?, site.rack.forward(address, 80)?);
    hosting.ssh(&site.rack, ssh, "true")?;
    http_get(&site.rack, web, "/")?;

    let mut session = Session::open(hosting, ssh, site.rack.host)?;
    let mut connection = Connection::open(web, site.rack.host)?;
    let mut said = Vec::new();
    hosting.ssh(&site.rack, ssh, &format!("echo 4711 > {SETTING}"))?;
    for _ in 0..2 {
        let order = ["env", "move", SMALL, "--live", "--wait"];
        let frozen = while_asked(site, &order, &mut session, Some(&mut connection))?;
        let done = arrived(site, SMALL)?;
        hold(done.way == "live", || format!("it did not move live: {done:?}"))?;
        goes_on(&done, frozen)?;
        said.push(told(&done, frozen));
    }
    let setting = hosting.ssh(&site.rack, ssh, &format!("cat {SETTING}"))?;
    hold(setting.trim() == "4711", || format!("{SETTING} is {setting:?} after two moves"))?;
    // Not only from outside: its node knows which processes are its own now.
    let inside = site.operator.exec(SMALL, "hostname")?;
    hold(inside.trim() == SMALL, || format!("exec after a live move says {inside:?}"))?;
    let dir = format!("{}/{}", paths::SHARE_DATA, environment(id));
    let left = site.rack.machine(CENTER)?.run(&format!("ls {dir}"))?;
    hold(!left.contains(CHECKPOINT), || format!("a checkpoint is left on the share: {left}"))?;

    hosting.ssh(&site.rack, ssh, NESTED)?;
    site.operator.lodge(&["env", "move", SMALL, "--live", "--wait"])?;
    let done = arrived(site, SMALL)?;
    // Its node may have looked before it is asked to, or not.
    let why = format!("{}; {}", done.because, done.note);
    hold(done.way == "restart" && why.contains("namespace"), || format!("one with a nested namespace: {done:?}"))?;
    said.push(format!("{} ({why})", told(&done, Duration::ZERO)));
    hosting.ssh(&site.rack, ssh, "true")?;
    site.operator.lodge(&["env", "destroy", SMALL, "--yes", "--wait"])?;
    Ok(said)
}

/// Nobody says how it is to move: a look at it and at both nodes does.
fn drained(site: &Site, hosting: &Hosting) -> Result<String> {
    let key = hosting.public_key().display().to_string();
    let shape = ["--memory", "512M", "--disk", "2G", "--move", "auto", "--ssh-key", &key, "--wait"];
    site.operator.lodge(&[&["env", "create", DEBIAN, "--template", TEMPLATE], &shape[..]].concat())?;
    let made = site.operator.environment(DEBIAN)?;
    let node = made.node.clone().context("it has no node")?;
    let ssh = site.rack.forward(address(&made)?, 22)?;
    hosting.ssh(&site.rack, ssh, "true")?;
    let mut session = Session::open(hosting, ssh, site.rack.host)?;
    let limit = site.rack.host.scale(BOOT);
    let is_up =
        || Ok(Some(hosting.ssh(&site.rack, ssh, "systemctl is-system-running || true")?).filter(|said| said == "running\n"));
    ask_until(limit, "systemd with everything started", is_up)?;

    let plan = || -> Result<DrainView> {
        let text = site.operator.lodge(&["node", "drain", &node, "--dry-run", "--json"])?;
        serde_json::from_str(&text).with_context(|| format!("reading {text}"))
    };
    let goes_live = || Ok(plan()?.items.into_iter().find(|item| item.environment == DEBIAN && item.way == "live"));
    let planned =
        ask_until(limit, "a plan that moves it live", goes_live).with_context(|| format!("the plan is {:?}", plan()))?;
    let order = ["node", "drain", &node, "--reason", "live", "--wait"];
    let frozen = while_asked(site, &order, &mut session, None)?;
    let done = arrived(site, DEBIAN)?;
    let items = site.operator.drain(&node)?.map(|drain| drain.items).unwrap_or_default();
    let verdict = items.iter().find(|item| item.environment == DEBIAN).map(|item| item.verdict);
    hold(done.way == "live" && verdict == Some(Verdict::MovedLive), || {
        format!("planned as {planned:?}, it moved as {done:?}")
    })?;
    goes_on(&done, frozen)?;
    let state =
        hosting.ssh(&site.rack, ssh, "systemctl is-system-running || true; systemctl restart cron && loginctl list-users")?;
    hold(state.starts_with("running\n") && state.contains("root"), || format!("after its move systemd says {state:?}"))?;
    site.operator.lodge(&["node", "undrain", &node])?;
    site.operator.lodge(&["env", "destroy", DEBIAN, "--yes", "--wait"])?;
    Ok(format!("{TEMPLATE}, its node drained: {} ({})", told(&done, frozen), done.because))
}

/// Who waits for an answer has it soon after: a question that was lost is put again after twice the time at most (RFC 6298, 5.5). The
/// rack's router does not scale its windows, and such a connection is easily broken by a move in a way that only slows it down.
fn goes_on(done: &MoveView, frozen: Duration) -> Result<()> {
    let gap = Duration::from_millis(done.gap_ms.context("the gap is not told")?);
    let limit = gap * 2 + Duration::from_secs(10);
    hold(frozen <= limit, || format!("away for {gap:?}, but an answer in the ssh session took {frozen:?}"))
}

fn told(done: &MoveView, frozen: Duration) -> String {
    let gap = done.gap_ms.unwrap_or_default() as f64 / 1000.0;
    let to = done.to.as_deref().unwrap_or_default();
    let way = &done.way;
    match frozen.is_zero() {
        true => format!("moved to {to} by {way}: away for {gap:.1} s"),
        false => {
            format!("moved to {to} {way}: away for {gap:.1} s; longest answer in an ssh session {:.1} s", frozen.as_secs_f64())
        }
    }
}

fn arrived(site: &Site, name: &str) -> Result<MoveView> {
    let now = site.operator.environment(name)?;
    let done = now.moves.last().cloned().with_context(|| format!("no move of {name} is told"))?;
    hold(now.phase == Phase::Running && now.node == done.to, || format!("{name} is not where it moved to: {now:?}"))?;
    Ok(done)
}

/// Run `lodge ORDER`, while somebody is asked in a session ten times a second: each answer must be the next. The longest that one took.
/// What comes of the order is waited for in any case: a session ends when its environment does, and the move says why.
fn while_asked(
    site: &Site,
    order: &[&str],
    session: &mut Session,
    mut connection: Option<&mut Connection>,
) -> Result<Duration> {
    let mut ordered = site.operator.spawn(order)?;
    let mut longest = Duration::ZERO;
    let mut asked = Ok(());
    for question in 0.. {
        let has_ended = ordered.try_wait().with_context(|| format!("waiting for lodge {}", order.join(" ")))?;
        asked = asked.and_then(|()| {
            longest = longest.max(session.ask()?);
            match connection.as_mut().filter(|_| has_ended.is_some() || question % EVERY == 0) {
                Some(connection) => connection.ask().context("asking over a connection from before the move"),
                None => Ok(()),
            }
        });
        match has_ended {
            Some(status) if status.success() => break,
            Some(status) => {
                let mut said = String::new();
                ordered.stderr.take().context("no standard error")?.read_to_string(&mut said)?;
                bail!("lodge {} ended with {status}: {said}", order.join(" "));
            }
            None => std::thread::sleep(PACE),
        }
    }
    asked.with_context(|| format!("the last moves are {:?}", last_moves(site)))?;
    Ok(longest)
}

fn last_moves(site: &Site) -> Vec<MoveView> {
    let all = site.operator.environments().unwrap_or_default();
    all.into_iter().filter_map(|one| one.moves.last().cloned()).collect()
}
