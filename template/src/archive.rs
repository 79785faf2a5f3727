//! The stream: what it is packed with, whether it is whole and the one that was meant, and that it does not unpack to more than it may.

use std::{
    cell::{Cell, RefCell},
    io::{self, BufReader, Read},
    rc::Rc,
};

use anyhow::{Context as _, Result, bail};
use lodge_model::ids::Digest;
use ring::digest;

use crate::Limits;

/// Bytes of zeros that end a tar.
const END_MARK: u64 = 1024;

/// Bytes that an entry takes besides its contents, more or less.
const HEADERS: u64 = 2048;

/// An archive as it comes, being read.
pub struct Archive<'a> {
    packed: Packed<'a>,
    limits: Limits,
}

impl<'a> Archive<'a> {
    /// `told` is called with the bytes that have been read.
    pub fn new(from: &'a mut dyn Read, limits: Limits, expected: Option<&Digest>, told: &'a mut dyn FnMut(u64)) -> Self {
        let shared = Rc::new(Shared {
            read: Cell::new(0),
            hash: RefCell::new(digest::Context::new(&digest::SHA256)),
            failed: Cell::new(false),
        });
        Self { packed: Packed { from, told, shared, expected: expected.cloned() }, limits }
    }

    /// What is in it: a tar, whatever it is packed with.
    pub fn tar(&mut self) -> Result<Unpacked<'_>> {
        let read = Rc::clone(&self.packed.shared);
        Unpacked::new(&mut self.packed, read, self.limits)
    }

    /// Read what is left and compare the digest.
    pub fn finish(&mut self) -> Result<()> {
        if self.packed.shared.failed.get() {
            return Ok(()); // What failed says it itself.
        }
        let Some(expected) = self.packed.expected.clone() else { return Ok(()) };
        io::copy(&mut self.packed, &mut io::sink()).context("reading the archive")?;
        let found = finished(self.packed.shared.hash.borrow().clone());
        if found != expected {
            bail!("the archive is not the one that was meant: its digest is {found}, not {expected}; upload it again");
        }
        Ok(())
    }
}

/// A blob within an archive that has been read: its digest must be the one it is named by.
pub fn blob<R: Read, T>(from: R, limits: Limits, take: impl FnOnce(&mut Unpacked<'_>) -> Result<T>) -> Result<T> {
    let mut from = from;
    let mut told = |_| ();
    let mut archive = Archive::new(&mut from, limits, None, &mut told);
    take(&mut archive.tar()?)
}

struct Shared {
    read: Cell<u64>,
    hash: RefCell<digest::Context>,
    failed: Cell<bool>,
}

/// Counts and hashes what is read.
struct Packed<'a> {
    from: &'a mut dyn Read,
    told: &'a mut dyn FnMut(u64),
    shared: Rc<Shared>,
    expected: Option<Digest>,
}

impl Read for Packed<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.from.read(buffer).inspect_err(|_| self.shared.failed.set(true))?;
        self.shared.hash.borrow_mut().update(buffer.get(..read).unwrap_or_default());
        self.shared.read.set(self.shared.read.get() + read as u64);
        (self.told)(self.shared.read.get());
        Ok(read)
    }
}

/// The unpacked stream, which ends with an error where it grows beyond its limits.
pub struct Unpacked<'a> {
    from: Box<dyn Read + 'a>,
    packed: Rc<Shared>,
    limits: Limits,
    read: u64,
    zeros: u64,
    hash: digest::Context,
}

