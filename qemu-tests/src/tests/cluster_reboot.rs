//! `lodge cluster reboot`: four nodes with twelve environments are restarted in turn while somebody looks on.

use std::{collections::BTreeMap, time::Instant};

use anyhow::{Context, Result};
use lodge_model::rolling::{RebootState, RebootView, TurnState};

use super::{Bench, crowd::Crowd};
use crate::{
    hosting::Hosting,
    scenario::{Site, hold},
};

const COUNT: usize = 12;
const NODES: u8 = 4;

pub fn run(bench: &mut Bench) -> Result<()> {
    let site = bench.wide(NODES)?;
    let hosting = Hosting::prepare(&site.rack, &site.operator)?;
    let crowd = Crowd::anywhere(site, &hosting, "roll", COUNT, "64M")?;
    crowd.write(site, 0..COUNT, "1")?;
    let boots = boots(site)?;
    let planned = site.operator.lodge(&["cluster", "reboot", "--dry-run"])?;
    hold(self::boots(site)? == boots && planned.contains("4 nodes would be restarted"), || format!("the plan: {planned}"))?;
    let since = Instant::now();
    site.operator.lodge(&["cluster", "reboot", "--yes", "--wait", "--reason", "a test"])?;
    let took = since.elapsed().as_secs();
    let text = site.operator.lodge(&["cluster", "reboot", "--status", "--json"])?;
    let view: RebootView = serde_json::from_str(&text).with_context(|| format!("reading {text}"))?;
    let done = view.turns.iter().filter(|turn| turn.state == TurnState::Done).count();
    hold(view.state == RebootState::Done && done == usize::from(NODES), || format!("it ended so: {view:?}"))?;
    let after = self::boots(site)?;
    hold(boots.iter().all(|(name, boot)| after.get(name) != Some(boot)), || {
        format!("not all restarted: {boots:?}, {after:?}")
    })?;
    let views = crowd.until(site, "all running", |found| found.moving.is_none())?;
    let moves: Vec<usize> = views.iter().map(|found| found.moves.len()).collect();
    hold(moves.iter().all(|moves| *moves <= 2) && view.most_moves <= 2, || format!("moves: {moves:?}"))?;
    let epochs = crowd.whole(site, 0..COUNT)?;
    hold(epochs.iter().zip(&moves).all(|(epochs, moves)| *epochs == *moves as u64 + 1), || {
        format!("one start for each move: {epochs:?}, {moves:?}")
    })?;
    crowd.destroy(site)?;
    bench.say(&format!("{planned}  four nodes restarted in {took} s; moves of each environment: {moves:?}"));
    Ok(())
}

fn boots(site: &Site) -> Result<BTreeMap<String, String>> {
    let boot = |name: String| {
        let boot = site.rack.machine(&name)?.run("cat /proc/sys/kernel/random/boot_id")?;
        Ok((name, boot))
    };
    site.node_names().into_iter().map(boot).collect()
}
