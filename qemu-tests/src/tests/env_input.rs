//! Everything that may be wrong with what is asked of the center by `lodge`: each fault is told with its cause and its exit status, and
//! leaves nothing behind, neither in the center nor on a node nor on the share.

use std::{
    path::{Path, PathBuf},
    process::Output,
};

use anyhow::{Context, Result};
use lodge_model::{environment::view::Phase, paths};
use tar::EntryType;

use super::{Bench, environments::until};
use crate::{
    hosting::{Hosting, TINY, Wanted, address},
    media::archives::{self, Archive},
    rack::CENTER,
    scenario::{Site, hold},
};

/// The environment that is there already.
const KEEPER: &str = "keeper";
/// What would be made, were the input good.
const NEW: &str = "wrong";

/// Exit statuses of `lodge`, as its help says.
const FAILED: i32 = 1;
const USAGE: i32 = 2;
const NOT_FOUND: i32 = 3;
const CONFLICT: i32 = 6;
/// `lodge env exec` could not run the program.
const NOT_RUN: i32 = 255;

pub fn run(bench: &mut Bench) -> Result<()> {
    let tiny = bench.artifacts.tiny();
    let site = bench.site()?;
    let hosting = Hosting::prepare(&site.rack, &site.operator)?;
    let keeper = hosting.create(&site.operator, &Wanted { name: KEEPER, memory: "64M", more: &[] })?;
    let taken = address(&keeper)?.to_string();
    let before = Kept::look(site)?;
    let mut told = Vec::new();
    for (status, arguments, words) in wrong_environments(&taken) {
        told.push(is_refused(site, status, &arguments, words)?);
    }
    told.push(has_no_room(site)?);
    let dir = site.rack.dir.join("archives");
    for (words, archive) in wrong_archives(&dir, &tiny)? {
        let archive = archive.display().to_string();
        told.push(is_refused(site, FAILED, &["template", "import", NEW, &archive], words)?);
    }
    let after = Kept::look(site)?;
    hold(after == before, || format!("something was left behind: before {before:?}, after {after:?}"))?;
    site.operator.lodge(&["env", "destroy", KEEPER, "--yes", "--wait"])?;
    bench.say(&told.join("\n"));
    Ok(())
}

type Case<'a> = (i32, Vec<&'a str>, &'static [&'static str]);

/// What is asked, with the exit status and the words that tell what is wrong with it.
fn wrong_environments(taken: &str) -> Vec<Case<'_>> {
    let create = |name, more: &[&'static str]| [&["env", "create", name, "--template", TINY, "--disk", "512M"], more].concat();
    let mut cases: Vec<Case> = vec![
        (FAILED, create("Web_1", &[]), &["name", "Web_1", "a-z"]),
        (FAILED, create("../web1", &[]), &["name", "../web1"]),
        (FAILED, create("a-name-that-is-longer-than-the-sixty-three-letters-of-a-host-name", &[]), &["name", "63"]),
        (CONFLICT, create(KEEPER, &[]), &["name", "already", KEEPER]),
        (USAGE, vec!["env", "create", NEW, "--template", TINY, "--disk", "ten"], &["--disk", "no size"]),
        (FAILED, create(NEW, &["--memory", "1M"]), &["memory", "32 MiB"]),
        (FAILED, create(NEW, &["--cpus", "0"]), &["cpu", "a twentieth"]),
        (USAGE, create(NEW, &["--address", "10.77.0"]), &["--address", "10.77.0"]),
        (FAILED, create(NEW, &["--address", "192.0.2.1"]), &["192.0.2.1", "in no pool"]),
        (FAILED, create(NEW, &["--node", "nowhere"]), &["node", "nowhere"]),
        (FAILED, create(NEW, &["--ssh-key", "/nowhere/id.pub"]), &["/nowhere/id.pub", "No such file"]),
        (FAILED, vec!["env", "create", NEW, "--template", "nothing"], &["no template", "nothing", "template ls"]),
        (FAILED, vec!["env", "resize", KEEPER, "--disk", "300M"], &["disk", "only grows"]),
        (CONFLICT, vec!["env", "set", KEEPER, "--memory", "64G"], &["memory", "has only"]),
        (NOT_FOUND, vec!["env", "rollback", KEEPER, "yesterday", "--yes"], &["snapshot", "yesterday"]),
        (NOT_FOUND, vec!["env", "start", "nowhere"], &["no environment", "nowhere"]),
        (NOT_RUN, vec!["env", "exec", "nowhere", "--", "true"], &["no environment", "nowhere"]),
        (FAILED, vec!["pool", "add", "more", "10.77.0.190-10.77.0.210/24"], &["site", "already"]),
        (FAILED, vec!["pool", "add", "more", "10.77.0.9-10.77.0.1/24"], &["range of addresses"]),
        (CONFLICT, vec!["pool", "rm", "site"], &["in use"]),
        (FAILED, vec!["template", "import", NEW, "/nowhere/a.tar"], &["/nowhere/a.tar", "No such file"]),
        (CONFLICT, vec!["template", "rm", TINY, "--yes"], &[KEEPER, "destroy"]),
    ];
    let mut in_use = create(NEW, &[]);
    in_use.extend(["--address", taken]);
    cases.push((CONFLICT, in_use, &["in use", "another"]));
    cases
}

