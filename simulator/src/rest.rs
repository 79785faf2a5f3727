//! How a run comes to rest: everything is mended, drains end, drained nodes are let in again; and how everything stands then.

use anyhow::Result;
use lodge_center::environments::drain::{Certified, Drain, request};
use lodge_center::environments::records::Environment;

use crate::Simulation;
use crate::clock::Millis;
use crate::host::open;
use crate::network::Weather;

/// Everything is mended for so long before it is said that the cluster does not come to rest: longer than any deadline of a drain.
const CALM: Millis = 1_200_000;

impl Simulation {
    /// Everything is mended. What goes down does so and is switched on; drains come to their end; then drained nodes are let in again.
    pub(crate) fn calm(&mut self) -> Result<()> {
        self.mend()?;
        self.until("the drains rest", |simulation| simulation.undrained().is_none())?;
        for drain in self.center.all::<Drain>() {
            self.operator(&format!("undrain {}", drain.name), |tx, world, _, at| request::undrain(tx, world, &drain.name, at));
        }
        self.until("nothing is drained", |simulation| simulation.center.all::<Drain>().is_empty())
    }

    fn mend(&mut self) -> Result<()> {
        self.weather = Weather::GOOD;
        self.start_center()?;
        if open(&self.share).is_frozen {
            self.freeze_share(false);
        }
        for node in 0..self.nodes.len() {
            self.connect(node, true, true);
            self.pause(node, false);
            self.nodes[node].host.kernel().is_deaf = false;
        }
        Ok(())
    }

    /// Until everybody is on and this is so.
    fn until(&mut self, what: &str, is_so: impl Fn(&Self) -> bool) -> Result<()> {
        let end = self.now + CALM;
        while self.broken.is_none() && self.now < end {
            self.run_until(self.now + 5000)?;
            let off: Vec<usize> = (0..self.nodes.len()).filter(|node| !self.nodes[*node].is_on).collect();
            if off.is_empty() && self.nodes.iter().all(|node| node.going.is_none()) && is_so(self) {
                return Ok(());
            }
            for node in off {
                self.power_on(node);
            }
        }
        let why = self.undrained().unwrap_or_default();
        let away = self.nodes.iter().filter(|node| !node.is_on || node.going.is_some()).map(|node| node.name.as_str());
        let away: Vec<&str> = away.collect();
        self.broken.get_or_insert(format!("{what}: not after {} s; away or going down: {away:?}; {why}", CALM / 1000));
        Ok(())
    }

    /// Until everything is as it was asked for.
    pub(crate) fn settle(&mut self, limit: Millis) -> Result<()> {
        let end = self.now + limit;
        while self.broken.is_none() && self.now < end {
            self.run_until((self.now + 500).min(end))?;
            if self.unsettled().is_none() {
                return Ok(());
            }
        }
        if let Some(what) = self.unsettled() {
            self.broken.get_or_insert(format!("after {} s: {what}", limit / 1000));
        }
        Ok(())
    }

    /// How everything stands.
    pub(crate) fn stand(&mut self) {
        let mut lines = Vec::new();
        for environment in self.center.all::<Environment>() {
            let at = environment.place.as_ref().map_or("nowhere", |place| &place.name);
            let copies = self.copies(environment.id).join(" and ");
            let (epoch, counter) = open(&self.share).disks.get(&environment.id).map_or((0, 0), |disk| disk.line);
            let why = if environment.reason.is_empty() { String::new() } else { format!(": {}", environment.reason) };
            let name = &environment.spec.name;
            let phase = environment.phase.word();
            let runs = if copies.is_empty() { "runs nowhere".to_owned() } else { format!("runs on {copies}") };
            let written = format!("last line {epoch},{counter}");
            lines.push(format!("{name} is {phase}, placed {at} with epoch {}, {runs}, {written}{why}", environment.epoch));
        }
        for drain in self.center.all::<Drain>() {
            let waits = if drain.waits.is_empty() { String::new() } else { format!(": {}", drain.waits) };
            lines.push(format!("drain of {}: {:?}{waits}", drain.name, drain.state).to_lowercase());
        }
        for certified in self.center.all::<Certified>() {
            let view = certified.view;
            let verdicts = view.items.iter().map(|item| format!("{} {:?}", item.environment, item.verdict).to_lowercase());
            let verdicts = verdicts.collect::<Vec<_>>().join(", ");
            let verdicts = if verdicts.is_empty() { "nothing was there".to_owned() } else { verdicts };
            lines.push(format!("certificate of {}: {}; {verdicts}", view.node, view.certificate.counts.words()));
        }
        for line in lines {
            self.record.say(self.now, "end", &line);
        }
    }
}
