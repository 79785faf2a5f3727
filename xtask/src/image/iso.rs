//! The medium: one file for CD and USB stick, UEFI and BIOS. UEFI starts the UKI from an EFI system partition in it; BIOS starts kernel
//! and initrd with isolinux. It holds the bundle, so an installation needs no network.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, SystemTime},
};

use anyhow::{Context, Result};
use lodge_model::{
    answer::Answer,
    paths::{ANSWER_NAME, BUNDLE_NAME, MEDIUM_LABEL},
};

use super::{Artifacts, Builder, mkosi::epoch, root::install, stamp::Key};
use crate::progress::{Progress, run};

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

/// Make the medium, unless nothing changed.
pub fn ensure(builder: &mut Builder, contents: &Contents, iso: &Path) -> Result<()> {
    // The bundle holds the UKI, and that the others.
    let key = Key::new("iso 5").text(contents.bundle_key).text(contents.command_line).text(&epoch()).finish();
    builder.step("ISO", &key, &[iso.to_path_buf()], |builder| write(builder.progress, contents, None, iso))
}

/// Whether the installer would understand an answer file.
pub fn check_answer(answer: &Path) -> Result<()> {
    let text = fs::read_to_string(answer).with_context(|| format!("reading the answer file {}", answer.display()))?;
    Answer::parse(&text, &answer.to_string_lossy())?;
    Ok(())
}

/// Make a medium that holds an answer file, whatever is in it (see `check_answer`). It is made anew: a changed copy of another would lose its EFI system partition.
pub fn with_answer(progress: &dyn Progress, made: &Artifacts, answer: &Path, target: &Path) -> Result<()> {
    let contents = Contents {
        efi: &made.efi,
        kernel: &made.vmlinuz,
        initrd: &made.initrd,
        command_line: &made.command_line,
        bundle: &made.bundle,
        bundle_key: "",
    };
    write(progress, &contents, Some(answer), target)
}

fn write(progress: &dyn Progress, contents: &Contents, answer: Option<&Path>, target: &Path) -> Result<()> {
    // Beside the target: on the same file system, so that the last rename works, and two media can be made at once.
    let stage = target.with_extension("iso.stage");
    if stage.exists() {
        fs::remove_dir_all(&stage).with_context(|| format!("clearing {}", stage.display()))?;
    }
    let esp = stage.join("esp.img");
    let root = stage.join("root");
    fs::create_dir_all(&root).with_context(|| format!("making {}", root.display()))?;
    make_esp(progress, contents.efi, &esp)?;
    fill(contents, &root)?;
    if let Some(answer) = answer {
        install(answer, &root.join(ANSWER_NAME), 0o644)?;
    }
    set_times(&root)?;
    make_iso(progress, &root, &esp, &stage.join("iso"))?;
    fs::rename(stage.join("iso"), target).with_context(|| format!("putting {} into place", target.display()))?;
    fs::remove_dir_all(&stage).with_context(|| format!("clearing {}", stage.display()))
}

/// FAT32, just big enough for the UKI: 1 MiB for the file system itself and as much again for cluster rounding.
fn make_esp(progress: &dyn Progress, efi: &Path, esp: &Path) -> Result<()> {
    let size = fs::metadata(efi).with_context(|| format!("looking at {}", efi.display()))?.len();
    // FAT32 starts at 65525 clusters: with one sector a cluster that is 32 MiB.
    let size = (size + (4 << 20)).next_multiple_of(1 << 20).max(36 << 20);
    let file = fs::File::create(esp).with_context(|| format!("making {}", esp.display()))?;
    file.set_len(size).with_context(|| format!("sizing {}", esp.display()))?;
    drop(file);
    let mut format = Command::new("/usr/sbin/mkfs.vfat");
    format.args(["--invariant", "-F", "32", "-s", "1", "-n", "LODGE-EFI"]).arg(esp);
    run(progress, &mut format).context("making the medium's EFI system partition")?;
    for dir in ["::/EFI", "::/EFI/BOOT"] {
        run(progress, mtools("mmd").arg("-i").arg(esp).arg(dir))?;
    }
    run(progress, mtools("mcopy").arg("-i").arg(esp).arg(efi).arg("::/EFI/BOOT/BOOTX64.EFI"))
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
    install(contents.kernel, &stage.join("boot/vmlinuz"), 0o644)?;
    install(contents.initrd, &stage.join("boot/initrd"), 0o644)?;
    install(contents.bundle, &stage.join(BUNDLE_NAME), 0o644)
}

fn make_iso(progress: &dyn Progress, root: &Path, esp: &Path, iso: &Path) -> Result<()> {
    let mut command = Command::new("xorriso");
    command.env("SOURCE_DATE_EPOCH", epoch());
    command.args(["-as", "mkisofs", "-o"]).arg(iso);
    command.args([
        "-V",
        MEDIUM_LABEL,
        "-iso-level",
        "3",
        "-J",
        "-joliet-long",
        "-r",
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
    command.arg("-isohybrid-gpt-basdat").arg(root);
    run(progress, &mut command).context("making the medium")
}

/// With `SOURCE_DATE_EPOCH` set, xorriso takes all its times from the files' last change.
fn set_times(dir: &Path) -> Result<()> {
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(epoch().parse().context("reading SOURCE_DATE_EPOCH")?);
    for entry in fs::read_dir(dir).with_context(|| format!("listing {}", dir.display()))? {
        let path = entry.with_context(|| format!("listing {}", dir.display()))?.path();
        if path.is_dir() {
            set_times(&path)?;
        } else {
            let file = fs::File::open(&path).with_context(|| format!("opening {}", path.display()))?;
            file.set_modified(time).with_context(|| format!("setting the time of {}", path.display()))?;
        }
    }
    let opened = fs::File::open(dir).with_context(|| format!("opening {}", dir.display()))?;
    opened.set_modified(time).with_context(|| format!("setting the time of {}", dir.display()))
}

/// Where the medium of this name is written when nobody says.
pub fn default_target(out: &Path) -> PathBuf {
    out.join("lodge-answer.iso")
}
