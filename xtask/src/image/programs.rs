//! Our own programs, as they go into the image: those of the initrd static, the others against the system's C library.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

use super::{
    Builder,
    stamp::{Key, sha256},
};
use crate::progress::{Progress, run};

const TARGET: &str = "x86_64-unknown-linux-gnu";

/// A program on the image.
pub struct Program {
    /// Name of its package.
    package: &'static str,
    /// Name of the executable.
    pub name: &'static str,
    /// Linked with everything in it, so that it runs where there is no library.
    pub is_static: bool,
    /// Where it is on the root.
    pub path: &'static str,
}

/// All of them.
pub const PROGRAMS: [Program; 5] = [
    Program { package: "lodge-init", name: "init", is_static: true, path: "usr/lib/lodge/init" },
    Program { package: "lodge-installer", name: "installer", is_static: true, path: "usr/lib/lodge/installer" },
    Program { package: "lodge-agent", name: "agent", is_static: false, path: "usr/lib/lodge/agent" },
    Program { package: "lodge-center", name: "center", is_static: false, path: "usr/lib/lodge/center" },
    Program { package: "lodge-cli", name: "lodge", is_static: false, path: "usr/bin/lodge" },
];

/// Where the built programs are.
pub struct Built {
    paths: BTreeMap<&'static str, PathBuf>,
    /// Hash over all of them.
    pub key: String,
}

impl Built {
    /// The built file of a program.
    pub fn path(&self, program: &Program) -> Result<&Path> {
        Ok(self.paths.get(program.name).with_context(|| format!("looking for the program {}", program.name))?)
    }

    /// Hash over the static ones alone: what the initrd depends on.
    pub fn initrd_key(&self) -> Result<String> {
        key(PROGRAMS.iter().filter(|program| program.is_static).map(|program| self.path(program)))
    }
}

/// Build the program that VM tests put into environments. It is static, and never on the image.
pub fn probe(progress: &dyn Progress, source: &Path) -> Result<PathBuf> {
    let mut command = cargo_build(source, true);
    command.args(["--package", "lodge-sys", "--bin", "lodge-probe"]);
    run(progress, &mut command).context("building the probe")?;
    Ok(target_dir(source, true).join(TARGET).join("release/lodge-probe"))
}

fn target_dir(source: &Path, is_static: bool) -> PathBuf {
    source.join(if is_static { "target/static" } else { "target" })
}

fn cargo_build(source: &Path, is_static: bool) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(source).args(["build", "--release", "--locked"]);
    if is_static {
        command.args(["--target", TARGET]).env("RUSTFLAGS", "-C target-feature=+crt-static");
    }
    command.arg("--target-dir").arg(target_dir(source, is_static));
    command
}

/// Build the program that benches run on a node and in environments. It is static, and never on the image.
pub fn bench(builder: &Builder) -> Result<PathBuf> {
    let source = builder.source();
    run(builder.progress, cargo_build(source, true).args(["--package", "lodge-bench"]))
        .context("building the bench's program")?;
    Ok(target_dir(source, true).join(TARGET).join("release/bench"))
}

/// Build them. Cargo itself knows what changed, so it is always asked.
pub fn build(builder: &Builder) -> Result<Built> {
    for is_static in [true, false] {
        let mut command = cargo_build(&builder.source, is_static);
        for program in PROGRAMS.iter().filter(|program| program.is_static == is_static) {
            command.args(["--package", program.package]);
        }
        run(builder.progress, &mut command).context("building the programs of the image")?;
    }
    let mut paths = BTreeMap::new();
    for program in &PROGRAMS {
        let dir = target_dir(&builder.source, program.is_static);
        let dir = if program.is_static { dir.join(TARGET) } else { dir };
        paths.insert(program.name, dir.join("release").join(program.name));
    }
    let key = key(paths.values().map(|path| Ok(path.as_path())))?;
    Ok(Built { paths, key })
}

fn key<'a>(paths: impl Iterator<Item = Result<&'a Path>>) -> Result<String> {
    let mut key = Key::new("programs 1");
    for path in paths {
        key = key.text(&sha256(path?)?.0);
    }
    Ok(key.finish())
}
