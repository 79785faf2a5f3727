//! The medium: one file for CD and USB stick, UEFI and BIOS. UEFI starts the UKI from an EFI system partition in it; BIOS starts kernel
//! and initrd with isolinux. It holds the bundle, so an installation needs no network.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};
use lodge_model::paths::{ANSWER_NAME, BUNDLE_NAME, MEDIUM_LABEL};

use super::{Builder, root::install, stamp::Key, tree::epoch};
use crate::progress::{output, run};

/// Files of Debian's isolinux and syslinux-common.
const ISOLINUX: [(&str, &str); 2] =
    [("/usr/lib/ISOLINUX/isolinux.bin", "isolinux.bin"), ("/usr/lib/syslinux/modules/bios/ldlinux.c32", "ldlinux.c32")];
const MBR: &str = "/usr/lib/ISOLINUX/isohdpfx.bin";

/// What is on it.
pub struct Contents<'a> {
    /// The UKI, for UEFI.
    pub efi: &'a Path,
    /// Kernel and initrd, for BIOS.
    pub kernel: &'a Path,
    /// See `kernel`.
    pub initrd: &'a Path,
    /// The kernel's command line, for BIOS; the UKI has its own.
    pub command_line: &'a str,
    /// The bundle.
    pub bundle: &'a Path,
    /// Key of the step that made the bundle.
    pub bundle_key: &'a str,
}

/// Make the medium, unless nothing changed. Returns the step's key.
pub fn ensure(builder: &mut Builder, contents: &Contents, iso: &Path) -> Result<String> {
    // The bundle holds the UKI, and that the others.
    let key = Key::new("iso 1").text(contents.bundle_key).text(contents.command_line).text(&epoch()).finish();
    builder.step("ISO", &key, &[iso.to_path_buf()], |builder| {
        let stage = builder.cache("iso");
        if stage.exists() {
            fs::remove_dir_all(&stage).with_context(|| format!("clearing {}", stage.display()))?;
        }
        let esp = builder.cache("iso-esp.img");
        make_esp(builder, contents.efi, &esp)?;
        fill(contents, &stage)?;
        make_iso(builder, &stage, &esp, iso)?;
        fs::remove_dir_all(&stage).with_context(|| format!("clearing {}", stage.display()))?;
        fs::remove_file(&esp).with_context(|| format!("removing {}", esp.display()))
    })?;
    Ok(key)
}

/// A copy of the medium with an answer file in its root.
pub fn with_answer(iso: &Path, answer: &Path, target: &Path) -> Result<()> {
    if !answer.is_file() {
        bail!("{} is not a file", answer.display());
    }
    if target.exists() {
        fs::remove_file(target).with_context(|| format!("replacing {}", target.display()))?;
    }
    let mut command = Command::new("xorriso");
    command.args(["-abort_on", "FAILURE", "-indev"]).arg(iso).arg("-outdev").arg(target);
    command.args(["-boot_image", "any", "replay", "-padding", "0"]);
    command.arg("-map").arg(answer).arg(format!("/{ANSWER_NAME}"));
    output(&mut command).with_context(|| format!("writing {}", target.display()))?;
    Ok(())
}

/// FAT32, just big enough for the UKI: 1 MiB for the file system itself and as much again for cluster rounding.
fn make_esp(builder: &Builder, efi: &Path, esp: &Path) -> Result<()> {
    let size = fs::metadata(efi).with_context(|| format!("looking at {}", efi.display()))?.len();
    // FAT32 starts at 65525 clusters: with one sector a cluster that is 32 MiB.
    let size = (size + (4 << 20)).next_multiple_of(1 << 20).max(36 << 20);
    let file = fs::File::create(esp).with_context(|| format!("making {}", esp.display()))?;
    file.set_len(size).with_context(|| format!("sizing {}", esp.display()))?;
    drop(file);
    let mut format = Command::new("/usr/sbin/mkfs.vfat");
    format.args(["--invariant", "-F", "32", "-s", "1", "-n", "LODGE-EFI"]).arg(esp);
    run(builder.progress, &mut format).context("making the medium's EFI system partition")?;
    for dir in ["::/EFI", "::/EFI/BOOT"] {
        run(builder.progress, mtools("mmd").arg("-i").arg(esp).arg(dir))?;
    }
    run(builder.progress, mtools("mcopy").arg("-i").arg(esp).arg(efi).arg("::/EFI/BOOT/BOOTX64.EFI"))
}

fn mtools(program: &str) -> Command {
    let mut command = Command::new(program);
    command.env("SOURCE_DATE_EPOCH", epoch());
    command
}

fn fill(contents: &Contents, stage: &Path) -> Result<()> {
    for (from, name) in ISOLINUX {
        install(Path::new(from), &stage.join("isolinux").join(name), 0o644)?;
    }
    let config = format!(
        "serial 0 115200\ndefault lodge\nprompt 0\ntimeout 0\nlabel lodge\n  kernel /boot/vmlinuz\n  initrd /boot/initrd\n  append {}\n",
        contents.command_line
    );
    fs::write(stage.join("isolinux/isolinux.cfg"), config).context("writing isolinux.cfg")?;
    link_or_copy(contents.kernel, &stage.join("boot/vmlinuz"))?;
    link_or_copy(contents.initrd, &stage.join("boot/initrd"))?;
    link_or_copy(contents.bundle, &stage.join(BUNDLE_NAME))
}

/// A hard link saves writing hundreds of megabytes twice.
fn link_or_copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to.parent().unwrap_or(to)).with_context(|| format!("making a directory for {}", to.display()))?;
    match fs::hard_link(from, to) {
        Ok(()) => Ok(()),
        Err(_) => install(from, to, 0o644),
    }
}

fn make_iso(builder: &Builder, stage: &Path, esp: &Path, iso: &Path) -> Result<()> {
    let partial = iso.with_extension("iso.partial");
    let mut command = Command::new("xorriso");
    command.env("SOURCE_DATE_EPOCH", epoch());
    command.args(["-as", "mkisofs", "-o"]).arg(&partial);
    command.args([
        "-V",
        MEDIUM_LABEL,
        "-iso-level",
        "3",
        "-J",
        "-joliet-long",
        "-R",
        "-isohybrid-mbr",
        MBR,
        "-partition_offset",
        "16",
    ]);
    command.args([
        "-c",
        "isolinux/boot.cat",
        "-b",
        "isolinux/isolinux.bin",
        "-no-emul-boot",
        "-boot-load-size",
        "4",
        "-boot-info-table",
    ]);
    command.args(["-append_partition", "2", "0xef"]).arg(esp);
    command.args([
        "-appended_part_as_gpt",
        "-eltorito-alt-boot",
        "-e",
        "--interval:appended_partition_2:all::",
        "-no-emul-boot",
    ]);
    command.arg("-isohybrid-gpt-basdat").arg(stage);
    run(builder.progress, &mut command).context("making the medium")?;
    fs::rename(&partial, iso).with_context(|| format!("putting {} into place", iso.display()))
}

/// Where the medium of this name is written when nobody says.
pub fn default_target(out: &Path) -> PathBuf {
    out.join("lodge-answer.iso")
}
