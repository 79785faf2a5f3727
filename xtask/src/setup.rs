//! Makes a fresh Debian 12 or 13 able to build and run Lodge: the packages below through apt, and the few tools of Debian 13 that
//! have to be the same on both, unpacked under out/tools. It changes nothing that is already as it should be, and asks apt nothing then.

use std::{
    fmt::Write as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use crate::progress::{Progress, output, run};

pub mod apt;
pub mod tools;

/// A package of the host.
struct Package {
    name: &'static str,
    /// What needs it.
    reason: &'static str,
    /// On Debian 12: take it from backports when what is installed is older than this version.
    backport: Option<&'static str>,
}

const fn package(name: &'static str, reason: &'static str) -> Package {
    Package { name, reason, backport: None }
}

const PACKAGES: [Package; 26] = [
    package("build-essential", "compiles the C parts of ring and SQLite; libc.a for the static init and installer"),
    package("ca-certificates", "mirrors reached over HTTPS"),
    package("debian-archive-keyring", "proves the packages of the base OS"),
    package("bubblewrap", "mkosi's sandbox"),
    package("uidmap", "lets mkosi build without root"),
    package("python3", "runs mkosi and ukify"),
    Package { name: "mkosi", reason: "builds the base OS's tree", backport: Some("24.3") },
    package("kmod", "lets mkosi read the kernel's modules"),
    package("xz-utils", "unpacks the kernel's modules for the initrd"),
    package("zstd", "packs the initrd"),
    package("dosfstools", "makes the ISO's EFI system partition"),
    package("mtools", "fills it without mounting it"),
    package("xorriso", "makes the ISO"),
    package("isolinux", "boots the ISO on BIOS machines"),
    package("syslinux-common", "modules of isolinux"),
    Package { name: "qemu-system-x86", reason: "the virtual rack of demo and tests", backport: Some("1:9.0") },
    package("qemu-utils", "disk images of the virtual rack"),
    package("openssh-client", "logs in to environments of the virtual rack"),
    package("iproute2", "network namespaces of the tests"),
    package("nftables", "the guards of environments' links, in the tests' network namespaces"),
    package("e2fsprogs", "file systems of the tests on loop disks"),
    package("crun", "the agent's tests make containers with it"),
    package("erofs-utils", "templates of the tests"),
    package("util-linux", "fsfreeze and losetup, which tests on loop disks call"),
    package("dbus-daemon", "the bus of the agent's tests"),
    package("systemd", "busctl and systemd-inhibit, which the agent's tests call"),
];

/// Install what is missing and return where the tools of Debian 13 are. Quick when nothing is.
pub fn ensure(progress: &dyn Progress, out: &Path) -> Result<tools::Tools> {
    let wanted = wanted()?;
    if !wanted.is_empty() {
        install(progress, &wanted)?;
    }
    tools::ensure(progress, out)
}

/// What `ensure` would install, in words.
pub fn explain() -> Result<String> {
    let wanted = wanted()?;
    if wanted.is_empty() {
        return Ok("every package is installed".to_owned());
    }
    let mut text = String::from("to be installed:\n");
    for package in wanted {
        writeln!(text, "  {:24} {}", package.name, package.reason)?;
    }
    Ok(text)
}

fn wanted() -> Result<Vec<&'static Package>> {
    if !Path::new("/usr/bin/dpkg-query").exists() {
        let missing =
            "this machine has no dpkg: on Debian 12 or 13 setup installs what is needed; elsewhere install the tools by hand";
        bail!("{missing} (table in xtask/src/setup.rs) and put them on PATH");
    }
    // dpkg-query exits 1 when it does not know one of the names, and still prints the others.
    let listed = Command::new("dpkg-query")
        .args(["-W", "-f", "${Package} ${db:Status-Status} ${Version}\n"])
        .args(PACKAGES.iter().map(|package| package.name))
        .output()
        .context("asking dpkg what is installed")?;
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    let mut wanted = Vec::new();
    for package in &PACKAGES {
        let version = installed_version(&listed, package.name);
        let enough = match (version, package.backport) {
            (None, _) => false,
            (Some(_), None) => true,
            (Some(version), Some(least)) => at_least(version, least)?,
        };
        if !enough {
            wanted.push(package);
        }
    }
    Ok(wanted)
}

