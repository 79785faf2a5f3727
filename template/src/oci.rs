//! Image archives of containers: an OCI image layout in a tar (image-spec, `image-layout.md`), or what `docker save` writes. The layers
//! of one image are laid over each other; every blob's digest is checked.

use std::io::Read;

use anyhow::{Context as _, Result, bail};
use lodge_model::ids::Digest;
use oci_spec::image::{Arch, Descriptor, ImageConfiguration, ImageIndex, ImageManifest, MediaType, Os};
use serde::Deserialize;

use crate::{
    Limits, archive,
    layer::{self, Style},
    tree::Tree,
};

/// Bytes of an index, manifest or configuration, at most.
const DOCUMENT: u64 = 4 << 20;
/// Indexes within indexes.
const DEPTH: usize = 4;

/// One image in `manifest.json` of `docker save`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Saved {
    config: String,
    layers: Vec<String>,
}

/// A layer as it lies in the archive.
#[derive(Debug)]
struct Layer {
    path: String,
    /// Digest and size as the manifest says, where it does.
    named: Option<(String, u64)>,
}

/// Whether the archive is an image, not a root.
pub fn is_image(archive: &Tree) -> bool {
    let has = |path: &str| archive.get(path.as_bytes()).is_some();
    let is_layout = has("oci-layout") && has("index.json");
    let is_saved = has("manifest.json") && !has("sbin") && !has("usr");
    is_layout || is_saved
}

/// Lay the layers of the one image over each other.
pub fn flatten(archive: &Tree, mut root: Tree, limits: Limits) -> Result<Tree> {
    let (config, layers) = if archive.get(b"index.json").is_some() { from_layout(archive)? } else { from_saved(archive)? };
    if !matches!((config.os(), config.architecture()), (Os::Linux, Arch::Amd64)) {
        bail!("the image is for {}/{}; nodes are linux/amd64", config.os(), config.architecture());
    }
    let digests = config.rootfs().diff_ids();
    if digests.len() != layers.len() {
        bail!("the image has {} layers and {} digests of layers", layers.len(), digests.len());
    }
    for (at, (layer, digest)) in layers.iter().zip(digests).enumerate() {
        add(archive, &mut root, layer, digest, limits).with_context(|| format!("layer {} of {}", at + 1, layers.len()))?;
    }
    Ok(root)
}

fn add(archive: &Tree, root: &mut Tree, layer: &Layer, unpacked: &str, limits: Limits) -> Result<()> {
    if let Some((digest, size)) = &layer.named {
        let contents = open(archive, &layer.path)?;
        if contents.left() != *size {
            bail!("/{} has {} bytes, not {size} as the manifest says", layer.path, contents.left());
        }
        check(contents, digest, &layer.path)?;
    }
    root.begin_layer();
    let contents = open(archive, &layer.path)?;
    let found = archive::blob(contents, limits, |stream| layer::apply(stream, root, Style::Layer))?;
    if found.to_string() != unpacked {
        bail!("/{} unpacks to {found}, not {unpacked} as the configuration says", layer.path);
    }
    Ok(())
}

fn from_layout(archive: &Tree) -> Result<(ImageConfiguration, Vec<Layer>)> {
    let index = document(archive, "index.json", None)?;
    let index = ImageIndex::from_reader(index.as_bytes()).context("reading index.json")?;
    let mut manifests = Vec::new();
    collect(archive, &index, DEPTH, &mut manifests)?;
    manifests.dedup_by(|one, other| one.digest() == other.digest());
    let manifest = match manifests.as_slice() {
        [] => bail!("the archive has no image for linux/amd64"),
        [one] => one,
        many => bail!("the archive has {} images for linux/amd64; save one", many.len()),
    };
    let manifest = ImageManifest::from_reader(blob(archive, manifest)?.as_bytes()).context("reading the image's manifest")?;
    let config =
        ImageConfiguration::from_reader(blob(archive, manifest.config())?.as_bytes()).context("reading the configuration")?;
    let layer = |layer: &Descriptor| {
        Ok(Layer { path: blob_path(layer.digest().as_ref())?, named: Some((layer.digest().to_string(), layer.size())) })
    };
    Ok((config, manifest.layers().iter().map(layer).collect::<Result<_>>()?))
}

/// The manifests of images that a node could run. Attestations and the like are for no platform.
fn collect(archive: &Tree, index: &ImageIndex, depth: usize, found: &mut Vec<Descriptor>) -> Result<()> {
    for descriptor in index.manifests() {
        let platform = descriptor.platform().as_ref();
        if platform.is_some_and(|platform| !matches!((platform.os(), platform.architecture()), (Os::Linux, Arch::Amd64))) {
            continue;
        }
        let is_list = match descriptor.media_type() {
            MediaType::ImageIndex => true,
            MediaType::Other(name) => name.contains("manifest.list"),
            _ => false,
        };
        if !is_list {
            found.push(descriptor.clone());
            continue;
        }
        if depth == 0 {
            bail!("the archive has indexes within indexes without end");
        }
        let inner = ImageIndex::from_reader(blob(archive, descriptor)?.as_bytes()).context("reading an index")?;
        collect(archive, &inner, depth - 1, found)?;
    }
    Ok(())
}

fn from_saved(archive: &Tree) -> Result<(ImageConfiguration, Vec<Layer>)> {
    let text = document(archive, "manifest.json", None)?;
    let mut saved: Vec<Saved> = serde_json::from_str(&text).context("reading manifest.json")?;
    let saved = match (saved.len(), saved.pop()) {
        (1, Some(one)) => one,
        (count, _) => bail!("the archive has {count} images; save one"),
    };
    // Its name is its digest, as `<digits>.json` or `blobs/sha256/<digits>`.
    let name = saved.config.rsplit('/').next().unwrap_or_default().trim_end_matches(".json");
    let config = document(archive, &saved.config, Some(&format!("sha256:{name}")))?;
    let config = ImageConfiguration::from_reader(config.as_bytes()).context("reading the configuration")?;
    Ok((config, saved.layers.into_iter().map(|path| Layer { path, named: None }).collect()))
}

fn blob(archive: &Tree, descriptor: &Descriptor) -> Result<String> {
    let digest = descriptor.digest().to_string();
    document(archive, &blob_path(&digest)?, Some(&digest))
}

fn blob_path(digest: &str) -> Result<String> {
    let digest: Digest = digest.parse().with_context(|| format!("{digest:?} is no digest that can be checked here"))?;
    Ok(format!("blobs/sha256/{}", digest.hex()))
}

fn document(archive: &Tree, path: &str, digest: Option<&str>) -> Result<String> {
    if let Some(digest) = digest {
        check(open(archive, path)?, digest, path)?;
    }
    archive.text(path, DOCUMENT)?.with_context(|| format!("the archive has no /{path}"))
}

fn open<'a>(archive: &'a Tree, path: &str) -> Result<crate::tree::Contents<'a>> {
    archive
        .open(path.as_bytes())
        .with_context(|| format!("the archive has no /{path}: it is cut off or was put together by hand"))
}

fn check(mut contents: impl Read, digest: &str, path: &str) -> Result<()> {
    let found = archive::digest(&mut contents).with_context(|| format!("reading /{path} of the archive"))?;
    if found.to_string() != digest {
        bail!("/{path} has the digest {found}, not {digest}: the archive is damaged or forged");
    }
    Ok(())
}
