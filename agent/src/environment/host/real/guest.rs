//! Files that are written into an environment's root before it starts: its name, its name servers, its keys.
//!
//! The root belongs to the environment, so nothing in it is trusted: names are resolved below it, links and all, and files are made as the
//! environment's own root. A file that its user has changed is the user's: what was written last is kept beside the upper layer, where the
//! environment does not come, and only a file that is still as it was written is written again.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use lodge_model::environment::order::{Assignment, Beside, REPAIR};
use lodge_model::ids::{Digest, EnvironmentId};
use lodge_sys::idmap::with_file_owner;
use rustix::fs::{AtFlags, Mode, OFlags, ResolveFlags, mkdirat, openat, openat2, renameat, unlinkat};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// Longest file that is looked at.
const LONGEST: u64 = 1 << 20;
/// Where what was written last is noted, on the disk.
pub(super) const RECORD: &str = "guest.json";

/// What was written last.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Record {
    /// Whose disk it was: another one's when it was copied.
    environment: Option<EnvironmentId>,
    /// Digest of each file, by path.
    files: BTreeMap<String, Digest>,
    /// Keys that were put into `authorized_keys`.
    keys: Vec<String>,
}

/// A file that is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Wanted {
    dir: &'static str,
    name: &'static str,
    mode: u32,
    text: String,
}

impl Wanted {
    fn path(&self) -> String {
        format!("/{}/{}", self.dir, self.name)
    }
}

/// Write what is to be written. `private` is the mounted disk, `root` the environment's root, in which nothing runs yet. What cannot be
/// written is told in the log and does not keep the environment from starting.
/// `mended` is what e2fsck has mended of what is to be repaired.
pub(super) fn write(private: &Path, root: &Path, order: &Assignment, mended: &str) -> Result<()> {
    with_file_owner(order.id_base, || {
        let record_path = private.join(RECORD);
        let mut record: Record =
            fs::read(&record_path).ok().and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default();
        let before = record.clone();
        let root = rustix::fs::open(root, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
        let root = root.context("opening its root")?;
        if record.environment.is_some_and(|before| before != order.id) {
            // A copy must not be taken for the machine it was copied from.
            let file = Wanted { dir: "etc", name: "machine-id", mode: 0o444, text: format!("{}\n", order.id.0.simple()) };
            let written = open_dir(&root, file.dir).and_then(|dir| replace(&dir, file.name, file.mode, file.text.as_bytes()));
            written.unwrap_or_else(|error| tracing::warn!("environment {}: writing {}: {error:#}", order.name, file.path()));
        }
        record.environment = Some(order.id);
        for file in wanted(order).into_iter().chain(repair_files(order, mended)) {
            if let Err(error) = write_one(&root, &file, &mut record) {
                tracing::warn!("environment {}: writing {}: {error:#}", order.name, file.path());
            }
        }
        if let Err(error) = write_keys(&root, &order.ssh_keys, &mut record) {
            tracing::warn!("environment {}: writing authorized_keys: {error:#}", order.name);
        }
        if record == before {
            return Ok(());
        }
        let temporary = private.join(format!(".{RECORD}"));
        let save = || -> Result<()> {
            fs::write(&temporary, serde_json::to_vec(&record)?)?;
            // All at once: each sync is several ways to the share and back. The record gets its name after what it tells of.
            rustix::fs::syncfs(File::open(private)?)?;
            Ok(fs::rename(&temporary, &record_path)?)
        };
        save().with_context(|| format!("writing {}", record_path.display()))
    })
}

fn wanted(order: &Assignment) -> Vec<Wanted> {
    let name = &order.name;
    let own: String = order.addresses.iter().map(|address| format!("{} {name}\n", address.ip)).collect();
    let own = if own.is_empty() { format!("127.0.1.1 {name}\n") } else { own };
    let hosts = format!(
        "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\nff02::1 ip6-allnodes\nff02::2 ip6-allrouters\n{own}"
    );
    let etc = |name: &'static str, text: String| Wanted { dir: "etc", name, mode: 0o644, text };
    let mut files = vec![etc("hostname", format!("{name}\n")), etc("hosts", hosts)];
    if !order.dns.is_empty() {
        files.push(etc("resolv.conf", order.dns.iter().map(|server| format!("nameserver {server}\n")).collect()));
    }
    files
}

/// What a repair environment says of itself to whoever logs in.
fn repair_files(order: &Assignment, mended: &str) -> Vec<Wanted> {
    let Some(Beside::Repair { .. }) = &order.beside else { return Vec::new() };
    let check = match mended {
        "" => "Its file system was checked as a whole and is in order.",
        _ => "Its file system was damaged and has been mended: /root/e2fsck.txt says what was changed.",
    };
    let greeting = format!(
        "This is a clean system for the repair of an environment, whose files are below {REPAIR}:\nchange them there, or `chroot {REPAIR}`. \
         What is changed elsewhere is gone with this system.\n{check}\nTo give it back and start it: lodge env repair NAME --finish \
         (--rollback: as it was before)\n"
    );
    let mut files = vec![Wanted { dir: "etc", name: "motd", mode: 0o644, text: greeting }];
    if !mended.is_empty() {
        files.push(Wanted { dir: "root", name: "e2fsck.txt", mode: 0o644, text: mended.to_owned() });
    }
    files
}

fn write_one(root: &OwnedFd, file: &Wanted, record: &mut Record) -> Result<()> {
    let dir = open_dir(root, file.dir)?;
    let now = read(&dir, file.name)?;
    if is_ours(now.as_deref(), record.files.get(&file.path())) && now.as_deref() != Some(file.text.as_bytes()) {
        replace(&dir, file.name, file.mode, file.text.as_bytes())?;
        record.files.insert(file.path(), digest(file.text.as_bytes()));
    }
    Ok(())
}

/// Whether a file is as it was written last, or nothing was ever written.
fn is_ours(now: Option<&[u8]>, written: Option<&Digest>) -> bool {
    written.is_none_or(|written| now.is_some_and(|now| digest(now) == *written))
}

/// Keys that are new are added; those that the user has removed stay away.
fn write_keys(root: &OwnedFd, keys: &[String], record: &mut Record) -> Result<()> {
    let new: Vec<&String> = keys.iter().filter(|key| !record.keys.contains(key)).collect();
    if new.is_empty() {
        return Ok(());
    }
    let home = open_dir(root, "root")?;
    match mkdirat(&home, ".ssh", Mode::from_raw_mode(0o700)) {
        Ok(()) | Err(rustix::io::Errno::EXIST) => {}
        Err(error) => return Err(error).context("making .ssh"),
    }
    let dir = open_dir(root, "root/.ssh")?;
    let text = add_keys(&read(&dir, "authorized_keys")?.unwrap_or_default(), &new);
    replace(&dir, "authorized_keys", 0o600, &text)?;
    record.keys.extend(new.into_iter().cloned());
    Ok(())
}

fn add_keys(now: &[u8], new: &[&String]) -> Vec<u8> {
    let mut text = now.to_vec();
    if !text.is_empty() && !text.ends_with(b"\n") {
        text.push(b'\n');
    }
    let has = |key: &str| now.split(|byte| *byte == b'\n').any(|line| line.trim_ascii() == key.trim().as_bytes());
    for key in new.iter().filter(|key| !has(key)) {
        text.extend_from_slice(key.trim().as_bytes());
        text.push(b'\n');
    }
    text
}

/// A directory below the root, as the environment itself would find it.
fn open_dir(root: &OwnedFd, path: &str) -> Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV;
    openat2(root, path, flags, Mode::empty(), resolve).with_context(|| format!("opening its /{path}"))
}

