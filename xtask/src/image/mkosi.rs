//! Runs mkosi, for the base OS and for templates alike: with the machine's own mirror, with one package cache, and without root.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use super::Builder;
use crate::{
    progress::{output, run},
    setup::{self, apt},
};

/// Times in an image are not later than this: 2026-01-01. `SOURCE_DATE_EPOCH` overrides it.
const EPOCH: &str = "1767225600";

/// A command that sees the tree's files with their right owners: as root directly, otherwise in a user namespace.
pub fn as_owner(program: &str) -> Command {
    if setup::is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-auto", "--map-root-user", "--", program]);
    command
}

/// Newest time of anything in an image, seconds since 1970.
pub fn epoch() -> String {
    std::env::var("SOURCE_DATE_EPOCH").unwrap_or_else(|_| EPOCH.to_owned())
}

/// Build what is defined in `definitions` and return the directory of the results. `more` are further arguments of mkosi.
pub fn build(builder: &Builder, definitions: &Path, more: &[&str]) -> Result<PathBuf> {
    if output(as_owner("true").arg("--")).is_err() {
        bail!(
            "building the base OS needs user namespaces with a range of ids, or root; allow them with \
             `sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 $USER`, or run as root"
        );
    }
    let (settings, packages, results) = (builder.cache("mkosi-apt"), builder.cache("packages"), builder.cache("mkosi"));
    write_apt_settings(&settings)?;
    for dir in [&packages, &results] {
        fs::create_dir_all(dir).with_context(|| format!("making {}", dir.display()))?;
    }
    let version = output(Command::new("mkosi").arg("--version")).context("asking mkosi for its version")?;
    let sources_option =
        if major(&String::from_utf8_lossy(&version)) < 25 { "--package-manager-tree" } else { "--sandbox-tree" };
    let mut command = Command::new("mkosi");
    command.current_dir(definitions).arg("--force");
    command.arg(sources_option).arg(&settings);
    command.arg("--output-dir").arg(&results).arg("--package-cache-dir").arg(&packages);
    command.arg("--workspace-dir").arg(builder.cache("")).arg("--source-date-epoch").arg(epoch());
    command.args(["--build-sources", ""]).args(more).arg("build");
    run(builder.progress, &mut command).with_context(|| format!("running mkosi in {}", definitions.display()))?;
    Ok(results)
}

/// mkosi's own sources name hosts and a debug archive that mirrors lack; these are the machine's.
fn write_apt_settings(dir: &Path) -> Result<()> {
    let apt_dir = dir.join("etc/apt");
    for (name, content) in [
        ("sources.list.d/mkosi.sources", apt::Mirrors::of_machine()?.debian13()),
        ("apt.conf.d/90-machine.conf", apt::acquire_settings()?),
    ] {
        let path = apt_dir.join(name);
        fs::create_dir_all(path.parent().unwrap_or(dir)).with_context(|| format!("making {}", apt_dir.display()))?;
        fs::write(&path, content).with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(())
}

fn major(version: &str) -> u32 {
    let digits = version.split_whitespace().find(|word| word.starts_with(|first: char| first.is_ascii_digit()));
    digits.and_then(|word| word.split('.').next()?.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways_mkosi_tells_its_version_are_read() {
        assert_eq!(major("mkosi 24.3\n"), 24);
        assert_eq!(major("mkosi 25.3~devel"), 25);
        assert_eq!(major("?"), 0);
    }
}