/// An environment for which no node has room is taken, says what it waits for, and goes when it is destroyed.
fn has_no_room(site: &Site) -> Result<String> {
    let create = ["env", "create", NEW, "--template", TINY, "--memory", "64G", "--wait", "--timeout", "3s"];
    let told = is_refused(site, FAILED, &create, &["it goes on", "not enough free memory", "65536 MiB"])?;
    let waits = until(site, NEW, "waiting", |environment| environment.phase == Phase::Waiting)?;
    hold(waits.reason.contains("memory"), || format!("it waits, and says {:?}", waits.reason))?;
    site.operator.lodge(&["env", "destroy", NEW, "--yes", "--wait"])?;
    Ok(told)
}

/// Archives, each with the words that tell what is wrong with it.
fn wrong_archives(dir: &Path, good: &Path) -> Result<Vec<(&'static [&'static str], PathBuf)>> {
    std::fs::create_dir_all(dir).with_context(|| format!("making {}", dir.display()))?;
    let path = |name: &str| dir.join(name);
    let system = Archive::system;
    archives::cut(good, 2 << 20, &path("cut.tar.gz"))?;
    std::fs::write(path("text.tar"), "this is no archive\n".repeat(1000)).context("writing a text")?;
    system().put_without_end(&path("no-end.tar"))?;
    system().file("./../../etc/shadow", 0).put(&path("dots.tar"))?;
    system().file("/etc/shadow", 0).put(&path("absolute.tar"))?;
    system().link(EntryType::Link, "./key", "etc/shadow").put(&path("hard-link.tar"))?;
    system().link(EntryType::Link, "./key", "../../etc/shadow").put(&path("hard-link-out.tar"))?;
    system().link(EntryType::Symlink, "./etc", "/state").file("./etc/passwd", 0).put(&path("through.tar"))?;
    system().disk("./srv/disk").put(&path("device.tar"))?;
    system().file("./owned", 65_536).put(&path("owner.tar"))?;
    system().put_as_bomb(&path("bomb.tar.zst"))?;
    Archive::image_with_another_digest().put(&path("digest.tar"))?;
    Ok(vec![
        (&["cut off"], path("cut.tar.gz")),
        (&["no tar archive"], path("text.tar")),
        (&["cut off", "end mark"], path("no-end.tar")),
        (&["shadow", "leads out"], path("dots.tar")),
        (&["/etc/shadow", "absolute name"], path("absolute.tar")),
        (&["/key", "hard link to /etc/shadow", "no file of the archive"], path("hard-link.tar")),
        (&["/key", "hard link", "leads out"], path("hard-link-out.tar")),
        (&["/etc/passwd", "symbolic link"], path("through.tar")),
        (&["/srv/disk", "device node"], path("device.tar")),
        (&["/owned", "65536", "0 to 65535"], path("owner.tar")),
        (&["trap for the disk"], path("bomb.tar.zst")),
        (&["has the digest", "damaged or forged"], path("digest.tar")),
    ])
}

/// Ask for it; what was told.
fn is_refused(site: &Site, status: i32, arguments: &[&str], words: &[&str]) -> Result<String> {
    let Output { status: ended, stdout, stderr } = site.operator.try_lodge(arguments)?;
    let said = String::from_utf8_lossy(&stderr).trim().to_owned();
    let line = format!("lodge {}", arguments.join(" "));
    hold(ended.code() == Some(status), || format!("{line} ended with {ended}, not {status}: {said}"))?;
    hold(words.iter().all(|word| said.contains(word)), || format!("{line} says nothing of {words:?}: {said}"))?;
    hold(stdout.is_empty(), || format!("{line} failed and says {:?}", String::from_utf8_lossy(&stdout)))?;
    let told = said.lines().find(|line| words.iter().any(|word| line.contains(word)));
    Ok(format!("  {status}: {}", told.unwrap_or(&said)))
}

/// All that a refused input might leave.
#[derive(Debug, PartialEq, Eq)]
struct Kept {
    environments: Vec<String>,
    templates: Vec<String>,
    pools: String,
    /// Uploads on the center; what is being imported on each node; templates on the share; disks there.
    files: Vec<String>,
}

impl Kept {
    fn look(site: &Site) -> Result<Self> {
        let operator = &site.operator;
        let mut files = vec![site.rack.machine(CENTER)?.run(&format!("ls -A {}/uploads", paths::CENTER_DATA))?];
        for name in site.node_names() {
            let machine = site.rack.machine(&name)?;
            files.push(machine.run("ls -A /state/var/lib/lodge/import 2>/dev/null || true")?);
            files.push(machine.run("ls -A /share/templates /share/environments")?);
        }
        Ok(Self {
            environments: operator.environments()?.into_iter().map(|one| one.spec.name).collect(),
            templates: operator.templates()?.into_iter().map(|one| one.name).collect(),
            pools: operator.lodge(&["pool", "ls", "--json"])?,
            files,
        })
    }
}
