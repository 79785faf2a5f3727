//! What the rack boots and runs: the files that a user gets, and the firmware of its machines.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

/// Paths of everything; all exist.
#[derive(Clone, Debug)]
pub struct Artifacts {
    /// Where everything that is left behind goes: the project's `out/`.
    pub out: PathBuf,
    /// OVMF's code.
    pub firmware: PathBuf,
    /// OVMF's variables as they leave the factory.
    pub variables: PathBuf,
    /// The `lodge` command.
    pub cli: PathBuf,
    /// Makes what only tests of a whole Debian need, the first time somebody asks.
    pub debian: fn() -> Result<Debian>,
    /// Makes the program that tries in an environment what it must not be able to do (`sys/src/bin/probe.rs`), linked statically.
    pub probe: fn() -> Result<PathBuf>,
}

/// A template that is a whole Debian, and packages to install in it.
#[derive(Clone, Debug)]
pub struct Debian {
    /// Its root tarball.
    pub template: PathBuf,
    /// A directory that apt reads as a flat repository.
    pub repository: PathBuf,
    /// Names of the packages in it; what they need is there too.
    pub packages: Vec<String>,
}

impl Artifacts {
    /// Check that all is there: a missing file is an error here, never a test that passes without it.
    pub fn checked(self) -> Result<Self> {
        for path in [&self.firmware, &self.variables, &self.cli, &self.iso(), &self.uki(), &self.bundle(), &self.tiny()] {
            if !path.exists() {
                bail!(
                    "{} is missing; `cargo xtask image` makes what is built, `cargo xtask setup` fetches the rest",
                    path.display()
                );
            }
        }
        Ok(self)
    }

    /// The ISO.
    pub fn iso(&self) -> PathBuf {
        self.out.join("lodge.iso")
    }

    /// The unified kernel image.
    pub fn uki(&self) -> PathBuf {
        self.out.join("lodge.efi")
    }

    /// The bundle.
    pub fn bundle(&self) -> PathBuf {
        self.out.join(lodge_model::paths::BUNDLE_NAME)
    }

    /// Root tarball of the small template.
    pub fn tiny(&self) -> PathBuf {
        self.out.join("templates/tiny.tar.gz")
    }

    /// Where a rack's machines live: consoles, disks, logs.
    pub fn rack(&self, name: &str) -> PathBuf {
        self.out.join("rack").join(name)
    }
}

/// Bytes of a file.
pub fn size(path: &Path) -> Result<u64> {
    use anyhow::Context as _;
    Ok(std::fs::metadata(path).with_context(|| format!("looking at {}", path.display()))?.len())
}
