use std::{
    ffi::OsString,
    io::{self, Write as _},
    os::unix::fs::PermissionsExt as _,
    path::PathBuf,
    process::Command,
};

use lodge_model::environment::order::TemplateMeta;
use proptest::prelude::*;
use tar::EntryType;

use super::*;

mod containers;
mod refused;

/// A tar in the making; names are written as they are, good or bad.
#[derive(Clone, Default)]
struct Tar(Vec<u8>);

impl Tar {
    fn raw(mut self, kind: EntryType, name: &str, link: &str, mode: u32, ids: (u64, u64), contents: &[u8]) -> Self {
        let mut header = tar::Header::new_gnu();
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(ids.0);
        header.set_gid(ids.1);
        header.set_mtime(1_000_000);
        header.set_size(contents.len() as u64);
        if matches!(kind, EntryType::Char | EntryType::Block) {
            let numbers: Vec<u32> = link.split(':').map(|number| number.parse().unwrap()).collect();
            header.set_device_major(numbers[0]).unwrap();
            header.set_device_minor(numbers[1]).unwrap();
        }
        header.set_cksum();
        self.0.extend_from_slice(header.as_bytes());
        self.0.extend_from_slice(contents);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    fn file(self, name: &str, contents: &[u8]) -> Self {
        self.raw(EntryType::Regular, name, "", 0o644, (0, 0), contents)
    }

    fn program(self, name: &str) -> Self {
        self.raw(EntryType::Regular, name, "", 0o755, (0, 0), b"#!")
    }

    fn dir(self, name: &str) -> Self {
        self.raw(EntryType::Directory, name, "", 0o755, (0, 0), b"")
    }

    fn symlink(self, name: &str, target: &str) -> Self {
        self.raw(EntryType::Symlink, name, target, 0o777, (0, 0), b"")
    }

    fn hard_link(self, name: &str, other: &str) -> Self {
        self.raw(EntryType::Link, name, other, 0o644, (0, 0), b"")
    }

    fn device(self, name: &str, numbers: &str) -> Self {
        self.raw(EntryType::Char, name, numbers, 0o666, (0, 0), b"")
    }

    fn pax(self, key: &str, value: &[u8]) -> Self {
        let mut record = Vec::new();
        pax::push(&mut record, key, value).unwrap();
        self.raw(EntryType::XHeader, "pax", "", 0o600, (0, 0), &record)
    }

    /// The least that is a system.
    fn system() -> Self {
        Self::default().dir("./").dir("./sbin/").program("./sbin/init")
    }

    fn end(mut self) -> Vec<u8> {
        self.0.resize(self.0.len() + 1024, 0);
        self.0
    }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    packer.write_all(bytes).unwrap();
    packer.finish().unwrap()
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 1).unwrap()
}

/// Where a test's import works, and where it puts images.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn work(&self) -> PathBuf {
        self.0.path().join("work")
    }

    fn target(&self) -> PathBuf {
        self.0.path().join("templates")
    }

    fn import(
        &self,
        mut archive: impl Read,
        limits: Limits,
        digest: Option<&Digest>,
        mkfs: &image::Mkfs,
    ) -> Result<TemplateRef> {
        let order = Import { archive: &mut archive, size: None, digest, work: &self.work(), target: &self.target(), limits };
        import_with(order, &mut |_| (), mkfs)
    }

    fn left(&self) -> usize {
        [self.work(), self.target()].iter().map(|dir| fs::read_dir(dir).unwrap().count()).sum()
    }
}

fn real(archive: &[u8]) -> (Place, TemplateRef) {
    let place = Place::new();
    let made = place.import(archive, Limits::default(), None, &mkfs_of_here).unwrap();
    (place, made)
}

/// What is said about an archive that must not become an image; and nothing of it is left.
fn refused(archive: impl Read, limits: Limits) -> String {
    let place = Place::new();
    let error = place.import(archive, limits, None, &|_, _| bail!("it was taken")).unwrap_err();
    assert_eq!(place.left(), 0, "{error:#}");
    format!("{error:#}")
}

fn refused_entry(add: impl FnOnce(Tar) -> Tar) -> String {
    refused(add(Tar::system()).end().as_slice(), Limits::default())
}

/// A tool of erofs-utils that knows tars: the machine's, else that of Debian 13 which `cargo xtask setup` unpacks.
fn erofs_tool(name: &str) -> Command {
    let own = Command::new("/usr/bin/mkfs.erofs").arg("--help").output();
    if own.is_ok_and(|output| String::from_utf8_lossy(&output.stdout).contains("--tar")) {
        return Command::new(format!("/usr/bin/{name}"));
    }
    let tools = Path::new(env!("CARGO_MANIFEST_DIR")).join("../out/tools/debian13");
    let libraries = tools.join("usr/lib/x86_64-linux-gnu");
    let mut command = Command::new(libraries.join("ld-linux-x86-64.so.2"));
    command.arg("--library-path").arg(&libraries).arg(tools.join("usr/bin").join(name));
    command
}

