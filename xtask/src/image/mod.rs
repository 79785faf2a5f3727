//! Builds everything that is booted and installed, and only what changed since the last time.
//!
//! ```text
//! mkosi.conf, image/ → Debian tree ─┬─ initrd of Debian's parts ─┐
//!                                   │                            ├→ initrd → UKI → bundle → ISO
//! our programs ─────────────────────┴→ root image → version ─────┘
//! ```
//!
//! It assumes Debian 12 or 13 (`setup` installs the tools) and never needs root: a user namespace stands in for it.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Instant,
};

use anyhow::{Context, Result};

use crate::{
    progress::{Console, Progress},
    setup::{self, tools::Tools},
    space,
};
use stamp::{Key, Stamps};

mod bundle;
mod cpio;
mod elf;
mod initrd;
pub mod iso;
pub mod mkosi;
mod modules;
pub mod programs;
mod root;
pub mod stamp;
mod tree;
mod uki;

pub use tree::STEP as TREE_STEP;

/// Number of steps, as shown.
const STEPS: usize = 10;

/// What `ensure` made.
#[allow(dead_code, reason = "some are read only by demo and test")]
pub struct Artifacts {
    /// Version of the base OS.
    pub version: String,
    /// dm-verity root hash of the root image.
    pub roothash: String,
    /// The UKI: UEFI from network, medium and disk.
    pub efi: PathBuf,
    /// The kernel alone: BIOS.
    pub vmlinuz: PathBuf,
    /// The initrd alone: BIOS.
    pub initrd: PathBuf,
    /// The kernel's command line, where there is no UKI.
    pub command_line: String,
    /// The bundle, by its full name.
    pub bundle: PathBuf,
    /// The medium.
    pub iso: PathBuf,
    /// The public half of the release key.
    pub release_pub: PathBuf,
    /// The `center` and `lodge` programs of the same build, to run on this machine.
    pub programs: PathBuf,
    /// Tools and firmware of Debian 13.
    pub tools: Tools,
}

/// State of one build, handed from step to step.
pub struct Builder<'a> {
    progress: &'a dyn Progress,
    source: PathBuf,
    out: PathBuf,
    stamps: Stamps,
    number: usize,
    steps: usize,
    /// Two builds at once would write the same files.
    _alone: fs::File,
}

/// Build what is not there or out of date. Takes minutes the first time, a second or two when nothing changed.
pub fn ensure(progress: &dyn Progress) -> Result<Artifacts> {
    space::ensure(space::IMAGE)?;
    let mut builder = Builder::open(progress, STEPS)?;
    let tools = builder.always("tools", |builder| setup::ensure(builder.progress, &builder.out))?;
    let programs = builder.always("programs", |builder| programs::build(builder))?;
    let signer = bundle::ReleaseKey::ensure(&builder.out)?;
    let tree = tree::ensure(&mut builder)?;
    let root = root::ensure(&mut builder, &tree, &programs, &signer.public)?;
    let base = initrd::ensure_base(&mut builder, &tree)?;
    let version = version(&root.hash, &base.1);
    let (efi, vmlinuz, initrd, iso) =
        (builder.at("lodge.efi"), builder.at("vmlinuz"), builder.at("initrd"), builder.at("lodge.iso"));
    copy_kernel(&tree, &vmlinuz)?;
    let initrd_key = initrd::ensure(&mut builder, &base, &programs, &signer.public, &version, &initrd)?;
    let command_line = uki::command_line(&version, &root);
    let parts = uki::Parts {
        kernel: &vmlinuz,
        initrd: &initrd,
        initrd_key: &initrd_key,
        command_line: &command_line,
        version: &version,
    };
    let efi_key = uki::ensure(&mut builder, &tools, &tree, &parts, &efi)?;
    let (bundle, bundle_key) = bundle::ensure(&mut builder, &signer, &root, (&efi, &efi_key), &version)?;
    let contents = iso::Contents {
        efi: &efi,
        kernel: &vmlinuz,
        initrd: &initrd,
        command_line: &command_line,
        bundle: &bundle,
        bundle_key: &bundle_key,
    };
    iso::ensure(&mut builder, &contents, &iso)?;
    write_sums(&mut builder, &[&efi, &vmlinuz, &initrd, &bundle, &iso])?;
    let programs = builder.source.join("target/release");
    let release_pub = signer.public;
    Ok(Artifacts {
        version,
        roothash: root.hash,
        efi,
        vmlinuz,
        initrd,
        command_line,
        bundle,
        iso,
        release_pub,
        programs,
        tools,
    })
}

/// The program that VM tests put into environments, built.
pub fn probe() -> Result<PathBuf> {
    programs::probe(&Console::new()?, &source_dir())
}

/// The second build waits. The lock goes with the file that is returned.
fn lock(progress: &dyn Progress, out: &Path) -> Result<fs::File> {
    let path = out.join("cache/lock");
    fs::create_dir_all(out.join("cache")).with_context(|| format!("making {}", out.display()))?;
    let file = fs::File::create(&path).with_context(|| format!("making {}", path.display()))?;
    if file.try_lock().is_err() {
        progress.detail("another build of the image is running; waiting for it");
        file.lock().with_context(|| format!("locking {}", path.display()))?;
    }
    Ok(file)
}

