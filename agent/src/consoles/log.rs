//! What an environment printed on its console: the newest part, in two files of bounded size.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

/// Bytes of one file. When it is full it becomes the older one, and the one that was that is gone.
pub const FILE_MAX: u64 = 512 << 10;

/// The log of one environment.
pub struct Log {
    path: PathBuf,
    file: Option<(File, u64)>,
}

impl Log {
    /// The log at a path; nothing is opened or made yet.
    pub fn new(path: PathBuf) -> Self {
        Self { path, file: None }
    }

    /// Append.
    pub fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let full = self.file.as_ref().is_some_and(|(_, size)| *size >= FILE_MAX);
        if full {
            self.file = None;
            fs::rename(&self.path, self.older())?;
        }
        let (file, size) = match &mut self.file {
            Some(open) => open,
            none => {
                let file = OpenOptions::new().append(true).create(true).mode(0o600).open(&self.path)?;
                let size = file.metadata()?.len();
                none.insert((file, size))
            }
        };
        file.write_all(bytes)?;
        *size += bytes.len() as u64;
        Ok(())
    }

    /// Everything that is kept.
    pub fn whole(&self) -> io::Result<Vec<u8>> {
        let mut bytes = read(&self.older())?;
        bytes.extend(read(&self.path)?);
        Ok(bytes)
    }

    /// The last bytes, at most so many; from the beginning of a line on where that is near.
    pub fn tail(&self, most: usize) -> io::Result<Vec<u8>> {
        let mut bytes = self.whole()?;
        if bytes.len() > most {
            bytes.drain(..bytes.len() - most);
            let line = bytes.iter().take(1024).position(|byte| *byte == b'\n');
            bytes.drain(..line.map_or(0, |at| at + 1));
        }
        Ok(bytes)
    }

    /// Remove it.
    pub fn remove(&mut self) -> io::Result<()> {
        self.file = None;
        for path in [self.older(), self.path.clone()] {
            match fs::remove_file(path) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    fn older(&self) -> PathBuf {
        self.path.with_extension("log.1")
    }
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    match fs::read(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        read => read,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_leaves_two_files_of_bounded_size_and_the_newest_bytes() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = Log::new(dir.path().join("x.log"));
        let line = |number: u32| format!("{number:0>15}\n").into_bytes();
        for number in 0..200_000 {
            log.append(&line(number)).unwrap();
        }
        let sizes: u64 = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len()).sum();
        assert!(sizes <= 2 * FILE_MAX + 16, "{sizes}");
        assert!(log.whole().unwrap().ends_with(&line(199_999)));
        let tail = log.tail(1000).unwrap();
        assert!(tail.len() <= 1000 && tail.starts_with(b"000") && tail.len().is_multiple_of(16));
    }

    #[test]
    fn it_goes_on_after_a_restart_and_is_removed_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.log");
        Log::new(path.clone()).append(b"one ").unwrap();
        let mut log = Log::new(path);
        log.append(b"two").unwrap();
        assert_eq!(log.whole().unwrap(), b"one two");
        log.remove().unwrap();
        log.remove().unwrap();
        assert_eq!((fs::read_dir(dir.path()).unwrap().count(), log.whole().unwrap()), (0, Vec::new()));
    }
}
