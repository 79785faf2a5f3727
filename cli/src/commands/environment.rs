//! `lodge env …` and `lodge apply`, but for sessions.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use lodge_client::{Center, Power};
use lodge_model::environment::order::TaskOutcome;
use lodge_model::environment::spec::{self, Change, Spec};
use lodge_model::environment::view::{CloneOrder, EnvironmentView, SnapshotOrder};

use super::session;
use crate::apply::{self, Step};
use crate::arguments::Confirm;
use crate::arguments::environment::{self as arguments, Apply, Clone, Create, Destroy, Environment, Names, OfSnapshot, Wait};
use crate::out::{Out, print, print_bytes};
use crate::view::{self, Setting};
use crate::wait::{self, Goal};

/// Pause between two looks of `stats --watch`; usage is no news that the center would call us for.
const WATCH: Duration = Duration::from_secs(2);

/// Do what the command line says; the exit status.
pub async fn run(center: &Center, command: Environment, out: &Out) -> Result<u8> {
    match command {
        Environment::Exec(exec) => return session::exec(center, &exec).await,
        Environment::Console { name } => return session::console(center, &name).await,
        Environment::Create(asked) => create(center, *asked, out).await,
        Environment::Ls => {
            let all = center.environments().await.context("listing environments")?;
            out.show(&all, |setting| view::environments(&all, setting))
        }
        Environment::Show { name } => show(center, &name, out).await,
        Environment::Start(asked) => power(center, &asked.names, Power::Start, asked.force, out).await,
        Environment::Stop(names) => power(center, &names, Power::Stop, false, out).await,
        Environment::Restart(asked) => power(center, &asked.names, Power::Restart, asked.force, out).await,
        Environment::Kill(names) => power(center, &names, Power::Kill, false, out).await,
        Environment::Destroy(asked) => destroy(center, &asked, out).await,
        Environment::Logs { name } => logs(center, &name, out).await,
        Environment::Stats { names, watch } => stats(center, &names, watch, out).await,
        Environment::Snapshot(asked) => snapshot(center, asked, out).await,
        Environment::Snapshots { name } => {
            let all = center.snapshots(&name).await.with_context(|| format!("listing the snapshots of {name}"))?;
            out.show(&all, |setting| view::snapshots(&all, setting))
        }
        Environment::Rollback(asked) => rollback(center, &asked, out).await,
        Environment::RemoveSnapshot(asked) => remove_snapshot(center, &asked, out).await,
        Environment::Clone(asked) => clone(center, &asked, out).await,
        Environment::Set(asked) => {
            let change = Change {
                memory: asked.memory,
                cpu_millis: asked.cpus,
                priority: asked.priority,
                anti_affinity: asked.anti_affinity,
                restart: asked.restart.map(Into::into),
                move_by: asked.move_by.map(Into::into),
                ..Change::default()
            };
            change_one(center, &asked.name, &change, asked.force, out).await
        }
        Environment::Resize(asked) => {
            let change = Change { disk: asked.disk, memory: asked.memory, cpu_millis: asked.cpus, ..Change::default() };
            change_one(center, &asked.name, &change, asked.force, out).await
        }
        Environment::Move(asked) => super::drain::move_one(center, &asked, out).await,
        Environment::Fsck(asked) => return super::repair::fsck(center, &asked, out).await,
        Environment::Reinstall(asked) => super::repair::reinstall(center, &asked, out).await,
        Environment::Repair(asked) => super::repair::repair(center, &asked, out).await,
        Environment::Rename { name, new } => {
            change_one(center, &name, &Change { name: Some(new), ..Change::default() }, false, out).await
        }
    }?;
    Ok(crate::failure::OK)
}

impl From<arguments::Restart> for spec::Restart {
    fn from(asked: arguments::Restart) -> Self {
        match asked {
            arguments::Restart::OnFailure => spec::Restart::OnFailure,
            arguments::Restart::Never => spec::Restart::Never,
        }
    }
}

