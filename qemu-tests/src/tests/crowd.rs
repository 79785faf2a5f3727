//! Several environments that are moved about, each of which writes `epoch,counter` lines to its disk from its start on. An epoch begins where
//! the last line on the disk ends: two copies at once would write the same epoch, or lines of an older one after those of a newer.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use lodge_model::environment::view::{EnvironmentView, Phase};

use super::ask_until;
use crate::{
    hosting::{Hosting, Wanted},
    scenario::{Site, hold},
};

/// Started by the environment's own init, and started again when it ends.
const WRITER: &str = "n=$(tail -n 1 /root/journal 2>/dev/null); epoch=$((${n%%,*} + 1)); n=0; while :; do n=$((n+1)); \
    echo $epoch,$n >> /root/journal; sync /root/journal; sleep PAUSE; done";
/// One environment is made, moved or started within this on the reference machine, beside the others.
const EACH: Duration = Duration::from_secs(30);

/// The environments.
pub struct Crowd {
    /// Their names.
    pub names: Vec<String>,
}

impl Crowd {
    /// So many, all on one node, because the others take nothing meanwhile.
    pub fn on(site: &Site, hosting: &Hosting, node: &str, prefix: &str, count: usize, memory: &str) -> Result<Self> {
        let others: Vec<String> = site.node_names().into_iter().filter(|other| other != node).collect();
        for other in &others {
            site.operator.lodge(&["node", "drain", other, "--wait"])?;
        }
        let crowd = Self::anywhere(site, hosting, prefix, count, memory)?;
        crowd.until(site, &format!("all on {node}"), |found| found.node.as_deref() == Some(node))?;
        for other in &others {
            site.operator.lodge(&["node", "undrain", other])?;
        }
        Ok(crowd)
    }

    /// So many, wherever there is room.
    pub fn anywhere(site: &Site, hosting: &Hosting, prefix: &str, count: usize, memory: &str) -> Result<Self> {
        let names: Vec<String> = (1..=count).map(|number| format!("{prefix}{number}")).collect();
        for name in &names {
            hosting.order(&site.operator, &Wanted { name, memory, more: &[] }, &[])?;
        }
        let crowd = Self { names };
        crowd.until(site, "all running", |_| true)?;
        Ok(crowd)
    }

    /// Have these of them write, whenever they start; each has begun, and nothing of that can be lost.
    pub fn write(&self, site: &Site, of_them: impl Iterator<Item = usize>, pause: &str) -> Result<()> {
        let writer = WRITER.replace("PAUSE", pause);
        for at in of_them {
            let name = &self.names[at];
            let script = format!("cat > /root/writer <<'END'\n{writer}\nEND\n");
            let start = "echo 'jw:2:respawn:/bin/sh /root/writer' >> /etc/inittab; telinit q";
            site.operator.exec(name, &format!("{script}{start}; until [ -s /root/journal ]; do sleep 0.1; done; sync"))?;
        }
        Ok(())
    }

    /// Wait until all run, each of them so.
    pub fn until(&self, site: &Site, what: &str, is_so: impl Fn(&EnvironmentView) -> bool) -> Result<Vec<EnvironmentView>> {
        let limit = site.rack.host.scale(EACH * u32::try_from(self.names.len())? + EACH * 4);
        let wait = || {
            let found = self.views(site)?;
            let good = found.iter().filter(|found| found.phase == Phase::Running && is_so(found)).count();
            Ok((good == self.names.len()).then_some(found))
        };
        ask_until(limit, what, wait).with_context(|| site.operator.lodge(&["env", "ls"]).unwrap_or_default())
    }

    /// How they are now, in the order of their names here.
    pub fn views(&self, site: &Site) -> Result<Vec<EnvironmentView>> {
        let all = site.operator.environments()?;
        Ok(self.names.iter().filter_map(|name| all.iter().find(|found| found.spec.name == *name)).cloned().collect())
    }

    /// The journals of those that write are whole; how many epochs each has.
    pub fn whole(&self, site: &Site, of_them: impl Iterator<Item = usize>) -> Result<Vec<u64>> {
        of_them
            .map(|at| {
                let name = &self.names[at];
                let text = site.operator.exec(name, "cat /root/journal")?;
                let epochs = epochs(&text).with_context(|| format!("in the journal of {name}"))?;
                let given = site.operator.environment(name)?.epoch;
                hold(epochs <= given, || format!("{name} was started {epochs} times, and had the right to {given} times"))?;
                Ok(epochs)
            })
            .collect()
    }

    /// Destroy them.
    pub fn destroy(self, site: &Site) -> Result<()> {
        let names: Vec<&str> = self.names.iter().map(String::as_str).collect();
        site.operator.lodge(&[&["env", "destroy"], &names[..], &["--yes", "--wait"]].concat()).map(drop)
    }
}

/// Number of epochs of a journal in which nothing is missing and nothing is out of place.
fn epochs(text: &str) -> Result<u64> {
    let (mut epoch, mut counter) = (0, 0);
    for line in text.lines() {
        let Some((of, number)) = line.split_once(',').and_then(|(of, number)| of.parse().ok().zip(number.parse().ok())) else {
            bail!("{line:?} is no line of it");
        };
        let follows = (of, number) == (epoch, counter + 1) || (of, number) == (epoch + 1, 1);
        hold(follows, || format!("{line:?} comes after {epoch},{counter}"))?;
        (epoch, counter) = (of, number);
    }
    Ok(epoch)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn epochs_follow_one_another_and_a_second_copy_is_noticed() {
        assert_eq!(epochs("1,1\n1,2\n2,1\n").unwrap(), 2);
        assert_eq!(epochs("").unwrap(), 0);
        for wrong in ["1,1\n1,3\n", "1,1\n2,1\n1,2\n", "1,1\n2,1\n2,1\n", "1,1\n3,1\n", "1,1\n\0\0\n"] {
            assert!(epochs(wrong).is_err(), "{wrong:?}");
        }
    }
}
