//! What is refused, and named.

use super::*;

#[test]
fn names_that_mean_other_files_are_refused() {
    let expect = |words: &str, add: fn(Tar) -> Tar| {
        let error = refused_entry(add);
        assert!(error.contains(words), "{words}: {error}");
    };
    expect("leads out of the archive", |tar| tar.file("../etc/passwd", b""));
    expect("leads out of the archive", |tar| tar.file("usr/../../etc/passwd", b""));
    expect("absolute name", |tar| tar.file("/etc/passwd", b""));
    expect("through the symbolic link /out", |tar| tar.symlink("out", "/etc").file("out/passwd", b""));
    expect("through the symbolic link /out", |tar| tar.symlink("out", "../..").dir("out/x"));
    expect("is no directory", |tar| tar.file("a", b"").file("a/b", b""));
    expect("hard link to /etc/shadow, which is no file of the archive", |tar| tar.hard_link("mine", "etc/shadow"));
    expect("absolute name", |tar| tar.hard_link("mine", "/etc/shadow"));
    expect("leads out", |tar| tar.hard_link("mine", "../../etc/shadow"));
    expect("no file of the archive", |tar| tar.dir("a").hard_link("b", "a"));
    expect("leads out", |tar| tar.pax("path", b"../x").file("good", b""));
    expect("no file can have", |tar| tar.pax("path", b"a\0b").file("good", b""));
}

#[test]
fn devices_and_strange_kinds_are_refused() {
    assert!(refused_entry(|tar| tar.device("dev/sda", "8:0")).contains("/dev/sda: is a device node"));
    assert!(refused_entry(|tar| tar.device("etc/null", "1:3")).contains("/etc/null: is a device node"));
    assert!(refused_entry(|tar| tar.device("dev/null", "1:1")).contains("is a device node"), "it is /dev/mem");
    assert!(refused_entry(|tar| tar.raw(EntryType::Block, "dev/null", "1:3", 0o600, (0, 0), b"")).contains("device node"));
    assert!(refused_entry(|tar| tar.raw(EntryType::new(b'Q'), "x", "", 0o600, (0, 0), b"")).contains("kind that is not known"));
    assert!(refused_entry(|tar| tar.pax("GNU.sparse.major", b"1").file("x", b"")).contains("--sparse"));
    assert!(refused_entry(|tar| tar.pax("size", b"5").file("x", b"")).contains("two sizes"));
}

#[test]
fn owners_beyond_an_environments_ids_are_refused() {
    let with = |ids| refused_entry(move |tar| tar.raw(EntryType::Regular, "x", "", 0o600, ids, b""));
    assert!(with((65_536, 0)).contains("/x: has the owner 65536: an environment has the ids 0 to 65535"));
    assert!(with((0, u64::from(u32::MAX))).contains("has the group 4294967295"));
    assert!(refused_entry(|tar| tar.pax("uid", b"65536").file("x", b"")).contains("has the owner 65536"));
    assert!(refused_entry(|tar| tar.pax("gid", b"-1").file("x", b"")).contains("broken gid"));
    assert_eq!(refused_entry(|tar| tar.raw(EntryType::Regular, "x", "", 0o600, (65_535, 65_534), b"")), "it was taken");
}

#[test]
fn surprising_privileges_are_refused() {
    let set_id = |name: &'static str, mode| refused_entry(move |tar| tar.raw(EntryType::Regular, name, "", mode, (0, 0), b""));
    assert!(set_id("home/ann/sh", 0o4755).contains("/home/ann/sh: is a set-id program outside of"));
    assert!(set_id("tmp/sh", 0o2755).contains("set-id"));
    assert!(set_id("usr/bin/sh", 0o4777).contains("others than its owner may write"));
    assert_eq!(set_id("usr/bin/su", 0o4755), "it was taken");
    let attribute = |name: &'static str, value: &'static [u8], path: &'static str| {
        refused_entry(move |tar| tar.pax(&format!("SCHILY.xattr.{name}"), value).program(path))
    };
    assert!(attribute("security.capability", &[1, 0, 0, 2], "home/x").contains("has capabilities outside of"));
    assert!(attribute("security.capability", &[1, 0, 0, 3], "usr/bin/x").contains("another user namespace"));
    assert!(attribute("trusted.overlay.redirect", b"/etc", "usr/bin/x").contains("overlay"));
    assert!(attribute("user.overlay.opaque", b"y", "usr").contains("overlay"));
    assert_eq!(attribute("user.mine", b"a\nb=", "usr/bin/x"), "it was taken");
}

