//! The agents are killed at random moments while environments are created, started, stopped and destroyed. In the end the world is what was
//! asked for, what nobody touched was never disturbed, and nothing is left over.

use std::{
    collections::BTreeMap,
    sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError, channel},
    time::{Duration, SystemTime},
};

use anyhow::{Context, Result, bail};
use lodge_model::environment::view::{EnvironmentView, Phase};

use super::{Bench, ask_until, environments::leaves_nothing};
use crate::{
    api::Operator,
    hosting::{Hosting, Wanted},
    scenario::{Site, hold},
};

/// How often an agent is killed.
const KILLS: usize = 20;
/// The same, where there is less time.
const FEW_KILLS: usize = 4;
/// An agent lives this long at most before it is killed.
const LIFE: Duration = Duration::from_secs(8);
/// init starts a killed agent again within this on the reference machine: pauses grow for one that dies young.
const AGAIN: Duration = Duration::from_secs(60);
/// After the last kill everything is as asked within this.
const SETTLED: Duration = Duration::from_secs(300);
/// Never more than these at once, besides the one that is left alone.
const MOST: usize = 4;
/// What the script has to have done by the last of many kills.
const ORDERS: [&str; 4] = ["create", "start", "stop", "destroy"];
/// The one that is left alone.
const STEADY: &str = "steady";

pub fn run(bench: &mut Bench) -> Result<()> {
    kill_often(bench, KILLS, &ORDERS)
}

/// As much of it as fits between other tests.
pub fn run_briefly(bench: &mut Bench) -> Result<()> {
    kill_often(bench, FEW_KILLS, &[])
}

fn kill_often(bench: &mut Bench, kills: usize, orders: &[&str]) -> Result<()> {
    let seed = seed()?;
    bench.say(&format!("  seed {seed} (LODGE_SEED={seed} plays the same orders and moments again)"));
    let site = bench.site()?;
    let hosting = Hosting::prepare(&site.rack, &site.operator)?;
    let steady = hosting.create(&site.operator, &Wanted { name: STEADY, memory: "64M", more: &["--node", "node1"] })?;
    let init = init_of(site, &steady)?;
    let (world, told) = std::thread::scope(|scope| -> Result<_> {
        let (enough, is_enough) = channel();
        let (ending, ended) = channel::<()>();
        let (hosting, operator) = (&hosting, site.operator.clone());
        let script = scope.spawn(move || {
            let _ending = ending;
            Script { hosting, operator, random: Random(seed), world: BTreeMap::new(), made: 0, told: BTreeMap::new() }
                .run(&is_enough)
        });
        let killed = kill_agents(site, kills, Random(seed ^ 0x5eed), &ended);
        drop(enough);
        let script = script.join().map_err(|_| anyhow::anyhow!("the script panicked"))??;
        killed.map(|()| (script.world, script.told))
    })?;
    hold(orders.iter().all(|order| told.contains_key(order)), || format!("the script gave only these orders: {told:?}"))?;
    ask_until(site.rack.host.scale(SETTLED), "the world that was asked for", || {
        Ok(differs(&site.operator.environments()?, &world).is_none().then_some(()))
    })
    .with_context(|| differs(&site.operator.environments().unwrap_or_default(), &world).unwrap_or_default())?;
    as_asked_on_nodes(site, &world)?;
    let now = site.operator.environment(STEADY)?;
    hold(init_of(site, &now)? == init && now.started == steady.started && now.epoch == steady.epoch, || {
        format!("{STEADY} was disturbed: {steady:?}, now {now:?}")
    })?;
    let names: Vec<&str> = world.keys().map(String::as_str).chain([STEADY]).collect();
    site.operator.lodge(&[&["env", "destroy", "--yes", "--wait"], names.as_slice()].concat())?;
    leaves_nothing(site)?;
    bench.say(&format!("  {kills} kills during {told:?}; at the end: {world:?}"));
    Ok(())
}

/// Kill the agent of one node or the other.
fn kill_agents(site: &Site, kills: usize, mut random: Random, ended: &Receiver<()>) -> Result<()> {
    let nodes = site.node_names();
    for _ in 0..kills {
        let node = random.pick(&nodes).context("no node")?;
        let machine = site.rack.machine(node)?;
        let moment = site.rack.host.scale(LIFE).mul_f64(random.fraction());
        let agent =
            || -> Result<Option<u32>> { Ok(machine.run("pgrep -fx '/usr/lib/lodge/agent run' || true")?.trim().parse().ok()) };
        ask_until(site.rack.host.scale(AGAIN), &format!("an agent on {node}"), agent)?;
        if ended.recv_timeout(moment) != Err(RecvTimeoutError::Timeout) {
            bail!("the script ended before the last kill");
        }
        // It may just be starting again after a failure of its own: that is no moment.
        let agent = ask_until(site.rack.host.scale(AGAIN), &format!("an agent on {node}"), agent)?;
        machine.run(&format!("kill -9 {agent}"))?;
    }
    Ok(())
}

/// Gives orders without end, and knows what they come to.
struct Script<'a> {
    hosting: &'a Hosting,
    operator: Operator,
    random: Random,
    /// Whether each is to run.
    world: BTreeMap<String, bool>,
    made: u32,
    told: BTreeMap<&'static str, u32>,
}