async fn create(center: &Center, asked: Create, out: &Out) -> Result<()> {
    let ssh_keys = keys(&asked.ssh_key)?;
    let spec = Spec {
        name: asked.name,
        template: asked.template,
        disk: asked.disk,
        memory: asked.memory,
        cpu_millis: asked.cpus,
        ssh_keys,
        addresses: asked.address,
        priority: asked.priority,
        anti_affinity: asked.anti_affinity,
        node: asked.node,
        node_labels: asked.label.into_iter().collect(),
        restart: asked.restart.into(),
        move_by: asked.move_by.into(),
    };
    spec.check()?;
    if asked.dry_run {
        let steps = [Step::Create { spec }];
        return out.show(&steps, |_| view::plan(&steps));
    }
    center.create_environment(&spec, asked.force).await.with_context(|| format!("creating {}", spec.name))?;
    if spec.ssh_keys.is_empty() {
        eprintln!("lodge: without --ssh-key nobody can log in to {0} by ssh; `lodge env exec {0} -- COMMAND` works", spec.name);
    }
    finish(center, &spec.name, asked.wait, Goal::Running, "is being made", out).await
}

async fn show(center: &Center, name: &str, out: &Out) -> Result<()> {
    let environment = center.environment(name).await.with_context(|| format!("showing {name}"))?;
    if out.json {
        return out.json(&environment);
    }
    let snapshots = center.snapshots(name).await.with_context(|| format!("listing the snapshots of {name}"))?;
    print(&view::environment_page(&environment, &snapshots, &Setting::here()))
}

/// All are told first, then all are waited for. The first refusal ends it; those before it have been told.
async fn power(center: &Center, asked: &Names, power: Power, force: bool, out: &Out) -> Result<()> {
    let (doing, after) = match power {
        Power::Start => ("starting", "is being started"),
        Power::Stop => ("stopping", "is being stopped"),
        Power::Restart => ("restarting", "is being restarted"),
        Power::Kill => ("killing", "is being ended"),
    };
    let mut goals = Vec::new();
    for name in &asked.names {
        let doing = || format!("{doing} {name}");
        goals.push(match power {
            Power::Start => Goal::Running,
            Power::Stop | Power::Kill => Goal::Stopped,
            Power::Restart => Goal::RunningAfter(center.environment(name).await.with_context(doing)?.started),
        });
        center.power(name, power, force).await.with_context(doing)?;
    }
    for (name, goal) in asked.names.iter().zip(goals) {
        finish(center, name, asked.wait, goal, after, out).await?;
    }
    Ok(())
}

async fn destroy(center: &Center, asked: &Destroy, out: &Out) -> Result<()> {
    let mut words = Vec::new();
    for name in &asked.names {
        let environment = center.environment(name).await.with_context(|| format!("looking for {name}"))?;
        words.push(view::environment_line(&environment));
    }
    let what = format!("{} removed for good, with disk and snapshots. Now: {}", listed(&asked.names), words.join("; "));
    if !out.confirm(asked.confirm, &what, true)? {
        return Ok(());
    }
    for name in &asked.names {
        center.destroy_environment(name).await.with_context(|| format!("destroying {name}"))?;
    }
    for name in &asked.names {
        finish(center, name, asked.wait, Goal::Gone, "is being removed", out).await?;
    }
    Ok(())
}

async fn logs(center: &Center, name: &str, out: &Out) -> Result<()> {
    let bytes = center.logs(name).await.with_context(|| format!("reading the console of {name}"))?;
    let text = || String::from_utf8_lossy(&bytes).into_owned();
    match out.json {
        true => out.json(&serde_json::json!({ "environment": name, "log": text() })),
        false if std::io::IsTerminal::is_terminal(&std::io::stdout()) => print(&view::plain_lines(&text())),
        false => print_bytes(&bytes),
    }
}

async fn stats(center: &Center, names: &[String], watch: bool, out: &Out) -> Result<()> {
    let mut before = None;
    loop {
        let mut shown = Vec::new();
        match names {
            [] => shown = center.environments().await.context("listing environments")?,
            names => {
                for name in names {
                    shown.push(center.environment(name).await.with_context(|| format!("looking at {name}"))?);
                }
            }
        }
        let setting = Setting::here();
        match (out.json, watch) {
            (true, false) => out.json(&shown)?,
            (true, true) => print(&format!("{}\n", serde_json::to_string(&shown).context("encoding the answer")?))?,
            // Home, and what is left of the look before is cleared.
            (false, true) if setting.width.is_some() => {
                print(&format!("\x1b[H\x1b[2J{}", view::stats(&shown, before.as_ref(), &setting)))?;
            }
            (false, _) => print(&view::stats(&shown, before.as_ref(), &setting))?,
        }
        if !watch {
            return Ok(());
        }
        before = Some(view::Before::new(setting.now, &shown));
        tokio::time::sleep(WATCH).await;
    }
}