#[test]
fn archives_that_are_cut_off_or_broken_are_refused() {
    let whole = Tar::system().file("a", &[7; 5000]).end();
    for packed in [whole.clone(), gzip(&whole), zstd(&whole)] {
        for part in 1..8 {
            let cut = &packed[..packed.len() * part / 8];
            let error = refused(cut, Limits::default());
            assert!(error.contains("cut off") || (part < 2 && error.contains("tar")), "{part}/8: {error}");
        }
    }
    let without_mark = &whole[..whole.len() - 1024];
    assert!(refused(without_mark, Limits::default()).contains("cut off"), "{}", refused(without_mark, Limits::default()));
    let mut damaged = whole.clone();
    damaged[512 * 2 + 3] ^= 1;
    assert!(refused(damaged.as_slice(), Limits::default()).contains("checksum"));
    let mut damaged = gzip(&whole);
    let at = damaged.len() - 6;
    damaged[at] ^= 1;
    refused(damaged.as_slice(), Limits::default());
}

#[test]
fn what_is_no_tar_is_named() {
    let of = |bytes: &[u8]| refused(bytes, Limits::default());
    assert!(of(b"").contains("empty"));
    assert!(of(b"\xfd7zXZ\0 and so on").contains("xz is not read here"));
    assert!(of(b"PK\x03\x04").contains("zip"));
    assert!(of(&[b'x'; 4000]).contains("no tar"));
    assert!(of(&gzip(b"hello")).contains("cut off") || of(&gzip(b"hello")).contains("tar"), "{}", of(&gzip(b"hello")));
}

#[test]
fn a_reader_that_fails_says_so() {
    struct Broken;
    impl Read for Broken {
        fn read(&mut self, _buffer: &mut [u8]) -> io::Result<usize> {
            Err(io::Error::other("the center went away"))
        }
    }
    let start = Tar::system().0;
    let digest = archive::digest(&mut start.as_slice()).unwrap();
    let place = Place::new();
    let error = place.import(start.chain(Broken), Limits::default(), Some(&digest), &mkfs_of_here).unwrap_err();
    assert!(format!("{error:#}").contains("the center went away"), "{error:#}");
    assert_eq!(place.left(), 0);
}

#[test]
fn the_wrong_archive_is_told_by_its_digest() {
    let archive = gzip(&Tar::system().end());
    let right = archive::digest(&mut archive.as_slice()).unwrap();
    let place = Place::new();
    place.import(archive.as_slice(), Limits::default(), Some(&right), &mkfs_of_here).unwrap();
    let place = Place::new();
    let wrong = Digest::from_digest([1; 32]);
    let error = place.import(archive.as_slice(), Limits::default(), Some(&wrong), &mkfs_of_here).unwrap_err();
    assert!(format!("{error:#}").contains(&format!("its digest is {right}, not {wrong}")), "{error:#}");
    assert_eq!(place.left(), 0);
    // Cut off on the way: the digest says it even though the archive itself would have said something else.
    let error = place.import(&archive[..100], Limits::default(), Some(&right), &mkfs_of_here).unwrap_err();
    assert!(format!("{error:#}").contains("is not the one that was meant"), "{error:#}");
}

#[test]
fn ten_gibibytes_of_zeros_in_one_mebibyte_are_refused_early() {
    // A frame after the other is one stream: packing one piece of zeros is enough.
    let head = {
        let mut head = Vec::new();
        zeros(10 << 30).take(512).read_to_end(&mut head).unwrap();
        head
    };
    let piece = zstd(&vec![0; 64 << 20]);
    let bomb = [zstd(&head), piece.repeat(160), zstd(&[0; 1024])].concat();
    assert!(bomb.len() < 1 << 20, "{}", bomb.len());
    let limits = Limits { free: 32 << 20, ..Limits::default() };
    let error = refused(bomb.as_slice(), limits);
    assert!(error.contains("a trap for the disk"), "{error}");
    let gzipped = {
        let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        io::copy(&mut zeros(64 << 20), &mut packer).unwrap();
        packer.finish().unwrap()
    };
    assert!(refused(gzipped.as_slice(), limits).contains("a trap for the disk"));
}

#[test]
fn too_much_is_refused() {
    let files = (0..50).fold(Tar::system(), |tar, at| tar.file(&format!("f{at}"), b"12345678"));
    let small = Limits { bytes: 100, ..Limits::default() };
    assert!(refused(files.clone().end().as_slice(), small).contains("more than 100 bytes of files"));
    let few = Limits { entries: 40, ..Limits::default() };
    assert!(refused(files.end().as_slice(), few).contains("more than 40 entries"));
    let long = Tar::system().raw(EntryType::GNULongName, "././@LongLink", "", 0, (0, 0), &vec![b'a'; 2 << 20]).file("x", b"");
    assert!(refused(long.end().as_slice(), Limits::default()).contains("name or attributes of more than"));
}