impl<'a> Unpacked<'a> {
    fn new(packed: &'a mut Packed<'_>, shared: Rc<Shared>, limits: Limits) -> Result<Self> {
        // Room for the farthest mark: tar's is at 257.
        let mut from = BufReader::with_capacity(1 << 18, packed);
        let mut head = Vec::new();
        from.by_ref().take(512).read_to_end(&mut head).context("reading the archive")?;
        let kind = kind(&head)?;
        let all = io::Cursor::new(head).chain(from);
        let from: Box<dyn Read + 'a> = match kind {
            Kind::Tar => Box::new(all),
            Kind::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(all)),
            Kind::Zstd => Box::new(zstd::Decoder::with_buffer(all).context("starting zstd")?),
        };
        Ok(Self { from, packed: shared, limits, read: 0, zeros: 0, hash: digest::Context::new(&digest::SHA256) })
    }

    /// Read to the end, which must be that of a whole tar, and return the digest of the unpacked bytes.
    pub fn finish(&mut self) -> Result<Digest> {
        io::copy(self, &mut io::sink()).context("reading the archive's end")?;
        Ok(finished(self.hash.clone()))
    }

    fn check(&self) -> io::Result<()> {
        let Limits { bytes, entries, free, ratio } = self.limits;
        // Headers take room, too; the limit of the contents alone is checked where they are kept.
        let most = bytes.saturating_add((entries as u64).saturating_mul(HEADERS));
        let (read, packed) = (self.read, self.packed.read.get());
        if read > most {
            return Err(io::Error::other(format!("it unpacks to more than {}", size(most))));
        }
        if read > free && read > packed.saturating_mul(ratio) {
            let words = format!("{} of it unpack to more than {}", size(packed), size(read));
            return Err(io::Error::other(format!("{words}: more than {ratio} times is not a system but a trap for the disk")));
        }
        Ok(())
    }
}

impl Read for Unpacked<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.from.read(buffer).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => io::Error::new(error.kind(), "the archive is cut off: the packed data has no end"),
            _ => error,
        })?;
        if read == 0 && !buffer.is_empty() && self.zeros < END_MARK {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the archive is cut off: its end mark is missing"));
        }
        let piece = buffer.get(..read).unwrap_or_default();
        self.read += read as u64;
        self.hash.update(piece);
        let trailing = piece.iter().rev().take_while(|byte| **byte == 0).count();
        self.zeros = if trailing == read { self.zeros + read as u64 } else { trailing as u64 };
        self.check()?;
        Ok(read)
    }
}

enum Kind {
    Tar,
    Gzip,
    Zstd,
}

/// What it is packed with, by its first bytes (RFC 1952, RFC 8878, POSIX ustar).
fn kind(head: &[u8]) -> Result<Kind> {
    const OTHERS: [(&[u8], &str); 5] = [
        (b"\xfd7zXZ\0", "xz"),
        (b"BZh", "bzip2"),
        (b"PK\x03\x04", "zip"),
        (b"7z\xbc\xaf\x27\x1c", "7z"),
        (b"hsqs", "squashfs"),
    ];
    if head.is_empty() {
        bail!("the archive is empty");
    }
    if let Some((_, name)) = OTHERS.iter().find(|(mark, _)| head.starts_with(mark)) {
        bail!("{name} is not read here: give a tar, packed with gzip or zstd or not at all");
    }
    if head.starts_with(b"\x1f\x8b") {
        return Ok(Kind::Gzip);
    }
    if head.starts_with(b"\x28\xb5\x2f\xfd") {
        return Ok(Kind::Zstd);
    }
    // The old format has no mark, but a checksum like all others; an empty tar is all zeros.
    let mut header = tar::Header::new_old();
    let is_header = head.len() == 512 && {
        header.as_mut_bytes().copy_from_slice(head);
        let bytes = header.as_bytes();
        let rest = bytes.iter().enumerate().filter(|(at, _)| !(148..156).contains(at)).map(|(_, byte)| u32::from(*byte));
        header.cksum().is_ok_and(|sum| sum == rest.sum::<u32>() + 8 * 32)
    };
    if is_header || (head.len() == 512 && head.iter().all(|byte| *byte == 0)) {
        return Ok(Kind::Tar);
    }
    bail!("this is no tar archive (packed with gzip, zstd or not at all)")
}

/// The digest of everything that is read.
pub fn digest(from: &mut dyn Read) -> Result<Digest> {
    let mut hashing = Hashing(digest::Context::new(&digest::SHA256));
    io::copy(from, &mut hashing)?;
    Ok(finished(hashing.0))
}

struct Hashing(digest::Context);

impl io::Write for Hashing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The digest that a hash has come to.
pub fn finished(hash: digest::Context) -> Digest {
    let mut bytes = [0; 32];
    bytes.iter_mut().zip(hash.finish().as_ref()).for_each(|(to, from)| *to = *from);
    Digest::from_digest(bytes)
}

/// Bytes in words.
pub fn size(bytes: u64) -> String {
    match bytes {
        0..=0xF_FFFF => format!("{bytes} bytes"),
        0x10_0000..=0x3FFF_FFFF => format!("{} MiB", bytes >> 20),
        _ => format!("{:.1} GiB", bytes as f64 / f64::from(1 << 30)),
    }
}
