//! `bench move`: how long nobody answers at an environment's address while it moves to another node, beside a stop and start where it is;
//! and how long it takes to drain a node, by how many move at the same time.

use std::time::Instant;

use anyhow::{Context, Result};
use lodge_model::drain::CertificateView;
use lodge_qemu_tests::{
    api::Operator,
    artifacts::Artifacts,
    hosting::{Hosting, TINY, address},
    rack::{Rack, node_name},
};

use super::{
    Options,
    guest::site,
    result::{Bar, Samples, Table},
    watcher::Watcher,
};
use crate::{
    demo,
    progress::Console,
    template::{self, Name},
};

/// Memory of each node: all the drained ones live on one.
const MEMORY_MIB: u32 = 2048;
/// Environments that are drained.
const DRAINED: usize = 20;
/// So many at the same time.
const AT_ONCE: [u8; 4] = [1, 2, 4, 8];
/// A small environment, and one with systemd: template, memory and disk.
const KINDS: [(&str, &str, &str); 2] = [(TINY, "96M", "512M"), ("debian-13", "512M", "2G")];
/// A move may take so much longer than a stop and start where it is.
const GAP: Bar = Bar::AtMost(1.5);

/// Run it.
pub fn run(options: &Options) -> Result<Table> {
    let artifacts = demo::artifacts()?;
    let debian = template::ensure(&Console::new()?, &[Name::Debian13])?.pop().context("no template was built")?;
    super::say("installing a site with two nodes");
    let moving = Moving::install(artifacts)?;
    moving.operator.lodge(&["template", "import", "debian-13", &debian.display().to_string()])?;
    let mut table = Table::new("move");
    for kind in KINDS {
        moving.gaps(kind, options, &mut table)?;
    }
    moving.drains(&mut table)?;
    Ok(table)
}

/// A site with two nodes.
struct Moving {
    rack: Rack,
    operator: Operator,
    hosting: Hosting,
}

impl Moving {
    fn install(artifacts: Artifacts) -> Result<Self> {
        let (rack, operator) = site("bench-move", artifacts, 2, MEMORY_MIB)?;
        let hosting = Hosting::prepare(&rack, &operator)?;
        Ok(Self { rack, operator, hosting })
    }

    fn create(&self, name: &str, (template, memory, disk): (&str, &str, &str), more: &[&str]) -> Result<()> {
        let key = self.hosting.public_key().display().to_string();
        let create = ["env", "create", name, "--template", template, "--memory", memory, "--disk", disk, "--ssh-key", &key];
        self.operator.lodge(&[&create[..], more].concat()).map(drop)
    }

    /// There and back in turns with a restart where it is.
    fn gaps(&self, kind: (&str, &str, &str), options: &Options, table: &mut Table) -> Result<()> {
        self.create("moved", kind, &["--node", &node_name(1), "--wait"])?;
        let port = self.rack.forward(address(&self.operator.environment("moved")?)?, 22)?;
        let mut watcher = Watcher::start(port)?;
        watcher.answers()?;
        let (mut moved, mut restarted) = (Samples::default(), Samples::default());
        // The first turn brings the template to both nodes, and does not count.
        for turn in 0..=options.repeat {
            let target = node_name(2 - turn % 2);
            let away = watcher.gap(|| self.operator.lodge(&["env", "move", "moved", "--to", &target, "--wait"]).map(drop))?;
            let off = watcher.gap(|| self.operator.lodge(&["env", "restart", "moved", "--wait"]).map(drop))?;
            super::say(&format!("{} {turn} of {}: moved {away:.2} s, restarted {off:.2} s", kind.0, options.repeat));
            if turn > 0 {
                moved.0.push(away);
                restarted.0.push(off);
            }
        }
        table.row(format!("{}: gap of a move, beside a restart (s)", kind.0), &moved, &restarted, GAP);
        self.operator.lodge(&["env", "destroy", "moved", "--yes", "--wait"]).map(drop)
    }

    /// From one node to the other and back, with more and more at the same time.
    fn drains(&self, table: &mut Table) -> Result<()> {
        let names: Vec<String> = (1..=DRAINED).map(|number| format!("small{number}")).collect();
        for name in &names {
            self.create(name, (TINY, "48M", "512M"), &["--node", &node_name(1), "--wait"])?;
        }
        let mut alone: Option<(Samples, Samples)> = None;
        for (turn, at_once) in AT_ONCE.into_iter().enumerate() {
            let node = node_name(if turn % 2 == 0 { 1 } else { 2 });
            let (took, gaps) = self.drain(&node, at_once)?;
            super::say(&format!(
                "{DRAINED} drained, {at_once} at once: {:.1} s, median gap {:.1} s",
                took.median(),
                gaps.median()
            ));
            let (one, gap) = alone.get_or_insert_with(|| (took.clone(), gaps.clone()));
            let name = |what: &str| format!("{what} of {DRAINED}, {at_once} at once, beside 1 (s)");
            table.row(name("drain"), &took, one, Bar::None);
            table.row(name("gap of each"), &gaps, gap, Bar::None);
        }
        Ok(())
    }

    fn drain(&self, node: &str, at_once: u8) -> Result<(Samples, Samples)> {
        let count = at_once.to_string();
        let budgets = ["--moves-per-source", "--moves-per-target", "--moves-per-cluster"].map(|budget| [budget, &count]);
        self.operator.lodge(&[&["cluster", "set"], &budgets.concat()[..]].concat())?;
        let begin = Instant::now();
        self.operator.lodge(&["node", "drain", node, "--reason", "bench", "--wait"])?;
        let took = begin.elapsed().as_secs_f64();
        let text = self.operator.lodge(&["node", "certificate", node, "--json"])?;
        let certificate: CertificateView = serde_json::from_str(&text).with_context(|| format!("reading {text}"))?;
        self.operator.lodge(&["node", "undrain", node])?;
        let gaps = certificate.items.iter().filter_map(|item| item.gap_ms).map(|gap| gap as f64 / 1000.0);
        Ok((Samples(vec![took]), Samples(gaps.collect())))
    }
}