fn installed_version<'a>(listed: &'a str, name: &str) -> Option<&'a str> {
    listed.lines().find_map(|line| match line.split(' ').collect::<Vec<_>>()[..] {
        [package, "installed", version] if package == name => Some(version),
        _ => None,
    })
}

fn at_least(version: &str, least: &str) -> Result<bool> {
    let status = Command::new("dpkg").args(["--compare-versions", version, "ge", least]).status();
    Ok(status.context("comparing versions with dpkg")?.success())
}

fn install(progress: &dyn Progress, wanted: &[&Package]) -> Result<()> {
    let mirrors = apt::Mirrors::of_machine()?;
    let (old, usual): (Vec<&Package>, Vec<&Package>) =
        wanted.iter().partition(|package| package.backport.is_some() && mirrors.codename == "bookworm");
    if !old.is_empty() {
        add_backports(progress, &mirrors)?;
    }
    run(progress, as_root("apt-get")?.args(["-q", "update"])).context("reading the package lists")?;
    let names = |packages: &[&Package]| packages.iter().map(|package| package.name).collect::<Vec<&str>>();
    let apt_install = || -> Result<Command> {
        let mut command = as_root("env")?;
        command.args(["DEBIAN_FRONTEND=noninteractive", "apt-get", "-q", "-y", "--no-install-recommends", "install"]);
        Ok(command)
    };
    if !usual.is_empty() {
        run(progress, apt_install()?.args(names(&usual))).context("installing packages")?;
    }
    if !old.is_empty() {
        let suite = format!("{}-backports", mirrors.codename);
        run(progress, apt_install()?.args(["-t", &suite]).args(names(&old))).context("installing packages from backports")?;
    }
    Ok(())
}

/// The one source that is added to the machine itself. Backports have a low priority: nothing else is upgraded by it.
fn add_backports(progress: &dyn Progress, mirrors: &apt::Mirrors) -> Result<()> {
    let targets = output(Command::new("apt-get").args(["indextargets", "--format", "$(RELEASE)", "Created-By: Packages"]))?;
    let suite = format!("{}-backports", mirrors.codename);
    if String::from_utf8_lossy(&targets).lines().any(|line| line == suite) {
        return Ok(());
    }
    let written = std::env::temp_dir().join(format!("lodge-backports-{}.sources", std::process::id()));
    std::fs::write(&written, mirrors.backports()).with_context(|| format!("writing {}", written.display()))?;
    let target = PathBuf::from("/etc/apt/sources.list.d/lodge-backports.sources");
    let mut command = as_root("install")?;
    command.args(["-m", "0644"]).arg(&written).arg(&target);
    let result = run(progress, &mut command).with_context(|| format!("adding {}", target.display()));
    std::fs::remove_file(&written).with_context(|| format!("removing {}", written.display()))?;
    result
}

/// A command that runs as root: directly, or through sudo.
pub fn as_root(program: &str) -> Result<Command> {
    if is_root() {
        return Ok(Command::new(program));
    }
    if !Path::new("/usr/bin/sudo").exists() {
        bail!("{program} has to run as root, and there is no sudo; run `cargo xtask setup` as root once");
    }
    let mut command = Command::new("sudo");
    command.arg(program);
    Ok(command)
}

/// Whether this process is root.
pub fn is_root() -> bool {
    // The owner of a process's own directory in /proc is its effective user.
    use std::os::unix::fs::MetadataExt as _;
    std::fs::metadata("/proc/self").is_ok_and(|metadata| metadata.uid() == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_removed_package_counts_as_missing() {
        let listed = "mkosi installed 24.3-1~bpo12+1\nzstd config-files 1.5.4\n";
        assert_eq!(installed_version(listed, "mkosi"), Some("24.3-1~bpo12+1"));
        assert_eq!(installed_version(listed, "zstd"), None);
        assert_eq!(installed_version(listed, "xorriso"), None);
    }

    #[test]
    fn every_package_has_a_reason() {
        assert!(PACKAGES.iter().all(|package| package.reason.len() > 8));
    }
}