/// Do a step again, whatever was done before.
pub fn forget(step: &str) -> Result<()> {
    Stamps::open(out_dir().join("cache/stamps"))?.forget(step)
}

/// The root of the source tree.
pub fn source_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new(".")).to_path_buf()
}

/// Where everything that is built goes.
pub fn out_dir() -> PathBuf {
    source_dir().join("out")
}

/// The workspace's version and what tells two builds of it apart: `0.1.0-h1a2b3c4d`. The letter keeps the last part from being read as
/// a number. Everything that differs between two images shows in it: the root has our programs, the other key the rest of the initrd.
fn version(roothash: &str, initrd_key: &str) -> String {
    let digits = Key::new("version 1").text(roothash).text(initrd_key).finish();
    format!("{}-h{}", env!("CARGO_PKG_VERSION"), digits.get(..8).unwrap_or_default())
}

fn copy_kernel(tree: &tree::Tree, vmlinuz: &Path) -> Result<()> {
    let kernel = tree::kernel_of(&tree.path);
    let same = match (fs::metadata(&kernel), fs::metadata(vmlinuz)) {
        (Ok(one), Ok(other)) => one.len() == other.len() && stamp::sha256(&kernel)?.0 == stamp::sha256(vmlinuz)?.0,
        _ => false,
    };
    if same { Ok(()) } else { root::install(&kernel, vmlinuz, 0o644) }
}

fn write_sums(builder: &mut Builder, files: &[&Path]) -> Result<()> {
    let sums = builder.at("SHA256SUMS");
    let key = files.iter().try_fold(Key::new("sums 2"), |key, file| key.look(file))?.finish();
    builder.step("checksums", &key, std::slice::from_ref(&sums), |_| {
        let mut text = String::new();
        for file in files {
            text.push_str(&format!("{}  {}\n", stamp::sha256(file)?.0, file.file_name().unwrap_or_default().to_string_lossy()));
        }
        fs::write(&sums, text).with_context(|| format!("writing {}", sums.display()))
    })
}

impl<'a> Builder<'a> {
    /// A build of so many steps; waits until no other one runs.
    pub fn open(progress: &'a dyn Progress, steps: usize) -> Result<Self> {
        let (source, out) = (source_dir(), out_dir());
        let alone = lock(progress, &out)?;
        Ok(Self { progress, source, stamps: Stamps::open(out.join("cache/stamps"))?, out, number: 0, steps, _alone: alone })
    }

    /// The root of the source tree.
    pub fn source(&self) -> &Path {
        &self.source
    }

    /// A path below out/cache.
    pub fn cache(&self, name: &str) -> PathBuf {
        self.out.join("cache").join(name)
    }

    /// A path below out.
    pub fn at(&self, name: &str) -> PathBuf {
        self.out.join(name)
    }

    /// A step that is skipped when its key and outputs are what they were.
    pub fn step(&mut self, name: &str, key: &str, outputs: &[PathBuf], make: impl FnOnce(&Self) -> Result<()>) -> Result<()> {
        let fresh = self.stamps.is_fresh(name, key, outputs);
        self.timed(name, fresh, |builder| {
            if !fresh {
                builder.stamps.forget(name)?;
                make(builder)?;
                builder.stamps.remember(name, key, outputs)?;
            }
            Ok(())
        })
    }

    /// A step that finds out by itself what there is to do.
    pub fn always<T>(&mut self, name: &str, make: impl FnOnce(&Self) -> Result<T>) -> Result<T> {
        self.timed(name, false, make)
    }

    fn timed<T>(&mut self, name: &str, fresh: bool, make: impl FnOnce(&Self) -> Result<T>) -> Result<T> {
        self.number += 1;
        self.progress.step(self.number, self.steps, name);
        let started = Instant::now();
        let made = make(self)?;
        self.progress.done(name, started.elapsed(), fresh);
        Ok(made)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_package_of_the_image_has_its_reason() {
        let read = |name: &str| fs::read_to_string(source_dir().join(name)).unwrap();
        let definitions = read("image/mkosi.conf");
        let list = definitions.split_once("\nPackages=\n").unwrap().1;
        let packages: Vec<&str> = list.lines().take_while(|line| line.starts_with(' ')).map(str::trim).collect();
        let readme = read("image/README.md");
        let table = readme.split_once("| package | why it is on a node |\n|---|---|\n").unwrap().1;
        let rows = table.lines().take_while(|line| line.starts_with('|'));
        let reasons: Vec<&str> = rows.map(|row| row.trim_start_matches("| ").split(" | ").next().unwrap()).collect();
        assert!(packages.len() > 20);
        assert_eq!(packages, reasons);
        assert!(packages.is_sorted());
    }

    #[test]
    fn a_version_is_one_that_everybody_accepts_and_follows_its_inputs() {
        let made = version("11", "22");
        assert!(lodge_model::bundle::is_version(&made), "{made}");
        assert_eq!(made, version("11", "22"));
        assert_ne!(made, version("12", "22"));
        assert_ne!(made, version("11", "23"));
    }
}
