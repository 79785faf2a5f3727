//! The bundle that nodes are installed from: the newest `lodge-os-*.tar.gz` in `DATA/bundles`, and `lodge.efi` out of it.
//!
//! The boot file is taken out once, under the name of its digest, and only after it has been checked against the manifest.
//! Whether the manifest's signature is good is for the installer to say, which holds the release key; a center may be a plain
//! program on a machine that has none.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use anyhow::{Context, bail, ensure};
use flate2::read::GzDecoder;
use lodge_model::bundle::{MANIFEST, MANIFEST_MAX, Manifest, SIGNATURE, UKI};
use lodge_model::ids::hex;
use sha2::{Digest, Sha256};

use crate::files;

/// A boot file is never longer than this: four times what Lodge promises.
const UKI_MAX: u64 = 256 << 20;

/// A bundle that can be installed from.
#[derive(Debug, PartialEq, Eq)]
pub struct Bundle {
    /// Version of the base OS.
    pub version: String,
    /// The bundle itself.
    pub path: PathBuf,
    /// The boot file taken out of it.
    pub uki: PathBuf,
    found: Found,
}

/// What tells one file from another without reading it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Found {
    modified: SystemTime,
    path: PathBuf,
    size: u64,
}

/// The directory of bundles, looked at whenever somebody asks: a bundle that is put there is used from then on.
pub struct Bundles {
    dir: PathBuf,
    boot: PathBuf,
    current: Mutex<Option<Outcome>>,
}

struct Outcome {
    found: Found,
    result: Result<Arc<Bundle>, String>,
}

impl Bundles {
    /// Of a center's data directory.
    pub fn new(data: &Path) -> anyhow::Result<Self> {
        let (dir, boot) = (data.join("bundles"), data.join("boot"));
        for dir in [&dir, &boot] {
            fs::create_dir_all(dir).with_context(|| format!("making {}", dir.display()))?;
        }
        Ok(Self { dir, boot, current: Mutex::new(None) })
    }

    /// The newest bundle, or in words why there is none. Blocks while a new one is read.
    pub fn newest(&self) -> Result<Arc<Bundle>, String> {
        let found = match find(&self.dir) {
            Ok(Some(found)) => found,
            Ok(None) => {
                return Err(format!("the center has no bundle: put lodge-os-VERSION.tar.gz into {}", self.dir.display()));
            }
            Err(error) => return Err(format!("the center cannot look for bundles: {error:#}")),
        };
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = current.as_ref().filter(|known| known.found == found) {
            return known.result.clone();
        }
        let result = self.open(&found);
        let result = match result {
            Ok(bundle) => {
                tracing::info!("bundle {} ({}) is ready", bundle.version, bundle.path.display());
                self.sweep(&bundle);
                Ok(Arc::new(bundle))
            }
            Err(error) => {
                tracing::error!("bundle {}: {error:#}", found.path.display());
                Err(format!("the center's bundle {} is no good: {error:#}; replace it", found.path.display()))
            }
        };
        *current = Some(Outcome { found, result: result.clone() });
        result
    }

    fn open(&self, found: &Found) -> anyhow::Result<Bundle> {
        let file = File::open(&found.path).with_context(|| format!("opening {}", found.path.display()))?;
        let mut archive = tar::Archive::new(GzDecoder::new(file));
        let mut members = archive.entries().context("reading the archive")?;
        let mut next = |name: &str| -> anyhow::Result<_> {
            let member = members.next().with_context(|| format!("{name} is missing"))?.context("reading the archive")?;
            let path = member.path().context("reading a member's name")?.into_owned();
            ensure!(path == Path::new(name), "it holds {} where {name} belongs", path.display());
            Ok(member)
        };
        let mut manifest = Vec::new();
        next(MANIFEST)?.take(MANIFEST_MAX).read_to_end(&mut manifest).context("reading the manifest")?;
        let manifest = Manifest::parse(&manifest)?;
        let part = manifest.part(UKI).context("the manifest names no boot file")?;
        ensure!(part.size <= UKI_MAX, "its boot file is longer than {UKI_MAX} bytes");
        next(SIGNATURE)?;
        let uki = self.boot.join(format!("{}.efi", part.sha256));
        if fs::metadata(&uki).map(|file| file.len()).ok() != Some(part.size) {
            extract(&mut next(UKI)?, part.size, &part.sha256, &uki)?;
        }
        Ok(Bundle { version: manifest.version, path: found.path.clone(), uki, found: found.clone() })
    }

    /// Boot files of former bundles go. One that is being served stays readable for whoever has it open.
    fn sweep(&self, bundle: &Bundle) {
        let Ok(entries) = fs::read_dir(&self.boot) else { return };
        for path in entries.flatten().map(|entry| entry.path()).filter(|path| *path != bundle.uki) {
            if let Err(error) = fs::remove_file(&path) {
                tracing::warn!("removing {}: {error}", path.display());
            }
        }
    }
}