fn run(command: &mut Command) -> Result<String> {
    let output = command.output().context("there is no mkfs.erofs that knows tars; `cargo xtask setup` gets one")?;
    if !output.status.success() {
        bail!("{}: {}", output.status, String::from_utf8_lossy(&output.stderr));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn mkfs_of_here(tar: &Path, image: &Path) -> Result<()> {
    run(erofs_tool("mkfs.erofs").args(image::OPTIONS).arg(image).arg(tar)).map(drop)
}

/// What the image says of a file.
fn look(place: &Place, made: &TemplateRef, path: &str) -> String {
    let image = image_path(&made.digest, &place.target());
    run(erofs_tool("dump.erofs").arg(format!("--path={path}")).arg(image)).unwrap()
}

/// A file of the image, taken out of it.
fn extracted(place: &Place, made: &TemplateRef, path: &str) -> PathBuf {
    let (image, dir) = (image_path(&made.digest, &place.target()), place.0.path().join("extracted"));
    if !dir.exists() {
        let mut option = OsString::from("--extract=");
        option.push(&dir);
        run(erofs_tool("fsck.erofs").args(["--no-preserve-owner", "--preserve-perms"]).arg(option).arg(image)).unwrap();
    }
    dir.join(path.trim_start_matches('/'))
}

fn contents(place: &Place, made: &TemplateRef, path: &str) -> String {
    fs::read_to_string(extracted(place, made, path)).unwrap()
}

fn mode(place: &Place, made: &TemplateRef, path: &str) -> u32 {
    fs::metadata(extracted(place, made, path)).unwrap().permissions().mode() & 0o7777
}

/// `size` bytes of zeros as one file of a tar, without holding them.
fn zeros(size: u64) -> impl Read {
    let mut header = tar::Header::new_gnu();
    header.set_path("zeros").unwrap();
    header.set_size(size);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_cksum();
    io::Cursor::new(header.as_bytes().to_vec()).chain(io::repeat(0).take(size + 1024))
}

#[test]
fn a_root_becomes_an_image_with_everything_in_its_place() {
    let long = "d".repeat(90);
    let capability = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, b'\n'];
    let tar = Tar::system()
        .file("./etc/motd", b"hello\n")
        .symlink("./etc/link", "/etc/motd")
        .hard_link("./etc/other", "./etc/motd")
        .raw(EntryType::Regular, "usr/bin/su", "", 0o4755, (0, 42), b"#!")
        .raw(EntryType::Fifo, "etc/pipe", "", 0o600, (7, 7), b"")
        .pax("path", format!("srv/{long}/{long}").as_bytes())
        .file("short", b"long")
        .pax("linkpath", format!("../{long}/{long}").as_bytes())
        .symlink("srv/link", "short")
        .pax("SCHILY.xattr.security.capability", &capability)
        .program("usr/bin/ping")
        .device("./dev/null", "1:3")
        .file("lodge-template.toml", b"init = [\"/sbin/init\"]\nstop-signal = 30\nstop-seconds = 5\nmovable = true\n");
    let (place, made) = real(&tar.end());
    assert_eq!(contents(&place, &made, "/etc/motd"), "hello\n");
    assert_eq!(contents(&place, &made, "/etc/other"), "hello\n");
    assert_eq!(contents(&place, &made, &format!("/srv/{long}/{long}")), "long");
    assert!(look(&place, &made, "/etc/motd").contains("Links: 2"), "{}", look(&place, &made, "/etc/motd"));
    assert!(look(&place, &made, "/usr/bin/su").contains("Gid: 42"), "{}", look(&place, &made, "/usr/bin/su"));
    assert_eq!(mode(&place, &made, "/usr/bin/su"), 0o4755);
    assert_eq!(mode(&place, &made, "/tmp"), 0o1777, "a mount point that was missing");
    let ping = look(&place, &made, "/usr/bin/ping");
    assert!(ping.contains("Xattr size: ") && !ping.contains("Xattr size: 0"), "{ping}");
    assert!(!extracted(&place, &made, "/dev/null").exists());
    let expected = TemplateMeta { stop_signal: 30, stop_seconds: 5, movable: true, ..TemplateMeta::default() };
    assert_eq!(made.meta, expected);
    assert_eq!(made.size, fs::metadata(image_path(&made.digest, &place.target())).unwrap().len());
    assert_eq!(place.left(), 1, "only the image is left");
}

#[test]
fn packing_and_order_do_not_matter() {
    let one = Tar::system().file("./a", b"1").file("./b", b"2").end();
    let other = Tar::default().file("b", b"2").file("a", b"1").program("sbin/init").dir("sbin").dir("./").end();
    let digests: Vec<Digest> = [one.clone(), gzip(&one), zstd(&one), [gzip(&one[..700]), gzip(&one[700..])].concat(), other]
        .iter()
        .map(|archive| real(archive).1.digest)
        .collect();
    assert!(digests.iter().all(|digest| *digest == digests[0]), "{digests:?}");
    assert_ne!(digests[0], real(&Tar::system().file("a", b"1").file("b", b"3").end()).1.digest);
}

#[test]
fn the_same_again_keeps_the_image_and_removing_it_twice_is_no_error() {
    let (place, made) = real(&Tar::system().end());
    let path = image_path(&made.digest, &place.target());
    let before = fs::metadata(&path).unwrap().modified().unwrap();
    place.import(Tar::system().end().as_slice(), Limits::default(), None, &mkfs_of_here).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().modified().unwrap(), before);
    remove(&made.digest, &place.target()).unwrap();
    remove(&made.digest, &place.target()).unwrap();
    assert_eq!(place.left(), 0);
}

