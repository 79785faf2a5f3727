//! What breaks an environment, and the way out that `docs/repair.md` describes for it: from a clean system on the other node, by ssh, with
//! the broken files at `/repair`. Afterwards it runs again with all its data.

use std::time::Instant;

use anyhow::{Context, Result};
use lodge_model::environment::{
    share,
    view::{EnvironmentView, Phase},
};
use lodge_model::paths;

use super::{
    Bench,
    environments::{leaves_nothing, until},
};
use crate::{
    hosting::{Hosting, Wanted, address},
    rack::CENTER,
    scenario::{Site, hold},
};

const NAME: &str = "mend1";
/// What `lodge` may take for a repair, or its end.
const PATIENCE: [&str; 3] = ["--wait", "--timeout", "20m"];
/// Its data: written once, and there after every repair.
const DATA: &str = "dd if=/dev/urandom of=/root/data bs=64k count=8 2>&1 && sync && sha256sum /root/data";
/// Exit status of `lodge env fsck` where there are faults.
const DAMAGED: i32 = 7;
/// As a stranger inside, to become root by this password.
const BECOME_ROOT: &str = "setpriv --reuid 65534 --clear-groups sh -c 'echo found-again | su -c \"id -u\"' 2>&1";

pub fn run(bench: &mut Bench) -> Result<()> {
    let site = bench.site()?;
    let hosting = Hosting::prepare(&site.rack, &site.operator)?;
    let made = hosting.create(&site.operator, &Wanted { name: NAME, memory: "128M", more: &[] })?;
    let port = site.rack.forward(address(&made)?, 22)?;
    let data = site.operator.exec(NAME, DATA)?;
    let data = data.lines().last().context("no digest of its data")?.to_owned();
    let broken = Broken { site, hosting: &hosting, id: made.id.to_string(), port, data };
    let walks: [(&str, Walk); 6] = [
        ("no init, no fstab", no_init),
        ("a full disk, put back once", full_disk),
        ("bytes of ext4 overwritten", overwritten),
        ("the same, mended by fsck", fsck),
        ("a lost password", lost_password),
        ("reinstalled, and rolled back", reinstalled),
    ];
    let mut told = Vec::new();
    for (name, walk) in walks {
        let started = Instant::now();
        let said = walk(&broken).with_context(|| format!("walk: {name}")).with_context(|| broken.stands())?;
        told.push(format!("  {name}: {said} ({} s)", started.elapsed().as_secs()));
    }
    refusals(&broken)?;
    site.operator.lodge(&["env", "destroy", NAME, "--yes", "--wait"])?;
    leaves_nothing(site)?;
    bench.say(&told.join("\n"));
    Ok(())
}

/// Breaks it, goes the way out, and says what came of it.
type Walk = fn(&Broken) -> Result<String>;

/// The environment that is broken again and again.
struct Broken<'a> {
    site: &'a Site,
    hosting: &'a Hosting,
    id: String,
    port: u16,
    data: String,
}

