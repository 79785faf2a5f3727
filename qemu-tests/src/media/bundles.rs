//! Bundles with one thing wrong, made from the good one with the host's tar and gzip.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, anyhow};
use lodge_model::bundle::{MANIFEST, MEMBERS, ROOT, SIGNATURE};
use ring::signature::Ed25519KeyPair;

use super::run;

/// The members of a bundle, unpacked. The directory goes when this is dropped.
pub struct Unpacked {
    dir: tempfile::TempDir,
}

impl Unpacked {
    /// Unpack a bundle next to where its variants will be.
    pub fn new(bundle: &Path, beside: &Path) -> Result<Self> {
        let dir = tempfile::tempdir_in(beside).with_context(|| format!("making a directory in {}", beside.display()))?;
        run(Command::new("tar").arg("-xzf").arg(bundle).arg("-C").arg(dir.path()))?;
        Ok(Self { dir })
    }

    /// The same bundle whose manifest another key has signed.
    pub fn signed_by_a_stranger(&self, target: &Path) -> Result<()> {
        let key = Ed25519KeyPair::from_seed_unchecked(&[42; 32]).map_err(|error| anyhow!("making a key: {error}"))?;
        let manifest = fs::read(self.member(MANIFEST)).context("reading the manifest")?;
        self.with_changed(SIGNATURE, |signature| signature.copy_from_slice(key.sign(&manifest).as_ref()), target)
    }

    /// The same bundle with one bit of the root file system turned.
    pub fn with_a_flipped_bit(&self, target: &Path) -> Result<()> {
        self.with_changed(ROOT, |root| root[root.len() / 2] ^= 1, target)
    }

    /// Pack it with one member changed, and put the member back as it was.
    fn with_changed(&self, name: &str, change: impl FnOnce(&mut [u8]), target: &Path) -> Result<()> {
        let member = self.member(name);
        let good = fs::read(&member).with_context(|| format!("reading {name}"))?;
        let mut bad = good.clone();
        change(&mut bad);
        fs::write(&member, bad).with_context(|| format!("writing {name}"))?;
        let packed = self.pack(target);
        fs::write(&member, good).with_context(|| format!("writing {name}"))?;
        packed
    }

    fn pack(&self, target: &Path) -> Result<()> {
        let mut tar = Command::new("tar");
        tar.args(["--format=ustar", "--owner=0", "--group=0", "--use-compress-program=gzip -1", "-cf"]);
        run(tar.arg(target).arg("-C").arg(self.dir.path()).args(MEMBERS))
    }

    fn member(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_variant_differs_from_the_bundle_in_one_member() {
        let dir = tempfile::tempdir().unwrap();
        let parts = dir.path().join("parts");
        fs::create_dir(&parts).unwrap();
        for name in MEMBERS {
            fs::write(parts.join(name), [7; 64]).unwrap();
        }
        let bundle = dir.path().join("good.tar.gz");
        run(Command::new("tar").arg("-czf").arg(&bundle).arg("-C").arg(&parts).args(MEMBERS)).unwrap();
        let unpacked = Unpacked::new(&bundle, dir.path()).unwrap();
        let variant = dir.path().join("bad.tar.gz");
        type Make = fn(&Unpacked, &Path) -> Result<()>;
        let makes: [(Make, &str); 2] = [(Unpacked::signed_by_a_stranger, SIGNATURE), (Unpacked::with_a_flipped_bit, ROOT)];
        for (make, changed) in makes {
            make(&unpacked, &variant).unwrap();
            let bad = Unpacked::new(&variant, dir.path()).unwrap();
            for name in MEMBERS {
                let same = fs::read(bad.member(name)).unwrap() == [7; 64];
                assert_eq!(same, name != changed, "{name}");
            }
        }
    }
}
