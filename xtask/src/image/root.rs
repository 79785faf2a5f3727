//! The root image: the Debian tree with our programs in it, as an erofs image and its dm-verity tree. Both are made by the tree's own
//! tools, with fixed ids and times, so that the same input gives the same root hash on any machine.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use lodge_model::layout;

use super::{
    Builder,
    mkosi::epoch,
    programs::{Built, PROGRAMS},
    stamp::{Key, sha256},
    tree::Tree,
};
use crate::progress::{output, run};

/// Directories that init mounts on, or that others expect.
const DIRECTORIES: [&str; 6] = ["efi", "share", "srv/share", "state", "usr/lib/lodge", "var"];

/// lz4 inflates fastest of what the kernel reads, also under emulation; the level costs time only here.
const COMPRESSION: &str = "-zlz4hc,12";
/// Bytes that are compressed together, at most.
const CLUSTER: &str = "-C65536";
/// A file system needs an id, nobody looks for this one: the slot's partition is found by the root hash.
const UUID: &str = "6c6f6467-6500-4000-8000-726f6f740000";

/// A finished root image.
pub struct Root {
    /// The erofs image.
    pub erofs: PathBuf,
    /// Its dm-verity tree, with superblock.
    pub verity: PathBuf,
    /// dm-verity root hash, 64 hexadecimal digits.
    pub hash: String,
    /// Bytes of the erofs image.
    pub size: u64,
}

/// Make it, unless neither tree nor programs nor key changed.
pub fn ensure(builder: &mut Builder, tree: &Tree, programs: &Built, public_key: &Path) -> Result<Root> {
    let (erofs, verity, hash) = (builder.cache("root.erofs"), builder.cache("root.verity"), builder.cache("root.hash"));
    let key = Key::new("root 1").text(&tree.key).text(&programs.key).file(public_key)?.text(COMPRESSION).text(CLUSTER).finish();
    builder.step("root image", &key, &[erofs.clone(), verity.clone(), hash.clone()], |builder| {
        populate(&tree.path, programs, public_key)?;
        make_erofs(builder, tree, &erofs)?;
        make_verity(builder, tree, &erofs, &verity, &hash)?;
        check_size(&erofs, layout::ROOT_SIZE)?;
        check_size(&verity, layout::VERITY_SIZE)
    })?;
    let text = fs::read_to_string(&hash).with_context(|| format!("reading {}", hash.display()))?;
    let size = fs::metadata(&erofs).with_context(|| format!("looking at {}", erofs.display()))?.len();
    Ok(Root { erofs, verity, hash: text.trim().to_owned(), size })
}

/// It must fit into its slot on the disk.
fn check_size(image: &Path, slot: u64) -> Result<()> {
    let size = fs::metadata(image).with_context(|| format!("looking at {}", image.display()))?.len();
    if size > slot {
        bail!("{} has {size} bytes, its slot on a disk {slot}; take packages out of image/mkosi.conf", image.display());
    }
    Ok(())
}

fn populate(tree: &Path, programs: &Built, public_key: &Path) -> Result<()> {
    for dir in DIRECTORIES {
        let dir = tree.join(dir);
        fs::create_dir_all(&dir).with_context(|| format!("making {}", dir.display()))?;
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o755))
            .with_context(|| format!("opening up {}", dir.display()))?;
    }
    for program in &PROGRAMS {
        install(programs.path(program)?, &tree.join(program.path), 0o755)?;
    }
    install(public_key, &tree.join(below_root(lodge_model::paths::RELEASE_KEY)), 0o644)?;
    let init = tree.join("usr/sbin/init");
    if fs::symlink_metadata(&init).is_ok() {
        fs::remove_file(&init).with_context(|| format!("removing {}", init.display()))?;
    }
    symlink("../lib/lodge/init", &init).with_context(|| format!("linking {}", init.display()))
}

/// Copy a file with a mode of its own.
pub fn install(from: &Path, to: &Path, mode: u32) -> Result<()> {
    if let Some(parent) = to.parent() {
        fs::create_dir_all(parent).with_context(|| format!("making {}", parent.display()))?;
    }
    fs::copy(from, to).with_context(|| format!("copying {} to {}", from.display(), to.display()))?;
    fs::set_permissions(to, fs::Permissions::from_mode(mode)).with_context(|| format!("setting the mode of {}", to.display()))
}

/// An absolute path of the image, to be joined to where the image's tree is.
pub fn below_root(path: &str) -> &str {
    path.trim_start_matches('/')
}

fn make_erofs(builder: &Builder, tree: &Tree, erofs: &Path) -> Result<()> {
    let mut command = tree.tool("usr/bin/mkfs.erofs");
    command.args(["--quiet", COMPRESSION, CLUSTER, "-U", UUID, "-T", &epoch()]);
    run(builder.progress, command.arg(erofs).arg(&tree.path)).context("making the root image")
}

fn make_verity(builder: &Builder, tree: &Tree, erofs: &Path, verity: &Path, hash: &Path) -> Result<()> {
    builder.progress.detail("hashing blocks");
    let salt = sha256(erofs)?.0;
    let mut command = tree.tool("usr/sbin/veritysetup");
    command.args(["format", "--salt", &salt, "--uuid", UUID]).arg("--root-hash-file").arg(hash).arg(erofs).arg(verity);
    if verity.exists() {
        fs::remove_file(verity).with_context(|| format!("removing {}", verity.display()))?;
    }
    output(&mut command).context("making the verity tree")?;
    Ok(())
}