async fn snapshot(center: &Center, asked: arguments::Snapshot, out: &Out) -> Result<()> {
    let name = &asked.name;
    let order = SnapshotOrder { name: asked.snapshot };
    let made = center.snapshot(name, &order).await.with_context(|| format!("making a snapshot of {name}"))?;
    if asked.wait.wait {
        wait::until(center, name, Goal::Idle, asked.wait.timeout).await?;
        let all = center.snapshots(name).await.with_context(|| format!("listing the snapshots of {name}"))?;
        match all.iter().find(|snapshot| snapshot.name == made.name).map(|snapshot| &snapshot.outcome) {
            Some(TaskOutcome::Failed { error }) => bail!("snapshot {} of {name}: {error}", made.name),
            None => bail!("snapshot {} of {name} does not exist any more", made.name),
            Some(_) => return out.done(&format!("snapshot {} of {name} is there", made.name)),
        }
    }
    out.done(&format!("snapshot {} of {name} is being made; `lodge env snapshots {name}` shows it", made.name))
}

async fn rollback(center: &Center, asked: &OfSnapshot, out: &Out) -> Result<()> {
    let OfSnapshot { name, snapshot, confirm, wait } = asked;
    let what = format!("the disk of {name} is put back to snapshot {snapshot}; everything written since is lost");
    if !out.confirm(*confirm, &what, true)? {
        return Ok(());
    }
    center.rollback(name, snapshot).await.with_context(|| format!("rolling {name} back to {snapshot}"))?;
    finish(center, name, *wait, Goal::Idle, &format!("is being put back to {snapshot}"), out).await
}

async fn remove_snapshot(center: &Center, asked: &OfSnapshot, out: &Out) -> Result<()> {
    let OfSnapshot { name, snapshot, confirm, wait } = asked;
    if !out.confirm(*confirm, &format!("snapshot {snapshot} of {name} is removed"), true)? {
        return Ok(());
    }
    center.remove_snapshot(name, snapshot).await.with_context(|| format!("removing snapshot {snapshot} of {name}"))?;
    finish(center, name, *wait, Goal::Idle, &format!("loses its snapshot {snapshot}"), out).await
}

async fn clone(center: &Center, asked: &Clone, out: &Out) -> Result<()> {
    let Clone { name, new, force, wait } = asked;
    let order = CloneOrder { name: new.clone() };
    center.clone_environment(name, &order, *force).await.with_context(|| format!("cloning {name} as {new}"))?;
    finish(center, new, *wait, Goal::Idle, &format!("is being made from {name}"), out).await
}

async fn change_one(center: &Center, name: &str, change: &Change, force: bool, out: &Out) -> Result<()> {
    change.check()?;
    center.change_environment(name, change, force).await.with_context(|| format!("changing {name}"))?;
    out.done(&format!("{name} is changed"))
}

/// `lodge apply`.
pub async fn apply(center: &Center, asked: &Apply, out: &Out) -> Result<()> {
    let file = asked.file.display();
    let text = match asked.file.as_os_str() == "-" {
        true => std::io::read_to_string(std::io::stdin()).context("reading standard input")?,
        false => std::fs::read_to_string(&asked.file).with_context(|| format!("reading {file}"))?,
    };
    let specs = apply::read(&text, &public_keys).with_context(|| format!("reading {file}"))?;
    let found = center.environments().await.context("listing environments")?;
    let steps = apply::plan(&specs, &found)?;
    let changes = steps.iter().filter(|step| !matches!(step, Step::Keep { .. })).count();
    if out.json && asked.confirm.dry_run {
        return out.json(&steps);
    }
    match out.json {
        true => eprint!("{}", view::plan(&steps)),
        false => print(&view::plan(&steps))?,
    }
    if asked.confirm.dry_run {
        return Ok(());
    }
    if changes > 0
        && !out.confirm(
            Confirm { ..asked.confirm },
            &format!("{changes} of {} are to be made or changed", steps.len()),
            true,
        )?
    {
        return Ok(());
    }
    let mut done = 0;
    for step in &steps {
        let so_far = |doing: &str, name: &str| format!("{doing} {name}, after {done} of {changes} were done");
        match step {
            Step::Create { spec } => {
                center.create_environment(spec, false).await.with_context(|| so_far("creating", &spec.name))?;
            }
            Step::Change { name, change, .. } => {
                center.change_environment(name, change, false).await.with_context(|| so_far("changing", name))?;
            }
            Step::Keep { .. } => continue,
        }
        done += 1;
    }
    if asked.wait.wait {
        for step in &steps {
            if let Step::Create { spec } = step {
                eprintln!("{}", wait::until(center, &spec.name, Goal::Running, asked.wait.timeout).await?);
            }
        }
    }
    match out.json {
        true => out.json(&steps),
        false => out.done(&format!("{changes} made or changed, {} as they were", steps.len() - changes)),
    }
}