impl Broken<'_> {
    fn lodge(&self, arguments: &[&str]) -> Result<String> {
        self.site.operator.lodge(arguments)
    }

    fn exec(&self, command: &str) -> Result<String> {
        self.site.operator.exec(NAME, command)
    }

    /// By ssh, at the address that it has always had.
    fn ssh(&self, command: &str) -> Result<String> {
        self.hosting.ssh(&self.site.rack, self.port, command)
    }

    fn now(&self) -> Result<EnvironmentView> {
        self.site.operator.environment(NAME)
    }

    fn stands(&self) -> String {
        self.lodge(&["env", "show", NAME]).unwrap_or_else(|error| format!("{error:#}"))
    }

    /// Open its files on the node that it was not on.
    fn repair(&self) -> Result<EnvironmentView> {
        let before = self.now()?;
        let nodes = self.site.node_names();
        let other = nodes.iter().find(|node| before.node.as_ref() != Some(*node)).context("there is no other node")?;
        let mut arguments = vec!["env", "repair", NAME, "--node", other];
        arguments.extend(PATIENCE);
        self.lodge(&arguments)?;
        let now = self.now()?;
        let is_repair = now.repair.as_ref().is_some_and(|repair| repair.open && repair.snapshot.is_some());
        hold(is_repair && now.node.as_ref() == Some(other) && now.epoch > before.epoch, || {
            format!("it is not under repair: {now:?}")
        })?;
        hold(now.addresses == before.addresses, || format!("it has other addresses: {now:?}"))?;
        let said = self.ssh("hostname; cat /repair/etc/hostname; grep ' /repair ' /proc/mounts")?;
        let lines: Vec<&str> = said.lines().collect();
        hold(lines.get(..2) == Some(&["mend1-repair", NAME]), || format!("by ssh, the repair environment says {said:?}"))?;
        hold(lines.get(2).is_some_and(|line| line.contains("nosuid") && line.contains("nodev")), || {
            format!("mounted as {said:?}")
        })?;
        let listed = self.lodge(&["env", "ls"])?;
        hold(listed.contains("running (repair)"), || format!("lodge env ls does not say that it is repaired:\n{listed}"))?;
        Ok(now)
    }

    /// Give them back; it runs, answers, and has all its data.
    fn finish(&self, more: &[&str]) -> Result<()> {
        let mut arguments = vec!["env", "repair", NAME, "--finish"];
        arguments.extend(more);
        arguments.extend(PATIENCE);
        self.lodge(&arguments)?;
        let now = self.now()?;
        hold(now.phase == Phase::Running && now.repair.is_none(), || format!("it does not run: {now:?}"))?;
        self.is_whole()
    }

    fn is_whole(&self) -> Result<()> {
        let said = self.exec("hostname; sha256sum /root/data; test ! -e /repair || ls -A /repair")?;
        let lines: Vec<&str> = said.lines().collect();
        hold(lines == [NAME, &self.data], || format!("its data are {said:?}, not {:?}", self.data))
    }
}

fn no_init(broken: &Broken) -> Result<String> {
    broken
        .exec("rm /sbin/init && echo nonsense > /etc/inittab && echo /dev/nothing / ext9 nonsense 1 1 > /etc/fstab && sync")?;
    broken.lodge(&["env", "kill", NAME, "--wait"])?;
    broken.lodge(&["env", "start", NAME])?;
    let fails = until(broken.site, NAME, "failing for want of an init", |found| found.phase == Phase::Failed)?;
    let now = broken.repair()?;
    broken
        .ssh("cp -a /usr/sbin/init /repair/usr/sbin/init && cp -a /etc/inittab /repair/etc/inittab && : > /repair/etc/fstab")?;
    broken.finish(&[])?;
    broken.ssh("test ! -s /etc/fstab && pidof init")?;
    Ok(format!("failed with {:?}, repaired on {}", fails.reason, now.node.unwrap_or_default()))
}

fn full_disk(broken: &Broken) -> Result<String> {
    broken.exec(
        "fallocate -l 380M /var/log/huge; dd if=/dev/zero of=/var/log/more bs=64k 2>/dev/null; sync; test ! -e /root/new",
    )?;
    let full = broken.exec("if echo text > /root/new && sync && test -s /root/new; then echo room; else rm -f /root/new; echo full; fi 2>/dev/null")?;
    hold(full.trim() == "full", || format!("its disk is {full:?}"))?;
    broken.repair()?;
    // The wrong file, and everything as it was before.
    broken.ssh("rm /repair/root/data /repair/var/log/huge && sync")?;
    broken.finish(&["--rollback", "--yes"])?;
    let left = broken.exec("ls /var/log/huge /var/log/more | wc -l")?;
    hold(left.trim() == "2", || format!("{left} of what fills its disk is there after the rollback"))?;
    broken.repair()?;
    let freed = broken
        .ssh("df -m /repair | tail -n 1; rm /repair/var/log/huge /repair/var/log/more && sync; df -m /repair | tail -n 1")?;
    broken.finish(&[])?;
    broken.exec("dd if=/dev/zero of=/root/new bs=64k count=160 2>/dev/null && sync && rm /root/new")?;
    let used: Vec<&str> = freed.lines().filter_map(|line| line.split_whitespace().nth(4)).collect();
    Ok(format!("{} in use", used.join(", then ")))
}

/// Its disk, stopped: superblock, group descriptors, and what is next to them are gone. What is told of it before anything is done.
fn overwrite(broken: &Broken) -> Result<()> {
    broken.lodge(&["env", "stop", NAME, "--wait"])?;
    let disk = format!("{}/{}/{}/{}", paths::SHARE_DATA, share::ENVIRONMENTS, broken.id, share::DISK);
    let overwrite = format!("dd if=/dev/urandom of={disk} bs=4k count=16 conv=notrunc,fsync 2>&1");
    broken.site.rack.machine(CENTER)?.run(&overwrite)?;
    let looked = broken.site.operator.try_lodge(&["env", "fsck", NAME])?;
    let said = String::from_utf8_lossy(&looked.stdout).into_owned();
    let is_told = looked.status.code() == Some(DAMAGED) && said.contains("it is damaged") && said.contains("--yes");
    hold(is_told, || format!("lodge env fsck: {}: {said}", looked.status))
}