fn find(dir: &Path) -> anyhow::Result<Option<Found>> {
    let mut newest = None;
    for entry in fs::read_dir(dir).with_context(|| format!("listing {}", dir.display()))? {
        let path = entry.with_context(|| format!("listing {}", dir.display()))?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if !name.starts_with("lodge-os-") || !name.ends_with(".tar.gz") {
            continue;
        }
        let metadata = fs::metadata(&path).with_context(|| format!("looking at {}", path.display()))?;
        let modified = metadata.modified().with_context(|| format!("looking at {}", path.display()))?;
        newest = newest.max(Some(Found { modified, path, size: metadata.len() }));
    }
    Ok(newest)
}

fn extract(from: &mut impl Read, size: u64, sha256: &str, to: &Path) -> anyhow::Result<()> {
    let beside = files::temporary(to);
    let mut file = File::create(&beside).with_context(|| format!("making {}", beside.display()))?;
    let (mut digest, mut total, mut buffer) = (Sha256::new(), 0u64, vec![0; 1 << 16]);
    loop {
        let count = from.read(&mut buffer).context("reading the boot file from the bundle")?;
        if count == 0 {
            break;
        }
        total += count as u64;
        ensure!(total <= size, "its boot file is longer than the manifest says");
        digest.update(&buffer[..count]);
        file.write_all(&buffer[..count]).with_context(|| format!("writing {}", beside.display()))?;
    }
    let digest = hex(&digest.finalize());
    if total != size || !digest.eq_ignore_ascii_case(sha256) {
        bail!("its boot file is damaged: {total} bytes with sha256 {digest}, expected {size} bytes with {sha256}");
    }
    file.sync_all().with_context(|| format!("syncing {}", beside.display()))?;
    files::finish(&beside, to)
}

#[cfg(test)]
mod tests {
    use super::*;
    use lodge_model::bundle::{Part, ROOT, SCHEMA, VERITY};

    fn write_bundle(dir: &Path, version: &str, uki: &[u8], damage: bool) {
        let part = |name: &str, bytes: &[u8]| Part {
            name: name.into(),
            size: bytes.len() as u64,
            sha256: hex(&Sha256::digest(bytes)),
        };
        let parts = vec![part(UKI, uki), part(VERITY, b"tree"), part(ROOT, b"root")];
        let manifest = Manifest { schema: SCHEMA, version: version.into(), roothash: "11".repeat(32), parts };
        let manifest = serde_json::to_vec(&manifest).unwrap();
        let mut uki = uki.to_vec();
        if damage {
            uki[0] ^= 1;
        }
        let file = File::create(dir.join(format!("lodge-os-{version}.tar.gz"))).unwrap();
        let mut archive = tar::Builder::new(flate2::write::GzEncoder::new(file, flate2::Compression::fast()));
        let members: [(&str, &[u8]); 5] =
            [(MANIFEST, &manifest), (SIGNATURE, &[0; 64]), (UKI, &uki), (VERITY, b"tree"), (ROOT, b"root")];
        for (name, bytes) in members {
            let mut header = tar::Header::new_ustar();
            header.set_size(bytes.len() as u64);
            header.set_mode(0o644);
            archive.append_data(&mut header, name, bytes).unwrap();
        }
        archive.into_inner().unwrap().finish().unwrap();
    }

    #[test]
    fn the_newest_bundle_is_used_and_its_boot_file_taken_out() {
        let data = tempfile::tempdir().unwrap();
        let bundles = Bundles::new(data.path()).unwrap();
        assert!(bundles.newest().unwrap_err().contains("lodge-os-VERSION.tar.gz"));
        write_bundle(&data.path().join("bundles"), "0.1.0", b"first", false);
        let first = bundles.newest().unwrap();
        assert_eq!((first.version.as_str(), fs::read(&first.uki).unwrap().as_slice()), ("0.1.0", b"first".as_slice()));
        write_bundle(&data.path().join("bundles"), "0.2.0", b"second", false);
        let second = bundles.newest().unwrap();
        assert_eq!((second.version.as_str(), fs::read(&second.uki).unwrap().as_slice()), ("0.2.0", b"second".as_slice()));
        assert!(!first.uki.exists());
    }

    #[test]
    fn a_damaged_boot_file_is_refused_and_not_left_behind() {
        let data = tempfile::tempdir().unwrap();
        let bundles = Bundles::new(data.path()).unwrap();
        write_bundle(&data.path().join("bundles"), "0.1.0", b"first", true);
        let error = bundles.newest().unwrap_err();
        assert!(error.contains("damaged"), "{error}");
        let left = fs::read_dir(data.path().join("boot")).unwrap().flatten();
        assert!(!left.into_iter().any(|entry| entry.path().extension().is_some_and(|end| end == "efi")));
    }
}
