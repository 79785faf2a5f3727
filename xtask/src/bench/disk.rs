//! The disk that a bench plugs into its node: our program for the node, and LXC as Debian 13 has it. It is made here and now from the
//! machine's own mirror, and is no part of what is shipped.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

use crate::{
    image::{Builder, programs, stamp::Key},
    progress::{Console, Progress, run},
    setup::{apt, tools},
};

/// LXC; all that it needs beyond these the base OS has.
const PACKAGES: [&str; 3] = ["liblxc-common", "liblxc1t64", "lxc"];
/// Room for them.
const SIZE: &str = "32M";

/// The disk's image, and the program on it for the environments.
pub struct Disk {
    /// ext4.
    pub image: PathBuf,
    /// The bench's program, with everything in it.
    pub program: PathBuf,
}

/// Make it, unless nothing changed.
pub fn ensure() -> Result<Disk> {
    let progress = Console::new()?;
    let mut builder = Builder::open(&progress, 3)?;
    let program = builder.always("program of benches", programs::bench)?;
    let lxc = builder.at("bench/lxc");
    let key = Key::new("bench packages 1").text(&PACKAGES.join("\n")).finish();
    builder.step("packages of benches", &key, std::slice::from_ref(&lxc), |builder| {
        fetch(&progress, &builder.cache("apt"), &lxc)
    })?;
    let image = builder.at("bench/disk.raw");
    let key = Key::new("bench disk 1").text(&key).file(&program)?.text(SIZE).finish();
    builder.step("disk of benches", &key, std::slice::from_ref(&image), |_| make(&progress, &lxc, &program, &image))?;
    Ok(Disk { image, program })
}

fn fetch(progress: &dyn Progress, home: &Path, target: &Path) -> Result<()> {
    tools::own_apt(home, &apt::Mirrors::of_machine()?)?;
    run(progress, tools::apt_get(home).args(["-q", "update"])).context("reading the package lists of Debian 13")?;
    tools::unpack(progress, home, &PACKAGES, target)
}

fn make(progress: &dyn Progress, lxc: &Path, program: &Path, image: &Path) -> Result<()> {
    let tree = image.with_extension("tree");
    if tree.exists() {
        fs::remove_dir_all(&tree).with_context(|| format!("clearing {}", tree.display()))?;
    }
    fs::create_dir_all(&tree).with_context(|| format!("making {}", tree.display()))?;
    fs::copy(program, tree.join("bench")).with_context(|| format!("copying {}", program.display()))?;
    run(progress, Command::new("cp").arg("-a").arg(lxc).arg(tree.join("lxc")))?;
    if image.exists() {
        fs::remove_file(image).with_context(|| format!("removing {}", image.display()))?;
    }
    run(progress, Command::new("mkfs.ext4").args(["-q", "-F", "-d"]).arg(&tree).arg(image).arg(SIZE))?;
    fs::remove_dir_all(&tree).with_context(|| format!("removing {}", tree.display()))
}
