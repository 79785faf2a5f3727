//! `bench move`: how long nobody answers at an environment's address while it moves to another node, by a restart and live, beside a stop
//! and a start where it is; and how long it takes to drain a node, by how many move at the same time.

use std::{collections::BTreeSet, time::Instant};

use anyhow::{Context, Result};
use clap::ValueEnum;
use lodge_model::drain::CertificateView;
use lodge_qemu_tests::{
    api::Operator,
    artifacts::Artifacts,
    hosting::{Hosting, TINY, address},
    rack::{Rack, node_name},
};

use super::{
    MoveOptions,
    guest::{Shape, site},
    result::{Bar, Samples, Table},
    watcher::Watcher,
};
use crate::{
    demo,
    progress::Console,
    template::{self, Name},
};

/// Each node: all the drained ones live on one.
const NODE: Shape = Shape { memory_mib: 2048, cpus: 1 };
/// The environment that moves.
const MOVED: &str = "moved";
/// The gap of a move by a restart may be so much longer than that of a stop and a start where it is.
const GAP: Bar = Bar::AtMost(1.5);

/// What moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Kind {
    /// A small one.
    Tiny,
    /// One with systemd.
    #[value(name = "debian-13")]
    Debian13,
}

impl Kind {
    /// Template, memory and disk.
    fn shape(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Kind::Tiny => (TINY, "96M", "512M"),
            Kind::Debian13 => (Name::Debian13.text(), "512M", "2G"),
        }
    }
}

/// Run it.
pub fn run(options: &MoveOptions) -> Result<Table> {
    let artifacts = demo::artifacts()?;
    let kinds: BTreeSet<Kind> = options.kinds.iter().copied().collect();
    let debian = match kinds.contains(&Kind::Debian13) {
        true => template::ensure(&Console::new()?, &[Name::Debian13])?.pop(),
        false => None,
    };
    super::say("installing a site with two nodes");
    let moving = Moving::install(artifacts)?;
    if let Some(debian) = debian {
        moving.operator.lodge(&["template", "import", Name::Debian13.text(), &debian.display().to_string()])?;
    }
    let mut table = Table::new("move");
    for kind in kinds {
        moving.gaps(kind.shape(), options.shared.repeat, &mut table)?;
    }
    if options.drained > 0 {
        moving.drains(options, &mut table)?;
    }
    Ok(table)
}

/// A site with two nodes.
struct Moving {
    rack: Rack,
    operator: Operator,
    hosting: Hosting,
}

/// Gaps of one environment, by how it was away.
#[derive(Default)]
struct Gaps {
    moved: Samples,
    live: Samples,
    stopped: Samples,
    restarted: Samples,
}

impl Moving {
    fn install(artifacts: Artifacts) -> Result<Self> {
        let (rack, operator) = site("bench-move", artifacts, 2, NODE)?;
        let hosting = Hosting::prepare(&rack, &operator)?;
        Ok(Self { rack, operator, hosting })
    }

    /// Create one that may run anywhere, and wait until it runs.
    fn create(&self, name: &str, (template, memory, disk): (&str, &str, &str)) -> Result<()> {
        let key = self.hosting.public_key().display().to_string();
        let create = ["env", "create", name, "--template", template, "--memory", memory, "--disk", disk, "--ssh-key", &key];
        self.operator.lodge(&[&create[..], &["--wait"]].concat()).map(drop)
    }

