//! `cargo xtask console NAME`: a machine's console in this terminal.

use std::{
    io::{Read as _, Write as _},
    os::fd::AsFd as _,
    path::PathBuf,
};

use anyhow::{Context as _, Result, bail};
use lodge_qemu_tests::{console::SOCKET, sockets};
use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};

use crate::image;

/// Ctrl-], as in telnet.
const LEAVE: u8 = 0x1d;

/// Connect this terminal to the console of the machine called `name`, until it ends or Ctrl-] is typed.
pub fn run(name: &str) -> Result<()> {
    let mut console = connect(name)?;
    eprintln!("console of {name}; leave with Ctrl-]\r");
    let _terminal = Raw::new()?;
    console.write_all(b"\r").context("waking the console")?;
    let mut keyboard = console.try_clone().context("copying a socket")?;
    std::thread::spawn(move || {
        let mut keys = [0; 64];
        while let Ok(length) = std::io::stdin().read(&mut keys)
            && length > 0
            && !keys[..length].contains(&LEAVE)
            && keyboard.write_all(&keys[..length]).is_ok()
        {}
        drop(keyboard.shutdown(std::net::Shutdown::Both));
    });
    let mut output = std::io::stdout();
    let mut bytes = [0; 4096];
    while let Ok(length) = console.read(&mut bytes)
        && length > 0
    {
        output.write_all(&bytes[..length]).and_then(|()| output.flush()).context("writing to the terminal")?;
    }
    Ok(())
}

/// The socket of that name in the rack that answers; the demo's first.
fn connect(name: &str) -> Result<std::os::unix::net::UnixStream> {
    let racks = image::out_dir().join("rack");
    let mut dirs: Vec<PathBuf> = std::fs::read_dir(&racks)
        .map(|entries| entries.filter_map(|entry| Some(entry.ok()?.path().join(name))).collect())
        .unwrap_or_default();
    dirs.sort_by_key(|dir| !dir.starts_with(racks.join(super::RACK)));
    for dir in dirs.iter().filter(|dir| dir.join(SOCKET).exists()) {
        if let Ok(stream) = sockets::connect(dir, SOCKET) {
            return Ok(stream);
        }
    }
    bail!("no running rack below {} has a machine called {name}; start one with `cargo xtask demo`", racks.display())
}

/// A terminal that passes every key on; as it was before when this is dropped.
struct Raw(Option<Termios>);

impl Raw {
    fn new() -> Result<Self> {
        let stdin = std::io::stdin();
        // Not a terminal: nothing to change.
        let Ok(before) = tcgetattr(stdin.as_fd()) else { return Ok(Self(None)) };
        let mut raw = before.clone();
        cfmakeraw(&mut raw);
        tcsetattr(stdin.as_fd(), SetArg::TCSANOW, &raw).context("setting the terminal")?;
        Ok(Self(Some(before)))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            let _ = tcsetattr(std::io::stdin().as_fd(), SetArg::TCSANOW, before);
            eprintln!();
        }
    }
}
