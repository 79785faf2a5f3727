//! Scenarios: what happens, in lines of text, and what came of it.
//!
//! | line | what happens |
//! |---|---|
//! | `workers 1G 512M` | the workers n1, n2 and their memory; once, first |
//! | `env web1 memory=256M priority=200 group=g node=n1 restart=never` | an environment is created; only its name is needed |
//! | `wait 2.5` | time passes, in seconds |
//! | `settle 60` | time passes until everything is as it was asked for; that it is, is part of the scenario |
//! | `start`, `stop`, `kill`, `restart`, `destroy web1` | an operator asks for it |
//! | `move web1 to=n2`, `drain n1 deadline=30 then=poweroff`, `undrain n1`, `confirm-off n1` | the same |
//! | `settings moves_per_source=1 button_deadline=60` | the same |
//! | `ends web1 poweroff`, `reboot` or `crash` | its init ends by itself |
//! | `deaf n1`, `polite n1` | inits on the node do not listen to signals; do again |
//! | `button n1`, `ups n1`, `request n1` | the node is asked to switch itself off, by that cause |
//! | `off`, `on`, `pause`, `resume`, `agent n1` | its power, its clock, its agent is killed |
//! | `cut n1 center`, `share` or `both`; `heal n1` | its network |
//! | `center kill`, `center start` | the center's process |
//! | `share freeze`, `thaw`, `restart` | the share's server |
//! | `weather lost=50 late=50 repeated=50 latest=5000` | the network, in thousandths and milliseconds |
//! | `calm` | everything is mended, switched on, and not drained any more |
//!
//! An empty line and what follows a `#` mean nothing.

use std::collections::BTreeMap;
use std::str::FromStr;

use anyhow::{Context as _, Result, anyhow, bail};
use lodge_center::environments::drain::request as drains;
use lodge_center::environments::records::Environment;
use lodge_center::environments::request;
use lodge_center::flow::operator;
use lodge_model::drain::{Cause, DrainOrder, MoveOrder, Power, SettingsChange};
use lodge_model::environment::spec::{Restart, Spec};
use lodge_model::layout::{GIB, MIB};
use lodge_model::live::MoveBy;

use crate::clock::Millis;
use crate::leave::Going;
use crate::network::Weather;
use crate::{Broken, Simulation};

/// Play a scenario. Its log and how everything stands in the end, or what broke.
pub fn play(text: &str, seed: u64) -> Result<Result<String, Broken>> {
    let mut lines = text.lines().enumerate().map(|(at, line)| (at + 1, line.split('#').next().unwrap_or_default().trim()));
    let workers =
        lines.by_ref().map(|(_, line)| line).find(|line| !line.is_empty()).and_then(|line| line.strip_prefix("workers "));
    let workers = workers.context("the first line says `workers` and their memory")?;
    let workers: Vec<u64> = workers.split_whitespace().map(bytes).collect::<Result<_>>()?;
    let mut simulation = Simulation::new(seed, &workers, true)?;
    for (at, line) in lines.filter(|(_, line)| !line.is_empty()) {
        simulation.command(line).with_context(|| format!("line {at}: {line}"))?;
        if let Some(broken) = simulation.broken() {
            return Ok(Err(broken));
        }
    }
    simulation.stand();
    Ok(Ok(simulation.record.text()))
}

/// The words of a line.
struct Line<'a> {
    what: &'a str,
    name: &'a str,
    word: &'a str,
    options: BTreeMap<&'a str, &'a str>,
}

impl<'a> Line<'a> {
    fn read(line: &'a str) -> Self {
        let (options, words): (Vec<&str>, Vec<&str>) = line.split_whitespace().partition(|word| word.contains('='));
        let word = |at: usize| words.get(at).copied().unwrap_or_default();
        let options = options.into_iter().filter_map(|option| option.split_once('=')).collect();
        Self { what: word(0), name: word(1), word: word(2), options }
    }

    fn option<T: FromStr>(&self, name: &str) -> Result<Option<T>> {
        let value = self.options.get(name);
        value.map(|text| text.parse().map_err(|_| anyhow!("{name}: {text:?} is not possible"))).transpose()
    }
}

