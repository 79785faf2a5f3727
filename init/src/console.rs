//! The machine's consoles: every place where a person may sit.

use std::{
    collections::BTreeSet,
    fs::{self, File, OpenOptions},
    io::Write as _,
    os::unix::fs::OpenOptionsExt as _,
    path::PathBuf,
};

use anyhow::{Context as _, Result};

/// Device files of all consoles: those that the kernel writes to, and the screen.
pub fn paths() -> Vec<PathBuf> {
    let active = fs::read_to_string("/sys/class/tty/console/active").unwrap_or_default();
    names(&active).into_iter().map(|name| PathBuf::from("/dev").join(name)).filter(|path| path.exists()).collect()
}

/// `tty0` is whatever screen is in front; a shell needs a real one, and `tty1` is in front at boot.
fn names(active: &str) -> BTreeSet<String> {
    let names = active.split_whitespace().chain(["tty0"]);
    names.map(|name| if name == "tty0" { "tty1" } else { name }.to_owned()).collect()
}

/// Open a console for reading and writing without waiting for a carrier and without taking it as this process's own terminal.
pub fn open(path: &PathBuf) -> Result<File> {
    let flags = nix::libc::O_NONBLOCK | nix::libc::O_NOCTTY;
    let mut options = OpenOptions::new();
    options.read(true).write(true).custom_flags(flags).open(path).with_context(|| format!("opening {}", path.display()))
}

/// Write a text on every console. One that is broken or slow does not hold the others up.
pub fn print_everywhere(text: &str) {
    for path in paths() {
        if let Ok(console) = open(&path) {
            print(&console, text);
        }
    }
}

/// Write a text on one console, as far as it takes it.
pub fn print(mut console: &File, text: &str) {
    for line in text.lines() {
        // A console nobody reads may be full: the kernel log has the text as well.
        let _ = console.write_all(line.as_bytes()).and_then(|()| console.write_all(b"\r\n"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_screen_is_always_among_them() {
        assert_eq!(names("ttyS0\n").into_iter().collect::<Vec<_>>(), ["tty1", "ttyS0"]);
        assert_eq!(names("tty0 ttyS1").into_iter().collect::<Vec<_>>(), ["tty1", "ttyS1"]);
        assert_eq!(names("").into_iter().collect::<Vec<_>>(), ["tty1"]);
    }
}