impl Script<'_> {
    fn run(mut self, enough: &Receiver<()>) -> Result<Self> {
        while enough.try_recv() == Err(TryRecvError::Empty) {
            self.step()?;
        }
        Ok(self)
    }

    /// One order; now and then it is waited for, so that orders meet environments in every state.
    fn step(&mut self) -> Result<()> {
        let wait: &[&str] = if self.random.below(3) == 0 { &["--wait"] } else { &[] };
        let names: Vec<String> = self.world.keys().cloned().collect();
        let name = self.random.pick(&names).cloned();
        let order = match (name, self.random.below(6)) {
            (None, _) => return self.create(wait),
            (Some(_), 0 | 1) if self.world.len() < MOST => return self.create(wait),
            (Some(name), 0) => {
                self.world.remove(&name);
                (name, "destroy")
            }
            (Some(name), 1) if self.world.get(&name) == Some(&true) => (name, "restart"),
            (Some(name), _) => {
                let runs = self.world.entry(name.clone()).or_default();
                *runs = !*runs;
                let order = if *runs { "start" } else { "stop" };
                (name, order)
            }
        };
        let (name, order) = order;
        *self.told.entry(order).or_default() += 1;
        let sure: &[&str] = if order == "destroy" { &["--yes"] } else { &[] };
        self.operator.lodge(&[&["env", order, &name], wait, sure].concat()).map(drop)
    }

    fn create(&mut self, wait: &[&str]) -> Result<()> {
        self.made += 1;
        *self.told.entry("create").or_default() += 1;
        let name = format!("k{}", self.made);
        self.hosting.order(&self.operator, &Wanted { name: &name, memory: "64M", more: &[] }, wait)?;
        self.world.insert(name, true);
        Ok(())
    }
}

/// What is not as asked, for people.
fn differs(found: &[EnvironmentView], world: &BTreeMap<String, bool>) -> Option<String> {
    let phase = |runs: bool| if runs { Phase::Running } else { Phase::Stopped };
    let missing =
        world.iter().find(|(name, runs)| !found.iter().any(|found| found.spec.name == **name && found.phase == phase(**runs)));
    let more = found.iter().find(|found| found.spec.name != STEADY && !world.contains_key(&found.spec.name));
    match (missing, more) {
        (None, None) => None,
        (Some((name, runs)), _) => {
            let is = found.iter().find(|found| found.spec.name == *name).map(|found| (found.phase, found.reason.clone()));
            Some(format!("{name} is to be {:?}, and is {is:?}", phase(*runs)))
        }
        (None, Some(more)) => Some(format!("{} is still there: {:?} {}", more.spec.name, more.phase, more.reason)),
    }
}

/// Nodes run what is to run, and nothing else; all of it answers.
fn as_asked_on_nodes(site: &Site, world: &BTreeMap<String, bool>) -> Result<()> {
    let mut groups = 0;
    for name in site.node_names() {
        let count = "find /sys/fs/cgroup/env -mindepth 1 -maxdepth 1 -type d 2>/dev/null | wc -l";
        groups += site.rack.machine(&name)?.run(count)?.trim().parse::<usize>()?;
    }
    let running: Vec<&String> = world.iter().filter(|(_, runs)| **runs).map(|(name, _)| name).collect();
    hold(groups == running.len() + 1, || format!("{groups} control groups for {} environments", running.len() + 1))?;
    for name in running {
        let said = site.operator.exec(name, "hostname")?;
        hold(said.trim() == name, || format!("{name} calls itself {said:?}"))?;
    }
    Ok(())
}

/// Process of its init, and when that was started.
fn init_of(site: &Site, environment: &EnvironmentView) -> Result<String> {
    let node = environment.node.as_deref().context("it runs nowhere")?;
    let group = format!("/sys/fs/cgroup/env/{}", environment.id);
    let command = format!(
        "pid=$(find {group} -name cgroup.procs -exec cat {{}} + | sort -n | head -n 1); echo $pid $(cut -d' ' -f22 /proc/$pid/stat)"
    );
    site.rack.machine(node)?.run(&command)
}

fn seed() -> Result<u64> {
    match std::env::var("LODGE_SEED") {
        Ok(text) => text.parse().with_context(|| format!("LODGE_SEED={text:?} is not a number")),
        Err(_) => Ok(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).context("reading the clock")?.as_secs()),
    }
}

/// SplitMix64 (Steele, Lea, Flood 2014): small, and good enough to pick moments.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    /// From 0 to 1.
    fn fraction(&mut self) -> f64 {
        self.below(1000) as f64 / 1000.0
    }

    fn pick<'a, T>(&mut self, list: &'a [T]) -> Option<&'a T> {
        let number = self.next() as usize;
        list.get(number.checked_rem(list.len())?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_is_played_again_the_same_way() {
        let mut one = Random(7);
        let mut two = Random(7);
        let moments: Vec<u64> = (0..100).map(|_| one.below(10)).collect();
        assert!(moments.iter().all(|moment| *moment == two.below(10)));
        assert!((0..10).all(|wanted| moments.contains(&wanted)), "{moments:?}");
        assert_eq!(Random(1).pick::<u8>(&[]), None);
    }
}
