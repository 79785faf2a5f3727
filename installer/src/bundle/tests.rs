use std::{
    io::Write as _,
    net::TcpListener,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use lodge_model::{
    bundle::{MANIFEST, Part, SCHEMA, SIGNATURE},
    ids::hex,
};
use ring::{
    digest::{SHA256, digest},
    rand::SystemRandom,
    signature::{Ed25519KeyPair, KeyPair as _},
};

use super::*;

/// A signed bundle of made-up parts.
pub struct Sample {
    pub bytes: Vec<u8>,
    pub key: ReleaseKey,
    pub uki: Vec<u8>,
    pub verity: Vec<u8>,
    pub root: Vec<u8>,
}

/// Root hash of every sample.
pub const ROOTHASH: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";

/// How a sample is wrong.
#[derive(Clone, Copy, Default)]
pub struct Wrong {
    /// Signed by another key than the installer's.
    pub key: bool,
    /// One bit of the root differs from its digest.
    pub bit: bool,
}

pub fn sample(wrong: Wrong) -> Sample {
    let pair = |_: ()| {
        let document = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        Ed25519KeyPair::from_pkcs8(document.as_ref()).unwrap()
    };
    let (signer, other) = (pair(()), pair(()));
    let noise = |seed: u64, length: usize| -> Vec<u8> {
        let mut state = seed;
        let mut next = || {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 56) as u8
        };
        (0..length).map(|_| next()).collect()
    };
    let (uki, verity, root) = (noise(1, 70_001), noise(2, 3 * 4096), noise(3, 5 * (1 << 20) + 4096));
    let part = |name: &str, bytes: &[u8]| Part {
        name: name.into(),
        size: bytes.len() as u64,
        sha256: hex(digest(&SHA256, bytes).as_ref()),
    };
    let manifest = Manifest {
        schema: SCHEMA,
        version: "1.2.3".into(),
        roothash: ROOTHASH.into(),
        parts: vec![part(UKI, &uki), part(VERITY, &verity), part(ROOT, &root)],
    };
    let manifest = serde_json::to_vec(&manifest).unwrap();
    let signature = if wrong.key { &other } else { &signer }.sign(&manifest);
    let mut sent = root.clone();
    if wrong.bit {
        sent[4_000_000] ^= 1;
    }
    let mut archive = tar::Builder::new(flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast()));
    let members: [(&str, &[u8]); 5] =
        [(MANIFEST, &manifest), (SIGNATURE, signature.as_ref()), (UKI, &uki), (VERITY, &verity), (ROOT, &sent)];
    for (name, bytes) in members {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        archive.append_data(&mut header, name, bytes).unwrap();
    }
    let bytes = archive.into_inner().unwrap().finish().unwrap();
    let key = ReleaseKey::parse(&hex(signer.public_key().as_ref())).unwrap();
    Sample { bytes, key, uki, verity, root }
}

pub fn on_disk(sample: &Sample, dir: &Path) -> Source {
    let path = dir.join("lodge-os.tar.gz");
    std::fs::write(&path, &sample.bytes).unwrap();
    Source::File(path)
}

#[test]
fn every_part_passes_whole() {
    let sample = sample(Wrong::default());
    let mut stream = Stream::open(sample.bytes.as_slice(), &sample.key).unwrap();
    assert_eq!(stream.manifest().version, "1.2.3");
    for (name, wanted) in [(UKI, &sample.uki), (VERITY, &sample.verity), (ROOT, &sample.root)] {
        let mut got = Vec::new();
        stream
            .part(name, &mut |piece| {
                got.extend_from_slice(piece);
                Ok(())
            })
            .unwrap();
        assert_eq!(got, *wanted);
    }
    stream.finish().unwrap();
}

#[test]
fn another_key_is_refused_before_a_part_is_read() {
    let sample = sample(Wrong { key: true, ..Wrong::default() });
    let error = Stream::open(sample.bytes.as_slice(), &sample.key).err().unwrap().to_string();
    assert!(error.contains("not signed by the release key"), "{error}");
}