fn fsck(broken: &Broken) -> Result<String> {
    overwrite(broken)?;
    let said = broken.lodge(&["env", "fsck", NAME, "--yes"])?;
    hold(said.contains("is in order again"), || format!("lodge env fsck --yes: {said}"))?;
    let said = broken.lodge(&["env", "fsck", NAME])?;
    broken.lodge(&["env", "start", NAME, "--wait"])?;
    broken.is_whole()?;
    Ok(said.trim().to_owned())
}

fn reinstalled(broken: &Broken) -> Result<String> {
    broken.lodge(&["env", "reinstall", NAME, "--yes", "--wait", "--timeout", "20m"])?;
    let now = broken.now()?;
    let snapshot = now.old.and_then(|old| old.snapshot).context("no snapshot was taken")?;
    let said = broken.ssh("ls /root; sha256sum < /old/root/data; echo mine > /old/root/note && cat /old/root/note")?;
    let digest = broken.data.split_whitespace().next().unwrap_or_default();
    hold(said.starts_with(digest) && said.trim().ends_with("mine"), || format!("in the new system: {said:?}"))?;
    broken.lodge(&["env", "stop", NAME, "--wait"])?;
    broken.lodge(&["env", "rollback", NAME, &snapshot, "--yes", "--wait"])?;
    broken.lodge(&["env", "start", NAME, "--wait"])?;
    broken.is_whole()?;
    broken.exec("test ! -e /old")?;
    Ok(format!("/old was there, and snapshot {snapshot} brought it back"))
}

fn overwritten(broken: &Broken) -> Result<String> {
    overwrite(broken)?;
    let now = broken.repair()?;
    let mended = now.repair.map(|repair| repair.mended).unwrap_or_default();
    hold(mended.lines().count() > 2, || format!("of what was mended it says {mended:?}"))?;
    let told = broken.ssh("cat /etc/motd; cat /root/e2fsck.txt; sha256sum < /repair/root/data")?;
    let digest = broken.data.split_whitespace().next().unwrap_or_default();
    hold(told.contains("has been mended") && told.contains(mended.trim()) && told.contains(digest), || {
        format!("inside, it says {told:?}")
    })?;
    broken.finish(&[])?;
    let end = mended.lines().rfind(|line| !line.trim().is_empty()).unwrap_or_default().trim();
    Ok(format!("{} lines of e2fsck, the last {end:?}", mended.lines().count()))
}

fn lost_password(broken: &Broken) -> Result<String> {
    broken.exec("echo root:forgotten | chpasswd && rm -r /root/.ssh && sync")?;
    let becomes = |said: Result<String>| said.is_ok_and(|said| said.trim_end().ends_with('0'));
    hold(!becomes(broken.exec(BECOME_ROOT)), || "anybody becomes root".into())?;
    broken.repair()?;
    broken.ssh("echo root:found-again | chroot /repair chpasswd && cp -a /root/.ssh /repair/root/ && sync")?;
    broken.finish(&[])?;
    hold(becomes(broken.exec(BECOME_ROOT)), || format!("the new password does not do: {:?}", broken.exec(BECOME_ROOT)))?;
    broken.ssh("id -u")?;
    Ok("set anew by chroot; ssh and su let in".into())
}

/// What cannot be done is told, with an exit status.
fn refusals(broken: &Broken) -> Result<()> {
    let cases: [(&[&str], i32, &str); 4] = [
        (&["env", "repair", "nowhere"], 3, "no environment"),
        (&["env", "repair", NAME, "--finish"], 6, "not under repair"),
        (&["env", "repair", NAME, "--node", "nowhere"], 1, "no node nowhere"),
        (&["env", "repair", NAME, "--address", "192.0.2.1"], 1, "in no pool"),
    ];
    for (arguments, status, words) in cases {
        let output = broken.site.operator.try_lodge(arguments)?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        hold(output.status.code() == Some(status) && said.contains(words), || {
            format!("{arguments:?}: {}: {said}", output.status)
        })?;
    }
    broken.is_whole()
}
