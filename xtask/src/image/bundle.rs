//! The bundle: everything an installation writes, in the order in which it can be checked while it streams. See `lodge_model::bundle`.

use std::{
    fs,
    io::Write as _,
    os::unix::fs::{OpenOptionsExt as _, symlink},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, anyhow, bail};
use flate2::{Compression, GzBuilder};
use lodge_model::bundle::{MANIFEST, Manifest, Part, ROOT, SCHEMA, SIGNATURE, UKI, VERITY};
use ring::{
    rand::SystemRandom,
    signature::{Ed25519KeyPair, KeyPair as _},
};

use super::{
    Builder,
    mkosi::epoch,
    root::Root,
    stamp::{Key, hex, sha256},
};

/// The bar of the design: 250 MiB.
pub const MAX: u64 = 250 << 20;
/// The big parts are compressed already: level 1 would save 9 % of the size, and cost inflating at every installation.
const LEVEL: Compression = Compression::none();

/// The key that signs bundles.
pub struct ReleaseKey {
    pair: Ed25519KeyPair,
    /// The public half as a file: 64 hexadecimal digits.
    pub public: PathBuf,
}

impl ReleaseKey {
    /// Read `LODGE_RELEASE_KEY` or out/keys/release.pk8; the latter is made when there is none.
    pub fn ensure(out: &Path) -> Result<Self> {
        let keys = out.join("keys");
        fs::create_dir_all(&keys).with_context(|| format!("making {}", keys.display()))?;
        let named = std::env::var_os("LODGE_RELEASE_KEY").filter(|path| !path.is_empty()).map(PathBuf::from);
        let path = named.clone().unwrap_or_else(|| keys.join("release.pk8"));
        if named.is_none() && !path.exists() {
            make_key(&path)?;
        }
        let document = fs::read(&path).with_context(|| format!("reading the release key {}", path.display()))?;
        let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(&document)
            .map_err(|error| anyhow!("{} is not an Ed25519 key in PKCS#8: {error}", path.display()))?;
        let public = keys.join("release.pub");
        let text = format!("{}\n", hex(pair.public_key().as_ref()));
        if fs::read_to_string(&public).ok().as_deref() != Some(&text) {
            fs::write(&public, text).with_context(|| format!("writing {}", public.display()))?;
        }
        Ok(Self { pair, public })
    }
}

fn make_key(path: &Path) -> Result<()> {
    let document =
        Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).map_err(|_| anyhow!("the system has no random numbers"))?;
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .with_context(|| format!("making {}", path.display()))?;
    file.write_all(document.as_ref()).with_context(|| format!("writing {}", path.display()))
}

/// Make the bundle and the link to it, unless nothing changed. Returns its path and key.
pub fn ensure(
    builder: &mut Builder,
    signer: &ReleaseKey,
    root: &Root,
    uki: (&Path, &str),
    version: &str,
) -> Result<(PathBuf, String)> {
    let bundle = builder.out.join(format!("lodge-os-{version}.tar.gz"));
    let key = Key::new("bundle 1").text(uki.1).text(&root.hash).text(version).file(&signer.public)?.finish();
    builder.step("bundle", &key, std::slice::from_ref(&bundle), |builder| {
        remove_older(&builder.out)?;
        let partial = builder.cache("bundle.partial");
        write(builder, signer, root, uki.0, version, &partial)?;
        fs::rename(&partial, &bundle).with_context(|| format!("putting {} into place", bundle.display()))?;
        let size = fs::metadata(&bundle).with_context(|| format!("looking at {}", bundle.display()))?.len();
        if size > MAX {
            bail!(
                "{} has {size} bytes, more than the {MAX} it may have; take packages or firmware out of the image",
                bundle.display()
            );
        }
        Ok(())
    })?;
    let link = builder.out.join(lodge_model::paths::BUNDLE_NAME);
    let target = bundle.file_name().context("naming the bundle")?;
    if fs::read_link(&link).ok().as_deref() != Some(Path::new(target)) {
        let _ = fs::remove_file(&link); // it may not be there; what matters fails in the next line
        symlink(target, &link).with_context(|| format!("linking {}", link.display()))?;
    }
    Ok((bundle, key))
}

fn remove_older(out: &Path) -> Result<()> {
    for entry in fs::read_dir(out).with_context(|| format!("listing {}", out.display()))? {
        let entry = entry.context("listing bundles")?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with("lodge-os-") && name.ends_with(".tar.gz") {
            fs::remove_file(entry.path()).with_context(|| format!("removing {name}"))?;
        }
    }
    Ok(())
}

fn write(builder: &Builder, signer: &ReleaseKey, root: &Root, uki: &Path, version: &str, target: &Path) -> Result<()> {
    let files = [(UKI, uki), (VERITY, root.verity.as_path()), (ROOT, root.erofs.as_path())];
    let mut parts = Vec::new();
    for (name, path) in files {
        builder.progress.detail(&format!("hashing {name}"));
        let (sha256, size) = sha256(path)?;
        parts.push(Part { name: name.to_owned(), size, sha256 });
    }
    let manifest = Manifest { schema: SCHEMA, version: version.to_owned(), roothash: root.hash.clone(), parts };
    let manifest = serde_json::to_vec_pretty(&manifest).context("writing the manifest")?;
    Manifest::parse(&manifest).context("reading the manifest back")?;
    let signature = signer.pair.sign(&manifest);
    let file = fs::File::create(target).with_context(|| format!("making {}", target.display()))?;
    let gzip = GzBuilder::new().mtime(0).write(std::io::BufWriter::with_capacity(1 << 20, file), LEVEL);
    let mut archive = tar::Builder::new(gzip);
    append(&mut archive, MANIFEST, manifest.len() as u64, manifest.as_slice())?;
    append(&mut archive, SIGNATURE, signature.as_ref().len() as u64, signature.as_ref())?;
    for (name, path) in files {
        builder.progress.detail(&format!("adding {name}"));
        let file = fs::File::open(path).with_context(|| format!("opening {}", path.display()))?;
        let size = file.metadata().with_context(|| format!("looking at {}", path.display()))?.len();
        append(&mut archive, name, size, file)?;
    }
    let gzip = archive.into_inner().context("closing the bundle's archive")?;
    let file = gzip.finish().context("closing the bundle")?.into_inner().context("writing the bundle")?;
    file.sync_all().context("writing the bundle to disk")
}

fn append<W: std::io::Write>(archive: &mut tar::Builder<W>, name: &str, size: u64, content: impl std::io::Read) -> Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_size(size);
    header.set_mode(0o644);
    header.set_mtime(epoch().parse().context("reading SOURCE_DATE_EPOCH")?);
    archive.append_data(&mut header, name, content).with_context(|| format!("adding {name} to the bundle"))
}
