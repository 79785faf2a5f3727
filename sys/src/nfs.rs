//! The share over NFSv4.2 by mount(2), and the proof that it can be used.
//!
//! The mount is hard: an operation against a frozen server waits until the server is back, so both calls may hang as long as that
//! takes. A caller that must not hang makes them in a thread or process of its own.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Write as _},
    net::IpAddr,
    path::Path,
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    fcntl::{PosixFadviseAdvice, posix_fadvise},
    mount::MsFlags,
};

/// What failed, exactly, and what to do.
#[derive(Debug)]
pub struct ShareError {
    /// `mounting 10.0.0.1:/ on /share`, `writing /share/nodes/…/probe`.
    pub step: String,
    /// The kernel's answer.
    pub errno: Errno,
    hint: &'static str,
}

impl ShareError {
    /// The mounted file system is no longer the server's: only a new mount helps.
    pub fn is_stale(&self) -> bool {
        self.errno == Errno::ESTALE
    }
}

impl std::fmt::Display for ShareError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {} ({:?})", self.step, self.errno.desc(), self.errno)?;
        if self.hint.is_empty() { Ok(()) } else { write!(f, "; {}", self.hint) }
    }
}

impl std::error::Error for ShareError {}

/// Mount the root of the server's exports at `target`, which is made when it is not there. `client` is the address the server
/// calls back on and by which it lets this node in.
pub fn mount(server: IpAddr, client: IpAddr, target: &Path) -> Result<(), ShareError> {
    let source = source(server);
    let failed =
        |errno| ShareError { step: format!("mounting {source} on {}", target.display()), errno, hint: mount_hint(errno) };
    fs::create_dir_all(target).map_err(|error| failed(errno(&error)))?;
    let data = format!("vers=4.2,proto={},addr={server},clientaddr={client},hard,timeo=600,retrans=2,sec=sys", proto(server));
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    nix::mount::mount(Some(source.as_str()), target, Some("nfs4"), flags, Some(data.as_str())).map_err(failed)
}

/// What the kernel's mount table names the server's root.
pub fn source(server: IpAddr) -> String {
    match server {
        IpAddr::V4(address) => format!("{address}:/"),
        IpAddr::V6(address) => format!("[{address}]:/"),
    }
}

/// The server of a mount's source, as `mounts()` gives it.
pub fn server(source: &str) -> Option<IpAddr> {
    let host = source.strip_suffix(":/")?;
    host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host).parse().ok()
}

/// Write, fsync, read back and remove a file `probe` in `dir`, which is made when it is not there; how long that took.
pub fn prove(dir: &Path) -> Result<Duration, ShareError> {
    let start = Instant::now();
    let path = dir.join("probe");
    let words = format!("{:?}\n", std::time::SystemTime::now());
    at("making", dir, fs::create_dir_all(dir))?;
    let mut file = at("creating", &path, File::create(&path))?;
    at("writing", &path, file.write_all(words.as_bytes()))?;
    at("syncing", &path, file.sync_all())?;
    // Without its pages in memory the file is read from the server, not from this node's cache.
    let _ = posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED);
    drop(file);
    let mut read = String::new();
    let mut file = at("opening", &path, OpenOptions::new().read(true).open(&path))?;
    at("reading", &path, file.read_to_string(&mut read))?;
    if read != words {
        return at("reading", &path, Err(io::Error::from_raw_os_error(Errno::EBADMSG as i32)));
    }
    at("removing", &path, fs::remove_file(&path))?;
    Ok(start.elapsed())
}

fn at<T>(verb: &str, path: &Path, result: io::Result<T>) -> Result<T, ShareError> {
    result.map_err(|error| {
        let errno = errno(&error);
        ShareError { step: format!("{verb} {}", path.display()), errno, hint: probe_hint(errno) }
    })
}

fn errno(error: &io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)
}

fn proto(server: IpAddr) -> &'static str {
    if server.is_ipv4() { "tcp" } else { "tcp6" }
}

fn mount_hint(errno: Errno) -> &'static str {
    match errno {
        Errno::EACCES | Errno::EPERM | Errno::ENOENT => {
            "the share's server does not let this address in (yet): the center must know the node, and the share node must be ready"
        }
        Errno::ECONNREFUSED => "nothing answers at port 2049 there: is the share's server running?",
        Errno::ETIMEDOUT | Errno::EHOSTUNREACH | Errno::ENETUNREACH => {
            "no way to the share's server: check its power and the network"
        }
        Errno::ENODEV => "the kernel has no NFS client: is the module nfsv4 on the image?",
        Errno::EPROTONOSUPPORT => "the share's server does not speak NFS 4.2",
        _ => "",
    }
}

fn probe_hint(errno: Errno) -> &'static str {
    match errno {
        Errno::ESTALE => "the share's server has been replaced or has taken this node's export away",
        Errno::ENOSPC | Errno::EDQUOT => "the share is full",
        Errno::EROFS => "the share has become read-only: look at the share node's disk",
        Errno::EACCES | Errno::EPERM => "the share's server does not let this node write",
        Errno::EIO => "the share's server or its disk fails: look at the share node's console log",
        Errno::EBADMSG => "what was read is not what was written",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_names_its_server() {
        for text in ["10.77.0.10", "fd00::1"] {
            let address: IpAddr = text.parse().unwrap();
            assert_eq!(server(&source(address)), Some(address));
        }
        assert_eq!(server("/dev/sda1"), None);
    }

    #[test]
    fn a_good_directory_is_proved_and_left_clean() {
        let dir = tempfile::tempdir().unwrap();
        let node = dir.path().join("nodes/n1");
        prove(&node).unwrap();
        assert_eq!(fs::read_dir(&node).unwrap().count(), 0);
        prove(&node).unwrap();
    }

    #[test]
    fn a_failure_names_step_cause_and_next_step() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("file"), "").unwrap();
        let error = prove(&dir.path().join("file/n1")).unwrap_err();
        assert!(error.to_string().starts_with("making ") && error.to_string().contains("ENOTDIR"), "{error}");
        let full = at::<()>("writing", Path::new("/share/x"), Err(io::Error::from_raw_os_error(Errno::ENOSPC as i32)));
        let text = full.unwrap_err().to_string();
        assert_eq!(text, "writing /share/x: No space left on device (ENOSPC); the share is full");
    }

    #[test]
    fn a_mount_that_cannot_be_says_which() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("file"), "").unwrap();
        let here = IpAddr::from([127, 0, 0, 1]);
        let error = mount(here, here, &dir.path().join("file/share")).unwrap_err().to_string();
        assert!(error.starts_with("mounting 127.0.0.1:/ on "), "{error}");
    }
}
