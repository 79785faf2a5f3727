//! The Debian tree: mkosi makes a tar of it (owned by whoever builds, so no root is needed), here it is unpacked, trimmed of hardware
//! that no server has, and can be worked in. Tools that must not depend on the host (mkfs.erofs, veritysetup, depmod) run from it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

use super::{
    Builder,
    mkosi::{self, as_owner, epoch},
    modules,
    stamp::Key,
};
use crate::progress::{output, run};

/// Name of the step, for those who want it done again.
pub const STEP: &str = "Debian tree";

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
    builder.step(STEP, &key, &[path.clone(), kernel], |builder| {
        // Our initrd replaces the one that Debian's kernel package would make here.
        let tar = mkosi::build(builder, &builder.source, &["--environment", "INITRD=No"])?.join("tree.tar");
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

fn unpack(builder: &Builder, tar: &Path, tree: &Path) -> Result<()> {
    builder.progress.detail("unpacking");
    let tree_text = tree.to_string_lossy();
    output(as_owner("rm").args(["-rf", "--one-file-system", &tree_text])).context("removing the tree before")?;
    fs::create_dir_all(tree).with_context(|| format!("making {}", tree.display()))?;
    let mut command = as_owner("tar");
    command.args(["--numeric-owner", "--same-owner", "--xattrs", "--xattrs-include=*", "-xpf"]).arg(tar).arg("-C").arg(tree);
    run(builder.progress, &mut command).context("unpacking the Debian tree")
}
