//! Templates of environments, as root tarballs to be imported: what `templates/` defines, built by mkosi as the base OS is.
//!
//! It assumes what the image's build assumes and shares its packages, its stamps and its lock. It never makes erofs of them: that is
//! done by the node that imports one, as for everybody's templates.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use clap::ValueEnum;

use crate::{
    image::{self, Builder, mkosi, stamp::Key},
    progress::{Console, Progress},
    setup::{self, apt},
};

/// A template that can be built here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Name {
    /// sysvinit, ssh and nginx: for tests and density.
    Tiny,
    /// Debian 13 with systemd, ssh and apt.
    #[value(name = "debian-13")]
    Debian13,
}

impl Name {
    /// Its name, and that of its directory below `templates/`.
    pub fn text(self) -> &'static str {
        match self {
            Name::Tiny => "tiny",
            Name::Debian13 => "debian-13",
        }
    }

    /// How its tarball's name ends: gzip for what is small, zstd for what is big.
    fn suffix(self) -> &'static str {
        match self {
            Name::Tiny => "tar.gz",
            Name::Debian13 => "tar.zst",
        }
    }
}

/// `cargo xtask template`: build these, all where none is named, and say where they are.
pub fn run(names: &[Name], refresh: bool) -> Result<()> {
    let names = if names.is_empty() { Name::value_variants() } else { names };
    if refresh {
        names.iter().try_for_each(|name| image::forget(&step(*name)))?;
    }
    for path in ensure(&Console::new()?, names)? {
        let size = fs::metadata(&path).with_context(|| format!("looking at {}", path.display()))?.len();
        println!("{:8.1} MiB  {}", size as f64 / f64::from(1 << 20), path.display());
    }
    Ok(())
}

/// Build what is not there or out of date, and return the tarballs in the same order.
pub fn ensure(progress: &dyn Progress, names: &[Name]) -> Result<Vec<PathBuf>> {
    setup::ensure(progress, &image::out_dir())?;
    let mut builder = Builder::open(progress, names.len())?;
    names.iter().map(|name| ensure_one(&mut builder, *name)).collect()
}

fn step(name: Name) -> String {
    format!("template {}", name.text())
}

fn ensure_one(builder: &mut Builder, name: Name) -> Result<PathBuf> {
    let definitions = builder.source().join("templates").join(name.text());
    let (dir, file) = (builder.at("templates"), format!("{}.{}", name.text(), name.suffix()));
    let target = dir.join(&file);
    let sources = apt::Mirrors::of_machine()?.for_others();
    let key = Key::new("template 1").dir(&definitions)?.text(sources.as_deref().unwrap_or_default()).text(&mkosi::epoch());
    builder.step(&step(name), &key.finish(), std::slice::from_ref(&target), |builder| {
        let extra = builder.cache("template-apt");
        write_sources(&extra, sources.as_deref())?;
        let results = mkosi::build(builder, &definitions, &["--skeleton-tree", &extra.to_string_lossy()])?;
        let made = results.join(&file);
        fs::create_dir_all(&dir).with_context(|| format!("making {}", dir.display()))?;
        fs::rename(&made, &target).with_context(|| format!("putting {} into place", target.display()))
    })?;
    Ok(target)
}

/// Where the environment's own apt gets its packages: a tree of its own, so that no host name stands in the definitions.
/// Without it mkosi writes Debian's own addresses.
fn write_sources(extra: &Path, sources: Option<&str>) -> Result<()> {
    let path = extra.join("etc/apt/sources.list.d/trixie.sources");
    if extra.exists() {
        fs::remove_dir_all(extra).with_context(|| format!("clearing {}", extra.display()))?;
    }
    fs::create_dir_all(path.parent().unwrap_or(extra)).with_context(|| format!("making {}", extra.display()))?;
    match sources {
        Some(text) => fs::write(&path, text).with_context(|| format!("writing {}", path.display())),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use lodge_model::environment::order::TemplateMeta;

    use super::*;

    fn read(name: Name, path: &str) -> String {
        fs::read_to_string(image::source_dir().join("templates").join(name.text()).join(path)).unwrap()
    }

    #[test]
    fn every_template_says_what_a_node_must_know() {
        for name in Name::value_variants() {
            let meta: TemplateMeta = toml::from_str(&read(*name, "mkosi.extra/lodge-template.toml")).unwrap();
            assert!(meta.movable && !meta.description.is_empty(), "{name:?}");
        }
        let tiny: TemplateMeta = toml::from_str(&read(Name::Tiny, "mkosi.extra/lodge-template.toml")).unwrap();
        assert_eq!(tiny.stop_signal, nix::sys::signal::Signal::SIGPWR as i32);
        assert!(read(Name::Tiny, "mkosi.extra/etc/inittab").lines().any(|line| line.starts_with("pf::powerfail:")));
    }

    #[test]
    fn host_keys_never_come_with_a_template_and_passwords_never_let_root_in() {
        for name in Name::value_variants() {
            assert!(read(*name, "mkosi.conf").contains("\n    /etc/ssh/ssh_host_*\n"), "{name:?}");
            assert!(
                read(*name, "mkosi.extra/etc/ssh/sshd_config.d/lodge.conf").contains("\nPermitRootLogin prohibit-password\n")
            );
        }
    }
}
