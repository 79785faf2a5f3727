//! One pass over a bundle: gzip, then tar, member by member in the order of `lodge_model::bundle::MEMBERS`.

use std::io::{self, Read};

use anyhow::{Context as _, Result, bail};
use flate2::bufread::GzDecoder;
use lodge_model::{
    bundle::{MANIFEST, MANIFEST_MAX, Manifest, SIGNATURE},
    ids::hex,
};
use ring::digest;

use super::ReleaseKey;

const BLOCK: u64 = 512;
const PIECE: usize = 1 << 20;
const SIGNATURE_LENGTH: u64 = 64;

/// A bundle that is being read. Its manifest has been verified.
pub struct Stream<R: Read> {
    bytes: GzDecoder<io::BufReader<R>>,
    manifest: Manifest,
}

impl<R: Read> Stream<R> {
    /// Read and verify the manifest; nothing after it has been looked at.
    pub fn open(bytes: R, key: &ReleaseKey) -> Result<Self> {
        let mut bytes = GzDecoder::new(io::BufReader::with_capacity(256 << 10, bytes));
        let manifest = small_member(&mut bytes, MANIFEST, MANIFEST_MAX)?;
        let signature = small_member(&mut bytes, SIGNATURE, SIGNATURE_LENGTH)?;
        let manifest = key.open(&manifest, &signature)?;
        Ok(Self { bytes, manifest })
    }

    /// The verified manifest.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Read the next part, which must have this name, and hand its bytes on. It is only good when this returns without an error.
    pub fn part(&mut self, name: &str, take: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()> {
        let part = self.manifest.part(name).with_context(|| format!("the manifest has no part {name}"))?;
        let size = member(&mut self.bytes, name)?;
        if size != part.size {
            bail!("{name} has {size} bytes in the bundle, its manifest says {}", part.size);
        }
        let mut digest = digest::Context::new(&digest::SHA256);
        let mut piece = vec![0; PIECE];
        let mut left = size;
        while left > 0 {
            let room = usize::try_from(left).unwrap_or(PIECE).min(PIECE);
            let read = fill(&mut self.bytes, piece.get_mut(..room).unwrap_or_default()).with_context(|| reading(name))?;
            let read = piece.get(..read).unwrap_or_default();
            if read.is_empty() {
                bail!("the bundle ends inside {name}");
            }
            digest.update(read);
            take(read)?;
            left -= read.len() as u64;
        }
        skip_padding(&mut self.bytes, size).with_context(|| reading(name))?;
        let found = hex(digest.finish().as_ref());
        if found != part.sha256.to_lowercase() {
            bail!("{name} is damaged: its sha256 is {found}, the signed manifest says {}; fetch the bundle again", part.sha256);
        }
        Ok(())
    }

    /// Read to the end, so that the compressed stream's own checksum is checked too.
    pub fn finish(&mut self) -> Result<()> {
        io::copy(&mut self.bytes, &mut io::sink()).context("reading the end of the bundle")?;
        Ok(())
    }

    /// The bytes it was read from.
    pub fn into_inner(self) -> R {
        self.bytes.into_inner().into_inner()
    }
}

fn reading(name: &str) -> String {
    format!("reading {name} from the bundle")
}

fn small_member(bytes: &mut impl Read, name: &str, most: u64) -> Result<Vec<u8>> {
    let size = member(bytes, name)?;
    if size > most {
        bail!("{name} has {size} bytes, at most {most} are allowed");
    }
    let mut content = Vec::new();
    bytes.take(size).read_to_end(&mut content).with_context(|| reading(name))?;
    if content.len() as u64 != size {
        bail!("the bundle ends inside {name}");
    }
    skip_padding(bytes, size).with_context(|| reading(name))?;
    Ok(content)
}

/// Read the header of the next member, which must be a plain file of this name; its size.
fn member(bytes: &mut impl Read, name: &str) -> Result<u64> {
    let mut block = [0; BLOCK as usize];
    let read = fill(bytes, &mut block).with_context(|| format!("looking for {name} in the bundle"))?;
    if read < block.len() || block.iter().all(|byte| *byte == 0) {
        bail!("the bundle ends before {name}");
    }
    let header = tar::Header::from_byte_slice(&block);
    let sum = header.cksum().context("reading a header of the bundle")?;
    let actual: u32 =
        block.iter().enumerate().map(|(at, byte)| if (148..156).contains(&at) { 32 } else { u32::from(*byte) }).sum();
    let path = header.path_bytes();
    if sum != actual || !header.entry_type().is_file() || *path != *name.as_bytes() {
        bail!("the bundle has {:?} where {name} is expected; it is not a Lodge bundle", String::from_utf8_lossy(&path));
    }
    header.entry_size().with_context(|| format!("reading the size of {name}"))
}

fn skip_padding(bytes: &mut impl Read, size: u64) -> io::Result<()> {
    let padding = size.next_multiple_of(BLOCK) - size;
    io::copy(&mut bytes.take(padding), &mut io::sink()).map(drop)
}

/// Read until the buffer is full or the stream ends.
fn fill(bytes: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while let Some(room) = buffer.get_mut(filled..).filter(|room| !room.is_empty()) {
        match bytes.read(room) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}
