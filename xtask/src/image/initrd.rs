//! The initrd: what a machine needs until it has a root, or while it gets one. Two archives one after the other, as the kernel allows:
//! the big one of Debian's parts changes seldom, the small one holds our programs, so a change of ours packs in a moment.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};

use super::{
    Builder, cpio, elf,
    modules::{self, Modules},
    programs::{Built, PROGRAMS},
    root::{below_root, install},
    stamp::Key,
    tree::Tree,
};
use crate::progress::{output, run};

/// Programs of Debian in the initrd: where they are, and what for.
const PROGRAMS_OF_DEBIAN: [(&str, &str); 5] = [
    ("usr/sbin/blkid", "what is on a disk, before anything is written to it"),
    ("usr/sbin/e2fsck", "repair ladder of the state partition"),
    ("usr/sbin/fsck.fat", "repair of the EFI system partition"),
    ("usr/sbin/mke2fs", "state partition"),
    ("usr/sbin/mkfs.fat", "EFI system partition"),
];
/// Files of Debian in the initrd, and where they are in the tree.
const FILES_OF_DEBIAN: [(&str, &str); 2] = [
    ("etc/mke2fs.conf", "etc/mke2fs.conf"),
    // The boot loader that the installer puts on the disk.
    ("usr/lib/lodge/systemd-bootx64.efi", "usr/lib/systemd/boot/efi/systemd-bootx64.efi"),
];
/// Names under which they are also called.
const LINKS: [(&str, &str); 12] = [
    ("bin", "usr/bin"),
    ("sbin", "usr/sbin"),
    ("lib", "usr/lib"),
    ("lib64", "usr/lib64"),
    ("init", "usr/lib/lodge/init"),
    ("usr/bin/installer", "../lib/lodge/installer"),
    ("usr/sbin/modprobe", "../bin/busybox"), // the kernel itself calls it, by this path
    ("usr/sbin/mkfs.ext4", "mke2fs"),
    ("usr/sbin/fsck.ext4", "e2fsck"),
    ("usr/sbin/mkfs.vfat", "mkfs.fat"),
    ("usr/sbin/fsck.vfat", "fsck.fat"),
    ("etc/os-release", "../usr/lib/lodge/os-release"),
];
const DIRECTORIES: [&str; 12] =
    ["dev", "etc", "proc", "run", "state", "sys", "sysroot", "tmp", "usr/bin", "usr/lib", "usr/lib64", "usr/sbin"];
/// Packs smallest; unpacking is as fast at any level. A stronger window would need more memory at boot.
const LEVEL: &str = "-19";

/// Make the archive of Debian's parts, unless nothing changed. Returns its path and key.
pub fn ensure_base(builder: &mut Builder, tree: &Tree) -> Result<(PathBuf, String)> {
    let archive = builder.cache("initrd-base.cpio.zst");
    let key = Key::new("initrd base 1")
        .text(&tree.key)
        .text(LEVEL)
        .text(include_str!("modules.rs"))
        .text(include_str!("initrd.rs"))
        .finish();
    builder.step("initrd of Debian's parts", &key, std::slice::from_ref(&archive), |builder| {
        let stage = fresh_stage(builder, "initrd-base")?;
        add_programs(tree, &stage)?;
        add_modules(builder, tree, &stage)?;
        pack(builder, &stage, &archive)
    })?;
    Ok((archive, key))
}

/// Make the whole initrd: Debian's archive and ours.
pub fn ensure(
    builder: &mut Builder,
    base: &(PathBuf, String),
    programs: &Built,
    public_key: &Path,
    version: &str,
    out: &Path,
) -> Result<String> {
    let key = Key::new("initrd 2").text(&base.1).text(&programs.initrd_key()?).file(public_key)?.text(version).finish();
    builder.step("initrd", &key, &[out.to_path_buf()], |builder| {
        let stage = fresh_stage(builder, "initrd-own")?;
        for program in PROGRAMS.iter().filter(|program| program.is_static) {
            install(programs.path(program)?, &stage.join(program.path), 0o755)?;
        }
        install(public_key, &stage.join(below_root(lodge_model::paths::RELEASE_KEY)), 0o644)?;
        fs::write(stage.join("usr/lib/lodge/os-release"), os_release(version)).context("writing os-release")?;
        let own = builder.cache("initrd-own.cpio.zst");
        pack(builder, &stage, &own)?;
        let mut whole = Vec::new();
        for archive in [&base.0, &own] {
            whole.extend(fs::read(archive).with_context(|| format!("reading {}", archive.display()))?);
            // The kernel skips zeros, and an uncompressed archive that somebody appends has to start at a multiple of 4.
            whole.resize(whole.len().next_multiple_of(4), 0);
        }
        fs::write(out, whole).with_context(|| format!("writing {}", out.display()))
    })?;
    Ok(key)
}

/// os-release(5) of the system in the initrd and of the UKI, where boot loaders read it.
pub fn os_release(version: &str) -> String {
    format!("ID=lodge\nID_LIKE=debian\nNAME=Lodge\nPRETTY_NAME=\"Lodge {version}\"\nVERSION_ID={version}\n")
}

