//! The bundle: where it comes from, and its verification while it streams. The manifest's signature is checked before anything in it
//! is believed, and every part's length and SHA-256 while it passes; nothing is ever held whole in memory but the manifest.

pub mod http;
mod stream;

use std::{
    fs::File,
    io::{self, Read, Seek as _, Write as _},
    path::PathBuf,
};

use anyhow::{Context as _, Result, bail};
use lodge_model::{
    bundle::{Manifest, ROOT, UKI, VERITY},
    facts::human_bytes,
    ids::unhex,
    layout::{self, MIB},
};

pub use stream::Stream;

/// Greatest UKI, in bytes.
pub const UKI_MAX: u64 = 64 * MIB;
/// Memory that must stay free when a bundle is kept in it, in bytes.
const SPARE_MEMORY: u64 = 320 * MIB;
/// How often a stream that was cut is begun anew before it is an error.
pub const TRIES: u32 = 4;

/// Where a bundle is.
#[derive(Debug)]
pub enum Source {
    /// A file, as on a medium.
    File(PathBuf),
    /// `http://…`
    Http(String),
    /// Kept in memory after it was verified there.
    Memory(File),
}

impl Source {
    /// For people.
    pub fn describe(&self) -> String {
        match self {
            Source::File(path) => path.display().to_string(),
            Source::Http(url) => url.clone(),
            Source::Memory(_) => "the verified copy in memory".to_owned(),
        }
    }

    /// Its bytes from the start, and how many they are where that is known.
    pub fn open(&self) -> Result<(Box<dyn Read>, Option<u64>)> {
        match self {
            Source::File(path) => {
                let file = File::open(path).with_context(|| format!("opening {}", path.display()))?;
                let length = file.metadata().with_context(|| format!("looking at {}", path.display()))?.len();
                Ok((Box::new(file), Some(length)))
            }
            Source::Http(url) => {
                let body = http::Body::open(url)?;
                let length = body.length();
                Ok((Box::new(body), length))
            }
            Source::Memory(file) => {
                let mut file = file.try_clone().context("sharing the copy in memory")?;
                file.rewind().context("going to the start of the copy in memory")?;
                let length = file.metadata().context("looking at the copy in memory")?.len();
                Ok((Box::new(file), Some(length)))
            }
        }
    }
}

/// The key that bundles must be signed with.
#[derive(Clone, Debug)]
pub struct ReleaseKey(Vec<u8>);

impl ReleaseKey {
    /// From 64 hexadecimal digits.
    pub fn parse(text: &str) -> Result<Self> {
        match unhex(text.trim()) {
            Some(key) if key.len() == 32 => Ok(Self(key)),
            _ => bail!("the release key is not 64 hexadecimal digits"),
        }
    }

    /// Check the signature of a manifest and read it.
    pub fn open(&self, manifest: &[u8], signature: &[u8]) -> Result<Manifest> {
        let key = ring::signature::UnparsedPublicKey::new(&ring::signature::ED25519, &self.0);
        if key.verify(manifest, signature).is_err() {
            bail!(
                "the bundle's manifest is not signed by the release key of this installer; the bundle is refused and nothing is written"
            );
        }
        let manifest = Manifest::parse(manifest)?;
        check_sizes(&manifest)?;
        Ok(manifest)
    }
}

fn check_sizes(manifest: &Manifest) -> Result<()> {
    for (name, most) in [(UKI, UKI_MAX), (VERITY, layout::VERITY_SIZE), (ROOT, layout::ROOT_SIZE)] {
        let size = manifest.part(name).map_or(0, |part| part.size);
        if size == 0 || size > most {
            bail!(
                "the bundle's {name} has {}; it must have more than none and at most {}",
                human_bytes(size),
                human_bytes(most)
            );
        }
    }
    Ok(())
}

/// The manifest alone.
pub fn manifest(source: &Source, key: &ReleaseKey) -> Result<Manifest> {
    let read = || Ok(Stream::open(source.open()?.0, key)?.manifest().clone());
    again(&read).with_context(|| format!("reading the bundle {}", source.describe()))
}

/// Read the whole bundle and verify every part, writing nothing to any disk. Where the memory allows it a bundle that came over the
/// network is kept there, so that it is not fetched twice; the source to use from now on is returned.
pub fn verify(source: Source, key: &ReleaseKey, memory: u64, progress: &mut dyn FnMut(u64, u64)) -> Result<Source> {
    let mut verify = || verify_once(&source, key, memory, progress);
    let mut tries = 1;
    let kept = loop {
        match verify() {
            Err(error) if is_cut(&error) && tries < TRIES => tries += 1,
            result => break result.with_context(|| format!("verifying the bundle {}", source.describe()))?,
        }
    };
    Ok(kept.unwrap_or(source))
}

fn verify_once(source: &Source, key: &ReleaseKey, memory: u64, progress: &mut dyn FnMut(u64, u64)) -> Result<Option<Source>> {
    let (bytes, length) = source.open()?;
    let room = memory.saturating_sub(SPARE_MEMORY);
    let keep = matches!(source, Source::Http(_)) && length.is_some_and(|length| length <= room);
    let copy = if keep { Some(memory_file()?) } else { None };
    let mut stream = Stream::open(Box::new(Tee { bytes, copy }), key)?;
    let sizes: u64 = stream.manifest().parts.iter().map(|part| part.size).sum();
    let mut done = 0;
    for name in [UKI, VERITY, ROOT] {
        stream.part(name, &mut |piece| {
            done += piece.len() as u64;
            progress(done, sizes);
            Ok(())
        })?;
    }
    stream.finish()?;
    if !keep {
        return Ok(None);
    }
    // The copy is read by the same code as any other source, so it needs no trust.
    Ok(stream.into_inner().copy.map(Source::Memory))
}

fn memory_file() -> Result<File> {
    let flags = nix::sys::memfd::MFdFlags::MFD_CLOEXEC;
    Ok(File::from(nix::sys::memfd::memfd_create("bundle", flags).context("making a file in memory")?))
}

/// Passes bytes through and keeps a copy.
struct Tee {
    bytes: Box<dyn Read>,
    copy: Option<File>,
}

impl Read for Tee {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.bytes.read(buffer)?;
        if let Some(copy) = &mut self.copy {
            copy.write_all(buffer.get(..read).unwrap_or_default())?;
        }
        Ok(read)
    }
}

/// Do it again when the network was cut, a few times.
pub fn again<T>(work: &dyn Fn() -> Result<T>) -> Result<T> {
    let mut tries = 1;
    loop {
        match work() {
            Err(error) if is_cut(&error) && tries < TRIES => tries += 1,
            result => return result,
        }
    }
}

/// Whether it was the network that failed, and not what came over it.
pub fn is_cut(error: &anyhow::Error) -> bool {
    error.chain().filter_map(|cause| cause.downcast_ref::<io::Error>()).any(|error| error.kind() == http::CUT)
}

#[cfg(test)]
pub mod tests;
