//! Unix sockets in directories whose path may be longer than a socket's address can be (108 bytes).
//!
//! The directory is opened, and the socket named below `/proc/self/fd`; QEMU, which runs in that directory, uses the bare name.

use std::{
    fs::File,
    os::{
        fd::AsRawFd,
        unix::net::{UnixListener, UnixStream},
    },
    path::Path,
};

use anyhow::{Context, Result};

/// Listen on `dir/name`, replacing what a run before left there.
pub fn listen(dir: &Path, name: &str) -> Result<UnixListener> {
    let path = dir.join(name);
    if path.exists() {
        std::fs::remove_file(&path).with_context(|| format!("removing old {}", path.display()))?;
    }
    let handle = File::open(dir).with_context(|| format!("opening {}", dir.display()))?;
    UnixListener::bind(format!("/proc/self/fd/{}/{name}", handle.as_raw_fd()))
        .with_context(|| format!("listening on {}", path.display()))
}

/// Connect to `dir/name`.
pub fn connect(dir: &Path, name: &str) -> Result<UnixStream> {
    let handle = File::open(dir).with_context(|| format!("opening {}", dir.display()))?;
    UnixStream::connect(format!("/proc/self/fd/{}/{name}", handle.as_raw_fd()))
        .with_context(|| format!("connecting to {}", dir.join(name).display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_directory_is_no_obstacle() {
        let temporary = tempfile::tempdir().unwrap();
        let dir = temporary.path().join("a".repeat(100)).join("b".repeat(100));
        std::fs::create_dir_all(&dir).unwrap();
        for _ in 0..2 {
            let listener = listen(&dir, "port.sock").unwrap();
            connect(&dir, "port.sock").unwrap();
            listener.accept().unwrap();
        }
    }
}
