//! Room on the disk, asked for before long work: without it the work ends in the middle, with an error of whichever program came last.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use nix::sys::statvfs::statvfs;

use crate::image;

const MIB: u64 = 1 << 20;

/// A directory of the source tree that work fills, and how much is in it in the end, in MiB.
pub type Growing = (&'static str, u64);

// Measured with `du` in new clones, after `cargo xtask test` and after a demo, with nothing to spare.
/// The tests of the crates.
pub const CRATES: &[Growing] = &[("target", 3000)];
/// Images and templates.
pub const IMAGE: &[Growing] = &[("target", 2000), ("out", 1600)];
/// Images, and machines that they are installed on: those of the VM tests. Those of the demo take 1100 less.
pub const RACK: &[Growing] = &[("target", 2000), ("out", 4000)];
/// All tests.
pub const ALL: &[Growing] = &[("target", 4700), ("out", 4000)];

/// There is room for what these directories of the source tree lack.
pub fn ensure(growing: &[Growing]) -> Result<()> {
    ensure_in(&image::source_dir(), growing)
}

fn ensure_in(source: &Path, growing: &[Growing]) -> Result<()> {
    let used = growing.iter().map(|(name, _)| used(&source.join(name))).collect::<Result<Vec<_>>>()?;
    let found = statvfs(source).with_context(|| format!("asking for the free space of {}", source.display()))?;
    let free = found.blocks_available() * found.fragment_size() / MIB;
    if let Some(why) = lack(free, growing, &used) {
        bail!("{}: {why}", source.display());
    }
    Ok(())
}

/// MiB that are in a directory; there may be none.
fn used(dir: &Path) -> Result<u64> {
    if !dir.exists() {
        return Ok(0);
    }
    // Where something goes away meanwhile it ends with 1, and tells of the rest.
    let said = Command::new("du").args(["--summarize", "--block-size=1M"]).arg(dir).output().context("starting du")?;
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    let number = said.split_whitespace().next().and_then(|word| word.parse().ok());
    number.with_context(|| format!("du does not tell how large {} is", dir.display()))
}

/// What is said where there is too little; all in MiB.
fn lack(free: u64, growing: &[Growing], used: &[u64]) -> Option<String> {
    let still = growing.iter().zip(used).map(|((name, whole), used)| (*name, whole.saturating_sub(*used)));
    let still: Vec<(&str, u64)> = still.filter(|(_, more)| *more > 0).collect();
    let more = still.iter().fold(0, |sum: u64, (_, more)| sum.saturating_add(*more));
    if free >= more {
        return None;
    }
    let parts: Vec<String> = still.iter().map(|(name, more)| format!("{} GiB in {name}", gib(*more))).collect();
    Some(format!(
        "{} GiB of disk are free, and this takes {} GiB more ({}): make room first",
        gib(free),
        gib(more),
        parts.join(", ")
    ))
}

fn gib(mib: u64) -> String {
    format!("{:.1}", mib as f64 / 1024.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GROWING: [Growing; 2] = [("target", 6 << 10), ("out", 4 << 10)];

    #[test]
    fn what_is_there_already_is_not_asked_for() {
        assert_eq!(lack(10 << 10, &GROWING, &[0, 0]), None);
        assert_eq!(lack(1 << 10, &GROWING, &[50 << 10, 3 << 10]), None);
        assert_eq!(
            lack((9 << 10) + 512, &GROWING, &[0, 0]).unwrap(),
            "9.5 GiB of disk are free, and this takes 10.0 GiB more (6.0 GiB in target, 4.0 GiB in out): make room first"
        );
        assert_eq!(
            lack(0, &GROWING, &[6 << 10, 1 << 10]).unwrap(),
            "0.0 GiB of disk are free, and this takes 3.0 GiB more (3.0 GiB in out): make room first"
        );
    }

    #[test]
    fn a_place_without_room_is_named() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("file"), vec![1; 3 << 20]).unwrap();
        assert!((3..5).contains(&used(dir.path()).unwrap()));
        assert_eq!(used(&dir.path().join("none")).unwrap(), 0);
        ensure_in(dir.path(), &[("file", 1)]).unwrap();
        let error = ensure_in(dir.path(), &[("none", u64::MAX / MIB)]).unwrap_err().to_string();
        assert!(error.starts_with(&dir.path().display().to_string()), "{error}");
    }
}
