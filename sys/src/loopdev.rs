//! Loop devices (linux/loop.h, loop(4)): a file as a disk.
//!
//! `attach` gives the kernel the very open file it is handed, so that whatever hangs on that open file, as an exclusive lock, lives
//! exactly as long as the device. Programs and libraries that attach by path open the file anew, which is why this is done here.
#![expect(unsafe_code, reason = "ioctl(2) on loop devices has no safe wrapper")]

use std::{
    fs::{self, File, OpenOptions},
    os::{fd::AsRawFd as _, unix::fs::MetadataExt as _},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow};
use nix::{errno::Errno, libc};

use crate::uevent::Uevents;

const CONTROL: &str = "/dev/loop-control";
const LOOP_CLR_FD: libc::c_ulong = 0x4C01;
const LOOP_SET_CAPACITY: libc::c_ulong = 0x4C07;
const LOOP_SET_DIRECT_IO: libc::c_ulong = 0x4C08;
const LOOP_CONFIGURE: libc::c_ulong = 0x4C0A;
/// linux/fs.h; the argument is in sectors of 512 bytes.
const BLKRASET: libc::c_ulong = 0x1262;
const LOOP_CTL_GET_FREE: libc::c_ulong = 0x4C82;
const LO_FLAGS_READ_ONLY: u32 = 1;
const LO_FLAGS_AUTOCLEAR: u32 = 4;
const LO_FLAGS_DIRECT_IO: u32 = 16;
/// Devices that somebody else may take between our asking for a free one and our taking it.
const RACES: usize = 64;

/// How a file is attached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// The device refuses writes.
    pub read_only: bool,
    /// The device lets go of the file when its last user does. For mounts that are made right after.
    pub autoclear: bool,
    /// Reads and writes pass the page cache of the file, so that what is written is where the file is.
    pub direct_io: bool,
}

/// An attached loop device. Dropping it changes nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoopDevice {
    /// Its device file, `/dev/loopN`.
    pub path: PathBuf,
    /// The file behind it, as the kernel names it: absolute; ` (deleted)` follows when it has no name any more.
    pub backing: PathBuf,
}

/// A device that is open: as long as this lives, autoclear does not come.
#[derive(Debug)]
pub struct Attached {
    /// Which.
    pub device: LoopDevice,
    _open: File,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct LoopInfo64 {
    device: u64,
    inode: u64,
    rdevice: u64,
    offset: u64,
    sizelimit: u64,
    number: u32,
    encrypt_type: u32,
    encrypt_key_size: u32,
    flags: u32,
    file_name: [u8; 64],
    crypt_name: [u8; 64],
    encrypt_key: [u8; 32],
    init: [u64; 2],
}

#[repr(C)]
struct LoopConfig {
    fd: u32,
    block_size: u32,
    info: LoopInfo64,
    reserved: [u64; 8],
}

/// Make a loop device of this very open file.
pub fn attach(file: &File, options: Options) -> Result<Attached> {
    try_attach(file, options).with_context(|| format!("attaching {} to a loop device", name_of(file).display()))
}

fn try_attach(file: &File, options: Options) -> Result<Attached> {
    let control = open(Path::new(CONTROL))?;
    for _ in 0..RACES {
        // SAFETY: LOOP_CTL_GET_FREE takes no argument.
        let number = Errno::result(unsafe { libc::ioctl(control.as_raw_fd(), LOOP_CTL_GET_FREE) });
        let path = PathBuf::from(format!("/dev/loop{}", number.context("asking for a free loop device")?));
        let device = open(&path)?;
        match configure(&device, file, options) {
            Ok(()) => {
                let device_info = LoopDevice { path, backing: name_of(file) };
                return Ok(Attached { device: device_info, _open: device });
            }
            // Somebody was faster.
            Err(Errno::EBUSY) => {}
            Err(error) => return Err(error).with_context(|| format!("configuring {}", path.display())),
        }
    }
    Err(anyhow!("every free loop device was taken by somebody else, {RACES} times"))
}

fn configure(device: &File, file: &File, options: Options) -> Result<(), Errno> {
    let flag = |wanted: bool, flag: u32| if wanted { flag } else { 0 };
    let flags = flag(options.read_only, LO_FLAGS_READ_ONLY)
        | flag(options.autoclear, LO_FLAGS_AUTOCLEAR)
        | flag(options.direct_io, LO_FLAGS_DIRECT_IO);
    let info = LoopInfo64 {
        device: 0,
        inode: 0,
        rdevice: 0,
        offset: 0,
        sizelimit: 0,
        number: 0,
        encrypt_type: 0,
        encrypt_key_size: 0,
        flags,
        file_name: [0; 64],
        crypt_name: [0; 64],
        encrypt_key: [0; 32],
        init: [0; 2],
    };
    let fd = u32::try_from(file.as_raw_fd()).map_err(|_| Errno::EBADF)?;
    let config = LoopConfig { fd, block_size: 0, info, reserved: [0; 8] };
    // SAFETY: the kernel reads one `struct loop_config`, whose layout this is (linux/loop.h), and writes nothing of ours.
    Errno::result(unsafe { libc::ioctl(device.as_raw_fd(), LOOP_CONFIGURE, &raw const config) }).map(drop)
}

/// All attached loop devices.
pub fn list() -> Result<Vec<LoopDevice>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/sys/block").context("listing /sys/block")? {
        let entry = entry.context("listing /sys/block")?;
        let name = entry.file_name();
        if !name.as_encoded_bytes().starts_with(b"loop") {
            continue;
        }
        // A device that is let go of while it is looked at is not there.
        if let Some(backing) = backing(&entry.path()) {
            found.push(LoopDevice { path: Path::new("/dev").join(name), backing });
        }
    }
    found.sort_by(|one, other| one.path.cmp(&other.path));
    Ok(found)
}

