//! Which shared libraries a program needs, all the way down, without running it: `readelf` lists what each file names.

use std::{
    collections::{BTreeMap, VecDeque},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use crate::progress::output;

const LIBRARIES: &str = "usr/lib/x86_64-linux-gnu";
/// The loader, where every dynamic program of this architecture looks for it (System V ABI, AMD64 supplement).
pub const LOADER: &str = "usr/lib64/ld-linux-x86-64.so.2";

/// Libraries that these programs of a tree need: path in the tree → file on this machine. The loader is among them.
pub fn libraries(tree: &Path, programs: &[PathBuf]) -> Result<BTreeMap<PathBuf, PathBuf>> {
    let mut found = BTreeMap::new();
    let mut open: VecDeque<PathBuf> = programs.iter().cloned().collect();
    while let Some(file) = open.pop_front() {
        for name in needed(&file)? {
            let inside = if name.starts_with("ld-linux") { PathBuf::from(LOADER) } else { Path::new(LIBRARIES).join(&name) };
            if found.contains_key(&inside) {
                continue;
            }
            let outside = tree.join(&inside);
            let Ok(outside) = outside.canonicalize() else {
                bail!("{} needs {name}, which is not in {LIBRARIES} of the Debian tree", file.display());
            };
            found.insert(inside, outside.clone());
            open.push_back(outside);
        }
    }
    if !found.is_empty() && !found.contains_key(Path::new(LOADER)) {
        found.insert(LOADER.into(), tree.join(LOADER).canonicalize().context("looking for the loader in the tree")?);
    }
    Ok(found)
}

fn needed(file: &Path) -> Result<Vec<String>> {
    let listed = output(Command::new("readelf").arg("--dynamic").arg("--wide").arg(file))
        .with_context(|| format!("asking {} what it needs", file.display()))?;
    Ok(parse(&String::from_utf8_lossy(&listed)))
}

fn parse(listed: &str) -> Vec<String> {
    let names = listed.lines().filter(|line| line.contains("(NEEDED)"));
    names.filter_map(|line| Some(line.split_once('[')?.1.split_once(']')?.0.to_owned())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_taken_from_the_needed_lines_alone() {
        let listed = " 0x0000000000000001 (NEEDED)             Shared library: [libe2p.so.2]\n\
                       0x000000000000000e (SONAME)             Library soname: [libx.so.1]\n\
                       0x0000000000000001 (NEEDED)             Shared library: [libc.so.6]\n";
        assert_eq!(parse(listed), ["libe2p.so.2", "libc.so.6"]);
    }
}