#[test]
fn what_was_cut_off_long_ago_is_swept_away_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join(".import-dir")).unwrap();
    for name in [".import-dir/root.tar", ".import-file", "aa.erofs"] {
        fs::write(dir.path().join(name), "x").unwrap();
    }
    let names = || fs::read_dir(dir.path()).unwrap().count();
    sweep(dir.path(), PARTIAL, SystemTime::now());
    assert_eq!(names(), 3, "others may be at work");
    sweep(dir.path(), PARTIAL, SystemTime::now() + 2 * ABANDONED);
    assert_eq!(names(), 1);
}

#[test]
fn a_system_needs_an_init_and_an_honest_description() {
    let no_init = refused(Tar::default().dir("etc").program("usr/bin/app").end().as_slice(), Limits::default());
    assert!(no_init.contains("no /sbin/init: an environment is a whole system"), "{no_init}");
    let nested = refused(Tar::default().dir("rootfs").program("rootfs/sbin/init").end().as_slice(), Limits::default());
    assert!(nested.contains("pack from inside the root: tar -C rootfs -c ."), "{nested}");
    let meta = |text: &'static str| refused_entry(move |tar| tar.file("lodge-template.toml", text.as_bytes()));
    assert!(meta("stop_signal = 3").contains("unknown field"));
    assert!(meta("stop-signal = 0").contains("signals are 1 to 64"));
    assert!(meta("stop-seconds = 0").contains("1 to 3600"));
    assert!(meta("init = []").contains("absolute name of a program"));
    assert!(meta("init = [\"/sbin/other\"]").contains("no /sbin/other"));
    assert!(meta("environment = [\"A B=1\"]").contains("not NAME=value"));
    assert!(meta("description = \"a\\nb\"").contains("one line"));
}

#[test]
fn how_a_system_shuts_down_is_guessed_from_its_init() {
    let signal = |tar: Tar| {
        let (_, made) = real(&tar.end());
        (made.meta.stop_signal, made.meta.movable)
    };
    let systemd = Tar::default().program("usr/lib/systemd/systemd").symlink("lib", "usr/lib").symlink("sbin", "usr/sbin");
    assert_eq!(signal(systemd.symlink("usr/sbin/init", "/lib/systemd/systemd")), (37, false));
    assert_eq!(signal(Tar::system()), (30, false));
    assert_eq!(signal(Tar::default().program("bin/busybox").symlink("sbin/init", "../bin/busybox")), (12, false));
}

#[test]
fn links_without_end_are_no_init() {
    let error =
        refused(Tar::default().symlink("sbin/init", "again").symlink("sbin/again", "init").end().as_slice(), Limits::default());
    assert!(error.contains("no /sbin/init"), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn damage_never_panics_and_never_leaves_anything(at in any::<prop::sample::Index>(), with in any::<u8>(), pack in 0..3_u8) {
        let tar = Tar::system().file("a", b"1").symlink("b", "a").hard_link("c", "a").pax("mtime", b"1.5").file("d", b"2").end();
        let mut archive = match pack { 0 => tar, 1 => gzip(&tar), _ => zstd(&tar) };
        let at = at.index(archive.len());
        archive[at] = with;
        let place = Place::new();
        let _ = place.import(archive.as_slice(), Limits::default(), None, &|_, _| bail!("it was taken")).unwrap_err();
        prop_assert_eq!(place.left(), 0);
    }
}
