//! The Debian tree: mkosi makes a tar of it (owned by whoever builds, so no root is needed), here it is unpacked, trimmed of hardware
//! that no server has, and can be worked in. Tools that must not depend on the host (mkfs.erofs, veritysetup, depmod) run from it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use super::{Builder, modules, stamp::Key};
use crate::{
    progress::{output, run},
    setup::{self, apt},
};

/// Times in the image are not later than this: 2026-01-01. `SOURCE_DATE_EPOCH` overrides it.
const EPOCH: &str = "1767225600";

/// An unpacked tree.
pub struct Tree {
    /// Its root directory.
    pub path: PathBuf,
    /// The kernel's release, as in `/usr/lib/modules`.
    pub kernel: String,
    /// The key of the step that made it.
    pub key: String,
}

/// Make the tree, unless nothing changed since it was made.
pub fn ensure(builder: &mut Builder) -> Result<Tree> {
    let path = builder.cache("root");
    let key = Key::new("tree 4")
        .file(&builder.source.join("mkosi.conf"))?
        .dir(&builder.source.join("image"))?
        .text(modules::DROPPED_KEY)
        .text(&epoch())
        .finish();
    let kernel = kernel_of(&path);
    builder.step("Debian tree", &key, &[path.clone(), kernel], |builder| {
        let tar = mkosi(builder)?;
        unpack(builder, &tar, &path)?;
        modules::trim(builder, &path)?;
        take_kernel(&path)?;
        fs::remove_file(&tar).with_context(|| format!("removing {}", tar.display()))
    })?;
    let kernel = modules::kernel_release(&path)?;
    Ok(Tree { path, kernel, key })
}

impl Tree {
    /// A program of the tree, run on this machine with the tree's own loader and libraries.
    pub fn tool(&self, program: &str) -> Command {
        tool(&self.path, program)
    }
}

/// See `Tree::tool`.
pub fn tool(tree: &Path, program: &str) -> Command {
    let libraries = tree.join("usr/lib/x86_64-linux-gnu");
    let mut command = as_owner(&libraries.join("ld-linux-x86-64.so.2").to_string_lossy());
    // kmod is one program with many names, so it has to be told under which one it runs.
    let name = Path::new(program).file_name().unwrap_or_default();
    command.arg("--argv0").arg(name).arg("--library-path").arg(&libraries).arg(tree.join(program));
    command
}

/// A command that sees the tree's files with their right owners: as root directly, otherwise in a user namespace.
pub fn as_owner(program: &str) -> Command {
    if setup::is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-auto", "--map-root-user", "--", program]);
    command
}

/// Where the kernel of a tree is kept: beside it, because the root image does without.
pub fn kernel_of(tree: &Path) -> PathBuf {
    tree.with_extension("vmlinuz")
}

fn take_kernel(tree: &Path) -> Result<()> {
    let release = modules::kernel_release(tree)?;
    let kernel = tree.join("boot").join(format!("vmlinuz-{release}"));
    fs::copy(&kernel, kernel_of(tree)).with_context(|| format!("copying {}", kernel.display()))?;
    for spare in [kernel, tree.join("usr/lib/modules").join(release).join("vmlinuz")] {
        if spare.exists() {
            fs::remove_file(&spare).with_context(|| format!("removing {}", spare.display()))?;
        }
    }
    Ok(())
}

/// Newest time of anything in the image, seconds since 1970.
pub fn epoch() -> String {
    std::env::var("SOURCE_DATE_EPOCH").unwrap_or_else(|_| EPOCH.to_owned())
}

fn mkosi(builder: &Builder) -> Result<PathBuf> {
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
    command.current_dir(&builder.source).arg("--force");
    command.arg(sources_option).arg(&settings);
    command.arg("--output-dir").arg(&results).arg("--package-cache-dir").arg(&packages);
    command.arg("--workspace-dir").arg(builder.cache("")).arg("--source-date-epoch").arg(epoch());
    // Our initrd replaces the one that Debian's kernel package would make here.
    command.args(["--build-sources", "", "--environment", "INITRD=No", "build"]);
    run(builder.progress, &mut command).context("building the Debian tree with mkosi")?;
    Ok(results.join("tree.tar"))
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

fn unpack(builder: &Builder, tar: &Path, tree: &Path) -> Result<()> {
    builder.progress.detail("unpacking");
    let tree_text = tree.to_string_lossy();
    output(as_owner("rm").args(["-rf", "--one-file-system", &tree_text])).context("removing the tree before")?;
    fs::create_dir_all(tree).with_context(|| format!("making {}", tree.display()))?;
    let mut command = as_owner("tar");
    command.args(["--numeric-owner", "--same-owner", "--xattrs", "--xattrs-include=*", "-xpf"]).arg(tar).arg("-C").arg(tree);
    run(builder.progress, &mut command).context("unpacking the Debian tree")
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