/// Say what has been asked for, or wait for it and show how it stands then.
pub(super) async fn finish(center: &Center, name: &str, wait: Wait, goal: Goal, words: &str, out: &Out) -> Result<()> {
    if !wait.wait {
        return out.done(&format!("{name} {words}"));
    }
    let line = wait::until(center, name, goal, wait.timeout).await?;
    if out.json && goal != Goal::Gone {
        let environment: EnvironmentView = center.environment(name).await.with_context(|| format!("showing {name}"))?;
        return out.json(&environment);
    }
    out.done(&line)
}

/// `web1 is`, `web1 and web2 are`.
fn listed(names: &[String]) -> String {
    match names {
        [one] => format!("{one} is"),
        [firsts @ .., last] => format!("{} and {last} are", firsts.join(", ")),
        [] => "nothing is".into(),
    }
}

/// What `--ssh-key` names: keys, and files with keys.
pub(super) fn keys(given: &[String]) -> Result<Vec<String>> {
    let mut keys = Vec::new();
    for given in given {
        match given.split_once(' ') {
            Some((kind, _)) if kind.starts_with("ssh-") || kind.contains("-sha2-") => keys.push(given.trim().to_owned()),
            _ => keys.extend(public_keys(given)?),
        }
    }
    Ok(keys)
}

/// The keys of a file as `~/.ssh/id_ed25519.pub` or `authorized_keys`.
fn public_keys(file: &str) -> Result<Vec<String>> {
    let path = match (file.strip_prefix("~/"), std::env::var_os("HOME")) {
        (Some(rest), Some(home)) => Path::new(&home).join(rest),
        _ => PathBuf::from(file),
    };
    let mut text = String::new();
    let limit = 64 << 10;
    let open = std::fs::File::open(&path).with_context(|| format!("reading public keys from {}", path.display()))?;
    open.take(limit).read_to_string(&mut text).with_context(|| format!("reading public keys from {}", path.display()))?;
    if text.contains("PRIVATE KEY") {
        bail!("{} is a private key; give the public one, as {}.pub", path.display(), path.display());
    }
    let keys = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let keys: Vec<String> = keys.map(str::to_owned).collect();
    if keys.is_empty() {
        bail!("{} holds no public key", path.display());
    }
    Ok(keys)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn public_keys_are_read_and_a_private_one_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("id");
        let read = |text: &str| {
            std::fs::write(&path, text).unwrap();
            public_keys(path.to_str().unwrap())
        };
        let keys = read("# mine\nssh-ed25519 AAAA a\n\n  ssh-rsa BBBB b\n").unwrap();
        assert_eq!(keys, ["ssh-ed25519 AAAA a", "ssh-rsa BBBB b"]);
        assert!(read("-----BEGIN OPENSSH PRIVATE KEY-----\n").unwrap_err().to_string().contains("private key"));
        assert!(read("").unwrap_err().to_string().contains("no public key"));
        assert!(format!("{:#}", public_keys("/nowhere/id.pub").unwrap_err()).contains("/nowhere/id.pub"));
    }

    #[test]
    fn names_are_listed_as_people_do() {
        let names = |names: &[&str]| listed(&names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>());
        assert_eq!([names(&["a"]), names(&["a", "b", "c"])], ["a is", "a, b and c are"]);
    }
}