/// A plain file; nothing where there is none, or something else.
fn read(dir: &OwnedFd, name: &str) -> Result<Option<Vec<u8>>> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = match openat(dir, name, flags, Mode::empty()) {
        Ok(file) => File::from(file),
        Err(rustix::io::Errno::NOENT | rustix::io::Errno::LOOP | rustix::io::Errno::NXIO) => return Ok(None),
        Err(error) => return Err(error).context("opening it"),
    };
    let found = file.metadata().context("looking at it")?;
    if !found.is_file() {
        return Ok(None);
    }
    if found.len() > LONGEST {
        bail!("it has {} bytes", found.len());
    }
    let mut text = Vec::new();
    file.take(LONGEST).read_to_end(&mut text).context("reading it")?;
    Ok(Some(text))
}

/// Put a new file in place of whatever has the name.
fn replace(dir: &OwnedFd, name: &str, mode: u32, text: &[u8]) -> Result<()> {
    let temporary = format!(".{name}.lodge");
    match unlinkat(dir, &temporary, AtFlags::empty()) {
        Ok(()) | Err(rustix::io::Errno::NOENT) => {}
        Err(error) => return Err(error).context("removing an older try"),
    }
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut file = File::from(openat(dir, &temporary, flags, Mode::from_raw_mode(mode)).context("making it")?);
    file.write_all(text).context("writing it")?;
    renameat(dir, &temporary, dir, name).context("renaming it")
}

fn digest(text: &[u8]) -> Digest {
    Digest::from_digest(Sha256::digest(text).into())
}

#[cfg(test)]
mod tests;
