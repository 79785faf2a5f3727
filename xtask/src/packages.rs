//! The packages that the VM tests install in an environment of `debian-13`, as a repository for its apt: fetched once, with all that
//! they need beyond what the template has, by an apt of our own (see `setup::tools`). The host itself gets none of them.

use std::{fs, path::Path, process::Command};

use anyhow::{Context, Result};
use lodge_qemu_tests::artifacts::Debian;

use crate::{
    image::{Builder, stamp::Key},
    progress::{Console, Progress, output, run},
    setup::{apt, tools},
    template::{self, Name},
};

/// What people run on servers of their own, each with what it is for.
const PACKAGES: [(&str, &str); 7] = [
    ("fcgiwrap", "CGI scripts of the web server"),
    ("gcc", "a compiler"),
    ("libc6-dev", "what it compiles against"),
    ("nginx", "a web server"),
    ("postfix", "a mail server"),
    ("tigervnc-standalone-server", "an X server with remote access"),
    ("vsftpd", "an FTP server"),
];

/// The template and the packages, built and fetched where they are not there or out of date.
pub fn ensure() -> Result<Debian> {
    let progress = Console::new()?;
    let mut templates = template::ensure(&progress, &[Name::Debian13])?;
    let template = templates.pop().context("no template was built")?;
    let mut builder = Builder::open(&progress, 1)?;
    let repository = builder.at("packages/debian-13");
    let key = Key::new("packages 1").text(&PACKAGES.map(|(name, _)| name).join("\n")).look(&template)?.finish();
    let index = repository.join("Packages");
    builder.step("packages", &key, &[index], |builder| fetch(&progress, &builder.cache("apt"), &template, &repository))?;
    Ok(Debian { template, repository, packages: PACKAGES.map(|(name, _)| name.to_owned()).to_vec() })
}

fn fetch(progress: &dyn Progress, home: &Path, template: &Path, repository: &Path) -> Result<()> {
    let partial = repository.with_extension("partial");
    for dir in [&partial, repository] {
        if dir.exists() {
            fs::remove_dir_all(dir).with_context(|| format!("clearing {}", dir.display()))?;
        }
    }
    fs::create_dir_all(partial.join("partial")).with_context(|| format!("making {}", partial.display()))?;
    tools::own_apt(home, &apt::Mirrors::of_machine()?)?;
    // What the template has is not fetched: its own list of packages says so to apt.
    let status = home.join("state/template-status");
    let list = output(Command::new("tar").args(["--zstd", "-xOf"]).arg(template).arg("./var/lib/dpkg/status"));
    fs::write(&status, list.context("reading the template's list of packages")?).context("writing a list of packages")?;
    run(progress, tools::apt_get(home).args(["-q", "update"])).context("reading the package lists of Debian 13")?;
    let mut install = tools::apt_get(home);
    for (key, path) in [("Dir::State::status", &status), ("Dir::Cache::archives", &partial)] {
        install.arg("-o").arg(format!("{key}={}", path.display()));
    }
    install.args(["-q", "-y", "--no-install-recommends", "--download-only", "install"]);
    run(progress, install.args(PACKAGES.map(|(name, _)| name))).context("fetching packages of Debian 13")?;
    let index = output(Command::new("dpkg-scanpackages").arg(".").current_dir(&partial)).context("listing the packages")?;
    fs::write(partial.join("Packages"), index).context("writing the list of the repository")?;
    fs::rename(&partial, repository).with_context(|| format!("putting {} into place", repository.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_package_has_a_reason() {
        assert!(PACKAGES.is_sorted() && PACKAGES.iter().all(|(_, reason)| reason.len() > 8));
    }
}
