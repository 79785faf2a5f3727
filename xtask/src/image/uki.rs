//! The one boot file: kernel, initrd, command line and os-release as sections of an EFI program (UAPI group, "Unified Kernel Image").

use std::{fs, path::Path};

use anyhow::{Context, Result, bail};

use super::{Builder, initrd::os_release, root::Root, stamp::Key, tree::Tree};
use crate::{progress::run, setup::tools::Tools};

/// The bar of the design: 64 MiB.
pub const MAX: u64 = 64 << 20;

/// What follows the parts that name this build. The serial port comes last: it gets what a program writes to `/dev/console`.
const COMMAND_LINE_TAIL: &str = "console=tty0 console=ttyS0,115200 panic=30 loglevel=4";

/// The kernel's command line, the same on every way in.
pub fn command_line(version: &str, root: &Root) -> String {
    format!("lodge.version={version} lodge.roothash={} lodge.rootsize={} {COMMAND_LINE_TAIL}", root.hash, root.size)
}

/// What is put together.
pub struct Parts<'a> {
    /// Kernel.
    pub kernel: &'a Path,
    /// Initrd.
    pub initrd: &'a Path,
    /// Key of the step that made the initrd.
    pub initrd_key: &'a str,
    /// Command line.
    pub command_line: &'a str,
    /// Version of the base OS.
    pub version: &'a str,
}

/// Make it, unless nothing changed. Returns the step's key.
pub fn ensure(builder: &mut Builder, tools: &Tools, tree: &Tree, parts: &Parts, efi: &Path) -> Result<String> {
    let key = Key::new("uki 1").text(&tree.key).text(parts.initrd_key).text(parts.command_line).text(parts.version).finish();
    builder.step("UKI", &key, &[efi.to_path_buf()], |builder| {
        let mut command = tools.ukify();
        command.arg("build").arg("--stub").arg(tools.stub()).arg("--linux").arg(parts.kernel).arg("--initrd").arg(parts.initrd);
        command.arg("--uname").arg(&tree.kernel).arg("--cmdline").arg(parts.command_line);
        command.arg("--os-release").arg(os_release(parts.version)).arg("--output").arg(efi);
        run(builder.progress, &mut command).context("making the UKI")?;
        let size = fs::metadata(efi).with_context(|| format!("looking at {}", efi.display()))?.len();
        if size > MAX {
            bail!(
                "{} has {size} bytes, more than the {MAX} it may have; take modules or firmware out of the initrd",
                efi.display()
            );
        }
        Ok(())
    })?;
    Ok(key)
}
