//! Tools and firmware of Debian 13 that must be the same on every host: OVMF (Debian 12's boots slowly and lacks what HTTP Boot needs),
//! ukify and its boot stub. They are fetched by an apt that has its own sources, lists and cache under out/, so that the host's
//! own apt never hears of another release, and they are only unpacked, never installed.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

use super::apt;
use crate::progress::{Progress, run};

/// The packages, each with what it is for.
const PACKAGES: [(&str, &str); 15] = [
    ("ovmf", "UEFI firmware of the virtual rack"),
    ("systemd-boot-efi", "boot stub of the UKI"),
    ("systemd-ukify", "puts the UKI together"),
    ("python3-pefile", "ukify's PE library"),
    ("erofs-utils", "mkfs.erofs that reads a tar, for the tests of templates; the others are its libraries"),
    ("libc6", "mkfs.erofs"),
    ("libdeflate0", "mkfs.erofs"),
    ("liblz4-1", "mkfs.erofs"),
    ("liblzma5", "mkfs.erofs"),
    ("libpcre2-8-0", "mkfs.erofs"),
    ("libselinux1", "mkfs.erofs"),
    ("libuuid1", "mkfs.erofs"),
    ("libxxhash0", "mkfs.erofs"),
    ("libzstd1", "mkfs.erofs"),
    ("zlib1g", "mkfs.erofs"),
];
/// Names the packages that have been unpacked, in the directory they are in.
const LIST: &str = ".packages";

/// Where they are, below out/tools.
pub struct Tools {
    root: PathBuf,
}

impl Tools {
    #[allow(dead_code, reason = "read by demo and test")]
    /// OVMF's code and the variables to copy for each machine, without Secure Boot.
    pub fn ovmf(&self) -> (PathBuf, PathBuf) {
        let dir = self.root.join("usr/share/OVMF");
        (dir.join("OVMF_CODE_4M.fd"), dir.join("OVMF_VARS_4M.fd"))
    }

    /// The stub that turns kernel and initrd into one EFI program.
    pub fn stub(&self) -> PathBuf {
        self.root.join("usr/lib/systemd/boot/efi/linuxx64.efi.stub")
    }

    /// A command that runs ukify with its own library.
    pub fn ukify(&self) -> Command {
        let mut command = Command::new("/usr/bin/python3");
        command.env("PYTHONPATH", self.root.join("usr/lib/python3/dist-packages")).env("PYTHONDONTWRITEBYTECODE", "1");
        command.arg(self.root.join("usr/bin/ukify"));
        command
    }
}

/// Fetch and unpack them, unless they are there.
pub fn ensure(progress: &dyn Progress, out: &Path) -> Result<Tools> {
    let root = out.join("tools/debian13");
    let list = PACKAGES.map(|(name, _)| name).join("\n");
    if fs::read_to_string(root.join(LIST)).unwrap_or_default() != list {
        let partial = root.with_extension("partial");
        fetch(progress, &out.join("cache/apt"), &partial).context("fetching tools of Debian 13")?;
        fs::write(partial.join(LIST), list).with_context(|| format!("writing into {}", partial.display()))?;
        if root.exists() {
            fs::remove_dir_all(&root).with_context(|| format!("clearing {}", root.display()))?;
        }
        fs::rename(&partial, &root).with_context(|| format!("putting {} into place", root.display()))?;
    }
    Ok(Tools { root })
}

fn fetch(progress: &dyn Progress, home: &Path, target: &Path) -> Result<()> {
    own_apt(home, &apt::Mirrors::of_machine()?)?;
    run(progress, apt_get(home).args(["-q", "update"])).context("reading the package lists of Debian 13")?;
    unpack(progress, home, &PACKAGES.map(|(name, _)| name), target)
}

/// Fetch packages, without what they need, and unpack them in a new directory.
pub fn unpack(progress: &dyn Progress, home: &Path, packages: &[&str], target: &Path) -> Result<()> {
    let debs = home.join("debs");
    run(progress, apt_get(home).args(["-q", "download"]).args(packages).current_dir(&debs))?;
    if target.exists() {
        fs::remove_dir_all(target).with_context(|| format!("clearing {}", target.display()))?;
    }
    // dpkg-deb makes the last directory of a path, and not those above it.
    fs::create_dir_all(target).with_context(|| format!("making {}", target.display()))?;
    for entry in fs::read_dir(&debs).with_context(|| format!("listing {}", debs.display()))? {
        let deb = entry.context("listing packages")?.path();
        run(progress, Command::new("dpkg-deb").arg("-x").arg(&deb).arg(target))?;
        fs::remove_file(&deb).with_context(|| format!("removing {}", deb.display()))?;
    }
    Ok(())
}

/// Make what `apt_get` needs: an apt that knows Debian 13 alone, and of nothing that is installed.
pub fn own_apt(home: &Path, mirrors: &apt::Mirrors) -> Result<()> {
    for dir in ["sources", "state/lists/partial", "cache/archives/partial", "debs"] {
        let dir = home.join(dir);
        fs::create_dir_all(&dir).with_context(|| format!("making {}", dir.display()))?;
    }
    fs::write(home.join("sources/lodge.sources"), mirrors.debian13()).context("writing sources")?;
    fs::write(home.join("state/status"), "").context("writing an empty package list")
}

/// apt with everything of its own, run as whoever we are.
pub fn apt_get(home: &Path) -> Command {
    let mut command = Command::new("apt-get");
    let settings = [
        ("Dir::Etc::sourcelist", "/dev/null".into()),
        ("Dir::Etc::sourceparts", home.join("sources")),
        ("Dir::State", home.join("state")),
        ("Dir::State::status", home.join("state/status")),
        ("Dir::Cache", home.join("cache")),
    ];
    for (key, path) in settings {
        command.arg("-o").arg(format!("{key}={}", path.display()));
    }
    // Its sandbox user could not write below somebody's home.
    command.args(["-o", "APT::Sandbox::User=", "-o", "APT::Architecture=amd64"]);
    command
}
