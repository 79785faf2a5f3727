//! One environment's console: its terminal, its log, and who is attached.

use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Instant;

use lodge_model::ids::EnvironmentId;
use lodge_sys::pty;
use tokio::io::Interest;
use tokio::sync::mpsc;

use super::limit::Limit;
use super::log::Log;
use crate::channel::Channel;

/// Bytes of what was printed before that somebody who attaches is shown.
const SCROLLBACK: usize = 64 << 10;
/// Pieces that wait for somebody who is attached and does not read.
const PIECES: usize = 64;
/// Bytes that are read at once.
const PIECE: usize = 16 << 10;
/// The size of a terminal before anybody attaches.
const SIZE: (u16, u16) = (80, 24);

/// One environment's console.
pub struct Console {
    id: EnvironmentId,
    terminal: RefCell<Option<Rc<Channel>>>,
    log: RefCell<Log>,
    log_is_broken: Cell<bool>,
    attached: RefCell<Vec<Attached>>,
}

struct Attached {
    pieces: mpsc::Sender<Vec<u8>>,
    missed: Rc<Cell<u64>>,
}

/// What is printed, for one who is attached.
pub struct Printed {
    pieces: mpsc::Receiver<Vec<u8>>,
    missed: Rc<Cell<u64>>,
}

impl Console {
    /// A console without a terminal yet.
    pub fn new(id: EnvironmentId, log: PathBuf) -> Self {
        Self {
            id,
            terminal: RefCell::default(),
            log: RefCell::new(Log::new(log)),
            log_is_broken: Cell::new(false),
            attached: RefCell::default(),
        }
    }

    /// Read a terminal, in place of the one before, until this is dropped: an init closes its console and opens it again as it likes,
    /// and a terminal that nobody has open for a moment would hang up on it for good.
    pub async fn hold(&self, terminal: OwnedFd) -> io::Result<()> {
        let _stays_open = pty::other_end(&terminal)?;
        // Programs that ask an unset size get 0 × 0.
        pty::resize(&terminal, SIZE.0, SIZE.1)?;
        let terminal = Rc::new(Channel::new(terminal, Interest::READABLE | Interest::WRITABLE)?);
        self.terminal.replace(Some(Rc::clone(&terminal)));
        let mut limit = Limit::new(Instant::now());
        let mut piece = vec![0; PIECE];
        loop {
            let read = terminal.read(&mut piece).await?;
            if read == 0 {
                break;
            }
            self.printed(piece.get(..read).unwrap_or_default());
            let pause = limit.took(read, Instant::now());
            match pause.is_zero() {
                // Those who are attached come first, so that a burst does not overrun whoever reads.
                true => tokio::task::yield_now().await,
                false => tokio::time::sleep(pause).await,
            }
        }
        self.terminal.borrow_mut().take_if(|held| Rc::ptr_eq(held, &terminal));
        Ok(())
    }

    /// What was printed lately, and from now on what is printed.
    pub fn attach(&self) -> io::Result<(Vec<u8>, Printed)> {
        let before = self.log.borrow().tail(SCROLLBACK)?;
        let (sender, pieces) = mpsc::channel(PIECES);
        let missed = Rc::new(Cell::new(0));
        self.attached.borrow_mut().push(Attached { pieces: sender, missed: Rc::clone(&missed) });
        Ok((before, Printed { pieces, missed }))
    }

    /// Everything that is kept of what was printed.
    pub fn whole_log(&self) -> io::Result<Vec<u8>> {
        self.log.borrow().whole()
    }

    /// Type. Without a terminal it goes nowhere, as on a real machine that is off.
    pub async fn input(&self, bytes: &[u8]) {
        let terminal = self.terminal.borrow().clone();
        if let Some(terminal) = terminal {
            // The environment may end while it is being typed at.
            let _ = terminal.write_all(bytes).await;
        }
    }

    /// Somebody's terminal has this size; the last word counts.
    pub fn resize(&self, columns: u16, rows: u16) {
        if let Some(terminal) = self.terminal.borrow().as_ref() {
            // It may have been hung up on.
            let _ = pty::resize(terminal.as_ref(), columns, rows);
        }
    }

    /// Let go of the terminal of an environment that has ended. What it printed last is kept, and whoever is attached stays.
    pub fn close(&self) {
        let Some(terminal) = self.terminal.take() else { return };
        let mut piece = vec![0; PIECE];
        while let Ok(Some(read @ 1..)) = terminal.read_now(&mut piece) {
            self.printed(piece.get(..read).unwrap_or_default());
        }
    }

    /// Whether anybody is attached.
    pub fn is_watched(&self) -> bool {
        self.attached.borrow().iter().any(|attached| !attached.pieces.is_closed())
    }

    /// Hang up on the environment and on whoever is attached, and remove what was kept.
    pub fn remove(&self) -> io::Result<()> {
        self.terminal.replace(None);
        self.attached.borrow_mut().clear();
        self.log.borrow_mut().remove()
    }

    fn printed(&self, bytes: &[u8]) {
        match self.log.borrow_mut().append(bytes) {
            Ok(()) => self.log_is_broken.set(false),
            Err(error) if !self.log_is_broken.replace(true) => {
                tracing::warn!("the console of {} is not kept: {error}", self.id)
            }
            Err(_) => {}
        }
        self.attached.borrow_mut().retain_mut(|attached| attached.tell(bytes));
    }
}

impl Attached {
    /// Whether it is still there.
    fn tell(&mut self, bytes: &[u8]) -> bool {
        let mut piece = left_out(self.missed.get());
        piece.extend_from_slice(bytes);
        match self.pieces.try_send(piece) {
            Ok(()) => self.missed.set(0),
            Err(mpsc::error::TrySendError::Full(_)) => self.missed.set(self.missed.get() + bytes.len() as u64),
            Err(mpsc::error::TrySendError::Closed(_)) => return false,
        }
        true
    }
}

impl Printed {
    /// The next piece; `None` when the console is gone.
    pub async fn next(&mut self) -> Option<Vec<u8>> {
        let missed = if self.pieces.is_empty() { self.missed.take() } else { 0 };
        match missed {
            0 => self.pieces.recv().await,
            missed => Some(left_out(missed)),
        }
    }
}

fn left_out(bytes: u64) -> Vec<u8> {
    match bytes {
        0 => Vec::new(),
        bytes => format!("\r\n[{bytes} bytes were left out: they came faster than they were read]\r\n").into_bytes(),
    }
}