fn fresh_stage(builder: &Builder, name: &str) -> Result<PathBuf> {
    let stage = builder.cache(name);
    if stage.exists() {
        fs::remove_dir_all(&stage).with_context(|| format!("clearing {}", stage.display()))?;
    }
    fs::create_dir_all(&stage).with_context(|| format!("making {}", stage.display()))?;
    Ok(stage)
}

fn add_programs(tree: &Tree, stage: &Path) -> Result<()> {
    for dir in DIRECTORIES {
        fs::create_dir_all(stage.join(dir)).with_context(|| format!("making {dir} of the initrd"))?;
    }
    let programs: Vec<PathBuf> = PROGRAMS_OF_DEBIAN.iter().map(|(path, _)| tree.path.join(path)).collect();
    for ((path, _), program) in PROGRAMS_OF_DEBIAN.iter().zip(&programs) {
        install(program, &stage.join(path), 0o755)?;
    }
    for (inside, outside) in elf::libraries(&tree.path, &programs)? {
        install(&outside, &stage.join(inside), 0o755)?;
    }
    for (inside, outside) in FILES_OF_DEBIAN {
        install(&tree.path.join(outside), &stage.join(inside), 0o644)?;
    }
    for (link, target) in LINKS {
        symlink(target, stage.join(link)).with_context(|| format!("linking {link} of the initrd"))?;
    }
    add_busybox(tree, stage)
}

/// Every applet, unless there is a real program of that name.
fn add_busybox(tree: &Tree, stage: &Path) -> Result<()> {
    let busybox = tree.path.join("usr/bin/busybox");
    install(&busybox, &stage.join("usr/bin/busybox"), 0o755)?;
    let applets = output(Command::new(&busybox).arg("--list")).context("asking busybox for its applets")?;
    for applet in String::from_utf8_lossy(&applets).lines() {
        let taken = ["usr/bin", "usr/sbin"].iter().any(|dir| fs::symlink_metadata(stage.join(dir).join(applet)).is_ok());
        if !taken && applet != "init" {
            symlink("busybox", stage.join("usr/bin").join(applet)).with_context(|| format!("linking {applet}"))?;
        }
    }
    Ok(())
}

fn add_modules(builder: &Builder, tree: &Tree, stage: &Path) -> Result<()> {
    let modules = Modules::read(&tree.path, &tree.kernel)?;
    let dir = stage.join("usr/lib/modules").join(&tree.kernel);
    let wanted = modules.for_initrd();
    let mut packed = Vec::new();
    for path in &wanted {
        install(&modules.dir.join(path), &dir.join(path), 0o644)?;
        if path.ends_with(".xz") {
            packed.push(dir.join(path));
        }
    }
    // Packed twice they would only be bigger: the whole archive is compressed.
    for chunk in packed.chunks(300) {
        run(builder.progress, Command::new("xz").arg("--decompress").args(chunk)).context("unpacking modules")?;
    }
    for index in ["modules.order", "modules.builtin", "modules.builtin.modinfo"] {
        install(&modules.dir.join(index), &dir.join(index), 0o644)?;
    }
    modules::depmod(&tree.path, stage, &tree.kernel)?;
    drop_unused_indexes(&dir)?;
    let plain: BTreeSet<String> = wanted.iter().map(|path| path.trim_end_matches(".xz").to_owned()).collect();
    for path in modules::firmware(&tree.path, plain.iter().map(|path| dir.join(path)))? {
        let (from, to) = (tree.path.join(&path), stage.join(&path));
        if from.is_symlink() {
            let target = fs::read_link(&from).with_context(|| format!("reading {}", from.display()))?;
            fs::create_dir_all(to.parent().unwrap_or(stage)).context("making a firmware directory")?;
            symlink(target, &to).with_context(|| format!("linking {}", to.display()))?;
        } else {
            install(&from, &to, 0o644)?;
        }
    }
    Ok(())
}

/// init reads the text forms of dep, alias, softdep and builtin; the others are for programs that are not in the initrd.
fn drop_unused_indexes(dir: &Path) -> Result<()> {
    const KEPT: [&str; 5] = ["modules.alias", "modules.builtin", "modules.builtin.modinfo", "modules.dep", "modules.softdep"];
    for entry in fs::read_dir(dir).with_context(|| format!("listing {}", dir.display()))? {
        let path = entry.context("listing indexes")?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.starts_with("modules.") && !KEPT.contains(&name.as_str()) {
            fs::remove_file(&path).with_context(|| format!("removing {}", path.display()))?;
        }
    }
    Ok(())
}

fn pack(builder: &Builder, stage: &Path, archive: &Path) -> Result<()> {
    builder.progress.detail("packing");
    let file = fs::File::create(archive).with_context(|| format!("making {}", archive.display()))?;
    let mut zstd = Command::new("zstd");
    zstd.args([LEVEL, "-T0", "--quiet", "--stdout"]).stdin(Stdio::piped()).stdout(file);
    let mut child = zstd.spawn().context("starting zstd")?;
    let mut input = std::io::BufWriter::with_capacity(1 << 20, child.stdin.take().context("reaching zstd")?);
    let written = cpio::write(stage, &mut input);
    drop(input);
    let status = child.wait().context("waiting for zstd")?;
    written?;
    if !status.success() {
        bail!("zstd failed ({status}) packing {}", archive.display());
    }
    Ok(())
}
