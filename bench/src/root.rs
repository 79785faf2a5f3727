//! A peer's root, made as an environment's is, by the same calls of the kernel and with the same options: a sparse ext4 disk on the share,
//! the template below it, an overlay of both, all with the peer's own ids. What the agent does beyond that (locks, owner records, checks)
//! is what is compared.

use std::{
    fs::{self, DirBuilder, File},
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result};
use lodge_model::environment::order::IDS;
use lodge_sys::{
    ext4,
    idmap::{IdMap, IdRange, with_file_owner},
    loopdev::{self, Options},
    mount::{is_mounted, mounts, unmount},
    tree::{Tree, Trust},
};

use crate::peer::{Peer, WORK};

/// Bytes of a peer's disk; the bench gives environments as much.
const DISK: u64 = 512 << 20;
/// How long the kernel may take to let go of a disk.
const DETACH_LIMIT: Duration = Duration::from_secs(30);

/// Make it, at `root` below the peer's directory.
pub fn make(peer: &Peer, template: &Path) -> Result<()> {
    let at = |name: &str| peer.dir().join(name);
    for name in ["lower", "private", "root"] {
        directory(&at(name))?;
    }
    let map = IdMap::new(IdRange { base: peer.base(), count: IDS })?;
    shared(template)?.map_ids(&map)?.attach(&at("lower"))?;
    let device = disk(peer)?;
    let source = device.to_string_lossy();
    Tree::new("ext4", &[("source", &source)], false, Trust::Data)?.map_ids(&map)?.attach(&at("private"))?;
    with_file_owner(peer.base(), || overlay(&at("lower"), &at("private"))?.attach(&at("root")))
}

/// Remove it, and the disk; nothing uses it any more.
pub fn remove(peer: &Peer) -> Result<()> {
    for mount in mounts()?.into_iter().rev().filter(|mount| mount.target.starts_with(peer.dir())) {
        unmount(&mount.target)?;
    }
    for device in loopdev::list()?.into_iter().filter(|device| device.backing == peer.disk()) {
        loopdev::detach(&device.path, DETACH_LIMIT)?;
    }
    fs::remove_file(peer.disk()).with_context(|| format!("removing {}", peer.disk().display()))?;
    fs::remove_dir_all(peer.dir()).with_context(|| format!("removing {}", peer.dir().display()))
}

/// A mount of the template: made once for all peers, as the agent makes one for all environments.
fn shared(template: &Path) -> Result<Tree> {
    let target = Path::new(WORK).join("template");
    if !is_mounted(&target)? {
        directory(&target)?;
        let file = File::open(template).with_context(|| format!("opening {}", template.display()))?;
        let attached = loopdev::attach(&file, Options { read_only: true, autoclear: true, direct_io: true })?;
        let source = attached.device.path.to_string_lossy().into_owned();
        Tree::new("erofs", &[("source", &source)], true, Trust::Data)?.attach(&target)?;
    }
    Tree::clone_of(&target)
}

/// A new disk with a file system; its loop device.
fn disk(peer: &Peer) -> Result<PathBuf> {
    let path = peer.disk();
    directory(path.parent().unwrap_or(&path))?;
    let file = File::options().read(true).write(true).create_new(true).open(&path);
    let file = file.with_context(|| format!("making {}", path.display()))?;
    file.set_len(DISK).with_context(|| format!("sizing {}", path.display()))?;
    let attached = loopdev::attach(&file, Options { direct_io: true, ..Options::default() })?;
    ext4::make_on_zeros(&attached.device.path, &[])?;
    Ok(attached.device.path.clone())
}

fn overlay(lower: &Path, private: &Path) -> Result<Tree> {
    let (upper, work) = (private.join("up"), private.join("work"));
    for dir in [&upper, &work] {
        fs::create_dir_all(dir).with_context(|| format!("making {}", dir.display()))?;
    }
    let [lower, upper, work] = [lower, &upper, &work].map(|path| path.to_string_lossy());
    let options =
        [("source", "bench"), ("lowerdir", &*lower), ("upperdir", &*upper), ("workdir", &*work), ("redirect_dir", "on")];
    Tree::new("overlay", &options, false, Trust::SetId)
}

/// A peer's own root has to find its way to its file systems while an engine enters them.
fn directory(path: &Path) -> Result<()> {
    DirBuilder::new().recursive(true).mode(0o755).create(path).with_context(|| format!("making {}", path.display()))
}