impl Simulation {
    /// Let one line happen.
    pub fn command(&mut self, line: &str) -> Result<()> {
        let line = Line::read(line);
        match line.what {
            "wait" => self.run_until(self.now + seconds(line.name)?),
            "settle" => self.settle(seconds(line.name)?),
            "calm" => self.calm(),
            "env" => self.create(&line),
            "start" | "stop" | "kill" | "restart" | "destroy" => self.ask(&line),
            "move" => self.move_one(&line),
            "drain" => self.drain(&line),
            "undrain" | "confirm-off" => self.ask_about_node(&line),
            "settings" => self.settings(&line),
            "ends" => self.ends(&line),
            "center" => self.center_process(&line),
            "share" => self.share_server(&line),
            "weather" => self.change_weather(&line),
            _ => self.machine(&line),
        }
    }

    fn create(&mut self, line: &Line) -> Result<()> {
        let restart = match line.options.get("restart").copied() {
            Some("never") => Restart::Never,
            None | Some("on-failure") => Restart::OnFailure,
            Some(other) => bail!("restart: {other:?} is not possible"),
        };
        let spec = Spec {
            name: line.name.to_owned(),
            template: "tiny".to_owned(),
            disk: GIB,
            memory: line.options.get("memory").map(|text| bytes(text)).transpose()?.unwrap_or(128 * MIB),
            cpu_millis: 500,
            ssh_keys: Vec::new(),
            addresses: Vec::new(),
            priority: line.option("priority")?.unwrap_or(100),
            anti_affinity: line.option("group")?,
            node: line.option("node")?,
            node_labels: BTreeMap::new(),
            restart,
            move_by: MoveBy::Cluster,
        };
        self.operator(&format!("creates {}", line.name), |tx, world, who, at| {
            request::create(tx, world, who, &spec, false, at)
        });
        // So that no two are of the same age.
        self.run_until(self.now + 1)
    }

    fn ask(&mut self, line: &Line) -> Result<()> {
        let (what, name) = (line.what, line.name);
        self.operator(&format!("{what} {name}"), |tx, world, who, at| match what {
            "start" => request::start(tx, world, who, name, true, at),
            "stop" => request::stop(tx, world, who, name, at),
            "kill" => request::kill(tx, world, who, name, at),
            "restart" => request::restart(tx, world, who, name, true, at),
            _ => request::destroy(tx, world, who, name, at),
        });
        Ok(())
    }

    fn move_one(&mut self, line: &Line) -> Result<()> {
        let order = MoveOrder { to: line.option("to")?, ..MoveOrder::default() };
        let to = order.to.as_ref().map_or(String::new(), |to| format!(" to {to}"));
        self.operator(&format!("moves {}{to}", line.name), |tx, world, who, at| {
            drains::move_one(tx, world, who, line.name, &order, at)
        });
        Ok(())
    }

    fn drain(&mut self, line: &Line) -> Result<()> {
        let then = match line.options.get("then").copied() {
            Some("poweroff") => Some(Power::Poweroff),
            Some("reboot") => Some(Power::Reboot),
            None => None,
            Some(other) => bail!("then: {other:?} is not possible"),
        };
        let order = DrainOrder { deadline: line.option("deadline")?, then, ..DrainOrder::default() };
        self.operator(&format!("drains {}", line.name), |tx, world, _, at| drains::drain(tx, world, line.name, &order, at));
        Ok(())
    }

    fn ask_about_node(&mut self, line: &Line) -> Result<()> {
        let (what, name) = (line.what, line.name);
        self.operator(&format!("{what} {name}"), |tx, world, _, at| match what {
            "undrain" => drains::undrain(tx, world, name, at),
            _ => operator::confirm_off(tx, world, name, at),
        });
        Ok(())
    }

    fn settings(&mut self, line: &Line) -> Result<()> {
        let change = SettingsChange {
            button_deadline: line.option("button_deadline")?,
            ups_deadline: line.option("ups_deadline")?,
            operator_deadline: line.option("operator_deadline")?,
            moves_per_source: line.option("moves_per_source")?,
            moves_per_target: line.option("moves_per_target")?,
            moves_per_cluster: line.option("moves_per_cluster")?,
            ..SettingsChange::default()
        };
        self.operator("changes settings", |tx, _, _, at| drains::set(tx, &change, at));
        Ok(())
    }