#[test]
fn a_flipped_bit_is_found_and_named() {
    let sample = sample(Wrong { bit: true, ..Wrong::default() });
    let dir = tempfile::tempdir().unwrap();
    let error = verify(on_disk(&sample, dir.path()), &sample.key, 0, &mut |_, _| {}).unwrap_err();
    let text = format!("{error:#}");
    assert!(text.contains("root.erofs is damaged") && text.contains("lodge-os.tar.gz"), "{text}");
}

#[test]
fn every_cut_and_every_flipped_byte_of_the_file_is_an_error_and_no_panic() {
    let sample = sample(Wrong::default());
    for at in (0..sample.bytes.len()).step_by(sample.bytes.len() / 50) {
        let read = |bytes: &[u8]| -> Result<()> {
            let mut stream = Stream::open(bytes, &sample.key)?;
            [UKI, VERITY, ROOT].iter().try_for_each(|name| stream.part(name, &mut |_| Ok(())))?;
            stream.finish()
        };
        assert!(read(&sample.bytes[..at]).is_err(), "cut at {at}");
        let mut flipped = sample.bytes.clone();
        flipped[at] ^= 0x10;
        // The gzip header holds a time and a system that nobody reads.
        assert!(at < 10 || read(&flipped).is_err(), "flipped at {at}");
    }
}

/// Serves the bytes; the first `cuts` answers end half way.
fn serve(bytes: Vec<u8>, cuts: usize) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/boot/lodge-os.tar.gz", listener.local_addr().unwrap());
    let served = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&served);
    std::thread::spawn(move || {
        for connection in listener.incoming() {
            let mut connection = connection.unwrap();
            let mut request = [0; 4096];
            let _ = connection.read(&mut request);
            let number = count.fetch_add(1, Ordering::SeqCst);
            let end = if number < cuts { bytes.len() / 2 } else { bytes.len() };
            let _ = write!(connection, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", bytes.len());
            let _ = connection.write_all(&bytes[..end]);
        }
    });
    (url, served)
}

#[test]
fn a_bundle_over_http_is_fetched_once_where_memory_allows_it() {
    let sample = sample(Wrong::default());
    let (url, served) = serve(sample.bytes.clone(), 0);
    let kept = verify(Source::Http(url), &sample.key, u64::MAX, &mut |_, _| {}).unwrap();
    assert!(matches!(kept, Source::Memory(_)));
    assert_eq!(manifest(&kept, &sample.key).unwrap().version, "1.2.3");
    let mut copy = Vec::new();
    kept.open().unwrap().0.read_to_end(&mut copy).unwrap();
    assert!(copy == sample.bytes && served.load(Ordering::SeqCst) == 1);
}

#[test]
fn without_memory_it_stays_where_it_is() {
    let sample = sample(Wrong::default());
    let (url, _) = serve(sample.bytes.clone(), 0);
    let kept = verify(Source::Http(url), &sample.key, SPARE_MEMORY, &mut |_, _| {}).unwrap();
    assert!(matches!(kept, Source::Http(_)));
}

#[test]
fn a_cut_connection_is_tried_again_and_not_for_ever() {
    let sample = sample(Wrong::default());
    let (url, served) = serve(sample.bytes.clone(), 2);
    verify(Source::Http(url), &sample.key, 0, &mut |_, _| {}).unwrap();
    assert_eq!(served.load(Ordering::SeqCst), 3);
    let (url, served) = serve(sample.bytes.clone(), usize::MAX);
    let error = verify(Source::Http(url.clone()), &sample.key, 0, &mut |_, _| {}).unwrap_err();
    assert!(format!("{error:#}").contains(&url));
    assert_eq!(served.load(Ordering::SeqCst), TRIES as usize);
}

#[test]
fn a_missing_file_and_another_scheme_are_named() {
    let error = format!("{:#}", Source::Http("https://x/y".into()).open().err().unwrap());
    assert!(error.contains("https://x/y"), "{error}");
    let error = format!("{:#}", Source::File("/nowhere/bundle".into()).open().err().unwrap());
    assert!(error.contains("/nowhere/bundle"), "{error}");
}