fn backing(block: &Path) -> Option<PathBuf> {
    let text = fs::read_to_string(block.join("loop/backing_file")).ok()?;
    Some(PathBuf::from(text.strip_suffix('\n').unwrap_or(&text)))
}

/// How many bytes are read ahead of a sequential reader. The same setting in `/sys` holds the device's queue still, which takes long.
pub fn set_read_ahead(device: &Path, bytes: u32) -> Result<()> {
    let file = File::open(device).with_context(|| format!("opening {}", device.display()))?;
    let sectors = libc::c_ulong::from(bytes >> 9);
    // SAFETY: BLKRASET takes an integer.
    Errno::result(unsafe { libc::ioctl(file.as_raw_fd(), BLKRASET, sectors) })
        .map(drop)
        .with_context(|| format!("setting the read-ahead of {}", device.display()))
}

/// From now on reads and writes pass the page cache of the file, as with [`Options::direct_io`]. What is in the cache is written first; the
/// device's queue is held still for a moment.
pub fn set_direct_io(device: &Path) -> Result<()> {
    let file = open(device)?;
    // SAFETY: LOOP_SET_DIRECT_IO takes an integer.
    Errno::result(unsafe { libc::ioctl(file.as_raw_fd(), LOOP_SET_DIRECT_IO, 1 as libc::c_ulong) })
        .map(drop)
        .with_context(|| format!("letting {} pass the page cache", device.display()))
}

/// The file has grown: let the device grow too.
pub fn grow(device: &Path) -> Result<()> {
    let file = open(device)?;
    // SAFETY: LOOP_SET_CAPACITY takes no argument.
    Errno::result(unsafe { libc::ioctl(file.as_raw_fd(), LOOP_SET_CAPACITY, 0) })
        .map(drop)
        .with_context(|| format!("growing {}", device.display()))
}

/// Let go of the file and wait until the kernel has done so; an error when a user keeps the device longer than the limit (it is then let
/// go of when that user ends).
pub fn detach(device: &Path, limit: Duration) -> Result<()> {
    let news = Uevents::open()?;
    let end = Instant::now() + limit;
    clear(device)?;
    while is_attached(device) {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(anyhow!("{} is still in use after {} s", device.display(), limit.as_secs()));
        }
        // The kernel tells of the end, but not of all reasons for it: look again from time to time.
        news.wait(left.min(LOOK))?;
    }
    Ok(())
}

const LOOK: Duration = Duration::from_millis(200);

fn clear(device: &Path) -> Result<()> {
    let file = open(device)?;
    // SAFETY: LOOP_CLR_FD takes no argument.
    match Errno::result(unsafe { libc::ioctl(file.as_raw_fd(), LOOP_CLR_FD, 0) }) {
        // Not attached: what was wanted.
        Ok(_) | Err(Errno::ENXIO) => Ok(()),
        Err(error) => Err(error).with_context(|| format!("detaching {}", device.display())),
    }
}

fn is_attached(device: &Path) -> bool {
    device.file_name().is_some_and(|name| Path::new("/sys/block").join(name).join("loop/backing_file").exists())
}

/// Whether two open files or paths are one file.
pub fn is_same_file(file: &File, path: &Path) -> Result<bool> {
    let open = file.metadata().context("looking at an open file")?;
    match fs::metadata(path) {
        Ok(found) => Ok((open.dev(), open.ino()) == (found.dev(), found.ino())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error).with_context(|| format!("looking at {}", path.display())),
    }
}

fn open(path: &Path) -> Result<File> {
    OpenOptions::new().read(true).write(true).open(path).with_context(|| format!("opening {}", path.display()))
}

fn name_of(file: &File) -> PathBuf {
    fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd())).unwrap_or_default()
}

#[cfg(test)]
mod tests;