    fn ends(&mut self, line: &Line) -> Result<()> {
        let status = match line.word {
            "poweroff" => 2,
            "reboot" => 1,
            "crash" => 1 << 8,
            other => bail!("an init ends by poweroff, reboot or crash, not by {other:?}"),
        };
        let all = self.center.all::<Environment>();
        let id = all.iter().find(|known| known.spec.name == line.name).map(|known| known.id);
        let Some(id) = id else { return Ok(()) };
        for node in self.nodes.iter().filter(|node| node.is_alive()) {
            node.host.end(id, status);
        }
        Ok(())
    }

    fn center_process(&mut self, line: &Line) -> Result<()> {
        match line.name {
            "kill" => {
                self.kill_center();
                Ok(())
            }
            "start" => self.start_center(),
            other => bail!("the center is killed or started, not {other:?}"),
        }
    }

    fn share_server(&mut self, line: &Line) -> Result<()> {
        match line.name {
            "freeze" => self.freeze_share(true),
            "thaw" => self.freeze_share(false),
            "restart" => self.restart_share(),
            other => bail!("the share freezes, thaws or restarts, not {other:?}"),
        }
        Ok(())
    }

    fn change_weather(&mut self, line: &Line) -> Result<()> {
        let of = |name| Ok::<u32, anyhow::Error>(line.option(name)?.unwrap_or(0));
        self.weather = Weather {
            lost: of("lost")?,
            late: of("late")?,
            repeated: of("repeated")?,
            latest: line.option("latest")?.unwrap_or(1000),
        };
        Ok(())
    }

    fn machine(&mut self, line: &Line) -> Result<()> {
        let node = self.nodes.iter().position(|node| node.name == line.name);
        let node = node.with_context(|| format!("{:?} with {:?} is not possible", line.what, line.name))?;
        match line.what {
            "off" => self.power_off(node, "has no power any more"),
            "on" => self.power_on(node),
            "pause" => self.pause(node, true),
            "resume" => self.pause(node, false),
            "agent" => self.kill_agent(node),
            "deaf" => self.nodes[node].host.kernel().is_deaf = true,
            "polite" => self.nodes[node].host.kernel().is_deaf = false,
            "cut" => match line.word {
                "center" => self.connect(node, false, self.nodes[node].reaches_share),
                "share" => self.connect(node, self.nodes[node].reaches_center, false),
                "both" => self.connect(node, false, false),
                other => bail!("a node is cut off from the center, the share or both, not from {other:?}"),
            },
            "heal" => self.connect(node, true, true),
            "button" => self.goes_down(node, Cause::Button, 300),
            "ups" => self.goes_down(node, Cause::Ups, 60),
            "request" => self.goes_down(node, Cause::Request, 300),
            other => bail!("{other:?} is no word of a scenario"),
        }
        Ok(())
    }

    /// init announces it.
    fn goes_down(&mut self, node: usize, cause: Cause, seconds: u64) {
        if !self.nodes[node].is_alive() || self.nodes[node].going.is_some() {
            return;
        }
        self.record.say(self.now, &self.nodes[node].name, &format!("is to go down, by {}", cause.words()));
        self.nodes[node].going = Some(Going::new(Power::Poweroff, cause, seconds, self.now));
    }
}

/// `2.5`, in milliseconds.
fn seconds(text: &str) -> Result<Millis> {
    let seconds: f64 = text.parse().map_err(|_| anyhow!("{text:?} is no number of seconds"))?;
    Ok(crate::clock::length(std::time::Duration::try_from_secs_f64(seconds)?))
}

/// `512M`, `1G`.
fn bytes(text: &str) -> Result<u64> {
    let (number, unit) = match (text.strip_suffix('G'), text.strip_suffix('M')) {
        (Some(number), _) => (number, GIB),
        (_, Some(number)) => (number, MIB),
        _ => bail!("{text:?} is no size such as 512M or 1G"),
    };
    Ok(number.parse::<u64>().with_context(|| format!("reading {text:?}"))? * unit)
}