    /// There by a restart, a stop and a start, a restart in place, which keeps disk and mounts, and back live; in turns, so that what
    /// changes on the host changes for all.
    fn gaps(&self, kind: (&str, &str, &str), repeat: u8, table: &mut Table) -> Result<()> {
        self.create(MOVED, kind)?;
        let port = self.rack.forward(address(&self.operator.environment(MOVED)?)?, 22)?;
        let mut watcher = Watcher::start(port)?;
        watcher.answers()?;
        let mut gaps = Gaps::default();
        // The first turn brings the template to both nodes, and does not count.
        for turn in 0..=repeat {
            let (moved, _) = self.moved(&mut watcher, "--restart")?;
            let stopped = watcher.gap(|| ["stop", "start"].iter().try_for_each(|word| self.command(word)))?;
            let restarted = watcher.gap(|| self.command("restart"))?;
            let (back, not_live) = self.moved(&mut watcher, "--live")?;
            let live = if not_live.is_empty() { format!("moved live {back:.2} s") } else { format!("not live ({not_live})") };
            let said = format!("moved {moved:.2} s, stopped and started {stopped:.2} s, restarted {restarted:.2} s, {live}");
            super::say(&format!("{} {turn} of {repeat}: {said}", kind.0));
            if turn > 0 {
                gaps.moved.0.push(moved);
                gaps.stopped.0.push(stopped);
                gaps.restarted.0.push(restarted);
                gaps.live.0.extend(not_live.is_empty().then_some(back));
            }
        }
        let name = kind.0;
        table.row(format!("{name}: gap of a move, beside a stop and a start (s)"), &gaps.moved, &gaps.stopped, GAP);
        table.row(format!("{name}: gap of a move, beside a restart in place (s)"), &gaps.moved, &gaps.restarted, Bar::None);
        if gaps.live != Samples::default() {
            table.row(
                format!("{name}: gap of a live move, beside a stop and a start (s)"),
                &gaps.live,
                &gaps.stopped,
                Bar::None,
            );
            table.row(format!("{name}: gap of a live move, beside a move (s)"), &gaps.live, &gaps.moved, Bar::None);
        }
        self.operator.lodge(&["env", "destroy", MOVED, "--yes", "--wait"]).map(drop)
    }

    /// Have the moved one stopped, started or restarted.
    fn command(&self, word: &str) -> Result<()> {
        self.operator.lodge(&["env", word, MOVED, "--wait"]).map(drop)
    }

    /// To the other node: seconds without an answer, and why it was not live where it was to be.
    fn moved(&self, watcher: &mut Watcher, how: &str) -> Result<(f64, String)> {
        let here = self.operator.environment(MOVED)?.node;
        let target = [1, 2].map(node_name).into_iter().find(|node| Some(node) != here.as_ref());
        let target = target.context("looking for the other node")?;
        let gap = watcher.gap(|| self.operator.lodge(&["env", "move", MOVED, "--to", &target, how, "--wait"]).map(drop))?;
        let done = self.operator.environment(MOVED)?.moves.pop().context("the move is not told")?;
        let not_live = if done.way == "live" { String::new() } else { format!("{} {}", done.because, done.note) };
        Ok((gap, not_live))
    }

    /// From one node to the other and back, with more and more at the same time.
    fn drains(&self, options: &MoveOptions, table: &mut Table) -> Result<()> {
        let count = options.drained;
        let (first, second) = (node_name(1), node_name(2));
        // All of them come to the first: the second takes nothing meanwhile.
        self.operator.lodge(&["node", "drain", &second, "--reason", "bench", "--wait"])?;
        let names: Vec<String> = (1..=count).map(|number| format!("small{number}")).collect();
        for name in &names {
            self.create(name, (TINY, "48M", "512M"))?;
        }
        self.operator.lodge(&["node", "undrain", &second])?;
        let mut alone: Option<(Samples, Samples)> = None;
        for (turn, at_once) in options.at_once.iter().enumerate() {
            let node = if turn % 2 == 0 { &first } else { &second };
            let (took, gaps) = self.drain(node, *at_once)?;
            anyhow::ensure!(
                gaps.0.len() == usize::from(count),
                "{} of {count} have left {node} with a known gap",
                gaps.0.len()
            );
            let (whole, each) = (took.median(), gaps.median());
            super::say(&format!("{count} drained, {at_once} at once: {whole:.1} s, median gap {each:.1} s"));
            let (one, gap) = alone.get_or_insert_with(|| (took.clone(), gaps.clone()));
            let base = options.at_once.first().copied().unwrap_or_default();
            let name = |what: &str| format!("{what} of {count}, {at_once} at once, beside {base} (s)");
            table.row(name("drain"), &took, one, Bar::None);
            table.row(name("gap of each"), &gaps, gap, Bar::None);
        }
        let destroy: Vec<&str> = names.iter().map(String::as_str).collect();
        self.operator.lodge(&[&["env", "destroy", "--yes", "--wait"], &destroy[..]].concat()).map(drop)
    }

    /// Everything moves by a restart: that is what a drain is able to do with all of them.
    fn drain(&self, node: &str, at_once: u8) -> Result<(Samples, Samples)> {
        let count = at_once.to_string();
        let budgets = ["--moves-per-source", "--moves-per-target", "--moves-per-cluster"].map(|budget| [budget, &count]);
        self.operator.lodge(&[&["cluster", "set", "--move", "restart"], &budgets.concat()[..]].concat())?;
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
