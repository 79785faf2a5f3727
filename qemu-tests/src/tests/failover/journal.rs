//! A program in an environment that writes lines `epoch,counter,time` without end, each on its disk before it is acknowledged.
//! Acknowledgements stay in its memory and are read through the node's shell, so that neither center nor share is needed for it.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context, Result, bail};
use lodge_model::{environment::view::EnvironmentView, ids::EnvironmentId};

use crate::{
    scenario::{Site, hold},
    tests::ask_until,
};

/// Where the lines are.
pub const FILE: &str = "/root/journal";
/// The program; `EPOCH` is put in.
const WRITER: &str = "cd /dev/shm; rm -f failed; n=0; while :; do n=$((n+1)); read up idle < /proc/uptime; \
    if echo \"EPOCH,$n,$up\" >> /root/journal && sync /root/journal; then echo $n > new && mv new acknowledged; \
    else echo $n > failed; exit; fi; done";
/// Lines come within this on the reference machine, once nothing holds them up.
const SOON: Duration = Duration::from_secs(90);

/// One epoch of one environment.
pub struct Journal {
    node: String,
    id: EnvironmentId,
    name: String,
    epoch: u64,
    noted: u64,
}

impl Journal {
    /// Start writing where it runs now.
    pub fn start(site: &Site, environment: &EnvironmentView) -> Result<Self> {
        let name = environment.spec.name.clone();
        let node = environment.node.clone().with_context(|| format!("{name} runs nowhere"))?;
        let writer = WRITER.replace("EPOCH", &environment.epoch.to_string());
        site.operator.exec(&name, &format!("setsid sh -c '{writer}' </dev/null >/dev/null 2>&1 &"))?;
        Ok(Self { node, id: environment.id, name, epoch: environment.epoch, noted: 0 })
    }

    /// Wait until more lines than that are acknowledged.
    pub fn more(&self, site: &Site, than: u64) -> Result<u64> {
        ask_until(site.rack.host.scale(SOON), &format!("more lines of {}", self.name), || {
            if let Some(failed) = self.failed(site)? {
                bail!("{} failed to write line {failed} in epoch {}", self.name, self.epoch);
            }
            Ok(Some(self.acknowledged(site)?).filter(|now| *now > than))
        })
    }

    /// The last line that is acknowledged.
    pub fn acknowledged(&self, site: &Site) -> Result<u64> {
        Ok(self.inside(site, "acknowledged")?.trim().parse().unwrap_or(0))
    }

    /// Keep in mind what is acknowledged now.
    pub fn note(&mut self, site: &Site) -> Result<()> {
        self.noted = self.acknowledged(site)?;
        Ok(())
    }

    fn failed(&self, site: &Site) -> Result<Option<u64>> {
        Ok(self.inside(site, "failed")?.trim().parse().ok())
    }

    /// A file of its memory, empty where it is not there.
    fn inside(&self, site: &Site, file: &str) -> Result<String> {
        let group = format!("/sys/fs/cgroup/env/{}", self.id);
        let init = format!("$(find {group} -name cgroup.procs -exec cat {{}} + | sort -n | head -n 1)");
        site.rack.machine(&self.node)?.run(&format!("cat /proc/{init}/root/dev/shm/{file} 2>/dev/null || true"))
    }
}

/// Epochs never go back, counters have no gap within one, and what was acknowledged is there.
pub fn check(text: &str, journals: &[Journal]) -> Result<()> {
    let acknowledged = journals.iter().map(|journal| (journal.epoch, journal.noted));
    lines(text, &acknowledged.collect())
}

fn lines(text: &str, acknowledged: &BTreeMap<u64, u64>) -> Result<()> {
    let mut last: BTreeMap<u64, u64> = BTreeMap::new();
    for line in text.lines() {
        let mut fields = line.split(',');
        let mut number = || fields.next()?.parse::<u64>().ok();
        let Some((epoch, counter)) = number().zip(number()) else {
            // A line that nobody has acknowledged may be cut off by a loss of power; the next epoch goes on after it.
            continue;
        };
        let newest = last.keys().next_back().copied().unwrap_or(0);
        hold(epoch >= newest, || {
            format!("line {line:?} of epoch {epoch} comes after lines of epoch {newest}: two copies wrote")
        })?;
        let before = last.insert(epoch, counter).unwrap_or(0);
        hold(counter == before + 1, || format!("in epoch {epoch} line {counter} comes after line {before}"))?;
    }
    for (epoch, acknowledged) in acknowledged {
        let there = last.get(epoch).copied().unwrap_or(0);
        hold(there >= *acknowledged, || {
            format!("in epoch {epoch} {acknowledged} lines were acknowledged, and {there} are there")
        })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(text: &str, acknowledged: &[(u64, u64)]) -> Result<()> {
        lines(text, &acknowledged.iter().copied().collect())
    }

    #[test]
    fn a_journal_of_two_owners_one_after_the_other_is_whole() {
        checked("3,1,10.5\n3,2,10.6\n4,1,7.0\n4,2,7.1\n", &[(3, 2), (4, 1)]).unwrap();
        checked("3,1,10.5\n3,2,10.6\n3,\n4,1,7.0\n", &[(3, 2)]).unwrap();
        checked("", &[]).unwrap();
    }

    #[test]
    fn lost_lines_gaps_and_a_second_owner_are_noticed() {
        let error = |text, acknowledged: &[(u64, u64)]| checked(text, acknowledged).unwrap_err().to_string();
        assert!(error("3,1,1\n", &[(3, 2)]).contains("2 lines were acknowledged, and 1"));
        assert!(error("3,1,1\n3,3,1\n", &[]).contains("line 3 comes after line 1"));
        assert!(error("3,1,1\n4,1,1\n3,2,1\n", &[]).contains("two copies wrote"));
        assert!(error("4,1,1\n", &[(3, 1)]).contains("epoch 3"));
    }
}
